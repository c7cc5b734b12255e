//! What goes wrong while a store is made: names that can't be, tables of the wrong shape. What goes wrong with a request is
//! core's `StoreError`, made in [`crate::failure`].

use tollgate_proto::StoreError;

/// Why a store can't be built or its table not be provisioned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DynamoDbError {
    /// A name can't be used.
    #[error("{what} can't be {name:?}: {reason}")]
    InvalidName {
        /// What was to be named.
        what: &'static str,
        /// The name.
        name: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// DynamoDB refused to create, describe or change the table.
    #[error("provisioning table {table} failed: {source}")]
    Provisioning {
        /// Which table.
        table: String,
        /// What DynamoDB said.
        #[source]
        source: Box<StoreError>,
    },
    /// The table was created and did not become usable in time.
    #[error(
        "table {table} is still not active after {waited_ms} ms: look at it in the console, then provision again"
    )]
    NotActive {
        /// Which table.
        table: String,
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
    /// The environment has no region or the like.
    #[error("the environment is not complete: {reason}")]
    Environment {
        /// What is missing.
        reason: String,
    },
}
