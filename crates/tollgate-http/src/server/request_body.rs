//! The body of a stored request, as the user's functions get it: in memory where it is small, a stream from
//! blob storage elsewhere. Reading it changes nothing, and may be done more than once.

use std::fmt;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tollgate::proto::blobs::{BlobStream, collect, whole};
use tollgate::{BlobReference, Edge, HandlerError};

use crate::problem::Problem;

/// The body of a request. Cloning it copies nothing.
#[derive(Clone)]
pub struct RequestBody(Content);

#[derive(Clone)]
enum Content {
    Held(Bytes),
    Blob { blob: BlobReference, edge: Edge, read_bytes_max: usize },
}

impl RequestBody {
    pub(super) fn held(body: Bytes) -> Self {
        Self(Content::Held(body))
    }

    pub(super) fn blob(blob: BlobReference, edge: Edge, read_bytes_max: usize) -> Self {
        Self(Content::Blob { blob, edge, read_bytes_max })
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        match &self.0 {
            Content::Held(body) => body.len() as u64,
            Content::Blob { blob, .. } => blob.bytes(),
        }
    }

    /// The body, if it is in memory: if it is small ([`super::ExactlyOnce::inline_bytes_max`]), or the gate
    /// has no blob storage.
    pub fn held_bytes(&self) -> Option<&Bytes> {
        match &self.0 {
            Content::Held(body) => Some(body),
            Content::Blob { .. } => None,
        }
    }

    /// Reads it into memory, wherever it is, as long as it is no larger than
    /// [`super::ExactlyOnce::read_bytes_max`].
    ///
    /// # Errors
    /// To be returned from the handler: permanent if it is larger, a retry if blob storage can't give it now.
    pub async fn read(&self) -> Result<Bytes, HandlerError> {
        match &self.0 {
            Content::Held(body) => Ok(body.clone()),
            Content::Blob { blob, read_bytes_max, .. } => {
                if blob.bytes() > *read_bytes_max as u64 {
                    let bytes = blob.bytes();
                    let what = format!("the body has {bytes} bytes, and at most {read_bytes_max} are read");
                    return Err(Problem::refused(what).into());
                }
                Ok(collect(blob.name(), self.stream().await?, *read_bytes_max).await?)
            }
        }
    }

    /// Reads it into memory, as JSON.
    ///
    /// # Errors
    /// As for [`RequestBody::read`]; permanent if it is not a `T`.
    pub async fn read_json<T: DeserializeOwned>(&self) -> Result<T, HandlerError> {
        let body = self.read().await?;
        serde_json::from_slice(&body)
            .map_err(|error| Problem::refused(format!("the body is not what is expected: {error}")).into())
    }

    /// Reads it piece by piece, wherever it is. The stream ends with an error if it is not what was stored.
    ///
    /// # Errors
    /// To be returned from the handler: a retry if blob storage can't give it now.
    pub async fn stream(&self) -> Result<BlobStream, HandlerError> {
        match &self.0 {
            Content::Held(body) => Ok(whole(body.clone())),
            Content::Blob { blob, edge, .. } => edge.read_blob(blob).await?.ok_or_else(|| {
                // The next attempt finds out that the request was removed meanwhile.
                HandlerError::retry(format!("the body is blob {}, which is not there", blob.name()))
            }),
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never what is in it.
        let place = if self.held_bytes().is_some() { "in memory" } else { "in a blob" };
        write!(formatter, "{} bytes {place}", self.bytes())
    }
}
