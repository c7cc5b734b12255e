//! What can go wrong with a command, in words for the person who typed it.

use std::path::PathBuf;

use tollgate::TollgateError;
use tollgate::proto::{BrokerError, InvalidName, StoreError};

/// Why a command could not be carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The data directory was filled from another input.
    #[error(
        "the data directory {} holds the totals of another input; give this input a directory of its own with --data, \
         or delete that one",
        path.display()
    )]
    OtherInput {
        /// The data directory.
        path: PathBuf,
    },
    /// The store or the broker in the data directory can't be opened.
    #[error("{0}")]
    Open(String),
    /// The gate failed.
    #[error(transparent)]
    Gate(#[from] TollgateError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The broker failed.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// A name breaks a rule.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A process that the demo has started did not do what it was started for.
    #[error("{what}: {problem}")]
    Process {
        /// Which process, or which step.
        what: String,
        /// What happened.
        problem: String,
    },
    /// No runtime could be started.
    #[error("no threads can be started: {0}")]
    Runtime(std::io::Error),
    /// A measurement failed.
    #[error("{0}")]
    Bench(String),
    /// Something that the demo stored is not what it stored.
    #[error("item {item} of partition {partition} is not what the demo stores there: {source}")]
    Stored {
        /// Which item.
        item: String,
        /// Of which partition.
        partition: String,
        /// What the decoder says.
        source: serde_json::Error,
    },
}

impl DemoError {
    /// A process, or a step of one, that failed with `problem`.
    pub fn process(what: impl Into<String>, problem: &impl ToString) -> Self {
        Self::Process { what: what.into(), problem: problem.to_string() }
    }

    /// A file that could not be read or written.
    pub fn file(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::File { path: path.into(), source }
    }
}
