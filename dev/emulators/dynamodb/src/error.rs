//! What can go wrong with an emulator itself, as opposed to what it answers. Answers of DynamoDB are the SDK's errors.

use std::io;
use std::path::PathBuf;

use crate::external::ServerKind;

/// Why an emulator could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmulatorError {
    /// Its script can't be run.
    #[error("{} can't be run: {source}; it comes with the repository, so look whether this is a whole checkout", .script.display())]
    Script {
        /// Which script.
        script: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its script said, with exit code 77, that it can't be started here, and why on stderr.
    #[error("{kind} can't be started on this machine; its script said why on stderr")]
    Unavailable {
        /// Which server.
        kind: ServerKind,
    },
    /// Its script failed.
    #[error("{kind} did not start: its script ended with {status}; the server's output is in {}", .log.display())]
    Failed {
        /// Which server.
        kind: ServerKind,
        /// How the script ended.
        status: String,
        /// Where the server wrote.
        log: PathBuf,
    },
    /// The system refused something on the way.
    #[error("{what} for {kind} failed: {source}")]
    System {
        /// Which server.
        kind: ServerKind,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// It belongs to somebody else and can't be restarted.
    #[error("the endpoint {url} was not started by this process and can't be stopped or started by it")]
    NotOurs {
        /// Where it is.
        url: String,
    },
}
