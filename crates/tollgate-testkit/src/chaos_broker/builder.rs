//! How a chaos broker is made: which faults, how often, by which seed. Rates are clamped here to what makes sense.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use tollgate_proto::Broker;

use super::{ChaosBroker, ChaosCounts, Dice, Plan};

/// Most messages held back for one endpoint: each of them is in flight and comes near its timeout.
const REORDER_MAX: usize = 4096;

/// Most acknowledgements that may be lost: if all were, nothing would ever end.
const LOSE_ACKS_MAX: f64 = 0.95;

/// How long a receiver that holds messages back waits for more before it gives them out.
const LINGER_DEFAULT: Duration = Duration::from_millis(1);

/// Makes a [`ChaosBroker`]. A rate is a probability: 0 is never, 1 is always.
#[must_use]
pub struct ChaosBuilder {
    inner: Arc<dyn Broker>,
    plan: Plan,
    seed: u64,
}

impl ChaosBuilder {
    pub(super) fn new(inner: Arc<dyn Broker>) -> Self {
        let plan = Plan {
            duplicates: 0.0,
            reorder: 0,
            lose_acks: 0.0,
            failing_sends: 0.0,
            delay_max: Duration::ZERO,
            linger: LINGER_DEFAULT,
            remembers: None,
        };
        Self { inner, plan, seed: 0 }
    }

    /// What decides all chances. 0 if not given.
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// At which rate a message gets an extra copy; each copy may get another one, [`super::COPIES_MAX`] in all.
    pub const fn duplicates(mut self, rate: f64) -> Self {
        self.plan.duplicates = rate.clamp(0.0, 1.0);
        self
    }

    /// How many messages of an endpoint are held back to be given out in random order, 4096 at most. 0 and 1 keep the
    /// order.
    pub const fn reorder(mut self, messages: usize) -> Self {
        self.plan.reorder = if messages > REORDER_MAX { REORDER_MAX } else { messages };
        self
    }

    /// How long a receiver that holds messages back waits for more before it gives them out: 1 ms if not given. A
    /// broker on a network needs longer than its round trip.
    pub const fn linger(mut self, wait: Duration) -> Self {
        self.plan.linger = wait;
        self
    }

    /// At which rate an acknowledgement is swallowed, 0.95 at most.
    pub const fn lose_acks(mut self, rate: f64) -> Self {
        self.plan.lose_acks = rate.clamp(0.0, LOSE_ACKS_MAX);
        self
    }

    /// At which rate a send is answered with an error; half of them had their effect all the same.
    pub const fn failing_sends(mut self, rate: f64) -> Self {
        self.plan.failing_sends = rate.clamp(0.0, 1.0);
        self
    }

    /// Drops a publication whose id it was given within this time, and confirms it all the same, as `JetStream` and SQS FIFO do.
    /// Extra copies are made of what is not dropped: they are the broker's own.
    pub const fn deduplicates_for(mut self, window: Duration) -> Self {
        self.plan.remembers = Some(window);
        self
    }

    /// Up to how long each message is delayed in addition to its own delay, evenly spread.
    pub const fn delay(mut self, max: Duration) -> Self {
        self.plan.delay_max = max;
        self
    }

    /// The broker.
    pub fn build(self) -> ChaosBroker {
        tracing::debug!(seed = self.seed, plan = ?self.plan, "a broker is going to misbehave");
        ChaosBroker {
            inner: self.inner,
            plan: self.plan,
            dice: Mutex::new(Dice { rng: Rng::with_seed(self.seed), counts: ChaosCounts::default() }),
            windows: Mutex::new(HashMap::new()),
            known: Mutex::default(),
        }
    }
}

impl std::fmt::Debug for ChaosBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChaosBuilder")
            .field("plan", &self.plan)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}
