//! Which brokers there are, how their servers are started and how an adapter is opened on them. Settings are the adapters' defaults, but for
//! what a single small server needs.

use std::fmt;
use std::num::NonZeroU16;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tollgate::Broker;
use tollgate::proto::EndpointName;
use tollgate_kafka::{KafkaBroker, TopicsMade};
use tollgate_nats::NatsBroker;
use tollgate_rabbitmq::RabbitMqBroker;
use tollgate_sqs::SqsBroker;
use tollgate_testkit::LocalServer;

use crate::Failure;

/// A broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Nats,
    Sqs,
    RabbitMq,
    Kafka,
}

/// Kafka's stand-in is not woken by a message: it looks for new ones when it has slept as long as a reader is willing to wait.
pub const FETCH_WAIT_MS: &str = "20";

/// Partitions of a topic.
const KAFKA_PARTITIONS: NonZeroU16 = NonZeroU16::new(4).expect("it is not 0");

/// What each of as many consumers as there are partitions gets: one, and one of each topic of delayed messages.
const KAFKA_SHARE: usize = 4;

/// No message is delayed here, so `RabbitMQ` need not make more queues for that.
const ONLY_DELAY: Duration = Duration::from_secs(1);

impl Kind {
    pub const ALL: [Self; 4] = [Self::Nats, Self::Sqs, Self::RabbitMq, Self::Kafka];

    pub fn named(name: &str) -> Result<Self, Failure> {
        let known = Self::ALL.into_iter().find(|kind| kind.to_string().eq_ignore_ascii_case(name));
        known.ok_or_else(|| format!("there is no broker {name}: nats, sqs, rabbitmq, kafka").into())
    }

    /// Starts its server. `None`: it can't be started here, which has been said loudly.
    pub fn start(self) -> Option<LocalServer> {
        let infra = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra");
        match self {
            Self::Nats => LocalServer::start(infra.join("nats/start-nats")),
            Self::Sqs => LocalServer::start_in_memory(infra.join("sqs/start-ministack")),
            Self::RabbitMq => LocalServer::start(infra.join("rabbitmq/start-rabbitmq")),
            Self::Kafka => LocalServer::start_in_memory(infra.join("kafka/start-tansu")),
        }
    }

    /// Opens the adapter and makes an endpoint's queue.
    pub async fn open(self, address: &str, prefix: &str, endpoint: &EndpointName) -> Result<Opened, Failure> {
        self.open_slices(address, prefix, endpoint, 1, 0..1).await
    }

    /// The same for one of several consumers, which takes some slices of the endpoint, where the broker has slices.
    pub async fn open_slices(
        self,
        address: &str,
        prefix: &str,
        endpoint: &EndpointName,
        slices: u16,
        own: Range<u16>,
    ) -> Result<Opened, Failure> {
        Ok(match self {
            Self::Nats => {
                let builder = NatsBroker::at(address).prefix(prefix).slices(slices).own_slices(own);
                let broker = builder.connect().await?;
                broker.provision(endpoint).await?;
                Opened::Nats(Arc::new(broker))
            }
            Self::Sqs => {
                let broker = SqsBroker::at_emulator(address).prefix(prefix).build()?;
                broker.provision(endpoint).await?;
                Opened::Sqs(Arc::new(broker))
            }
            Self::RabbitMq => {
                let broker =
                    RabbitMqBroker::builder(address).prefix(prefix).delay_classes([ONLY_DELAY])?.open()?;
                broker.provision(endpoint).await?;
                Opened::RabbitMq(Arc::new(broker))
            }
            Self::Kafka => {
                let broker = KafkaBroker::builder(kafka_servers(address))
                    .prefix(prefix)
                    .partitions(KAFKA_PARTITIONS)
                    .replicas(NonZeroU16::MIN)
                    .topics_made(TopicsMade::AtFirstUse)
                    .setting("fetch.wait.max.ms", FETCH_WAIT_MS)
                    .open()?;
                broker.provision(endpoint).await?;
                Opened::Kafka(Arc::new(broker))
            }
        })
    }
}

/// What Kafka's clients want to hear.
pub fn kafka_servers(address: &str) -> &str {
    address.strip_prefix("tcp://").unwrap_or(address)
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nats => "NATS",
            Self::Sqs => "SQS",
            Self::RabbitMq => "RabbitMQ",
            Self::Kafka => "Kafka",
        })
    }
}

/// An adapter that is open.
pub enum Opened {
    Nats(Arc<NatsBroker>),
    Sqs(Arc<SqsBroker>),
    RabbitMq(Arc<RabbitMqBroker>),
    Kafka(Arc<KafkaBroker>),
}

impl Opened {
    pub fn broker(&self) -> Arc<dyn Broker> {
        match self {
            Self::Nats(broker) => Arc::clone(broker) as _,
            Self::Sqs(broker) => Arc::clone(broker) as _,
            Self::RabbitMq(broker) => Arc::clone(broker) as _,
            Self::Kafka(broker) => Arc::clone(broker) as _,
        }
    }

    /// Whether it gets messages already: a group of Kafka takes seconds to form.
    pub fn has_joined(&self, endpoint: &EndpointName) -> bool {
        match self {
            Self::Kafka(broker) => broker.assigned_partitions(endpoint) == KAFKA_SHARE,
            Self::Nats(_) | Self::Sqs(_) | Self::RabbitMq(_) => true,
        }
    }

    pub async fn close(self) {
        match self {
            Self::Nats(broker) => broker.close().await,
            // It waits for its long polls, up to 20 s; nothing is left in this queue that they could take.
            Self::Sqs(_) => {}
            Self::RabbitMq(broker) => broker.close().await,
            Self::Kafka(broker) => broker.close().await,
        }
    }
}
