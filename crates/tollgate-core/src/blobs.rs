//! The trait of blob storage: where claim checks and other things too large for an item lie. A blob can't join a
//! partition's transaction; section 4 of the design says how it is made to follow one all the same.

use bytes::Bytes;

use crate::ids::EffectName;
use crate::store::BoxFuture;

/// Blob storage.
///
/// # Promises
///
/// A confirmed [`Blobs::put`] is found by every later [`Blobs::get`]; a confirmed [`Blobs::delete`] by none. Names are
/// unique to an attempt, so nothing is ever overwritten with other content. Deleting a missing blob succeeds.
pub trait Blobs: Send + Sync + 'static {
    /// Stores a blob.
    fn put(&self, name: &EffectName, content: Bytes) -> BoxFuture<'_, Result<(), BlobError>>;

    /// Reads a blob. `None`: there is none.
    fn get(&self, name: &EffectName) -> BoxFuture<'_, Result<Option<Bytes>, BlobError>>;

    /// Deletes a blob.
    fn delete(&self, name: &EffectName) -> BoxFuture<'_, Result<(), BlobError>>;

    /// Lists the names of all blobs that begin with `prefix`, for audits.
    fn list(&self, prefix: &str) -> BoxFuture<'_, Result<Vec<EffectName>, BlobError>>;
}

/// Why blob storage did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// It could not be reached, or answered with a passing fault.
    #[error("blob {name} could not be reached: {reason}; the call is safe to repeat")]
    Unavailable {
        /// Which blob.
        name: EffectName,
        /// What was said.
        reason: String,
    },
    /// The name can't be stored, or the storage may not be used: needs a person.
    #[error("blob {name} is refused: {reason}")]
    Refused {
        /// Which blob.
        name: EffectName,
        /// What is wrong and what to do.
        reason: String,
    },
}

impl BlobError {
    /// Whether the same call may succeed later, without a person's doing anything.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
