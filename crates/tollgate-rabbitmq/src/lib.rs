//! RabbitMQ, spoken to in AMQP 0-9-1: quorum queues, publisher confirms, acknowledgements by hand. This file
//! is the broker's face; what exists in RabbitMQ is in `topology`, what happens with deliveries in `consumer`
//! and `unsettled`.
//!
//! Settings that matter, and what RabbitMQ itself does and does not do, are in the project's
//! `docs/brokers/rabbitmq.md`.

mod builder;
mod consumer;
mod consumer_task;
mod delay_classes;
mod link;
mod message;
mod problem;
mod publisher;
mod topology;
mod unsettled;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;
use tollgate_broker_kit::consumer::{EndpointConsumer, Shared};
use tollgate_proto::store::BoxFuture;
use tollgate_proto::{Broker, BrokerError, Delivery, EndpointName, OutgoingMessage, Settlement};

pub use builder::{Queues, RabbitMqBuilder};
use consumer::{Deliveries, Settings};
use consumer_task::Task;
use link::Link;
use message::Publication;
use publisher::Publisher;
pub use topology::RabbitMqDepth;
use topology::Topology;

use tollgate_broker_kit::EndpointCounters;

/// A RabbitMQ server or cluster.
///
/// Two connections: one to publish, one to consume, since RabbitMQ stops those that publish too much. Both
/// come back by themselves. Each endpoint that is received from has a channel with a task, which ends with
/// [`RabbitMqBroker::close`] or when the broker is dropped.
///
/// * **A delivery is held** until it is settled, for as long as the visibility timeout of the builder; then
///   it is put back, and so it is at once when the process or the connection dies. RabbitMQ itself closes a
///   channel whose oldest delivery is older than its `consumer_timeout`, 30 minutes by default.
/// * **Delays** are rounded up to classes: see [`RabbitMqBuilder::delay_classes`]. A retry with a delay, and
///   a dead letter, is a copy that is published and confirmed before the delivery is acknowledged. A crash in
///   between leaves both, which is harmless: one of them finds its token consumed.
/// * **Delivery counts** are those of the quorum queue, added up over copies.
/// * **No affinity**: RabbitMQ hands messages of one partition to any consumer.
pub struct RabbitMqBroker {
    topology: Arc<Topology>,
    settings: Settings,
    queues: Queues,
    publisher: Arc<Publisher>,
    link: Arc<Link>,
    endpoints: Mutex<Endpoints>,
    closing: CancellationToken,
}

#[derive(Default)]
struct Endpoints {
    consumers: HashMap<EndpointName, Arc<EndpointConsumer<Deliveries>>>,
    counters: HashMap<EndpointName, Arc<EndpointCounters>>,
    provisioned: HashSet<EndpointName>,
}

impl RabbitMqBroker {
    /// A broker at an address like `amqp://user:password@host:5672/vhost`, where `%2f` is the virtual host
    /// `/`.
    pub fn builder(uri: impl Into<String>) -> RabbitMqBuilder {
        RabbitMqBuilder::new(uri.into())
    }

    /// Makes the queues of an endpoint, and what all endpoints share, if they are not there yet. To be called
    /// when a system is set up; whoever calls it needs the right to configure.
    ///
    /// # Errors
    /// [`BrokerError::Misconfigured`] if something of the same name exists and is different, or may not be
    /// made; [`BrokerError::Unavailable`] if RabbitMQ can't be reached.
    pub async fn provision(&self, endpoint: &EndpointName) -> Result<(), BrokerError> {
        self.topology.provision(self.publisher.link(), endpoint).await
    }

    /// How many messages of an endpoint are where.
    ///
    /// # Errors
    /// If RabbitMQ does not answer, or the queues don't exist.
    pub async fn depth(&self, endpoint: &EndpointName) -> Result<RabbitMqDepth, BrokerError> {
        self.first_use(endpoint).await?;
        self.topology.depth(self.publisher.link(), endpoint).await
    }

    /// Whether messages can be sent and received just now.
    ///
    /// # Errors
    /// Why not: of the connections, and of the endpoint's consumer if there is one.
    pub fn health(&self, endpoint: &EndpointName) -> Result<(), BrokerError> {
        if self.closing.is_cancelled() {
            return Err(BrokerError::Closed { endpoint: endpoint.clone() });
        }
        if let Some(problem) = self.publisher.link().problem().or_else(|| self.link.problem()) {
            return Err(problem.at(endpoint));
        }
        let consumer = self.endpoints().consumers.get(endpoint).cloned();
        let problem = consumer.and_then(|consumer| consumer.shared().ledger().problem.clone());
        problem.map_or(Ok(()), |problem| Err(problem.at(endpoint)))
    }

    /// Ends all giving and taking. Receivers get [`BrokerError::Closed`]; deliveries that nobody has got go
    /// back at once, and those that are being worked on can be settled until the builder's `drain_within` has
    /// passed.
    pub async fn close(&self) {
        self.closing.cancel();
        let consumers: Vec<_> = self.endpoints().consumers.values().cloned().collect();
        for consumer in consumers {
            consumer.join().await;
        }
        self.link.close().await;
        self.publisher.link().close().await;
    }

