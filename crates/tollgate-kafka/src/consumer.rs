//! One endpoint's consumer: what a verdict means on Kafka. What is held is in `held`, who asks is in the
//! kit's shell, and Kafka's client belongs to the task in `consumer_task`.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::KafkaError;
use tokio::time::Instant;
use tollgate_broker_kit::consumer::Ledger;
use tollgate_proto::{BrokerError, Delivery, EndpointName, Receipt, Verdict};

use super::held::{Bounds, Held};
use super::problem::at;
use super::producer::Production;
use super::topics::Topics;

/// Bounds, times and names of a consumer.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// The beginning of consumer groups' names.
    pub(super) group: String,
    pub(super) bounds: Bounds,
    pub(super) visibility_timeout: Duration,
    pub(super) drain_within: Duration,
}

/// The messages of one consumer.
pub(super) struct Deliveries {
    pub(super) endpoint: EndpointName,
    pub(super) topics: Arc<Topics>,
    pub(super) held: Held,
    /// The last failure, until a receiver was told.
    pub(super) news: Option<KafkaError>,
    /// The last failure, until something went right.
    pub(super) problem: Option<KafkaError>,
}

/// What is to be done with a message.
pub(super) enum What {
    Acknowledge,
    /// Give it out again after a while, from memory.
    Again {
        after: Duration,
    },
    /// Produce a copy, then be done with it.
    Move(Box<Production>),
}

impl Deliveries {
    pub(super) fn new(endpoint: EndpointName, topics: Arc<Topics>, bounds: Bounds) -> Self {
        Self { endpoint, topics, held: Held::new(bounds), news: None, problem: None }
    }

    /// Something went right.
    pub(super) fn recovered(&mut self) {
        (self.problem, self.news) = (None, None);
    }
}

impl Ledger for Deliveries {
    type Action = What;

    fn take(&mut self, max: usize, until: Instant) -> Vec<Delivery> {
        self.held.take(max, until)
    }

    fn ready(&self) -> usize {
        self.held.ready()
    }

    fn begin(&mut self, receipt: &Receipt, verdict: &Verdict) -> Option<(u64, What)> {
        let (number, record) = self.held.begin(receipt)?;
        let copy = |topic: String, after: Duration, reason: Option<&String>| {
            let record = record.clone().due_after(after);
            What::Move(Box::new(Production { topic, record, reason: reason.cloned() }))
        };
        let what = match verdict {
            Verdict::Acknowledge => What::Acknowledge,
            Verdict::Retry { after } if *after <= self.topics.in_place_max => What::Again { after: *after },
            Verdict::Retry { after } => copy(self.topics.after(&self.endpoint, *after), *after, None),
            Verdict::DeadLetter { reason } => {
                copy(self.topics.dead(&self.endpoint), Duration::ZERO, Some(reason))
            }
        };
        Some((number, what))
    }

    fn failure(&mut self) -> Option<BrokerError> {
        self.news.take().map(|error| at(&error, &self.endpoint))
    }
}
