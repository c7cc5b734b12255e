//! How the engine talks to the broker: messages of concurrent commits are sent together, and so are acknowledgements.
//! What cannot be sent is an error for the message whose output it is; what cannot be settled is delivered again.

use std::sync::Arc;
use std::time::Duration;

use tollgate_core::{
    Broker, BrokerError, Delivery, EndpointName, Envelope, OutgoingMessage, Receipt, Settlement, Verdict,
    codec,
};

use crate::coalescer::Coalescer;
use crate::runtime::Tasks;
use crate::statistics::Counters;

/// Most messages in one call to the broker.
const BROKER_BATCH_MAX: usize = 1024;

/// The broker, with its coalescers.
pub(crate) struct BrokerClient {
    broker: Arc<dyn Broker>,
    counters: Arc<Counters>,
    sends: Coalescer<OutgoingMessage, Result<(), BrokerError>>,
    /// By the endpoint's place among the gate's.
    settlements: Vec<Coalescer<Settlement, Result<(), BrokerError>>>,
}

impl BrokerClient {
    pub(crate) fn new<'a>(
        broker: &Arc<dyn Broker>,
        endpoints: impl Iterator<Item = &'a EndpointName>,
        tasks: &Tasks,
        counters: Arc<Counters>,
    ) -> Self {
        let sending = Arc::clone(broker);
        let sends = Coalescer::new(tasks.clone(), BROKER_BATCH_MAX, move |messages| {
            let broker = Arc::clone(&sending);
            Box::pin(async move { broker.send(messages).await })
        });
        let settlements = endpoints
            .map(|endpoint| {
                let (settling, name) = (Arc::clone(broker), endpoint.clone());
                Coalescer::new(tasks.clone(), BROKER_BATCH_MAX, move |settlements| {
                    let (broker, endpoint) = (Arc::clone(&settling), name.clone());
                    Box::pin(async move {
                        let answers = broker.settle(&endpoint, settlements).await;
                        let failed = answers.iter().filter(|answer| answer.is_err()).count();
                        if failed > 0 {
                            tracing::warn!(%endpoint, failed, "deliveries could not be settled and will come again");
                        }
                        answers
                    })
                })
            })
            .collect();
        Self { broker: Arc::clone(broker), counters, sends, settlements }
    }

    pub(crate) async fn receive(
        &self,
        endpoint: &EndpointName,
        max: usize,
    ) -> Result<Vec<Delivery>, BrokerError> {
        self.broker.receive(endpoint, max).await
    }

    pub(crate) async fn verify(&self, endpoint: &EndpointName) -> Result<(), BrokerError> {
        self.broker.verify(endpoint).await
    }

    /// Sends an envelope that need not arrive before a while.
    pub(crate) async fn publish_later(&self, envelope: Envelope, delay: Duration) -> Result<(), String> {
        let mut answers = self.send(vec![outgoing(envelope, delay)]).await;
        answers.pop().unwrap_or_else(|| Err("the broker gave no answer".to_owned()))
    }

    /// Sends envelopes; one answer each, with the reason as text if it failed.
    pub(crate) async fn publish(&self, envelopes: Vec<Envelope>) -> Vec<Result<(), String>> {
        self.send(envelopes.into_iter().map(|envelope| outgoing(envelope, Duration::ZERO)).collect()).await
    }

    async fn send(&self, messages: Vec<OutgoingMessage>) -> Vec<Result<(), String>> {
        let count = messages.len();
        let Some(answers) = self.sends.ask(messages).await else {
            return vec![Err("the engine's runtime is shutting down".to_owned()); count];
        };
        self.counters.published.add(answers.iter().filter(|answer| answer.is_ok()).count());
        answers.into_iter().map(|answer| answer.map_err(|error| error.to_string())).collect()
    }

    /// Settles a delivery, without waiting: one that is lost comes again.
    pub(crate) fn settle(&self, endpoint: usize, receipt: Receipt, verdict: Verdict) {
        self.settlements[endpoint].tell(Settlement { receipt, verdict });
    }
}

fn outgoing(envelope: Envelope, delay: Duration) -> OutgoingMessage {
    OutgoingMessage {
        envelope: codec::encode_envelope(&envelope),
        headers: envelope.trace_headers(),
        endpoint: envelope.to.endpoint,
        partition: envelope.to.partition,
        message_id: envelope.message_id,
        delay,
    }
}
