//! Circuit breakers: what is remembered of a store, a broker or one partition whose calls fail.
//!
//! While the breaker of a store or of the broker is open, its gate takes one message at a time, to see whether calls
//! succeed again. While the breaker of a partition is open, calls for that partition fail at once and no others do. A
//! breaker decides nothing about messages that were processed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use tollgate_proto::PartitionKey;

use crate::backoff::Backoff;
use crate::runtime::Runtime;

/// How long to wait between two messages while a breaker is open: the longer, the longer it has been.
const PROBES: Backoff = Backoff { first: Duration::from_millis(100), cap: Duration::from_secs(5) };

/// How long calls for one partition fail at once, after its failures in a row.
const PARTITION_PROBES: Backoff = Backoff { first: Duration::from_millis(50), cap: Duration::from_secs(5) };

/// Longest time for which a store is left alone because it asks for it.
pub(crate) const LEAVE_ALONE_MAX: Duration = Duration::from_secs(30);

/// A breaker that has seen no failure for so long is closed, although no call of its kind has succeeded: there was none.
const FORGET_AFTER_MS: u64 = 30_000;

/// Most partitions that are remembered with an open breaker.
const PARTITIONS_MAX: usize = 10_000;

/// `since_ms` of a closed breaker.
const CLOSED: u64 = 0;

/// The breaker of a store or of the broker.
#[derive(Debug, Default)]
pub(crate) struct CircuitBreaker {
    /// When the first call failed after which none has succeeded, in milliseconds since the Unix epoch.
    since_ms: AtomicU64,
    failed_at_ms: AtomicU64,
    /// Until when no call is to be made, because the store asks for it.
    leave_alone_until_ms: AtomicU64,
    /// Calls that succeeded, at least in part.
    successes: AtomicU64,
}

impl CircuitBreaker {
    /// Opens: a call has failed, repetitions included.
    pub(crate) fn open(&self, why: &dyn std::fmt::Display, retry_after: Option<Duration>, now_ms: u64) {
        let now_ms = now_ms.max(CLOSED + 1);
        self.failed_at_ms.store(now_ms, Ordering::Relaxed);
        if let Some(asked) = retry_after {
            let until_ms = now_ms.saturating_add(millis(asked.min(LEAVE_ALONE_MAX)));
            self.leave_alone_until_ms.fetch_max(until_ms, Ordering::Relaxed);
        }
        if self.since_ms.compare_exchange(CLOSED, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            tracing::warn!(%why, "unavailable; probing with one message at a time");
        }
    }

    /// Closes: a call has succeeded.
    pub(crate) fn close(&self, what: &dyn std::fmt::Display) {
        self.successes.fetch_add(1, Ordering::Relaxed);
        if self.since_ms.load(Ordering::Relaxed) != CLOSED
            && self.since_ms.swap(CLOSED, Ordering::Relaxed) != CLOSED
        {
            tracing::info!(%what, "recovered");
        }
    }

    /// How many calls have succeeded: one that fails alone says nothing of the whole.
    pub(crate) fn successes(&self) -> u64 {
        self.successes.load(Ordering::Relaxed)
    }

    pub(crate) fn is_open(&self, now_ms: u64) -> bool {
        self.open_since(now_ms).is_some()
    }

    fn open_since(&self, now_ms: u64) -> Option<u64> {
        let since_ms = self.since_ms.load(Ordering::Relaxed);
        let failed_at_ms = self.failed_at_ms.load(Ordering::Relaxed);
        let is_forgotten = now_ms.saturating_sub(failed_at_ms) > FORGET_AFTER_MS;
        (since_ms != CLOSED && !is_forgotten).then_some(since_ms)
    }

    /// How long to wait before the next message is taken. `None`: it is closed.
    pub(crate) fn pause(&self, runtime: &dyn Runtime) -> Option<Duration> {
        let now_ms = runtime.now_ms();
        let since_ms = self.open_since(now_ms)?;
        let lasts = Duration::from_millis(now_ms.saturating_sub(since_ms));
        let firsts = (lasts.as_millis() / PROBES.first.as_millis()).max(1);
        let left_alone = self.leave_alone_until_ms.load(Ordering::Relaxed).saturating_sub(now_ms);
        Some(PROBES.after(firsts.ilog2() + 1, runtime).max(Duration::from_millis(left_alone)))
    }
}

/// The breakers of single partitions.
#[derive(Default)]
pub(crate) struct PartitionBreakers {
    /// How many there are: almost always none, and each call asks.
    count: AtomicUsize,
    open: Mutex<HashMap<PartitionKey, OpenBreaker, RandomState>>,
}

struct OpenBreaker {
    failures: u32,
    /// Until when calls fail at once, in milliseconds since the Unix epoch. Afterwards one call probes.
    until_ms: u64,
}

/// What a breaker says to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admittance {
    /// Nothing is known against it.
    Closed,
    /// It probes: if it fails it is not repeated in place.
    Probe,
    /// It fails at once, and may come again after this time.
    Open(Duration),
}

impl PartitionBreakers {
    pub(crate) fn admit(&self, partition: &PartitionKey, now_ms: u64) -> Admittance {
        if self.count.load(Ordering::Acquire) == 0 {
            return Admittance::Closed;
        }
        match self.lock().get(partition) {
            None => Admittance::Closed,
            Some(open) => match open.until_ms.saturating_sub(now_ms) {
                0 => Admittance::Probe,
                left => Admittance::Open(Duration::from_millis(left)),
            },
        }
    }

