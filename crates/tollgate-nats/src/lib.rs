//! NATS with `JetStream`: a stream with work-queue retention for each endpoint, pulled by durable consumers.
//! This file is the broker's face; what everything is called is in `names`, how messages are taken in
//! `pulling`, what errors mean in `failure`, how long to wait for an answer in `patience`, and what a server
//! that was killed no longer knows in `forgotten`.

mod builder;
mod failure;
mod forgotten;
mod names;
mod patience;
mod provisioning;
mod pulling;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::client::Request;
use async_nats::connection::State as Connected;
use async_nats::header::{HeaderMap, HeaderValue};
use async_nats::jetstream::context::{PublishAckFuture, PublishErrorKind};
use async_nats::jetstream::message::{AckKind, PublishMessage};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, Subject};
use bytes::Bytes;
use futures_util::future::{Shared, join_all};
use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::watch;
use tollgate_proto::store::BoxFuture;
use tollgate_proto::{Broker, BrokerError, Delivery, EndpointName, OutgoingMessage, Settlement, Verdict};

use self::builder::Settings;
pub use self::builder::{Deduplication, NatsBuilder, Provisioning};
use self::names::Names;
use self::patience::Patience;
pub use self::provisioning::{Difference, NatsDepth, Weight};
use self::pulling::Puller;
use tollgate_broker_kit::EndpointCounters;
use tollgate_broker_kit::{Arrival, Held, Inbox, Keeper};

/// When the message may be delivered first, in milliseconds since 1970: servers before 2.12 can't hold a
/// message back, so receivers do.
const NOT_BEFORE: &str = "Tollgate-Not-Before-Ms";

/// Why a message was put aside.
const REASON: &str = "Tollgate-Dead-Letter-Reason";

/// How often it had been delivered by then.
const DELIVERIES: &str = "Tollgate-Deliveries";

/// What the names of headers begin with that the server heeds.
const SERVERS_OWN: &str = "Nats-";

/// Which partition it is for.
const PARTITION: &str = "Tollgate-Partition";

/// Most bytes of a reason: it is a header, and headers count against the largest message.
const REASON_BYTES_MAX: usize = 1024;

/// How long to wait for the server's answers to a call.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// What is said when there was none.
const UNANSWERED: &str = "the server has not answered, or the connection was lost before it did";

/// What is said when it was not even asked.
const UNCONNECTED: &str = "there is no connection to NATS";

/// Most settlements under way at a time.
const SETTLING_MAX: usize = 256;

/// A broker on NATS, with its `JetStream`.
///
/// Sends are confirmed by the server, and acknowledgements too (double acknowledgement). While a delivery is
/// unsettled the server is told that work is in progress, until [`NatsBuilder::hold_max`] has passed. A
/// message that was dead-lettered goes to a stream of its own, with the reason in a header. The connection is
/// made again whenever it breaks; meanwhile calls answer [`BrokerError::Unavailable`].
pub struct NatsBroker {
    client: Client,
    jetstream: Context,
    settings: Settings,
    /// Counts connections: whoever waits for an answer of the one before can stop.
    connections: watch::Receiver<u64>,
    endpoints: Mutex<HashMap<EndpointName, Arc<Endpoint>>>,
}

/// What is known of an endpoint.
struct Endpoint {
    name: EndpointName,
    names: Names,
    counters: Arc<EndpointCounters>,
    /// Whether this broker has made sure that its stream is there.
    is_provisioned: AtomicBool,
    inbox: OnceLock<Inbox<Handle>>,
}

/// What the server wants back of a delivery.
#[derive(Clone, Debug)]
struct Handle {
    reply: Subject,
    /// For the dead letter.
    headers: Option<Arc<HeaderMap>>,
}

/// How the broker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NatsHealth {
    /// The server answers; so long it took.
    Connected {
        /// From the question to the answer.
        round_trip: Duration,
    },
    /// There is no connection just now; one is being made.
    Reconnecting,
}

impl Endpoint {
    /// What was made can be gone: a server that was killed just then comes back without it. Then it is made
    /// again.
    fn note<T>(&self, outcome: &Result<T, BrokerError>) {
        if let Err(BrokerError::Misconfigured { .. }) = outcome {
            self.is_provisioned.store(false, Ordering::Release);
        }
    }
}

