//! The caller's own loop: messages that somebody else has received are processed, and a verdict on each is returned. Nothing is
//! taken from a broker here and nothing is settled; how messages come and go is the caller's business.

use bytes::Bytes;
use tokio::sync::oneshot;
use tollgate_proto::{
    BoxFuture, Broker, BrokerError, Delivery, EndpointName, OutgoingMessage, Settlement, Verdict, codec,
    codec::DecodeError,
};

use crate::consumer::{Unreadable, admit, is_newer, read};
use crate::gate::Gate;
use crate::lanes::AnswerTo;
use crate::put_backs::MessageKey;

/// A message that the caller's own loop has received: bytes that a sender was given as
/// [`OutgoingMessage::envelope`](tollgate_proto::OutgoingMessage::envelope), or foreign ones.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Received {
    envelope: Bytes,
    delivery_count: u32,
    queue: Option<EndpointName>,
}

impl Received {
    /// A message that is delivered for the first time, as far as one knows.
    pub fn new(envelope: impl Into<Bytes>) -> Self {
        Self { envelope: envelope.into(), delivery_count: 1, queue: None }
    }

    /// The number of this delivery, counted from 1. It decides how long to wait before the next one, and bounds the
    /// deliveries that no handler survives; failures of handlers are counted by the gate. Where deliveries are not counted
    /// it stays at 1.
    pub fn delivery_count(mut self, count: u32) -> Self {
        self.delivery_count = count.max(1);
        self
    }

    /// From which endpoint's queue it comes. Without it the envelope tells; with it strays are found out, and messages that are no
    /// envelopes can be understood ([`crate::Endpoint::foreign`]).
    pub fn from_queue_of(mut self, endpoint: EndpointName) -> Self {
        self.queue = Some(endpoint);
        self
    }
}

/// A message that was taken in, or one on which the verdict is known already.
enum Started {
    Running { verdict: oneshot::Receiver<Verdict>, delivery_count: u32 },
    Judged(Verdict),
}

impl Gate {
    /// Processes one message and says what is to become of it: [`Verdict::Acknowledge`] when it is done, now or before;
    /// [`Verdict::Retry`] when it should come again; [`Verdict::DeadLetter`] when it never will be done. Do what the verdict says
    /// and nothing else: a message that is acknowledged without one is lost.
    ///
    /// It waits while the endpoint has as many messages in progress as its [`concurrency`](crate::Endpoint::concurrency).
    /// Messages of one partition that are processed at the same time are folded into one commit.
    ///
    /// Dropping the future loses nothing: the work goes on in the gate or has not begun, nobody hears the verdict, and the
    /// message has to be delivered again. Then it is recognised.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use tollgate::{Endpoint, Gate, Received, Tx, HandlerError, Message, Verdict};
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct Earned(u64);
    /// # impl Message for Earned { const TYPE: &'static str = "shop.earned"; }
    /// # async fn add_points(tx: Tx, Earned(points): Earned) -> Result<(), HandlerError> { tx.put("points", &points)?; Ok(()) }
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = Arc::new(tollgate_embedded::MemoryStore::new("main".try_into()?));
    /// let gate = Gate::builder()
    ///     .store(store)
    ///     .sender(|messages| async move { messages.iter().map(|_| Ok(())).collect() })
    ///     .endpoint(Endpoint::new("customers").driven().on(add_points))
    ///     .open()
    ///     .await?;
    /// let verdict = gate.process(Received::new("what a queue gave").delivery_count(1)).await;
    /// assert!(matches!(verdict, Verdict::DeadLetter { reason } if reason.contains("not an envelope")));
    /// # Ok(()) }
    /// ```
    pub async fn process(&self, message: Received) -> Verdict {
        let started = self.start(message).await;
        self.verdict(started).await
    }

    /// Processes messages that were received together; one verdict each, in their order. Their store calls travel together, and
    /// messages of one partition share commits. Otherwise as [`Gate::process`]; the batch may be larger than the concurrency.
    pub async fn process_all(&self, batch: Vec<Received>) -> Vec<Verdict> {
        let mut started = Vec::with_capacity(batch.len());
        for message in batch {
            started.push(self.start(message).await);
        }
        let mut verdicts = Vec::with_capacity(started.len());
        for one in started {
            verdicts.push(self.verdict(one).await);
        }
        verdicts
    }

