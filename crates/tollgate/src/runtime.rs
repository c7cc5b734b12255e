//! The one seam through which the engine spawns, waits, reads the time and draws random numbers. Nothing else in this
//! crate may do any of these, so that a simulator that brings its own [`Runtime`] sees the same run for the same seed.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;
use tollgate_proto::BoxFuture;

/// What the engine needs of the world besides stores and brokers.
pub trait Runtime: Send + Sync + 'static {
    /// Runs a task to its end, concurrently.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// Waits.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// Now, in milliseconds since the Unix epoch. Used for garbage and for back-off, never for safety.
    fn now_ms(&self) -> u64;

    /// A random number, uniform over all 64 bits.
    fn random(&self) -> u64;
}

/// The engine on tokio.
///
/// Its time is tokio's, so a paused clock in a test pauses it, corrected by the jumps that the wall clock has made since: a process
/// that was started before the clock was set, or was suspended, has the right time afterwards. It never goes back: after a jump
/// backwards it stands still. Random numbers are the operating system's, because ids of attempts must be unique for ever.
#[cfg(feature = "tokio-runtime")]
#[derive(Clone, Debug)]
pub struct TokioRuntime {
    clock: Arc<WallClock>,
    made_at: std::time::Instant,
    tokio_made_at: tokio::time::Instant,
}

#[cfg(feature = "tokio-runtime")]
impl TokioRuntime {
    /// Takes the wall clock's time, which is read again whenever the time is asked for.
    pub fn new() -> Self {
        Self {
            clock: Arc::new(WallClock {
                made_at_ms: unix_ms(),
                last_ms: std::sync::atomic::AtomicU64::new(0),
            }),
            made_at: std::time::Instant::now(),
            tokio_made_at: tokio::time::Instant::now(),
        }
    }
}

/// The wall clock, kept from going back.
#[cfg(feature = "tokio-runtime")]
#[derive(Debug)]
struct WallClock {
    made_at_ms: u64,
    last_ms: std::sync::atomic::AtomicU64,
}

#[cfg(feature = "tokio-runtime")]
impl WallClock {
    /// Now, in milliseconds since 1970: the start, `elapsed` by the engine's clock, and what the wall clock has jumped, which is what it
    /// shows beyond `monotonic_elapsed`. Jumps below a second are left out, so that a paused clock does not tremble.
    fn now_ms(&self, wall_ms: u64, monotonic_elapsed: Duration, elapsed: Duration) -> u64 {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let expected_ms = self.made_at_ms.saturating_add(millis(monotonic_elapsed));
        let whole_seconds = |jump_ms: u64| jump_ms / 1000 * 1000;
        let now_ms = self.made_at_ms.saturating_add(millis(elapsed));
        let now_ms = if wall_ms >= expected_ms {
            now_ms.saturating_add(whole_seconds(wall_ms - expected_ms))
        } else {
            now_ms.saturating_sub(whole_seconds(expected_ms - wall_ms))
        };
        self.last_ms.fetch_max(now_ms, std::sync::atomic::Ordering::Relaxed).max(now_ms)
    }
}

#[cfg(feature = "tokio-runtime")]
fn unix_ms() -> u64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(feature = "tokio-runtime")]
impl Default for TokioRuntime {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(feature = "tokio-runtime")]
impl Runtime for TokioRuntime {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        drop(tokio::spawn(task));
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn now_ms(&self) -> u64 {
        self.clock.now_ms(unix_ms(), self.made_at.elapsed(), self.tokio_made_at.elapsed())
    }

    fn random(&self) -> u64 {
        getrandom::u64().expect("the operating system gives random numbers, or no id could be unique")
    }
}

/// The engine's tasks: spawned through the seam, counted, and waited for at shutdown.
#[derive(Clone)]
pub(crate) struct Tasks {
    runtime: Arc<dyn Runtime>,
    tracker: TaskTracker,
}

impl Tasks {
    pub(crate) fn new(runtime: Arc<dyn Runtime>) -> Self {
        Self { runtime, tracker: TaskTracker::new() }
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(Box::pin(self.tracker.track_future(task)));
    }

    pub(crate) fn runtime(&self) -> &dyn Runtime {
        &*self.runtime
    }

    /// Whether somebody waits for the end of all tasks: then nobody from outside may begin one.
    pub(crate) fn is_ending(&self) -> bool {
        self.tracker.is_closed()
    }

    /// Waits until every task has ended.
    pub(crate) async fn join(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// Lets every other task that is ready run before this one goes on.
pub(crate) async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if yielded {
            return std::task::Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

#[cfg(all(test, feature = "tokio-runtime"))]
mod tests {
    use super::*;

    const START_MS: u64 = 1_700_000_000_000;
    const HOUR: Duration = Duration::from_secs(3600);

    fn clock() -> WallClock {
        WallClock { made_at_ms: START_MS, last_ms: std::sync::atomic::AtomicU64::new(0) }
    }

    #[test]
    fn a_process_that_was_suspended_for_an_hour_has_the_right_time_afterwards() {
        // The monotonic clock stands still meanwhile.
        let (clock, second) = (clock(), Duration::from_secs(1));
        assert_eq!(clock.now_ms(START_MS + 1000, second, second), START_MS + 1000);
        assert_eq!(clock.now_ms(START_MS + 3_601_000, second, second), START_MS + 3_601_000);
    }

    #[test]
    fn time_does_not_go_back_when_the_wall_clock_is_set_back() {
        let clock = clock();
        assert_eq!(clock.now_ms(START_MS + 3_600_000, HOUR, HOUR), START_MS + 3_600_000);
        assert_eq!(clock.now_ms(START_MS, HOUR, HOUR), START_MS + 3_600_000);
        assert_eq!(clock.now_ms(START_MS + 3_601_000, 2 * HOUR, 2 * HOUR), START_MS + 3_601_000);
    }

    #[test]
    fn a_paused_clock_does_not_tremble_with_the_real_one() {
        let clock = clock();
        let real = Duration::from_millis(30);
        assert_eq!(clock.now_ms(START_MS + 29, real, HOUR), START_MS + 3_600_000);
        assert_eq!(clock.now_ms(START_MS + 31, real, HOUR), START_MS + 3_600_000);
    }

    #[test]
    fn random_numbers_differ_between_runtimes() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let draw = || runtime().block_on(async { TokioRuntime::new().random() });
        assert_ne!(draw(), draw());
    }
}