impl NatsBroker {
    /// Begins a broker on the server at this address (`nats://127.0.0.1:4222`, or several with commas between
    /// them).
    pub fn at(address: impl Into<String>) -> NatsBuilder {
        NatsBuilder::new(address.into())
    }

    /// How the connection is doing, by asking the server.
    pub async fn health(&self) -> NatsHealth {
        if self.client.connection_state() != Connected::Connected {
            return NatsHealth::Reconnecting;
        }
        let asked = tokio::time::Instant::now();
        match tokio::time::timeout(ANSWERED_WITHIN, self.client.flush()).await {
            Ok(Ok(())) => NatsHealth::Connected { round_trip: asked.elapsed() },
            Ok(Err(_)) | Err(_) => NatsHealth::Reconnecting,
        }
    }

    /// What this process has of an endpoint's messages.
    pub fn held(&self, endpoint: &EndpointName) -> Held {
        let endpoint = self.endpoints().get(endpoint).cloned();
        endpoint.and_then(|endpoint| endpoint.inbox.get().map(Inbox::held)).unwrap_or_default()
    }

    /// Stops taking messages, and gives back what no receiver has seen. What receivers have can still be
    /// settled. Close the gate first.
    pub async fn close(&self) {
        let endpoints: Vec<_> = self.endpoints().values().cloned().collect();
        join_all(endpoints.iter().filter_map(|endpoint| endpoint.inbox.get()).map(Inbox::close)).await;
        // Without a connection it would wait for the next one.
        let flushed = tokio::time::timeout(ANSWERED_WITHIN, self.client.flush()).await;
        if !matches!(flushed, Ok(Ok(()))) {
            tracing::debug!("the connection was gone before it was closed");
        }
    }

    fn endpoints(&self) -> std::sync::MutexGuard<'_, HashMap<EndpointName, Arc<Endpoint>>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of an endpoint; its stream is there afterwards, if it is for this broker to make it.
    async fn endpoint(&self, name: &EndpointName) -> Result<Arc<Endpoint>, BrokerError> {
        let endpoint = Arc::clone(self.endpoints().entry(name.clone()).or_insert_with(|| {
            Arc::new(Endpoint {
                name: name.clone(),
                names: Names::new(&self.settings.prefix, name),
                counters: Arc::new(EndpointCounters::new(name)),
                is_provisioned: AtomicBool::new(false),
                inbox: OnceLock::new(),
            })
        }));
        if self.settings.provisioning == Provisioning::OnUse {
            // Without a lock: callers that come together make it together, which does no harm. One that holds
            // a lock and is not polled would.
            if !endpoint.is_provisioned.load(Ordering::Acquire) {
                self.provision(name).await?;
                endpoint.is_provisioned.store(true, Ordering::Release);
            }
        }
        Ok(endpoint)
    }

