//! Errors of opening, compacting and closing the recovery log. Calls of the `Broker` trait answer
//! `tollgate_proto::BrokerError`.

use std::path::PathBuf;
#[cfg(feature = "durable")]
use std::sync::Arc;

/// The reason why a recovery log could not be opened, compacted or closed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoveryLogError {
    /// Another broker, of this process or another one, has the directory open.
    #[error(
        "the broker's directory {} is in use by another broker: close that one, or give this one a directory of its own",
        .directory.display()
    )]
    InUse {
        /// The directory of the log.
        directory: PathBuf,
    },
    /// A file could not be read or written.
    #[error("the broker can't use {}: {reason}; check that it exists, is writable and has room", .path.display())]
    Files {
        /// Which file or directory.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
    /// The recovery log could not be read or written.
    #[cfg(feature = "durable")]
    #[error("the recovery log in {} failed: {cause}; reopen the broker, its log is recovered then", .directory.display())]
    Log {
        /// The directory of the log.
        directory: PathBuf,
        /// What the log said.
        cause: Arc<fjall::Error>,
    },
    /// A record of the recovery log is not what was written.
    #[error("the recovery log in {} is damaged: {what}; restore the directory from a backup", .directory.display())]
    Damaged {
        /// The directory of the log.
        directory: PathBuf,
        /// Which record, and what is wrong with it.
        what: String,
    },
    /// The recovery log's writer has stopped.
    #[error("the recovery log in {} is closed", .directory.display())]
    Closed {
        /// The directory of the log.
        directory: PathBuf,
    },
}
