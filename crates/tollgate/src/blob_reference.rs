//! What names a blob in an item or a message: its attempt-unique name, its length and its checksum, so that whoever reads it
//! knows that it got what was stored. Streams of blobs are measured and verified here; who stores and deletes them is not
//! decided here.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use tollgate_proto::blobs::{BlobStream, whole};
use tollgate_proto::{AttachedEffect, BlobError, EffectKind, EffectName, InvalidName};

/// The kind under which blobs are registered.
pub(crate) const BLOB_KIND: &str = "blob";

/// A stored blob, to be kept in an item or sent in a message: only what is named somewhere is visible to anybody.
///
/// As JSON it is `{"name": "...", "bytes": 5, "blake3": "64 hexadecimal digits"}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct BlobReference {
    name: EffectName,
    bytes: u64,
    checksum: [u8; 32],
}

#[derive(Serialize, Deserialize)]
struct Written {
    name: String,
    bytes: u64,
    blake3: String,
}

impl From<BlobReference> for Written {
    fn from(BlobReference { name, bytes, checksum }: BlobReference) -> Self {
        let blake3 = blake3::Hash::from_bytes(checksum).to_hex().to_string();
        Self { name: name.as_str().to_owned(), bytes, blake3 }
    }
}

impl TryFrom<Written> for BlobReference {
    type Error = String;

    fn try_from(Written { name, bytes, blake3 }: Written) -> Result<Self, String> {
        let name = EffectName::new(name).map_err(|error: InvalidName| error.to_string())?;
        let checksum = blake3::Hash::from_hex(blake3)
            .map_err(|error| format!("the checksum of blob {name} is not one: {error}"))?;
        Ok(Self { name, bytes, checksum: *checksum.as_bytes() })
    }
}

impl BlobReference {
    /// Its name in blob storage.
    pub fn name(&self) -> &EffectName {
        &self.name
    }

    /// Its name in blob storage, as text.
    pub fn as_str(&self) -> &str {
        self.name.as_str()
    }

    /// How many bytes it has.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// BLAKE3 over all of it.
    pub const fn checksum(&self) -> &[u8; 32] {
        &self.checksum
    }

    /// The form in which it travels with a message whose body it is: 8 bytes length (little endian), 32 bytes checksum.
    pub(crate) fn attached(&self) -> AttachedEffect {
        let detail = [&self.bytes.to_le_bytes()[..], &self.checksum].concat().into();
        AttachedEffect { kind: blob_kind(), name: self.name.clone(), detail }
    }

    pub(crate) fn of_attached(effect: &AttachedEffect) -> Result<Self, BlobError> {
        let damaged = || BlobError::Damaged {
            name: effect.name.clone(),
            reason: format!("its reference has {} bytes and not 40", effect.detail.len()),
        };
        let (bytes, checksum) = effect.detail.split_at_checked(8).ok_or_else(damaged)?;
        Ok(Self {
            name: effect.name.clone(),
            bytes: u64::from_le_bytes(bytes.try_into().map_err(|_| damaged())?),
            checksum: checksum.try_into().map_err(|_| damaged())?,
        })
    }

    /// The same stream, with an error at its end (or where it becomes too long) if it is not this blob.
    pub(crate) fn verified(&self, content: BlobStream) -> BlobStream {
        Box::pin(Verified {
            content,
            reference: self.clone(),
            hasher: blake3::Hasher::new(),
            seen: 0,
            over: false,
        })
    }
}

pub(crate) fn blob_kind() -> EffectKind {
    EffectKind::new(BLOB_KIND).expect("the constant is a valid name")
}

/// Something that can be stored as a blob.
pub trait IntoBlob {
    /// Its content, piece by piece.
    fn into_blob(self) -> BlobStream;
}

impl IntoBlob for BlobStream {
    fn into_blob(self) -> BlobStream {
        self
    }
}

macro_rules! in_memory {
    ($($name:ty),*) => {
        $(impl IntoBlob for $name {
            fn into_blob(self) -> BlobStream {
                whole(self)
            }
        })*
    };
}

in_memory!(Bytes, Vec<u8>, String, &'static str, &'static [u8]);

/// What has gone through a [`measured`] stream.
pub(crate) struct Measure {
    counted: Arc<Mutex<(u64, blake3::Hasher)>>,
}

impl Measure {
    /// The reference to what was stored under `name`, when the stream was read to its end.
    pub(crate) fn reference(&self, name: EffectName) -> BlobReference {
        let counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        BlobReference { name, bytes: counted.0, checksum: *counted.1.finalize().as_bytes() }
    }
}

