//! How the engine talks to the broker: messages of concurrent commits are sent together, and so are acknowledgements.
//! What cannot be sent is an error for the message whose output it is; what cannot be settled is delivered again.

use std::sync::Arc;
use std::time::Duration;

use tollgate_proto::{
    Broker, BrokerError, Delivery, EndpointName, OutgoingMessage, Publication, Receipt, Settlement, Verdict,
};

use crate::circuit_breaker::CircuitBreaker;
use crate::coalescer::Coalescer;
use crate::limited::{caught, within};
use crate::runtime::Tasks;
use crate::statistics::Counters;

/// Most messages in one call to the broker.
const BROKER_BATCH_MAX: usize = 1024;

/// The broker, with its coalescers.
pub(crate) struct BrokerClient {
    broker: Arc<dyn Broker>,
    counters: Arc<Counters>,
    breaker: Arc<CircuitBreaker>,
    sends: Coalescer<OutgoingMessage, Result<(), BrokerError>>,
    /// By the endpoint's place among the gate's.
    settlements: Vec<Coalescer<Settlement, Result<(), BrokerError>>>,
    tasks: Tasks,
    /// The longest that one call may take, except a wait for messages.
    limit: Duration,
}

impl BrokerClient {
    pub(crate) fn new<'a>(
        broker: &Arc<dyn Broker>,
        endpoints: impl Iterator<Item = &'a EndpointName>,
        tasks: &Tasks,
        counters: Arc<Counters>,
        limit: Duration,
    ) -> Self {
        let breaker = Arc::new(CircuitBreaker::default());
        let (sending, noted, clock) = (Arc::clone(broker), Arc::clone(&breaker), tasks.clone());
        let sends = Coalescer::new(tasks.clone(), BROKER_BATCH_MAX, move |messages: Vec<OutgoingMessage>| {
            let (broker, breaker, clock) = (Arc::clone(&sending), Arc::clone(&noted), clock.clone());
            Box::pin(async move {
                let endpoints: Vec<EndpointName> =
                    messages.iter().map(|message| message.endpoint.clone()).collect();
                let sent = within(clock.runtime(), limit, async { broker.send(messages).await }).await;
                let answers = sent.unwrap_or_else(|why| {
                    endpoints.into_iter().map(|endpoint| Err(unknown(endpoint, &why))).collect()
                });
                // That one queue is full says nothing of the others, and least of all that it should not be emptied.
                let gone =
                    answers.iter().filter_map(|answer| answer.as_ref().err()).find(|error| is_gone(error));
                match gone {
                    Some(error) => breaker.open(error, None, clock.runtime().now_ms()),
                    None => breaker.close(&"the broker"),
                }
                answers
            })
        });
        let settlements = endpoints
            .map(|endpoint| {
                let (settling, name, clock) = (Arc::clone(broker), endpoint.clone(), tasks.clone());
                Coalescer::new(tasks.clone(), BROKER_BATCH_MAX, move |settlements: Vec<Settlement>| {
                    let (broker, endpoint, clock) = (Arc::clone(&settling), name.clone(), clock.clone());
                    Box::pin(async move {
                        let count = settlements.len();
                        let settling = async { broker.settle(&endpoint, settlements).await };
                        let answers = within(clock.runtime(), limit, settling).await.unwrap_or_else(|why| {
                            (0..count).map(|_| Err(unknown(endpoint.clone(), &why))).collect()
                        });
                        let failed = answers.iter().filter(|answer| answer.is_err()).count();
                        if failed > 0 {
                            tracing::warn!(%endpoint, failed, "deliveries could not be settled and will come again");
                        }
                        answers
                    })
                })
            })
            .collect();
        let (broker, tasks) = (Arc::clone(broker), tasks.clone());
        Self { broker, counters, breaker, sends, settlements, tasks, limit }
    }

    /// The breaker of sends: that messages can be received says nothing of it.
    pub(crate) fn breaker(&self) -> &CircuitBreaker {
        &self.breaker
    }

    pub(crate) async fn receive(
        &self,
        endpoint: &EndpointName,
        max: usize,
    ) -> Result<Vec<Delivery>, BrokerError> {
        // It waits for messages, as long as the broker chooses; a consumer that closes drops it.
        let received = caught(async { self.broker.receive(endpoint, max).await }).await;
        received.unwrap_or_else(|why| Err(unknown(endpoint.clone(), &why)))
    }

    pub(crate) async fn verify(&self, endpoint: &EndpointName) -> Result<(), BrokerError> {
        let verified = within(self.tasks.runtime(), self.limit, async { self.broker.verify(endpoint).await });
        verified.await.unwrap_or_else(|why| Err(unknown(endpoint.clone(), &why)))
    }

    /// Sends an envelope that need not arrive before a while.
    pub(crate) async fn publish_later(
        &self,
        publication: Publication,
        delay: Duration,
    ) -> Result<(), BrokerError> {
        let endpoint = publication.envelope.to.endpoint.clone();
        let mut answers = self.send(vec![publication.into_message(delay)]).await;
        answers.pop().unwrap_or_else(|| Err(unknown(endpoint, &"the broker gave no answer")))
    }

    /// Sends envelopes; one answer each.
    pub(crate) async fn publish(&self, publications: Vec<Publication>) -> Vec<Result<(), BrokerError>> {
        let messages = publications.into_iter().map(|publication| publication.into_message(Duration::ZERO));
        self.send(messages.collect()).await
    }

    async fn send(&self, messages: Vec<OutgoingMessage>) -> Vec<Result<(), BrokerError>> {
        let Some(first) = messages.first().map(|message| message.endpoint.clone()) else { return Vec::new() };
        let count = messages.len();
        let Some(answers) = self.sends.ask(messages).await else {
            return vec![
                Err(unknown(first, &"the call was given up, and whether it was made is not known"));
                count
            ];
        };
        self.counters.published.add(answers.iter().filter(|answer| answer.is_ok()).count());
        answers
    }

    /// Settles a delivery, without waiting: one that is lost comes again.
    pub(crate) fn settle(&self, endpoint: usize, receipt: Receipt, verdict: Verdict) {
        self.settlements[endpoint].tell(Settlement { receipt, verdict });
    }
}

/// Whether it was the whole broker that failed, for all that is known.
const fn is_gone(error: &BrokerError) -> bool {
    matches!(error, BrokerError::Unavailable { .. })
}

fn unknown(endpoint: EndpointName, reason: &impl std::fmt::Display) -> BrokerError {
    BrokerError::Unavailable { endpoint, reason: reason.to_string() }
}