    /// Opens a partition's breaker: a call for it has failed.
    pub(crate) fn open(
        &self,
        partition: &PartitionKey,
        retry_after: Option<Duration>,
        runtime: &dyn Runtime,
    ) {
        let now_ms = runtime.now_ms();
        let mut open = self.lock();
        if open.len() >= PARTITIONS_MAX && !open.contains_key(partition) {
            open.retain(|_, breaker| breaker.until_ms.saturating_add(FORGET_AFTER_MS) > now_ms);
            if open.len() >= PARTITIONS_MAX {
                return;
            }
        }
        if !open.contains_key(partition) {
            tracing::warn!(%partition, "partition throttled or unavailable; its calls fail until one succeeds");
        }
        let breaker = open.entry(partition.clone()).or_insert(OpenBreaker { failures: 0, until_ms: 0 });
        breaker.failures = breaker.failures.saturating_add(1);
        let asked = retry_after.unwrap_or_default().min(LEAVE_ALONE_MAX);
        let wait = PARTITION_PROBES.after(breaker.failures, runtime).max(asked);
        breaker.until_ms = now_ms.saturating_add(millis(wait));
        self.count.store(open.len(), Ordering::Release);
    }

    /// Closes a partition's breaker: a call for it has succeeded.
    pub(crate) fn close(&self, partition: &PartitionKey) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut open = self.lock();
        if open.remove(partition).is_some() {
            tracing::info!(%partition, "partition recovered");
        }
        self.count.store(open.len(), Ordering::Release);
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PartitionKey, OpenBreaker, RandomState>> {
        // No section can panic between two consistent states.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollgate_proto::BoxFuture;

    struct At(u64);

    impl Runtime for At {
        fn spawn(&self, _: BoxFuture<'static, ()>) {}

        fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
            Box::pin(std::future::ready(()))
        }

        fn now_ms(&self) -> u64 {
            self.0
        }

        fn random(&self) -> u64 {
            0
        }
    }

    #[test]
    fn the_longer_a_breaker_is_open_the_rarer_it_is_probed_and_one_success_closes_it() {
        let breaker = CircuitBreaker::default();
        assert_eq!(breaker.pause(&At(1000)), None);
        breaker.open(&"gone", None, 1000);
        breaker.open(&"gone", None, 5000);
        let pause = |now_ms| breaker.pause(&At(now_ms)).unwrap().as_millis();
        // Half of it is random, and here none.
        assert_eq!((pause(1000), pause(1200), pause(1400), pause(2600)), (50, 100, 200, 800));
        breaker.open(&"gone", None, 100_000_000);
        assert_eq!(pause(100_000_000), 2500);
        breaker.close(&"the store");
        assert!(!breaker.is_open(100_000_000));
        assert_eq!(breaker.pause(&At(100_000_000)), None);
    }

    #[test]
    fn a_breaker_that_nothing_probes_closes_by_itself() {
        let breaker = CircuitBreaker::default();
        breaker.open(&"gone", None, 1000);
        assert!(breaker.is_open(1000 + FORGET_AFTER_MS));
        assert!(!breaker.is_open(1001 + FORGET_AFTER_MS));
    }

    #[test]
    fn a_store_is_left_alone_as_long_as_it_asks_but_not_for_ever() {
        let breaker = CircuitBreaker::default();
        breaker.open(&"busy", Some(Duration::from_secs(7)), 1000);
        assert_eq!(breaker.pause(&At(1000)), Some(Duration::from_secs(7)));
        breaker.open(&"busy", Some(Duration::from_secs(86_400)), 1000);
        assert_eq!(breaker.pause(&At(1000)), Some(LEAVE_ALONE_MAX));
    }

    #[test]
    fn a_partitions_calls_fail_at_once_until_its_time_has_passed_and_nobody_elses_do() {
        let breakers = PartitionBreakers::default();
        let (hot, cold) = ("hot".try_into().unwrap(), "cold".try_into().unwrap());
        assert_eq!(breakers.admit(&hot, 1000), Admittance::Closed);
        breakers.open(&hot, None, &At(1000));
        assert_eq!(breakers.admit(&hot, 1000), Admittance::Open(Duration::from_millis(25)));
        assert_eq!(breakers.admit(&hot, 1025), Admittance::Probe);
        assert_eq!(breakers.admit(&cold, 1000), Admittance::Closed);
        breakers.open(&hot, Some(Duration::from_secs(86_400)), &At(1025));
        assert_eq!(breakers.admit(&hot, 1025), Admittance::Open(LEAVE_ALONE_MAX));
        breakers.close(&hot);
        assert_eq!((breakers.admit(&hot, 1025), breakers.count()), (Admittance::Closed, 0));
    }

    #[test]
    fn no_more_partitions_are_remembered_than_fit() {
        let breakers = PartitionBreakers::default();
        for n in 0..PARTITIONS_MAX + 10 {
            breakers.open(&format!("P{n}").as_str().try_into().unwrap(), None, &At(1000));
        }
        assert_eq!(breakers.count(), PARTITIONS_MAX);
        breakers.open(&"late".try_into().unwrap(), None, &At(1000 + 2 * FORGET_AFTER_MS));
        assert_eq!(breakers.count(), 1, "those that nobody asks for any more make room");
    }
}
