//! The partitions whose handlers the running code is called by.
//!
//! A handler that waits for a request to its own partition would wait for itself. The chain of partitions is kept for each poll of a
//! handler, and a request carries it on to the handler that executes it.

use std::cell::RefCell;
use std::pin::pin;
use std::sync::Arc;

use crate::lanes::LaneKey;

/// A handler that runs, and the handlers that wait for it.
#[derive(Debug)]
pub(crate) struct Inside {
    /// The gate's random number: other gates of this program have lanes of their own.
    pub(crate) process: u64,
    pub(crate) key: LaneKey,
    pub(crate) outer: Option<Arc<Self>>,
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Inside>>> = const { RefCell::new(None) };
}

impl Inside {
    /// The handler by which the running code is called, if any.
    pub(crate) fn current() -> Option<Arc<Self>> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Whether this handler, or one that waits for it, holds a gate's partition.
    pub(crate) fn holds(&self, process: u64, key: &LaneKey) -> bool {
        let mut inside = Some(self);
        while let Some(handler) = inside {
            if handler.process == process && handler.key == *key {
                return true;
            }
            inside = handler.outer.as_deref();
        }
        false
    }
}

/// Runs a future as called by a handler.
pub(crate) async fn run_inside<T>(inside: Option<Arc<Inside>>, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        let _restoring = Restore(CURRENT.replace(inside.clone()));
        future.as_mut().poll(context)
    })
    .await
}

/// Puts back the handler that was current before, also if a poll panics.
struct Restore(Option<Arc<Inside>>);

impl Drop for Restore {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}
