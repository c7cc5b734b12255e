//! Kafka, by librdkafka: consumer groups that rebalance cooperatively, and messages of one partition that are
//! finished in any order. This file is the broker's face; what exists in Kafka is in `topics`, what happens
//! with messages in `consumer`, `held` and `offsets`.
//!
//! Settings that matter, and what Kafka's own exactly-once does and does not add, are in the project's
//! `docs/brokers/kafka.md`.

mod builder;
mod consumer;
mod consumer_task;
mod held;
mod offsets;
mod problem;
mod producer;
mod record;
mod topics;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::stream::FuturesUnordered;
use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::BaseConsumer;
use tokio_util::sync::CancellationToken;
use tollgate_broker_kit::consumer::{EndpointConsumer, Shared};
use tollgate_proto::store::BoxFuture;
use tollgate_proto::{Broker, BrokerError, Delivery, EndpointName, OutgoingMessage, Settlement};

pub use builder::{KafkaBuilder, TopicsMade};
use consumer::{Deliveries, Settings};
use consumer_task::{Readers, Task};
use producer::{Producer, Production};
use record::Record;
pub use topics::KafkaDepth;
use topics::Topics;

use tollgate_broker_kit::EndpointCounters;

/// A Kafka cluster, or what speaks its protocol.
///
/// Each endpoint that is received from has a consumer of its own in a group of its own, and one for delayed
/// messages.
///
/// * **Affinity**: the destination partition's name is the key, so its messages are in one of Kafka's
///   partitions and with one process, whose cache knows it.
/// * **Out of order**: messages of one of Kafka's partitions are finished in any order. What is committed
///   stays behind the lowest unfinished one; after a crash the finished ones above it come again, and find
///   their tokens consumed.
/// * **A delivery is held** until it is settled, for as long as the visibility timeout of the builder; then
///   this process gives it out again. When the process dies, others get its partitions after the session
///   timeout.
/// * **Retries** up to `in_place_max` wait in memory and hold back the commit; longer ones are copies in
///   topics of their own, as are dead letters: produced and confirmed before the delivery is finished. A
///   crash in between leaves both, which is harmless.
/// * **Delivery counts** are ours: in a header of each copy, and in memory. Kafka counts nothing, so a
///   message that kills its process each time is not counted, unless it was retried in between.
pub struct KafkaBroker {
    topics: Arc<Topics>,
    settings: Settings,
    topics_made: TopicsMade,
    consumer_config: ClientConfig,
    producer: Arc<Producer>,
    admin: Arc<AdminClient<DefaultClientContext>>,
    /// Looks for topics.
    looking: Arc<BaseConsumer>,
    endpoints: Mutex<Endpoints>,
    closing: CancellationToken,
}

#[derive(Default)]
struct Endpoints {
    consumers: HashMap<EndpointName, Arc<EndpointConsumer<Deliveries>>>,
    counters: HashMap<EndpointName, Arc<EndpointCounters>>,
    provisioned: HashSet<EndpointName>,
    /// Topics that were seen to exist.
    known: HashSet<String>,
}

impl KafkaBroker {
    /// A broker at addresses like `host-1:9092,host-2:9092`.
    pub fn builder(servers: &str) -> KafkaBuilder {
        KafkaBuilder::new(servers)
    }

    /// Makes the topics of an endpoint that are missing. To be called when a system is set up.
    ///
    /// # Errors
    /// [`BrokerError::Misconfigured`] if a topic may not be made, or not in this way;
    /// [`BrokerError::Unavailable`] if Kafka can't be reached.
    pub async fn provision(&self, endpoint: &EndpointName) -> Result<(), BrokerError> {
        self.topics.provision(&self.admin, endpoint).await
    }

    /// Whether messages can be received just now, as far as this process has heard.
    ///
    /// # Errors
    /// What went wrong last, if nothing has gone right since.
    pub fn health(&self, endpoint: &EndpointName) -> Result<(), BrokerError> {
        self.open_or_closed(endpoint)?;
        let consumer = self.endpoints().consumers.get(endpoint).cloned();
        let problem = consumer.and_then(|consumer| consumer.shared().ledger().problem.clone());
        problem.map_or(Ok(()), |problem| Err(problem::at(&problem, endpoint)))
    }

    /// How many messages of an endpoint are where, for all processes together.
    ///
    /// # Errors
    /// If Kafka does not answer, or the topics don't exist.
    pub async fn depth(&self, endpoint: &EndpointName) -> Result<KafkaDepth, BrokerError> {
        self.first_use(endpoint).await?;
        self.topics.depth(&self.consumer_config, &self.settings.group, endpoint).await
    }