/// Counts and sums what goes through, and ends with an error where it exceeds `bytes_max` or `may_go_on` says so: before each piece,
/// and before the end, after which a blob becomes visible.
pub(crate) fn measured(
    name: &EffectName,
    content: BlobStream,
    bytes_max: u64,
    may_go_on: impl Fn() -> Result<(), String> + Send + 'static,
) -> (BlobStream, Measure) {
    let counted = Arc::new(Mutex::new((0, blake3::Hasher::new())));
    let measure = Measure { counted: Arc::clone(&counted) };
    let name = name.clone();
    let take = move |piece: Option<Result<Bytes, BlobError>>| {
        let piece = piece.transpose()?;
        may_go_on().map_err(|reason| BlobError::Refused { name: name.clone(), reason })?;
        let Some(piece) = piece else { return Ok(None) };
        let mut counted = counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.0 += piece.len() as u64;
        if counted.0 > bytes_max {
            let reason = format!("it has more than {bytes_max} bytes: raise `blob_bytes_max` or store less");
            return Err(BlobError::Refused { name: name.clone(), reason });
        }
        counted.1.update(&piece);
        Ok(Some(piece))
    };
    let pieces = content.map(Some).chain(stream::iter([None]));
    let pieces = pieces.filter_map(move |piece| std::future::ready(take(piece).transpose()));
    (Box::pin(pieces), measure)
}

struct Verified {
    content: BlobStream,
    reference: BlobReference,
    hasher: blake3::Hasher,
    seen: u64,
    over: bool,
}

impl Stream for Verified {
    type Item = Result<Bytes, BlobError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        match self.content.as_mut().poll_next(context) {
            Poll::Ready(Some(Ok(piece))) => {
                self.seen += piece.len() as u64;
                self.hasher.update(&piece);
                Poll::Ready(Some(Ok(piece)))
            }
            Poll::Ready(None) => {
                self.over = true;
                let Self { reference, seen, .. } = &*self;
                let reason = if *seen != reference.bytes {
                    format!("it has {seen} bytes and should have {}", reference.bytes)
                } else if self.hasher.finalize() != blake3::Hash::from_bytes(reference.checksum) {
                    "its checksum is wrong".to_owned()
                } else {
                    return Poll::Ready(None);
                };
                Poll::Ready(Some(Err(BlobError::Damaged { name: reference.name.clone(), reason })))
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use tollgate_proto::blobs::collect;

    use super::*;

    async fn stored(content: &'static str) -> BlobReference {
        let name = EffectName::new("a").unwrap();
        let (stream, measure) = measured(&name, whole(content), 100, || Ok(()));
        collect(&name, stream, 100).await.unwrap();
        measure.reference(name)
    }

    #[tokio::test]
    async fn a_reference_survives_json_and_travelling() {
        let reference = stored("content").await;
        let json = serde_json::to_string(&reference).unwrap();
        assert_eq!(serde_json::from_str::<BlobReference>(&json).unwrap(), reference);
        assert_eq!(BlobReference::of_attached(&reference.attached()).unwrap(), reference);
        assert_eq!((reference.bytes(), reference.as_str()), (7, "a"));
        let cut = AttachedEffect { detail: Bytes::from_static(b"short"), ..reference.attached() };
        assert!(BlobReference::of_attached(&cut).unwrap_err().to_string().contains("not 40"));
        assert!(serde_json::from_str::<BlobReference>(r#"{"name":"a","bytes":1,"blake3":"xyz"}"#).is_err());
    }

    #[tokio::test]
    async fn a_blob_that_was_cut_continued_or_altered_is_damaged() {
        let reference = stored("content").await;
        let whole_one = collect(reference.name(), reference.verified(whole("content")), 100).await;
        assert_eq!(whole_one.unwrap(), "content");
        for other in ["conten", "content!", "kontent"] {
            let error = collect(reference.name(), reference.verified(whole(other)), 100).await.unwrap_err();
            assert!(matches!(error, BlobError::Damaged { .. }) && !error.is_retryable(), "{error}");
        }
    }

    #[tokio::test]
    async fn a_stream_that_is_too_long_or_too_late_ends_with_an_error() {
        let name = EffectName::new("a").unwrap();
        let (long, _) = measured(&name, whole("content"), 6, || Ok(()));
        assert!(collect(&name, long, 100).await.unwrap_err().to_string().contains("more than 6 bytes"));
        let (late, _) = measured(&name, whole("content"), 100, || Err("too late".to_owned()));
        assert!(collect(&name, late, 100).await.unwrap_err().to_string().contains("too late"));
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let (late_at_its_end, _) = measured(&name, whole("content"), 100, move || {
            let before = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if before == 0 { Ok(()) } else { Err("too late".to_owned()) }
        });
        assert!(collect(&name, late_at_its_end, 100).await.unwrap_err().to_string().contains("too late"));
    }
}
