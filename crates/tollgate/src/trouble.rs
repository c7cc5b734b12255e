//! Whether a store or the broker is out of order just now. While it is, its gate takes little and forgives much: it takes one message
//! at a time, to see whether the trouble is over, and dead-letters none for having failed too often. It decides nothing about
//! messages that were processed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::backoff::Backoff;
use crate::runtime::Runtime;

/// How long to wait between two messages while the trouble lasts: the longer, the longer it has lasted.
const PROBES: Backoff = Backoff { first: Duration::from_millis(100), cap: Duration::from_secs(5) };

/// Longest time for which a message is put back because whoever was asked for a side effect wants to be left alone. A day would be a
/// mistake of his, or an attack; and brokers keep no message back for longer than some hours.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// `since_ms` of what is well.
const WELL: u64 = 0;

/// The state of something outside that may be out of order.
#[derive(Debug)]
pub(crate) struct Trouble {
    /// When the first call failed after which none has succeeded, in milliseconds since the Unix epoch.
    since_ms: AtomicU64,
}

/// What may be blamed for a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// The message or its handler: it counts.
    Message,
    /// A store or the broker, which could not be reached or had no room: of this no message is guilty.
    Outage,
}

/// What is said for messages that have to be put back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setback {
    pub(crate) blame: Blame,
    /// For how long whoever was asked for a side effect wants to be left alone.
    pub(crate) left_alone: Duration,
}

impl Setback {
    /// Nothing has been asked of anybody yet.
    pub(crate) const NONE: Self = Self { blame: Blame::Message, left_alone: Duration::ZERO };

    /// If something outside has failed, that is to blame.
    pub(crate) fn blame_outage_if(&mut self, has_failed: bool) {
        self.blame = self.blame.or_outage(has_failed);
    }

    /// Somebody wants to be left alone: the longest time counts, up to [`RETRY_AFTER_MAX`].
    pub(crate) fn leave_alone(&mut self, wanted: Option<Duration>) {
        self.left_alone = self.left_alone.max(wanted.unwrap_or_default().min(RETRY_AFTER_MAX));
    }

    /// What was said for others too.
    pub(crate) fn and(&mut self, other: Self) {
        self.blame_outage_if(other.blame == Blame::Outage);
        self.leave_alone(Some(other.left_alone));
    }
}

impl Blame {
    /// If something outside has failed, that is to blame.
    pub(crate) const fn or_outage(self, has_failed: bool) -> Self {
        if has_failed { Self::Outage } else { self }
    }
}

impl Trouble {
    pub(crate) const fn none() -> Self {
        Self { since_ms: AtomicU64::new(WELL) }
    }

    /// A call has failed, repetitions included, and may succeed later.
    pub(crate) fn failed(&self, what: &dyn std::fmt::Display, now_ms: u64) {
        let now_ms = now_ms.max(WELL + 1);
        if self.since_ms.compare_exchange(WELL, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            tracing::warn!(%what, "it is out of order: messages are taken one by one until a call succeeds");
        }
    }

    /// A call has succeeded.
    pub(crate) fn succeeded(&self, what: &dyn std::fmt::Display) {
        if self.since_ms.load(Ordering::Relaxed) != WELL
            && self.since_ms.swap(WELL, Ordering::Relaxed) != WELL
        {
            tracing::info!(%what, "it is well again");
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.since_ms.load(Ordering::Relaxed) != WELL
    }

    /// How long to wait before the next message is taken. `None`: all is well.
    pub(crate) fn pause(&self, runtime: &dyn Runtime) -> Option<Duration> {
        let since_ms = self.since_ms.load(Ordering::Relaxed);
        if since_ms == WELL {
            return None;
        }
        let lasts = Duration::from_millis(runtime.now_ms().saturating_sub(since_ms));
        let firsts = (lasts.as_millis() / PROBES.first.as_millis()).max(1);
        Some(PROBES.after(firsts.ilog2() + 1, runtime))
    }
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
    fn the_longer_the_trouble_lasts_the_rarer_it_is_looked_at_and_one_success_ends_it() {
        let trouble = Trouble::none();
        assert_eq!(trouble.pause(&At(1000)), None);
        trouble.failed(&"the store", 1000);
        trouble.failed(&"the store", 5000);
        let pause = |now_ms| trouble.pause(&At(now_ms)).unwrap().as_millis();
        // Half of it is random, and here none.
        assert_eq!((pause(1000), pause(1200), pause(1400), pause(2600)), (50, 100, 200, 800));
        assert_eq!(pause(100_000_000), 2500);
        trouble.succeeded(&"the store");
        assert!(!trouble.is_on());
        assert_eq!(trouble.pause(&At(100_000_000)), None);
    }
}
