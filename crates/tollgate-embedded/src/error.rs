//! What can go wrong when an embedded store is opened, tidied or closed. What goes wrong with single calls is a
//! [`tollgate_proto::StoreError`].

use std::path::{Path, PathBuf};

/// An error of an embedded store.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddedError {
    /// Another process, or another part of this one, has the directory open.
    #[error("{} is in use: another process has opened this store; stop it, or use another directory", directory.display())]
    InUse {
        /// The store's directory.
        directory: PathBuf,
    },
    /// The directory can't be used.
    #[error("the store in {} can't be opened: {reason}", directory.display())]
    Unusable {
        /// The store's directory.
        directory: PathBuf,
        /// What the engine or the system says.
        reason: String,
    },
    /// A write to the disk failed; the store takes no more writes until it is opened again.
    #[error("the store in {} failed to write: {reason}; free the disk, then open it again", directory.display())]
    Failed {
        /// The store's directory.
        directory: PathBuf,
        /// What the engine or the system says.
        reason: String,
    },
}

impl EmbeddedError {
    pub(crate) fn unusable(directory: &Path, reason: &impl ToString) -> Self {
        Self::Unusable { directory: directory.to_owned(), reason: reason.to_string() }
    }

    pub(crate) fn failed(directory: &Path, reason: &impl ToString) -> Self {
        Self::Failed { directory: directory.to_owned(), reason: reason.to_string() }
    }
}
