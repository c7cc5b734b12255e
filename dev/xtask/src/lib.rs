//! Developer commands, and the tidy checks that keep code and prose to `CONTRIBUTING.md`.
//!
//! The checks run as tests (`cargo test -p xtask`), so that the gate runs them, and `cargo xtask figures` prints their counts.

pub mod commands;
pub mod figures;
pub mod repository;
pub mod tidy;

/// A command or a check that could not run, or that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum XtaskError {
    /// A file could not be read.
    #[error("{path}: {source}")]
    File {
        /// The file, relative to the repository.
        path: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A program could not be started.
    #[error("{program} could not be started: {source}")]
    Start {
        /// The program's name.
        program: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A program ended with a failure. Its own output says why.
    #[error("`{command}` failed")]
    Failed {
        /// The command line.
        command: String,
    },
    /// The output of `cargo metadata` has another shape than expected.
    #[error("cargo metadata: {0}")]
    Metadata(#[from] serde_json::Error),
}
