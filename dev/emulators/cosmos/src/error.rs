//! What can go wrong with an emulator.

/// An error of the emulator's own; what goes wrong with requests is the SDK's.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmulatorError {
    /// The emulator refuses its configuration.
    #[error("the emulator can't be configured so: {reason}")]
    Configuration {
        /// What it says.
        reason: String,
    },
    /// A client can't be made.
    #[error("a client of the emulator can't be made: {reason}")]
    Client {
        /// What the SDK says.
        reason: String,
    },
    /// The emulator can't be served.
    #[error("the emulator can't be served at {address}: {reason}")]
    Serve {
        /// Where.
        address: String,
        /// What the system says.
        reason: String,
    },
}

impl EmulatorError {
    pub(crate) fn configuration(reason: &impl ToString) -> Self {
        Self::Configuration { reason: reason.to_string() }
    }

    pub(crate) fn client(reason: &impl ToString) -> Self {
        Self::Client { reason: reason.to_string() }
    }
}
