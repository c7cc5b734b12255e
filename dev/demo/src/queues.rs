//! The demo's broker: durable queues, with chaos around them; and what is left in them. Consumers see only the `Broker`
//! trait.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tollgate::Broker;
use tollgate::proto::EndpointName;
use tollgate_brokers::InProcessBroker;
use tollgate_testkit::ChaosBroker;

use crate::error::DemoError;
use crate::remote::QueueDepth;
use crate::{aircraft, airports, source};

/// How the broker misbehaves.
#[derive(Args, Clone, Copy)]
pub struct Chaos {
    /// The part of the messages that the broker delivers more than once.
    #[arg(long, value_name = "RATE", default_value_t = 0.3, value_parser = rate)]
    duplicates: f64,
    /// How many messages the broker holds back to deliver them in another order.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    reorder: usize,
    /// The part of the acknowledgements that the broker loses.
    #[arg(long, value_name = "RATE", default_value_t = 0.1, value_parser = rate)]
    lose_acks: f64,
}

/// A part of everything, but not everything.
pub fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.0..1.0).contains(&rate) => Ok(rate),
        _ => Err("a rate is a number from 0 up to, but not including, 1".to_owned()),
    }
}

impl Chaos {
    /// Copies and lost acknowledgements, in their order.
    pub const fn copies(duplicates: f64, lose_acks: f64) -> Self {
        Self { duplicates, reorder: 0, lose_acks }
    }

    /// The same, as arguments of another process.
    pub fn arguments(self) -> Vec<OsString> {
        let Self { duplicates, reorder, lose_acks } = self;
        let texts = [
            ("--duplicates", duplicates.to_string()),
            ("--reorder", reorder.to_string()),
            ("--lose-acks", lose_acks.to_string()),
        ];
        texts.into_iter().flat_map(|(name, value)| [name.into(), value.into()]).collect()
    }

    /// A broker that misbehaves in this way.
    pub fn around(self, broker: Arc<dyn Broker>, seed: u64) -> Arc<ChaosBroker> {
        let Self { duplicates, reorder, lose_acks } = self;
        let chaos = ChaosBroker::builder(broker).seed(seed);
        Arc::new(chaos.duplicates(duplicates).reorder(reorder).lose_acks(lose_acks).build())
    }
}

/// How long the broker waits for a delivery to be settled before it delivers again.
pub const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(1);

/// For how long a broker outside of our processes is told that work is in progress: an acknowledgement that was lost on purpose looks
/// like work that does not end.
#[cfg_attr(
    not(any(feature = "kafka", feature = "nats", feature = "rabbitmq", feature = "sqs")),
    allow(dead_code, reason = "only brokers outside are told")
)]
pub const HOLD_MAX: Duration = Duration::from_secs(3);

/// The broker and what is inside it.
#[derive(Clone)]
pub struct Queues {
    inner: Arc<InProcessBroker>,
    chaos: Arc<ChaosBroker>,
}

impl Queues {
    /// Opens the queues in the demo's directory. What was sent and not acknowledged is in them again.
    ///
    /// # Errors
    /// If the directory can't be used.
    pub fn open(data: &Path, chaos: Chaos, seed: u64) -> Result<Self, DemoError> {
        let inner = Arc::new(
            InProcessBroker::builder()
                .visibility_timeout(VISIBILITY_TIMEOUT)
                .durable(data.join("broker"))
                .open()
                .map_err(|error| DemoError::Open(error.to_string()))?,
        );
        let chaos = chaos.around(Arc::clone(&inner) as Arc<dyn Broker>, seed);
        Ok(Self { inner, chaos })
    }

    /// What consumers get to see.
    pub fn broker(&self) -> Arc<dyn Broker> {
        Arc::clone(&self.chaos) as Arc<dyn Broker>
    }

    /// What goes wrong with it.
    pub fn chaos(&self) -> Arc<ChaosBroker> {
        Arc::clone(&self.chaos)
    }

    /// What is in one queue.
    pub fn depth(&self, endpoint: &EndpointName) -> QueueDepth {
        depth(&self.inner, endpoint)
    }

    /// What is in all of them.
    ///
    /// # Errors
    /// If an endpoint's name breaks a rule.
    pub fn total(&self) -> Result<QueueDepth, DemoError> {
        Ok(endpoints()?.iter().map(|endpoint| self.depth(endpoint)).sum())
    }

    /// Writes what is left to write and frees the directory.
    ///
    /// # Errors
    /// If the log can't be written.
    pub async fn close(self) -> Result<(), DemoError> {
        self.inner.close().await.map_err(|error| DemoError::Open(error.to_string()))
    }
}

/// What is in one queue of a broker in this process.
pub fn depth(queues: &InProcessBroker, endpoint: &EndpointName) -> QueueDepth {
    let depth = queues.depth(endpoint);
    QueueDepth { left: depth.ready + depth.delayed + depth.in_flight, dead: depth.dead }
}

/// The demo's endpoints.
///
/// # Errors
/// If a name breaks a rule.
pub fn endpoints() -> Result<[EndpointName; 3], DemoError> {
    Ok([
        EndpointName::new(source::ENDPOINT)?,
        EndpointName::new(aircraft::ENDPOINT)?,
        EndpointName::new(airports::ENDPOINT)?,
    ])
}
