//! What a run takes of the machine: processor time of the whole process, allocations and live bytes on the heap, where the program has
//! the counting allocator. The harness itself is in all of it, equally for every contender.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stats_alloc::INSTRUMENTED_SYSTEM;
use tokio::task::JoinHandle;

/// How often live bytes are looked at: a peak that is shorter is missed.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Watches a run.
pub struct Watch {
    processor: Duration,
    allocations: u64,
    live: u64,
    peak: Arc<AtomicU64>,
    looking: JoinHandle<()>,
}

/// What a run took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Taken {
    /// Time of all processors.
    pub processor: Duration,
    /// Allocations, reallocations included. `None`: this program does not count them.
    pub allocations: Option<u64>,
    /// Live bytes at their most, beyond those at the begin. `None`: likewise.
    pub peak_bytes: Option<u64>,
}

impl Watch {
    /// Begins to watch.
    pub fn begin() -> Self {
        let (allocations, live) = heap();
        let peak = Arc::new(AtomicU64::new(live));
        let seen = Arc::clone(&peak);
        let looking = tokio::spawn(async move {
            loop {
                seen.fetch_max(heap().1, Ordering::Relaxed);
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        Self { processor: processor_time(), allocations, live, peak, looking }
    }

    /// Ends watching.
    pub fn end(self) -> Taken {
        self.looking.abort();
        let processor = processor_time().saturating_sub(self.processor);
        let (allocations, live) = heap();
        if allocations == 0 {
            return Taken { processor, allocations: None, peak_bytes: None };
        }
        let peak = self.peak.load(Ordering::Relaxed).max(live);
        Taken {
            processor,
            allocations: Some(allocations - self.allocations),
            peak_bytes: Some(peak.saturating_sub(self.live)),
        }
    }
}

/// Allocations so far, and live bytes.
fn heap() -> (u64, u64) {
    let stats = INSTRUMENTED_SYSTEM.stats();
    let live = stats.bytes_allocated.saturating_sub(stats.bytes_deallocated);
    ((stats.allocations + stats.reallocations) as u64, live as u64)
}

/// Live bytes on the heap, if this program counts them.
pub fn live_bytes() -> Option<u64> {
    let (allocations, live) = heap();
    (allocations > 0).then_some(live)
}

/// Processor time of the whole process, so far. 0: this system does not tell.
#[cfg(unix)]
pub fn processor_time() -> Duration {
    nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID.now().map(Duration::from).unwrap_or_default()
}

/// Processor time of the whole process, so far. 0: this system does not tell.
#[cfg(not(unix))]
pub fn processor_time() -> Duration {
    Duration::ZERO
}
