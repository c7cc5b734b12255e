//! One endpoint's consumer: what a verdict means on RabbitMQ. What is held is in `unsettled`, who asks is in
//! the kit's shell, and what RabbitMQ is told goes through the task in `consumer_task`.

use std::sync::Arc;
use std::time::Duration;

use lapin::types::ShortString;
use tokio::time::Instant;
use tollgate_broker_kit::consumer::Ledger;
use tollgate_proto::{BrokerError, Delivery, EndpointName, Receipt, Verdict};

use super::message::{Publication, Route};
use super::problem::Problem;
use super::publisher::NotSent;
use super::topology::Topology;
use super::unsettled::Unsettled;

/// Delays up to which a message waits in the consumer's memory. It is held either way, and a copy would be
/// two messages of work.
pub(super) const IN_PLACE_MAX: Duration = Duration::from_secs(1);

/// Bounds and times of a consumer.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) prefetch: u16,
    pub(super) visibility_timeout: Duration,
    pub(super) waiting_max: Duration,
    pub(super) drain_within: Duration,
}

/// The deliveries of one consumer.
pub(super) struct Deliveries {
    pub(super) endpoint: EndpointName,
    pub(super) queue: ShortString,
    pub(super) topology: Arc<Topology>,
    pub(super) unsettled: Unsettled,
    /// Why there is no channel, once it is known.
    pub(super) problem: Option<Problem>,
}

/// What is to be done with a delivery.
pub(super) enum What {
    Acknowledge,
    PutBack,
    /// Give it out again from memory, after a while.
    Later {
        after: Duration,
    },
    /// Publish a copy, then acknowledge.
    Replace(Box<Publication>),
}

impl Deliveries {
    pub(super) fn new(endpoint: EndpointName, topology: Arc<Topology>) -> Result<Self, BrokerError> {
        let queue = topology.queue(&endpoint)?;
        Ok(Self { endpoint, queue, topology, unsettled: Unsettled::default(), problem: None })
    }

    /// The way of a copy that comes after a delay.
    pub(super) fn after(&self, delay: Duration) -> Route {
        self.topology.route(&self.queue, delay)
    }
}

impl Ledger for Deliveries {
    type Action = What;

    fn take(&mut self, max: usize, until: Instant) -> Vec<Delivery> {
        self.unsettled.take(max, until)
    }

    fn ready(&self) -> usize {
        self.unsettled.ready()
    }

    fn begin(&mut self, receipt: &Receipt, verdict: &Verdict) -> Option<(u64, What)> {
        let (dead, topology) = (self.topology.dead_letters(), Arc::clone(&self.topology));
        let queue = self.queue.clone();
        let (serial, message) = self.unsettled.begin(receipt)?;
        let what = match verdict {
            Verdict::Acknowledge => What::Acknowledge,
            Verdict::Retry { after } if after.is_zero() => What::PutBack,
            Verdict::Retry { after } if *after <= IN_PLACE_MAX => What::Later { after: *after },
            Verdict::Retry { after } => {
                What::Replace(Box::new(message.retried(*after, topology.route(&queue, *after))))
            }
            Verdict::DeadLetter { reason } => What::Replace(Box::new(message.dead(reason, dead, queue))),
        };
        Some((serial, what))
    }

    fn failure(&mut self) -> Option<BrokerError> {
        self.problem.clone().map(|problem| problem.at(&self.endpoint))
    }
}

impl NotSent {
    /// The same, as an answer about an endpoint.
    pub(super) fn at(self, endpoint: &EndpointName, capacity: Option<u32>) -> BrokerError {
        let problem = match (self, capacity) {
            (Self::Failed(problem), _) => problem,
            (Self::Refused, Some(capacity)) => {
                let capacity = usize::try_from(capacity).unwrap_or(usize::MAX);
                return BrokerError::Full { endpoint: endpoint.clone(), capacity };
            }
            (Self::Refused, None) => {
                Problem::passing("RabbitMQ refused the message: is the queue without a leader?")
            }
            (Self::Unroutable, _) => Problem::Standing("no queue took the message: there is none".to_owned()),
        };
        problem.at(endpoint)
    }
}
