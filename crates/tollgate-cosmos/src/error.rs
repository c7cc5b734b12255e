//! What can go wrong when a Cosmos DB store is set up. What goes wrong with single calls is a
//! [`tollgate_proto::StoreError`], and [`crate::failure`] decides which.

/// An error of setting up a store.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CosmosStoreError {
    /// The container's partition key can't be one that Tollgate uses.
    #[error("the container's layout is not usable: {reason}")]
    Layout {
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The container was not found, or the account could not be asked.
    #[error("container {container} of database {database} can't be opened: {reason}")]
    Open {
        /// The database.
        database: String,
        /// The container.
        container: String,
        /// What the SDK says.
        reason: String,
        /// Whether trying again in a moment may help.
        retryable: bool,
    },
}

impl CosmosStoreError {
    /// Whether trying again in a moment may help.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Open { retryable: true, .. })
    }
}
