//! What a contender is: something that takes messages from the queue, changes accounts in a store and sends further messages,
//! by a technique of its own. Runs know contenders only through this.

use std::sync::Arc;

use bytes::Bytes;
use tollgate::proto::BoxFuture;

use super::BenchError;
use super::network::Network;
use super::plan::{Account, Hop, Plan};
use super::queue::Queue;
use super::scenario::Scenario;

/// What a technique promises, and the audit therefore demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Each message once, whatever the queue does.
    ExactlyOnce,
    /// Each message at least once: copies are processed again.
    AtLeastOnce,
}

/// A technique.
pub trait Contender: Send + Sync {
    /// What it is called, in one word.
    fn name(&self) -> &'static str;

    /// What it is, in a few words.
    fn title(&self) -> &'static str;

    /// Where it comes from.
    fn source(&self) -> &'static str;

    /// What it promises.
    fn promise(&self) -> Promise {
        Promise::ExactlyOnce
    }

    /// Sets itself up on an empty store and begins to take messages.
    fn open(&self, stage: Stage) -> BoxFuture<'static, Result<Box<dyn Running>, BenchError>>;
}

/// What a contender works with.
#[derive(Clone)]
pub struct Stage {
    /// The scenario.
    pub scenario: Arc<Scenario>,
    /// Its messages.
    pub plan: Arc<Plan>,
    /// The queue.
    pub queue: Arc<Queue>,
    /// The way to the store.
    pub network: Arc<Network>,
}

/// A contender at work.
pub trait Running: Send {
    /// What a sender would have left in the store for these messages, and what it would have given to the queue. Not measured.
    fn admit(&self, hops: Vec<Hop>) -> BoxFuture<'_, Result<Vec<Bytes>, BenchError>>;

    /// Finishes what is to be finished after the last message: that is part of the bill.
    fn finish(&mut self) -> BoxFuture<'_, Result<(), BenchError>>;

    /// What the store itself says it charged so far, where it does.
    fn reported(&self) -> Reported;

    /// What is in the store then.
    fn inspect(&self) -> BoxFuture<'_, Result<Left, BenchError>>;
}

/// What is in the store after a run.
#[derive(Clone, Debug, Default)]
pub struct Left {
    /// The accounts, by partition.
    pub accounts: Vec<(String, Account)>,
    /// Bytes of everything: keys, values.
    pub bytes: u64,
    /// Bytes of them that are there only to recognise messages or to send them: ids, tokens, outbox entries, leases, history.
    pub deduplication_bytes: u64,
}

/// What a store itself says it charges.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Reported {
    /// Write capacity units.
    pub write_units: Option<f64>,
    /// Read capacity units.
    pub read_units: Option<f64>,
    /// Request units.
    pub request_units: Option<f64>,
}

impl Reported {
    /// What was charged after `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        let minus = |now: Option<f64>, then: Option<f64>| now.map(|now| now - then.unwrap_or_default());
        Self {
            write_units: minus(self.write_units, earlier.write_units),
            read_units: minus(self.read_units, earlier.read_units),
            request_units: minus(self.request_units, earlier.request_units),
        }
    }
}
