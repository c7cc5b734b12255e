//! Counters of an endpoint, under the names that all brokers use.

use metrics::Counter;
use tollgate_proto::{EndpointName, Verdict};

/// The counters of one endpoint.
pub struct EndpointCounters {
    sent: Counter,
    delivered: Counter,
    acknowledged: Counter,
    retried: Counter,
    dead_lettered: Counter,
}

impl EndpointCounters {
    /// Registers the counters with the recorder that is installed.
    pub fn new(endpoint: &EndpointName) -> Self {
        let label = || endpoint.to_string();
        Self {
            sent: metrics::counter!("tollgate_broker_sent_total", "endpoint" => label()),
            delivered: metrics::counter!("tollgate_broker_delivered_total", "endpoint" => label()),
            acknowledged: metrics::counter!("tollgate_broker_acknowledged_total", "endpoint" => label()),
            retried: metrics::counter!("tollgate_broker_retried_total", "endpoint" => label()),
            dead_lettered: metrics::counter!("tollgate_broker_dead_lettered_total", "endpoint" => label()),
        }
    }

    /// Counts messages that the broker has confirmed.
    pub fn sent(&self, messages: usize) {
        self.sent.increment(messages as u64);
    }

    /// Counts messages that receivers were given.
    pub fn delivered(&self, messages: usize) {
        self.delivered.increment(messages as u64);
    }

    /// Counts a settlement that the broker has confirmed.
    pub fn settled(&self, verdict: &Verdict) {
        match verdict {
            Verdict::Acknowledge => self.acknowledged.increment(1),
            Verdict::Retry { .. } => self.retried.increment(1),
            Verdict::DeadLetter { .. } => self.dead_lettered.increment(1),
        }
    }
}
