//! The lock on a store's directory: one process at a time, and in it one store. The engine has a lock of its own, but lets
//! go of it when the store reopens it to shorten its journals; this one is held from opening to closing.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use crate::error::EmbeddedError;

/// The file that is locked. It stays when the store is closed; the system frees the lock with the process.
const LOCK_FILE: &str = "tollgate.lock";

/// Held as long as it lives.
pub(crate) struct DirectoryLock(File);

impl DirectoryLock {
    /// Locks an existing directory, or says at once who has it.
    pub(crate) fn acquire(directory: &Path) -> Result<Self, EmbeddedError> {
        let unusable = |error: &io::Error| EmbeddedError::unusable(directory, error);
        let mut options = File::options();
        options.write(true).create(true).truncate(false);
        let file = options.open(directory.join(LOCK_FILE)).map_err(|error| unusable(&error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(EmbeddedError::InUse { directory: directory.to_owned() }),
            Err(TryLockError::Error(error)) => Err(unusable(&error)),
        }
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Closing the file frees the lock in any case.
        if let Err(error) = self.0.unlock() {
            tracing::debug!(%error, "the lock on the store's directory could not be freed explicitly");
        }
    }
}
