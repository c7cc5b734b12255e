//! How content gets into an object store: cut into parts, some of which are under way while the next one fills, so that the
//! memory that an upload needs is bounded whatever the blob's size and however its stream is cut. An upload that does not
//! come to its end, because of an error or because the call was dropped, is given up: nothing of it can be read.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload, PutPayloadMut, UploadPart};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tollgate_proto::{BlobError, BlobStream, EffectName};

use crate::object_blobs::ObjectStoreBlobs;

/// Most parts of one blob, from S3 (Azure takes five times as many).
const PARTS_MAX: usize = 10_000;

/// How much memory a part grows by.
const BLOCK_BYTES: usize = 64 * 1024;

/// Stores a blob.
pub(crate) async fn store(
    blobs: &ObjectStoreBlobs,
    name: &EffectName,
    path: Path,
    content: BlobStream,
) -> Result<(), BlobError> {
    let mut parts = Parts { content, rest: Bytes::new(), bytes: blobs.part_bytes };
    let failed = |error: object_store::Error| blobs.failed(name, &error);
    let mut part = match parts.next().await? {
        Part::Last(whole) => return blobs.store.put(&path, whole).await.map(drop).map_err(failed),
        Part::Full(first) => Part::Full(first),
    };
    let mut upload = Unfinished::begin(blobs, &path).await.map_err(failed)?;
    let mut under_way: FuturesUnordered<UploadPart> = FuturesUnordered::new();
    let mut count = 0;
    loop {
        let (payload, is_last) = match part {
            Part::Full(payload) => (payload, false),
            Part::Last(payload) => (payload, true),
        };
        if payload.content_length() > 0 {
            count += 1;
            if count > PARTS_MAX {
                let reason = format!(
                    "it has more than {PARTS_MAX} parts of {} bytes: raise `part_bytes` or store less",
                    blobs.part_bytes
                );
                return Err(BlobError::Refused { name: name.clone(), reason });
            }
            under_way.push(upload.parts().put_part(payload));
        }
        while under_way.len() >= if is_last { 1 } else { blobs.parts_in_flight } {
            under_way.next().await.transpose().map_err(failed)?;
        }
        if is_last {
            return upload.complete().await.map_err(failed);
        }
        part = beside(&mut under_way, parts.next()).await.map_err(failed)??;
    }
}

/// Waits for something, and lets parts go on meanwhile.
async fn beside<T>(
    under_way: &mut FuturesUnordered<UploadPart>,
    other: impl Future<Output = T>,
) -> object_store::Result<T> {
    let mut other = pin!(other);
    poll_fn(|context| {
        while let Poll::Ready(Some(sent)) = under_way.poll_next_unpin(context) {
            if let Err(error) = sent {
                return Poll::Ready(Err(error));
            }
        }
        other.as_mut().poll(context).map(Ok)
    })
    .await
}

/// Content, cut into parts.
struct Parts {
    content: BlobStream,
    /// What was read and belongs to the next part.
    rest: Bytes,
    bytes: usize,
}

enum Part {
    /// Others may follow.
    Full(PutPayload),
    /// None follows; it may be empty.
    Last(PutPayload),
}

impl Parts {
    async fn next(&mut self) -> Result<Part, BlobError> {
        // Copied, because a short piece may be a view of something long.
        let mut part = PutPayloadMut::new().with_block_size(BLOCK_BYTES);
        loop {
            let count = self.rest.len().min(self.bytes - part.content_length());
            part.extend_from_slice(&self.rest[..count]);
            self.rest.advance(count);
            if part.content_length() == self.bytes {
                return Ok(Part::Full(part.into()));
            }
            match self.content.next().await {
                Some(piece) => self.rest = piece?,
                None => return Ok(Part::Last(part.into())),
            }
        }
    }
}

/// An upload in parts. Dropped before it is complete, it is given up.
struct Unfinished {
    /// `None`: it is complete.
    upload: Option<Box<dyn MultipartUpload>>,
    path: Path,
    place: Arc<str>,
    endings: TaskTracker,
}

impl Unfinished {
    async fn begin(blobs: &ObjectStoreBlobs, path: &Path) -> object_store::Result<Self> {
        let upload = blobs.store.put_multipart(path).await?;
        let (place, endings) = (Arc::clone(&blobs.place), blobs.endings.clone());
        Ok(Self { upload: Some(upload), path: path.clone(), place, endings })
    }

    fn parts(&mut self) -> &mut dyn MultipartUpload {
        &mut **self.upload.as_mut().expect("it is there until it is complete, which consumes this")
    }

    async fn complete(mut self) -> object_store::Result<()> {
        self.parts().complete().await?;
        self.upload = None;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Some(mut upload) = self.upload.take() else { return };
        metrics::counter!("tollgate_blob_uploads_given_up_total").increment(1);
        // Dropping can't wait. Whoever has the storage waits for it: `ObjectStoreBlobs::close`.
        let Ok(runtime) = Handle::try_current() else { return };
        let (path, place) = (self.path.clone(), Arc::clone(&self.place));
        self.endings.spawn_on(
            async move {
                if let Err(error) = upload.abort().await {
                    tracing::warn!(
                        %path, place = &*place, %error,
                        "an upload that was given up could not be removed: the storage's lifecycle rule will do it"
                    );
                }
            },
            &runtime,
        );
    }
}

#[cfg(test)]
mod tests {
    use tollgate_proto::Blobs;
    use tollgate_proto::blobs::whole;

    use super::*;

    #[tokio::test]
    async fn a_blob_of_more_parts_than_clouds_take_is_refused_and_not_there() {
        let mut blobs = ObjectStoreBlobs::in_memory();
        blobs.part_bytes = 1;
        let name = EffectName::new("film").unwrap();
        blobs.put(&name, whole(vec![7; PARTS_MAX])).await.unwrap();
        blobs.delete(&name).await.unwrap();
        let error = blobs.put(&name, whole(vec![7; PARTS_MAX + 1])).await.unwrap_err();
        assert!(!error.is_retryable() && error.to_string().contains("raise `part_bytes`"), "{error}");
        assert!(blobs.get(&name).await.unwrap().is_none());
    }
}
