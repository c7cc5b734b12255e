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

/// The engine on tokio. Its clock is the wall clock when it was made, and tokio's clock since: so it never goes back, and a
/// paused clock in a test pauses it too.
#[cfg(feature = "tokio-runtime")]
#[derive(Clone, Copy, Debug)]
pub struct TokioRuntime {
    made_at_ms: u64,
    made_at: tokio::time::Instant,
}

#[cfg(feature = "tokio-runtime")]
impl TokioRuntime {
    /// Takes the wall clock's time once.
    pub fn new() -> Self {
        let since_epoch =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let made_at_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        Self { made_at_ms, made_at: tokio::time::Instant::now() }
    }
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
        let elapsed_ms = u64::try_from(self.made_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.made_at_ms.saturating_add(elapsed_ms)
    }

    fn random(&self) -> u64 {
        fastrand::u64(..)
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
