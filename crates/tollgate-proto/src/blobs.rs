//! The trait of blob storage: where claim checks and other things too large for an item lie. A blob can't join a
//! partition's transaction; the design says under "Side effects" how it follows one all the same.

use std::pin::Pin;

use bytes::Bytes;
use futures_core::Stream;

use crate::future::BoxFuture;
use crate::ids::EffectName;

/// The content of a blob, piece by piece, so that no blob has to fit into memory.
pub type BlobStream = Pin<Box<dyn Stream<Item = Result<Bytes, BlobError>> + Send>>;

/// Blob storage.
///
/// # Promises
///
/// A confirmed [`Blobs::put`] is found by every later [`Blobs::get`]; a confirmed [`Blobs::delete`] by none. Names are
/// unique to an attempt, so nothing is ever overwritten with other content. Deleting a missing blob succeeds. A blob is there
/// whole or not at all: when its stream ends with an error, or the call is dropped, no part of it can be read.
pub trait Blobs: Send + Sync + 'static {
    /// Stores a blob. An error of the stream is returned as it is.
    fn put(&self, name: &EffectName, content: BlobStream) -> BoxFuture<'_, Result<(), BlobError>>;

    /// Reads a blob. `None`: there is none.
    fn get(&self, name: &EffectName) -> BoxFuture<'_, Result<Option<BlobStream>, BlobError>>;

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
    /// What is stored is not what was stored once.
    #[error("blob {name} is damaged: {reason}; restore it from a backup")]
    Damaged {
        /// Which blob.
        name: EffectName,
        /// What is wrong with it.
        reason: String,
    },
    /// The storage is missing or may not be used, whatever the blob: needs a person.
    #[error("blob storage is not usable for blob {name}: {reason}")]
    Misconfigured {
        /// Which blob.
        name: EffectName,
        /// What is wrong and what to do.
        reason: String,
    },
    /// This blob will never be stored as asked for.
    #[error("blob {name} is refused: {reason}")]
    Refused {
        /// Which blob.
        name: EffectName,
        /// What is wrong and what to do.
        reason: String,
    },
}

/// A blob that is in memory as a whole.
pub fn whole(content: impl Into<Bytes>) -> BlobStream {
    struct Once(Option<Bytes>);
    impl Stream for Once {
        type Item = Result<Bytes, BlobError>;
        fn poll_next(
            mut self: Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Self::Item>> {
            std::task::Poll::Ready(self.0.take().map(Ok))
        }
    }
    Box::pin(Once(Some(content.into())))
}

/// Reads a blob into memory as a whole.
///
/// # Errors
/// The stream's, or [`BlobError::Refused`] if it has more than `bytes_max` bytes.
pub async fn collect(
    name: &EffectName,
    mut content: BlobStream,
    bytes_max: usize,
) -> Result<Bytes, BlobError> {
    let mut pieces: Vec<Bytes> = Vec::new();
    let mut count = 0;
    while let Some(piece) = std::future::poll_fn(|context| content.as_mut().poll_next(context)).await {
        let piece = piece?;
        count += piece.len();
        if count > bytes_max {
            let reason =
                format!("it has more than the {bytes_max} bytes that may be read into memory: stream it");
            return Err(BlobError::Refused { name: name.clone(), reason });
        }
        pieces.push(piece);
    }
    Ok(match pieces.len() {
        1 => pieces.swap_remove(0),
        _ => pieces.concat().into(),
    })
}

impl BlobError {
    /// Whether the same call may succeed later, without a person's doing anything.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