    fn endpoints(&self) -> MutexGuard<'_, Endpoints> {
        self.endpoints.lock().expect("nothing panics while it holds the map of endpoints")
    }

    fn counters(&self, endpoint: &EndpointName) -> Arc<EndpointCounters> {
        let make = || Arc::new(EndpointCounters::new(endpoint));
        Arc::clone(self.endpoints().counters.entry(endpoint.clone()).or_insert_with(make))
    }

    fn open_or_closed(&self, endpoint: &EndpointName) -> Result<(), BrokerError> {
        if self.closing.is_cancelled() {
            Err(BrokerError::Closed { endpoint: endpoint.clone() })
        } else {
            Ok(())
        }
    }

    /// Makes the queues of an endpoint that is used for the first time, if that was asked for.
    async fn first_use(&self, endpoint: &EndpointName) -> Result<(), BrokerError> {
        self.open_or_closed(endpoint)?;
        if self.queues == Queues::Exist || self.endpoints().provisioned.contains(endpoint) {
            return Ok(());
        }
        self.provision(endpoint).await?;
        self.endpoints().provisioned.insert(endpoint.clone());
        Ok(())
    }

    /// What was made can be gone; then it is made again at the next use.
    fn note(&self, endpoint: &EndpointName, error: &BrokerError) {
        if matches!(error, BrokerError::Misconfigured { .. }) {
            self.endpoints().provisioned.remove(endpoint);
        }
    }

    fn consumer(&self, endpoint: &EndpointName) -> Result<Arc<EndpointConsumer<Deliveries>>, BrokerError> {
        let counters = self.counters(endpoint);
        let mut endpoints = self.endpoints();
        if let Some(consumer) = endpoints.consumers.get(endpoint) {
            return Ok(Arc::clone(consumer));
        }
        let deliveries = Deliveries::new(endpoint.clone(), Arc::clone(&self.topology))?;
        let queue = deliveries.queue.clone();
        let shared = Shared::new(endpoint.clone(), self.settings.visibility_timeout, counters, deliveries);
        let consumer = EndpointConsumer::open(Arc::clone(&shared), |settlings| {
            let task = Task {
                shared,
                settings: self.settings.clone(),
                queue,
                capacity: self.topology.capacity,
                link: Arc::clone(&self.link),
                publisher: Arc::clone(&self.publisher),
                settlings,
                closing: self.closing.child_token(),
                publishing: FuturesUnordered::new(),
            };
            Ok::<_, BrokerError>(task.run())
        });
        let consumer = Arc::new(consumer?);
        endpoints.consumers.insert(endpoint.clone(), Arc::clone(&consumer));
        Ok(consumer)
    }

    async fn publication(&self, message: OutgoingMessage) -> Result<Publication, BrokerError> {
        self.first_use(&message.endpoint).await?;
        let queue = self.topology.queue(&message.endpoint)?;
        let route = self.topology.route(&queue, message.delay);
        Ok(Publication::first(message, route))
    }

    async fn send_all(&self, messages: Vec<OutgoingMessage>) -> Vec<Result<(), BrokerError>> {
        let mut answers = Vec::with_capacity(messages.len());
        let (mut publications, mut places) = (Vec::with_capacity(messages.len()), Vec::new());
        for message in messages {
            let endpoint = message.endpoint.clone();
            match self.publication(message).await {
                Ok(publication) => {
                    publications.push(publication);
                    places.push((answers.len(), endpoint));
                    answers.push(Ok(()));
                }
                Err(error) => answers.push(Err(error)),
            }
        }
        if publications.is_empty() {
            return answers;
        }
        let sent = self.publisher.publish(publications).await;
        for ((place, endpoint), sent) in places.into_iter().zip(sent) {
            match sent {
                Ok(()) => self.counters(&endpoint).sent(1),
                Err(not_sent) => {
                    let error = not_sent.at(&endpoint, self.topology.capacity);
                    self.note(&endpoint, &error);
                    answers[place] = Err(error);
                }
            }
        }
        answers
    }
}

impl Broker for RabbitMqBroker {
    fn send(&self, messages: Vec<OutgoingMessage>) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        Box::pin(self.send_all(messages))
    }

    fn receive(
        &self,
        endpoint: &EndpointName,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<Delivery>, BrokerError>> {
        let endpoint = endpoint.clone();
        Box::pin(async move {
            self.first_use(&endpoint).await?;
            let consumer = self.consumer(&endpoint)?;
            let received = consumer.receive(max).await;
            if let Err(error) = &received {
                self.note(&endpoint, error);
            }
            received
        })
    }

    fn settle(
        &self,
        endpoint: &EndpointName,
        settlements: Vec<Settlement>,
    ) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        let consumer = self.endpoints().consumers.get(endpoint).cloned();
        Box::pin(async move {
            match consumer {
                Some(consumer) => consumer.settle(settlements).await,
                // Nothing was received from it, so there is nothing to settle.
                None => vec![Ok(()); settlements.len()],
            }
        })
    }

    fn verify(&self, endpoint: &EndpointName) -> BoxFuture<'_, Result<(), BrokerError>> {
        let endpoint = endpoint.clone();
        Box::pin(async move {
            self.first_use(&endpoint).await?;
            self.topology.verify(self.publisher.link(), &endpoint).await
        })
    }
}

impl Drop for RabbitMqBroker {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

impl fmt::Debug for RabbitMqBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqBroker")
            .field("topology", &self.topology)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