    fn inbox<'a>(&self, endpoint: &'a Endpoint) -> &'a Inbox<Handle> {
        endpoint.inbox.get_or_init(|| {
            let puller = |slice| {
                Puller::new(
                    self.client.clone(),
                    self.jetstream.clone(),
                    self.connections.clone(),
                    endpoint.name.clone(),
                    endpoint.names.clone(),
                    slice,
                    self.settings.deliveries_max,
                )
            };
            let pullers = self.settings.own_slices().map(puller).collect();
            let keeper = Arc::new(Progress { client: self.client.clone() });
            let counters = Arc::clone(&endpoint.counters);
            Inbox::open(endpoint.name.clone(), self.settings.inbox, pullers, keeper, counters)
        })
    }

    async fn publish(
        &self,
        message: OutgoingMessage,
    ) -> Result<(Arc<Endpoint>, PublishAckFuture), BrokerError> {
        let endpoint = self.endpoint(&message.endpoint).await?;
        let slice = names::slice(&message.partition, self.settings.slices);
        let mut headers = HeaderMap::new();
        headers.insert(PARTITION, header(message.partition.as_str()));
        for (name, value) in message.headers {
            headers.insert(name, header(&value));
        }
        if !message.delay.is_zero() {
            let not_before =
                unix_ms().saturating_add(u64::try_from(message.delay.as_millis()).unwrap_or(u64::MAX));
            headers.insert(NOT_BEFORE, not_before.to_string().as_str());
        }
        let mut publish = PublishMessage::build().payload(message.envelope).headers(headers);
        if self.settings.deduplication == Deduplication::On {
            publish = publish.message_id(message.deduplication_id.to_string());
        }
        let sent = self.jetstream.send_publish(endpoint.names.subject(slice), publish).await;
        match sent {
            Ok(confirmation) => Ok((endpoint, confirmation)),
            Err(error) => Err(failure::of_publish(&message.endpoint, &error, self.settings.capacity)),
        }
    }

    async fn confirmed(
        &self,
        endpoint: &Endpoint,
        confirmation: PublishAckFuture,
        over: Shared<impl Future<Output = ()>>,
    ) -> Result<(), BrokerError> {
        let confirmed = tokio::select! {
            biased;
            confirmed = confirmation.into_future() => confirmed,
            () = over => return Err(unanswered(&endpoint.name)),
        };
        confirmed.map_err(|error| {
            if error.kind() == PublishErrorKind::StreamNotFound {
                endpoint.is_provisioned.store(false, Ordering::Release);
            }
            failure::of_publish(&endpoint.name, &error, self.settings.capacity)
        })?;
        endpoint.counters.sent(1);
        Ok(())
    }

    async fn settle_one(
        &self,
        endpoint: &Endpoint,
        settlement: Settlement,
        over: Shared<impl Future<Output = ()>>,
    ) -> Result<(), BrokerError> {
        let Settlement { receipt, verdict } = settlement;
        // Settled before, or given up: then it comes again, and that is all that can be said of it.
        let Some(Arrival { handle, envelope, delivery_count }) = self.inbox(endpoint).take(&receipt) else {
            return Ok(());
        };
        let told = async {
            match &verdict {
                Verdict::Acknowledge => self.answer(endpoint, &handle, AckKind::Ack).await,
                Verdict::Retry { after } => self.answer(endpoint, &handle, AckKind::Nak(Some(*after))).await,
                Verdict::DeadLetter { reason } => {
                    let letter = dead_letter(&handle, envelope, delivery_count, reason);
                    put_aside(&self.jetstream, &endpoint.name, &endpoint.names, letter).await?;
                    self.answer(endpoint, &handle, AckKind::Ack).await
                }
            }
        };
        tokio::select! {
            biased;
            told = told => told?,
            () = over => return Err(unanswered(&endpoint.name)),
        }
        endpoint.counters.settled(&verdict);
        Ok(())
    }

    /// Tells the server about a delivery and waits until it has heard. By the client's one inbox for answers:
    /// a subscription for each acknowledgement, as the library's own has it, would double what the server has
    /// to do.
    async fn answer(&self, endpoint: &Endpoint, handle: &Handle, kind: AckKind) -> Result<(), BrokerError> {
        let request = Request::new().payload(kind.into()).timeout(Some(ANSWERED_WITHIN));
        match self.client.send_request(handle.reply.clone(), request).await {
            Ok(_) => Ok(()),
            Err(error) => Err(failure::unavailable(&endpoint.name, &error)),
        }
    }
}

