//! Which requests are being executed in this process, so that a second one with the same key is told so at
//! once. Nothing depends on it: two that meet all the same, in two processes, are sorted out by their
//! commits.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The requests that are being executed.
#[derive(Clone, Default)]
pub(super) struct Running {
    keys: Arc<Mutex<HashSet<String>>>,
}

impl Running {
    /// Begins one, until the answer is dropped. `None`: it is being executed.
    pub(super) fn begin(&self, partition: &str, key: &str) -> Option<Execution> {
        let name = format!("{}/{partition}/{key}", partition.len());
        let is_new = self.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        is_new.then(|| Execution { running: self.clone(), name })
    }
}

/// An execution that goes on.
pub(super) struct Execution {
    running: Running,
    name: String,
}

impl Drop for Execution {
    fn drop(&mut self) {
        self.running.keys.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}
