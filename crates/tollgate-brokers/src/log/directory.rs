//! The broker's directory: a lock that keeps a second opener out, and which of the log's generations counts.
//! A rewritten log is a new generation in a sub-directory of its own; it counts from the moment that
//! `current` names it.
//!
//! ```text
//! lock            held by the broker that has the directory open
//! current         the number of the generation that counts, as text
//! log-000007/     that generation
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::RecoveryLogError;

const LOCK: &str = "lock";
const CURRENT: &str = "current";
const CURRENT_IN_THE_MAKING: &str = "current.new";
const GENERATION_PREFIX: &str = "log-";

/// Which rewriting of the log, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generation(u64);

impl Generation {
    pub(crate) const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The broker's directory, locked.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    /// Unlocked by the operating system when it is closed, also when the process is killed.
    _lock: File,
}

impl Directory {
    /// Makes the directory if it is not there, and locks it.
    pub(crate) fn lock(path: &Path) -> Result<Self, RecoveryLogError> {
        fs::create_dir_all(path).map_err(|error| failed(path, &error))?;
        let lock_path = path.join(LOCK);
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|error| failed(&lock_path, &error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(RecoveryLogError::InUse { directory: path.to_owned() }),
            Err(TryLockError::Error(error)) => Err(failed(&lock_path, &error)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where a generation lies.
    pub(crate) fn of(&self, generation: Generation) -> PathBuf {
        self.path.join(format!("{GENERATION_PREFIX}{:06}", generation.0))
    }

    /// The generation that counts. In a new directory that is the first, which is not there yet.
    pub(crate) fn current(&self) -> Result<Generation, RecoveryLogError> {
        let path = self.path.join(CURRENT);
        match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map(Generation).map_err(|_| RecoveryLogError::Damaged {
                directory: self.path.clone(),
                what: format!("the file `{CURRENT}` says {text:?} and should say a number"),
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Generation(1)),
            Err(error) => Err(failed(&path, &error)),
        }
    }

    /// Makes a complete generation the one that counts, all at once.
    pub(crate) fn make_current(&self, generation: Generation) -> Result<(), RecoveryLogError> {
        let (new, path) = (self.path.join(CURRENT_IN_THE_MAKING), self.path.join(CURRENT));
        // The generation's own entry in this directory has to be on disk before anything names it.
        self.sync()?;
        File::create(&new)
            .and_then(|mut file| {
                writeln!(file, "{}", generation.0)?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&new, &path))
            .map_err(|error| failed(&path, &error))?;
        self.sync()
    }

    fn sync(&self) -> Result<(), RecoveryLogError> {
        File::open(&self.path)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| failed(&self.path, &error))
    }

    /// Deletes every generation but one: those before it, and one that was being made when the process ended.
    pub(crate) fn delete_all_but(&self, generation: Generation) -> Result<(), RecoveryLogError> {
        let kept = self.of(generation);
        for entry in fs::read_dir(&self.path).map_err(|error| failed(&self.path, &error))? {
            let path = entry.map_err(|error| failed(&self.path, &error))?.path();
            let is_generation = path
                .file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with(GENERATION_PREFIX));
            if is_generation && path != kept {
                fs::remove_dir_all(&path).map_err(|error| failed(&path, &error))?;
            }
        }
        Ok(())
    }
}

fn failed(path: &Path, error: &std::io::Error) -> RecoveryLogError {
    RecoveryLogError::Files { path: path.to_owned(), reason: error.to_string() }
}
