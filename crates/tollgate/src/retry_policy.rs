//! How often a message is tried, and how long it waits in between.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::cause::{Again, RETRY_AFTER_MAX};
use crate::error::TollgateError;
use crate::runtime::Runtime;

/// How often a message whose handler fails is tried, and how long it waits in between.
///
/// Set for a gate ([`crate::GateBuilder::deliveries_max`], [`crate::GateBuilder::redelivery`]), an endpoint
/// ([`crate::Endpoint::retry`]) or a message type ([`crate::Endpoint::retry_of`]); the nearest one counts.
///
/// ```
/// use std::time::Duration;
/// use tollgate::{Backoff, RetryPolicy};
///
/// let patient = RetryPolicy::new(100, Backoff { first: Duration::from_secs(1), cap: Duration::from_secs(600) });
/// assert_eq!(patient.deliveries_max, 100);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// After this many failures of its handler a message is dead-lettered, at least 1.
    ///
    /// Deliveries that no handler saw do not count, and neither does what something outside could not do. Ten times as
    /// many deliveries without an answer of the engine also lead to a dead letter: the handler ends its process.
    pub deliveries_max: u32,
    /// How long a message that failed is left alone.
    pub backoff: Backoff,
}

/// The factor between failures that are counted here, and deliveries that the broker counts.
pub(crate) const UNANSWERED_FACTOR: u32 = 10;

impl RetryPolicy {
    /// Up to 10 failures, and 0.1 s doubled up to 60 s in between.
    pub const DEFAULT: Self = Self { deliveries_max: 10, backoff: Backoff::REDELIVERY };

    /// A policy.
    pub const fn new(deliveries_max: u32, backoff: Backoff) -> Self {
        Self { deliveries_max, backoff }
    }

    /// Checks a policy of a gate that is opened.
    pub(crate) fn check(&self, whose: &str) -> Result<(), TollgateError> {
        if self.deliveries_max == 0 {
            let problem =
                format!("deliveries_max of {whose} is 0: each message would be dead-lettered unseen");
            return Err(TollgateError::Configuration(problem));
        }
        Ok(())
    }

    /// How long a message waits that is put back for the `times`-th time.
    pub(crate) fn wait(&self, again: Again, times: u32, runtime: &dyn Runtime) -> Duration {
        match again {
            Again::BackOff => self.backoff.after(times, runtime),
            Again::After(asked) => asked.min(RETRY_AFTER_MAX),
            // Both together, so that messages that were sent away at the same time don't come back at the same time.
            Again::AfterAndBackOff(asked) => asked + self.backoff.after(times, runtime),
        }
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::DEFAULT
    }
}
