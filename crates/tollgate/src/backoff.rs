//! How long to wait before trying again: capped, exponential, with full jitter. The one place for this decision.

use std::time::Duration;

use crate::runtime::Runtime;

/// Capped exponential back-off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The longest wait before the first repetition.
    pub first: Duration,
    /// The longest wait at all.
    pub cap: Duration,
}

impl Backoff {
    /// For calls that are repeated in place, while a message waits.
    pub const IN_PLACE: Self = Self { first: Duration::from_millis(10), cap: Duration::from_millis(500) };

    /// For messages that are put back.
    pub const REDELIVERY: Self = Self { first: Duration::from_millis(100), cap: Duration::from_secs(60) };

    /// How long to wait after the `failures`-th failure in a row (counted from 1): between half and all of
    /// `first * 2^(failures - 1)`, at most `cap`.
    ///
    /// Half of the wait is random, after M. Brooker, "Exponential Backoff And Jitter" (equal jitter): a message that is
    /// put back should not come again at once.
    pub fn after(&self, failures: u32, runtime: &dyn Runtime) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        let ceiling = self.first.saturating_mul(1 << doublings).min(self.cap);
        let half = ceiling / 2;
        let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
        half + Duration::from_nanos(runtime.random() % nanos)
    }
}