    /// Gives a message to its partition's lane, as soon as there is room.
    async fn start(&self, message: Received) -> Started {
        let Received { envelope, delivery_count, queue } = message;
        let (name, decoded) = match queue {
            Some(queue) => (queue, None),
            None => match codec::decode_envelope(&envelope) {
                Ok(decoded) => (decoded.to.endpoint.clone(), Some(decoded)),
                Err(error) => {
                    return Started::Judged(self.refuse_unaddressed(&envelope, &error, delivery_count));
                }
            },
        };
        let Some(endpoint) = self.engine.endpoints.iter().position(|endpoint| endpoint.name == name) else {
            // Of a gate that was put together wrongly no message is guilty.
            tracing::error!(endpoint = %name, "a message for an endpoint that the gate does not have is put back: add it");
            return Started::Judged(self.put_back(delivery_count));
        };
        let window = std::sync::Arc::clone(&self.engine.endpoints[endpoint].window);
        let Ok(permit) = window.acquire_owned().await else {
            return Started::Judged(self.put_back(delivery_count));
        };
        self.engine.counters.deliveries.add(1);
        let read = decoded.map_or_else(|| read(&self.engine, endpoint, &envelope), Ok);
        let (answer, verdict) = oneshot::channel();
        admit(&self.engine, endpoint, read, delivery_count, AnswerTo::Caller(answer), permit);
        Started::Running { verdict, delivery_count }
    }

    async fn verdict(&self, started: Started) -> Verdict {
        match started {
            Started::Judged(verdict) => verdict,
            // Without an answer a lane was given up, or the runtime goes away: whatever happened, it may be asked again.
            Started::Running { verdict, delivery_count } => {
                verdict.await.unwrap_or_else(|_| self.put_back(delivery_count))
            }
        }
    }

    /// A message that is no envelope, so that nothing is known of its endpoint.
    fn refuse_unaddressed(&self, bytes: &Bytes, error: &DecodeError, delivery_count: u32) -> Verdict {
        let key = is_newer(error).then(|| MessageKey::of_bytes(usize::MAX, bytes));
        let unreadable = Unreadable { reason: format!("the message is not an envelope: {error}"), key };
        self.engine.refuse(unreadable, None, self.engine.settings.retry, delivery_count)
    }

    fn put_back(&self, delivery_count: u32) -> Verdict {
        self.engine.counters.retries.add(1);
        let backoff = self.engine.settings.retry.backoff;
        Verdict::Retry { after: backoff.after(delivery_count, self.engine.tasks.runtime()) }
    }
}

/// What sends messages for a gate that receives none by itself.
pub(crate) type SendMessages =
    Box<dyn Fn(Vec<OutgoingMessage>) -> BoxFuture<'static, Vec<Result<(), BrokerError>>> + Send + Sync>;

/// A broker that only sends.
pub(crate) struct SendOnly {
    pub(crate) send: SendMessages,
}

impl SendOnly {
    fn refusal(endpoint: &EndpointName) -> BrokerError {
        let reason = "the gate has a sender and no broker: its endpoints are driven by the caller".to_owned();
        BrokerError::Misconfigured { endpoint: endpoint.clone(), reason }
    }
}

impl Broker for SendOnly {
    fn send(&self, messages: Vec<OutgoingMessage>) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        let endpoints: Vec<EndpointName> = messages.iter().map(|message| message.endpoint.clone()).collect();
        let answers = (self.send)(messages);
        Box::pin(async move {
            let mut answers = answers.await;
            // What is not answered may or may not have been sent.
            for endpoint in endpoints.into_iter().skip(answers.len()) {
                let reason = "the sender gave fewer answers than it got messages".to_owned();
                answers.push(Err(BrokerError::Unavailable { endpoint, reason }));
            }
            answers
        })
    }

    fn receive(
        &self,
        endpoint: &EndpointName,
        _: usize,
    ) -> BoxFuture<'_, Result<Vec<Delivery>, BrokerError>> {
        Box::pin(std::future::ready(Err(Self::refusal(endpoint))))
    }

    fn settle(
        &self,
        endpoint: &EndpointName,
        settlements: Vec<Settlement>,
    ) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        let refusals = settlements.iter().map(|_| Err(Self::refusal(endpoint))).collect();
        Box::pin(std::future::ready(refusals))
    }

    /// The queues are the caller's: a sender can't be asked about them.
    fn verify(&self, _: &EndpointName) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}
