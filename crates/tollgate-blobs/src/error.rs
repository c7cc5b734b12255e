//! What can go wrong before the first blob: settings that can't be used, and storage that does not keep what it must. What goes
//! wrong with a blob later is a `BlobError` of `tollgate-proto`.

/// Why blob storage can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobsError {
    /// Something needed is missing from the settings or contradicts another one.
    #[error("blob storage {place} can't be set up: {source}; correct the settings or the environment")]
    Settings {
        /// Which storage.
        place: String,
        /// What is missing.
        #[source]
        source: object_store::Error,
    },
    /// There is no such bucket or container.
    #[error("blob storage {place} does not exist: create it, or correct its name ({reason})")]
    Missing {
        /// Which storage.
        place: String,
        /// What it said.
        reason: String,
    },
    /// Credentials are wrong, or permissions are missing.
    #[error("blob storage {place} does not let us {step}: check credentials and permissions ({reason})")]
    Denied {
        /// Which storage.
        place: String,
        /// What was tried.
        step: &'static str,
        /// What it said.
        reason: String,
    },
    /// It does something else than it should.
    #[error("blob storage {place} fails when we {step}: {reason}")]
    Unfit {
        /// Which storage.
        place: String,
        /// What was tried.
        step: &'static str,
        /// What happened.
        reason: String,
    },
    /// It could not be reached, or has a passing fault.
    #[error(
        "blob storage {place} could not be reached to {step}: {reason}; try again, or correct its address"
    )]
    Unreachable {
        /// Which storage.
        place: String,
        /// What was tried.
        step: &'static str,
        /// What was said.
        reason: String,
    },
}

impl BlobsError {
    /// Whether the same may succeed later, without a person's doing anything.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}
