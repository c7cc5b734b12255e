//! Whether a store or the broker is out of order just now. While it is, its gate takes little and forgives much: it takes one message
//! at a time, to see whether the trouble is over, and dead-letters none for having failed too often. It decides nothing about
//! messages that were processed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::backoff::Backoff;
use crate::runtime::Runtime;

/// How long to wait between two messages while the trouble lasts: the longer, the longer it has lasted.
const PROBES: Backoff = Backoff { first: Duration::from_millis(100), cap: Duration::from_secs(5) };

/// `since_ms` of what is well.
const WELL: u64 = 0;

/// The state of something outside that may be out of order.
#[derive(Debug)]
pub(crate) struct Trouble {
    /// When the first call failed after which none has succeeded, in milliseconds since the Unix epoch.
    since_ms: AtomicU64,
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