    /// How many of Kafka's partitions of an endpoint are with this process just now, those of delayed
    /// messages included. None as long as it has not joined the group, and if there are more processes than
    /// partitions.
    pub fn assigned_partitions(&self, endpoint: &EndpointName) -> usize {
        let consumer = self.endpoints().consumers.get(endpoint).cloned();
        consumer.map_or(0, |consumer| consumer.shared().ledger().held.partitions())
    }

    /// Ends all giving and taking. Receivers get [`BrokerError::Closed`]; deliveries that are being worked on
    /// can be settled until the builder's `drain_within` has passed. Then progress is committed, and the
    /// process leaves its groups, so that others have its partitions at once.
    pub async fn close(&self) {
        self.closing.cancel();
        let consumers: Vec<_> = self.endpoints().consumers.values().cloned().collect();
        for consumer in consumers {
            consumer.join().await;
        }
        self.producer.close().await;
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

    /// Makes the topics of an endpoint that is used for the first time, if that was asked for.
    async fn first_use(&self, endpoint: &EndpointName) -> Result<(), BrokerError> {
        self.open_or_closed(endpoint)?;
        if self.topics_made != TopicsMade::AtFirstUse || self.endpoints().provisioned.contains(endpoint) {
            return Ok(());
        }
        self.provision(endpoint).await?;
        self.endpoints().provisioned.insert(endpoint.clone());
        Ok(())
    }

    /// Makes sure that a topic exists before something is sent to it: servers make a topic that they are
    /// asked for, by default, and nothing would ever read it.
    async fn known(&self, endpoint: &EndpointName, topic: &str) -> Result<(), BrokerError> {
        if self.topics_made == TopicsMade::AtFirstUse || self.endpoints().known.contains(topic) {
            return Ok(());
        }
        topics::exist(&self.looking, endpoint, vec![topic.to_owned()]).await?;
        self.endpoints().known.insert(topic.to_owned());
        Ok(())
    }

    fn consumer(&self, endpoint: &EndpointName) -> Result<Arc<EndpointConsumer<Deliveries>>, BrokerError> {
        let counters = self.counters(endpoint);
        let mut endpoints = self.endpoints();
        if let Some(consumer) = endpoints.consumers.get(endpoint) {
            return Ok(Arc::clone(consumer));
        }
        let deliveries = Deliveries::new(endpoint.clone(), Arc::clone(&self.topics), self.settings.bounds);
        let shared = Shared::new(endpoint.clone(), self.settings.visibility_timeout, counters, deliveries);
        let readers = Readers::subscribe(&self.topics, &self.settings, &shared, &self.consumer_config);
        let readers = readers.map_err(|error| problem::at(&error, endpoint))?;
        let consumer = EndpointConsumer::open(Arc::clone(&shared), |settlings| {
            let task = Task {
                shared,
                readers,
                topics: Arc::clone(&self.topics),
                waits: self.topics.read(endpoint).into_iter().collect(),
                producer: Arc::clone(&self.producer),
                settlings,
                closing: self.closing.child_token(),
                drain_within: self.settings.drain_within,
                moving: FuturesUnordered::new(),
            };
            Ok::<_, BrokerError>(task.run())
        });
        let consumer = Arc::new(consumer?);
        endpoints.consumers.insert(endpoint.clone(), Arc::clone(&consumer));
        Ok(consumer)
    }

    async fn send_all(&self, messages: Vec<OutgoingMessage>) -> Vec<Result<(), BrokerError>> {
        let mut answers = Vec::with_capacity(messages.len());
        let (mut batch, mut places) = (Vec::with_capacity(messages.len()), Vec::new());
        for message in messages {
            let endpoint = message.endpoint.clone();
            let topic = self.topics.after(&endpoint, message.delay);
            let ready = match self.first_use(&endpoint).await {
                Ok(()) => self.known(&endpoint, &topic).await,
                Err(error) => Err(error),
            };
            let is_ready = ready.is_ok();
            answers.push(ready);
            if is_ready {
                batch.push(Production { topic, record: Record::first(message), reason: None });
                places.push((answers.len() - 1, endpoint));
            }
        }
        for ((place, endpoint), sent) in places.into_iter().zip(self.producer.produce(&batch).await) {
            match sent {
                Ok(()) => self.counters(&endpoint).sent(1),
                Err(error) => {
                    let error = problem::at(&error, &endpoint);
                    if matches!(error, BrokerError::Misconfigured { .. }) {
                        // What was there can be gone: it is made again, or looked for, at the next use.
                        let mut endpoints = self.endpoints();
                        endpoints.provisioned.remove(&endpoint);
                        endpoints.known.clear();
                    }
                    answers[place] = Err(error);
                }
            }
        }
        answers
    }
}

impl Broker for KafkaBroker {
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
            consumer.receive(max).await
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
            self.topics.verify(&self.looking, &self.admin, &endpoint).await
        })
    }
}

impl Drop for KafkaBroker {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

impl fmt::Debug for KafkaBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaBroker")
            .field("topics", &self.topics)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
