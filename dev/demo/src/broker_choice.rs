//! Where the demo's messages travel: the one room that knows which brokers there are. The broker in the host's process is served to the
//! consumers by the host; any other is used by each consumer directly, with chaos of its own around it.
//!
//! To add a broker: a variant of [`BrokerChoice`], and a room that opens it.

#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[cfg(feature = "sqs")]
mod sqs;

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use tollgate::Broker;
use tollgate::proto::{BoxFuture, BrokerError, EndpointName};

use crate::error::DemoError;
use crate::queues;
use crate::remote::QueueDepth;

/// Which broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BrokerChoice {
    /// In the host's process, with its log in the data directory.
    InProcess,
    /// `NATS`, with its `JetStream`.
    #[cfg(feature = "nats")]
    Nats,
    /// `RabbitMQ`.
    #[cfg(feature = "rabbitmq")]
    #[value(name = "rabbitmq")]
    RabbitMq,
    /// Kafka, or what speaks its protocol.
    #[cfg(feature = "kafka")]
    Kafka,
    /// Queues of an emulator of `Amazon SQS`.
    #[cfg(feature = "sqs")]
    Sqs,
}

/// Which broker, and where it is.
#[derive(Args, Clone, Debug)]
pub struct BrokerOptions {
    /// What carries the messages. Any broker but the one in the host's process needs --processes.
    #[arg(long, value_name = "BROKER", value_enum, default_value_t = BrokerChoice::InProcess)]
    pub broker: BrokerChoice,
    /// Where the broker is. For `nats`: `nats://127.0.0.1:4222`. For `rabbitmq`: `amqp://127.0.0.1:5672`.
    /// For `kafka`: `127.0.0.1:9092`. For `sqs`: `http://127.0.0.1:9324`.
    #[arg(long, value_name = "URL")]
    pub broker_url: Option<String>,
    /// What the names of the queues begin with. Default: made from the data directory, so that a rerun finds its own.
    #[arg(long, value_name = "PREFIX")]
    pub queue_prefix: Option<String>,
}

/// A broker outside of our processes.
#[derive(Clone)]
pub struct OutsideBroker {
    /// The broker itself.
    pub broker: Arc<dyn Broker>,
    /// Tells what is in an endpoint's queue.
    depth: Arc<Depth>,
}

type Depth = dyn Fn(EndpointName) -> BoxFuture<'static, Result<QueueDepth, BrokerError>> + Send + Sync;

/// Letters of the prefix that is made from the data directory.
const PREFIX_DIGITS: usize = 8;

impl BrokerOptions {
    /// The same, as arguments of another process that works for the same data directory.
    pub fn arguments(&self, data: &Path) -> Vec<OsString> {
        let broker = self.broker.to_possible_value().expect("no variant is skipped");
        let mut arguments = vec!["--broker".into(), broker.get_name().into()];
        if let Some(url) = &self.broker_url {
            arguments.extend(["--broker-url".into(), url.into()]);
        }
        arguments.extend(["--queue-prefix".into(), self.prefix(data).into()]);
        arguments
    }

    /// What the names of the queues begin with.
    pub fn prefix(&self, data: &Path) -> String {
        self.queue_prefix.clone().unwrap_or_else(|| {
            let place = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
            let digest = blake3::hash(place.as_os_str().as_encoded_bytes()).to_hex();
            format!("demo-{}", &digest[..PREFIX_DIGITS])
        })
    }

    /// Opens the broker, if it is one that each process opens by itself.
    ///
    /// # Errors
    /// If it can't be used.
    #[cfg_attr(
        not(feature = "nats"),
        allow(clippy::unused_async, unused_variables, reason = "only a broker outside makes it wait")
    )]
    pub async fn open(&self, data: &Path) -> Result<Option<OutsideBroker>, DemoError> {
        let prefix = self.prefix(data);
        match self.broker {
            BrokerChoice::InProcess => Ok(None),
            #[cfg(feature = "nats")]
            BrokerChoice::Nats => nats::open(self.url("nats://HOST:PORT")?, &prefix).await.map(Some),
            #[cfg(feature = "rabbitmq")]
            BrokerChoice::RabbitMq => rabbitmq::open(self.url("amqp://HOST:PORT")?, &prefix).map(Some),
            #[cfg(feature = "kafka")]
            BrokerChoice::Kafka => kafka::open(self.url("HOST:PORT,HOST:PORT")?, &prefix).map(Some),
            #[cfg(feature = "sqs")]
            BrokerChoice::Sqs => sqs::open(self.url("http://HOST:PORT")?, &prefix).map(Some),
        }
    }

    /// Where the broker is.
    #[cfg(any(feature = "kafka", feature = "nats", feature = "rabbitmq", feature = "sqs"))]
    fn url(&self, form: &str) -> Result<&str, DemoError> {
        self.broker_url
            .as_deref()
            .ok_or_else(|| DemoError::Open(format!("this broker needs --broker-url with {form}")))
    }
}

impl OutsideBroker {
    /// What is in all queues of the demo.
    ///
    /// # Errors
    /// If the broker does not answer.
    pub async fn total(&self) -> Result<QueueDepth, DemoError> {
        self.depth_of(&queues::endpoints()?).await
    }

    /// What is in these queues.
    ///
    /// # Errors
    /// If the broker does not answer.
    pub async fn depth_of(&self, endpoints: &[EndpointName]) -> Result<QueueDepth, DemoError> {
        let mut total = QueueDepth::default();
        for endpoint in endpoints {
            let depth = (self.depth)(endpoint.clone()).await?;
            total = [total, depth].into_iter().sum();
        }
        Ok(total)
    }
}
