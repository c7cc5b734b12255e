//! A simulated process: the runtime of one gate. Its tasks can be ended all at once, wherever they wait, and stopped for a while,
//! wherever they are; its random numbers come from the seed.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::task::AbortHandle;
use tollgate::Runtime;
use tollgate_proto::BoxFuture;

use super::wires::Wires;

/// One process.
pub(super) struct Process {
    epoch: tokio::time::Instant,
    random: Mutex<fastrand::Rng>,
    tasks: Mutex<Vec<AbortHandle>>,
    motion: Arc<Mutex<Motion>>,
    wires: Arc<Wires>,
}

/// Whether the tasks of a process go on.
#[derive(Default)]
enum Motion {
    #[default]
    Moving,
    /// Whoever was to go on meanwhile.
    Stalled(Vec<Waker>),
}

/// The virtual time at which every run begins, in milliseconds since the Unix epoch: any will do, and zero would hide mistakes.
const BEGIN_MS: u64 = 1_700_000_000_000;

impl Process {
    pub(super) fn new(seed: u64, epoch: tokio::time::Instant, wires: Arc<Wires>) -> Arc<Self> {
        Arc::new(Self {
            epoch,
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            tasks: Mutex::default(),
            motion: Arc::default(),
            wires,
        })
    }

    /// Ends everything that this process does.
    pub(super) fn die(&self) {
        for task in lock(&self.tasks).drain(..) {
            task.abort();
        }
        self.resume();
    }

    /// Stops everything where it is.
    pub(super) fn stall(&self) {
        let mut motion = lock(&self.motion);
        if matches!(*motion, Motion::Moving) {
            *motion = Motion::Stalled(Vec::new());
        }
    }

    /// Goes on after a stall.
    pub(super) fn resume(&self) {
        let stalled = std::mem::take(&mut *lock(&self.motion));
        if let Motion::Stalled(wakers) = stalled {
            for waker in wakers {
                waker.wake();
            }
        }
    }
}

impl Runtime for Process {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        let mut tasks = lock(&self.tasks);
        tasks.retain(|task| !task.is_finished());
        let (motion, wires) = (Arc::clone(&self.motion), Arc::clone(&self.wires));
        let stoppable = Stoppable { task, motion, wires };
        tasks.push(tokio::spawn(stoppable).abort_handle());
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn now_ms(&self) -> u64 {
        BEGIN_MS + u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX / 2)
    }

    fn random(&self) -> u64 {
        lock(&self.random).u64(..)
    }
}

/// A task that makes no step while its process is stalled, and whose panic fails the run.
struct Stoppable {
    task: BoxFuture<'static, ()>,
    motion: Arc<Mutex<Motion>>,
    wires: Arc<Wires>,
}

impl Future for Stoppable {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if let Motion::Stalled(wakers) = &mut *lock(&self.motion) {
            wakers.push(context.waker().clone());
            return Poll::Pending;
        }
        match catch_unwind(AssertUnwindSafe(|| self.task.as_mut().poll(context))) {
            Ok(polled) => polled,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
                self.wires.panicked(text.unwrap_or_default());
                resume_unwind(panic)
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