impl Broker for NatsBroker {
    fn send(&self, messages: Vec<OutgoingMessage>) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        Box::pin(async move {
            let patience = Patience::from_now(&self.connections);
            if !patience.has_connection(&self.client).await {
                let unsent = |endpoint: &EndpointName| failure::unavailable(endpoint, &UNCONNECTED);
                return messages.iter().map(|message| Err(unsent(&message.endpoint))).collect();
            }
            let over = patience.ended().shared();
            let mut confirmations = Vec::with_capacity(messages.len());
            for message in messages {
                let name = message.endpoint.clone();
                confirmations.push(tokio::select! {
                    biased;
                    published = self.publish(message) => published,
                    () = over.clone() => Err(unanswered(&name)),
                });
            }
            let mut answers = Vec::with_capacity(confirmations.len());
            // They were all sent, and the time for them is over at once: to wait for one after the other
            // takes as long as the slowest.
            for confirmation in confirmations {
                answers.push(match confirmation {
                    Ok((endpoint, confirmation)) => {
                        self.confirmed(&endpoint, confirmation, over.clone()).await
                    }
                    Err(error) => Err(error),
                });
            }
            answers
        })
    }

    fn receive(
        &self,
        endpoint: &EndpointName,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<Delivery>, BrokerError>> {
        let endpoint = endpoint.clone();
        Box::pin(async move {
            let endpoint = self.endpoint(&endpoint).await?;
            let received = self.inbox(&endpoint).receive(max).await;
            endpoint.note(&received);
            received
        })
    }

    fn settle(
        &self,
        endpoint: &EndpointName,
        settlements: Vec<Settlement>,
    ) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        let name = endpoint.clone();
        Box::pin(async move {
            let endpoint = match self.endpoint(&name).await {
                Ok(endpoint) => endpoint,
                Err(error) => return settlements.iter().map(|_| Err(error.clone())).collect(),
            };
            let endpoint = &*endpoint;
            let over = Patience::from_now(&self.connections).ended().shared();
            stream::iter(settlements)
                .map(|settlement| self.settle_one(endpoint, settlement, over.clone()))
                .buffered(SETTLING_MAX)
                .collect()
                .await
        })
    }

    /// With [`Provisioning::OnUse`] the queue is made first.
    fn verify(&self, endpoint: &EndpointName) -> BoxFuture<'_, Result<(), BrokerError>> {
        let name = endpoint.clone();
        Box::pin(async move {
            let endpoint = self.endpoint(&name).await?;
            let mut differences = self.differences(&name).await;
            endpoint.note(&differences);
            if differences.is_err() {
                self.endpoint(&name).await?;
                differences = self.differences(&name).await;
            }
            let (fatal, others): (Vec<_>, Vec<_>) =
                differences?.into_iter().partition(|difference| difference.weight == Weight::LosesMessages);
            for difference in others {
                tracing::warn!(endpoint = %name, %difference, "a stream or consumer is not as it would have been made");
            }
            match fatal.first() {
                None => Ok(()),
                Some(difference) => Err(failure::misconfigured(&name, difference.to_string())),
            }
        })
    }
}

impl fmt::Debug for NatsBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsBroker").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn unanswered(endpoint: &EndpointName) -> BrokerError {
    failure::unavailable(endpoint, &UNANSWERED)
}

/// Says that work is in progress. Not confirmed: the next signal comes long before the time is over.
struct Progress {
    client: Client,
}

impl Progress {
    async fn tell(&self, handles: Vec<Handle>, kind: AckKind) {
        for handle in handles {
            if let Err(error) = self.client.publish(handle.reply, kind.into()).await {
                tracing::warn!(%error, ?kind, "the server could not be told about a delivery");
                return;
            }
        }
    }
}

impl Keeper<Handle> for Progress {
    fn extend(&self, handles: Vec<Handle>) -> BoxFuture<'_, ()> {
        Box::pin(self.tell(handles, AckKind::Progress))
    }

    fn give_back(&self, handles: Vec<Handle>) -> BoxFuture<'_, ()> {
        Box::pin(self.tell(handles, AckKind::Nak(None)))
    }
}

/// The dead letter of a delivery, without the id of its message: a message that is put aside, moved back and
/// put aside once more is no copy for the server to drop.
fn dead_letter(handle: &Handle, envelope: Bytes, deliveries: u32, reason: &str) -> PublishMessage {
    let mut headers = HeaderMap::new();
    // Those of the server's own would be obeyed.
    for (name, values) in handle.headers.iter().flat_map(|headers| headers.iter()) {
        let name = name.to_string();
        if !name.starts_with(SERVERS_OWN) {
            for value in values {
                headers.append(name.as_str(), value.clone());
            }
        }
    }
    headers.insert(REASON, header(reason));
    headers.insert(DELIVERIES, deliveries.to_string().as_str());
    PublishMessage::build().payload(envelope).headers(headers)
}

/// Sends a dead letter to its stream. A crash after it leaves two, which is harmless.
async fn put_aside(
    jetstream: &Context,
    endpoint: &EndpointName,
    names: &Names,
    letter: PublishMessage,
) -> Result<(), BrokerError> {
    let confirmed = async { jetstream.send_publish(names.dead_subject(), letter).await?.await };
    confirmed.await.map(drop).map_err(|error| failure::of_publish(endpoint, &error, None))
}

/// A header's value can't hold line ends, nor be endless.
fn header(text: &str) -> HeaderValue {
    let mut value: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if value.len() > REASON_BYTES_MAX {
        let end = (0..=REASON_BYTES_MAX).rev().find(|end| value.is_char_boundary(*end)).unwrap_or(0);
        value.truncate(end);
    }
    HeaderValue::from(value)
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn context(client: &Client) -> Context {
    jetstream::ContextBuilder::new()
        .timeout(ANSWERED_WITHIN)
        .backpressure_on_inflight(true)
        .build(client.clone())
}
