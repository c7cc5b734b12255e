//! The trait's promises on object stores that need no server, and what an upload does with its parts, its memory and its end. On
//! the clouds' emulators: `clouds.rs`.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use tollgate_blobs::ObjectStoreBlobs;
use tollgate_proto::blobs::whole;
use tollgate_proto::{BlobError, BlobStream, Blobs, EffectName};
use tollgate_testkit::blob_conformance::{check_blobs, content};

const PART_BYTES: usize = 5 * 1024 * 1024;

#[tokio::test]
async fn blobs_in_memory_keep_every_promise() {
    let blobs = ObjectStoreBlobs::in_memory();
    blobs.verify().await.unwrap();
    let blobs: Arc<dyn Blobs> = Arc::new(blobs);
    check_blobs(&blobs, "").await;
    check_blobs(&blobs, "conformance/").await;
}

#[tokio::test]
async fn blobs_in_a_directory_keep_every_promise() {
    let directory = tempfile::tempdir().unwrap();
    let local = object_store::local::LocalFileSystem::new_with_prefix(directory.path()).unwrap();
    let blobs = ObjectStoreBlobs::of(Arc::new(local.with_fsync(true)), "the test's directory").below("a/b");
    blobs.verify().await.unwrap();
    let blobs: Arc<dyn Blobs> = Arc::new(blobs);
    check_blobs(&blobs, "conformance/").await;
}

#[tokio::test]
async fn folders_of_one_store_know_nothing_of_each_other() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let here = ObjectStoreBlobs::of(Arc::clone(&store), "memory").below("here");
    let hereafter = ObjectStoreBlobs::of(store, "memory").below("hereafter");
    let name = EffectName::new("bodies/1").unwrap();
    here.put(&name, whole("content")).await.unwrap();
    assert_eq!(hereafter.list("").await.unwrap(), []);
    assert!(hereafter.get(&name).await.unwrap().is_none());
    hereafter.delete(&name).await.unwrap();
    assert_eq!(here.list("bod").await.unwrap(), [name]);
}

#[tokio::test]
async fn a_name_too_long_for_an_object_is_refused_with_its_length() {
    let blobs = ObjectStoreBlobs::in_memory().below("folder");
    let error = blobs.put(&EffectName::new("x".repeat(1_020)).unwrap(), whole("")).await.unwrap_err();
    assert!(!error.is_retryable() && error.to_string().contains("1027 bytes"), "{error}");
}

/// An object store in memory that takes down what becomes of uploads in parts.
#[derive(Debug, Default)]
struct Watched {
    inner: InMemory,
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    parts: AtomicUsize,
    under_way: AtomicUsize,
    under_way_max: AtomicUsize,
    completed: AtomicUsize,
    aborted: AtomicUsize,
    /// The part that fails, if any.
    failing: AtomicUsize,
}

#[derive(Debug)]
struct WatchedUpload(Box<dyn MultipartUpload>, Arc<Seen>);

#[async_trait::async_trait]
impl MultipartUpload for WatchedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let number = self.1.parts.fetch_add(1, Ordering::SeqCst) + 1;
        let (part, seen) = (self.0.put_part(data), Arc::clone(&self.1));
        Box::pin(async move {
            let count = seen.under_way.fetch_add(1, Ordering::SeqCst) + 1;
            seen.under_way_max.fetch_max(count, Ordering::SeqCst);
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            seen.under_way.fetch_sub(1, Ordering::SeqCst);
            if number == seen.failing.load(Ordering::SeqCst) {
                return Err(object_store::Error::Generic {
                    store: "test",
                    source: "the line is dead".into(),
                });
            }
            part.await
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.1.completed.fetch_add(1, Ordering::SeqCst);
        self.0.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.1.aborted.fetch_add(1, Ordering::SeqCst);
        self.0.abort().await
    }
}

impl std::fmt::Display for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("watched")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Watched {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(WatchedUpload(upload, Arc::clone(&self.seen))))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: stream::BoxStream<'static, Result<Path>>,
    ) -> stream::BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> stream::BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn watched() -> (ObjectStoreBlobs, Arc<Seen>) {
    let store = Watched::default();
    let seen = Arc::clone(&store.seen);
    (ObjectStoreBlobs::of(Arc::new(store), "memory"), seen)
}

fn film() -> EffectName {
    EffectName::new("film").unwrap()
}

/// So many bytes in pieces of odd length.
fn pieces(bytes: usize) -> BlobStream {
    const PIECE: usize = 300_007;
    let lengths = (0..bytes.div_ceil(PIECE)).map(move |place| PIECE.min(bytes - place * PIECE));
    Box::pin(stream::iter(lengths.map(|length| Ok(Bytes::from(vec![7; length])))))
}

fn count(counter: &AtomicUsize) -> usize {
    counter.load(Ordering::SeqCst)
}

#[tokio::test]
async fn a_blob_is_sent_in_full_parts_of_which_a_bounded_number_is_under_way() {
    for (bytes, parts) in [
        (0, 0),
        (PART_BYTES - 1, 0),
        (PART_BYTES, 1),
        (PART_BYTES + 1, 2),
        (4 * PART_BYTES, 4),
        (5 * PART_BYTES + 7, 6),
    ] {
        let (blobs, seen) = watched();
        blobs.put(&film(), pieces(bytes)).await.unwrap();
        assert_eq!((count(&seen.parts), count(&seen.aborted)), (parts, 0), "{bytes} bytes");
        assert_eq!(count(&seen.under_way_max), parts.min(2), "{bytes} bytes");
        let stored = content(&(Arc::new(blobs) as Arc<dyn Blobs>), &film()).await.unwrap();
        assert!(stored.len() == bytes && stored.iter().all(|byte| *byte == 7), "{bytes} bytes");
    }
}

#[tokio::test]
async fn parts_go_on_while_the_source_is_slow() {
    let (blobs, seen) = watched();
    let slow = pieces(PART_BYTES).chain(stream::pending());
    let mut storing = pin!(blobs.put(&film(), Box::pin(slow)));
    while count(&seen.parts) == 0 || count(&seen.under_way) > 0 {
        assert!(futures_util::poll!(storing.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
    assert_eq!(count(&seen.parts), 1, "it was sent although nothing comes after it");
}

#[tokio::test]
async fn an_upload_whose_part_fails_is_given_up_and_can_be_repeated() {
    let (blobs, seen) = watched();
    seen.failing.store(2, Ordering::SeqCst);
    let error = blobs.put(&film(), pieces(4 * PART_BYTES)).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("the line is dead"), "{error}");
    blobs.close().await;
    assert_eq!((count(&seen.aborted), count(&seen.completed)), (1, 0));
    assert_eq!(blobs.list("").await.unwrap(), []);
    blobs.put(&film(), pieces(4 * PART_BYTES)).await.unwrap();
    blobs.close().await;
    assert_eq!((count(&seen.aborted), count(&seen.completed)), (1, 1));
}

#[tokio::test]
async fn an_upload_whose_source_fails_is_given_up() {
    let (blobs, seen) = watched();
    let error = BlobError::Refused { name: film(), reason: "the source is gone".to_owned() };
    let broken = pieces(3 * PART_BYTES).chain(stream::iter([Err(error)]));
    let error = blobs.put(&film(), Box::pin(broken)).await.unwrap_err();
    assert!(error.to_string().contains("the source is gone"), "{error}");
    blobs.close().await;
    assert_eq!((count(&seen.aborted), count(&seen.completed)), (1, 0));
}

#[tokio::test]
async fn an_upload_that_is_dropped_is_given_up_wherever_it_was() {
    let mut dropped = 0;
    for polls in 0.. {
        let (blobs, seen) = watched();
        let finished = {
            let mut storing = pin!(blobs.put(&film(), pieces(3 * PART_BYTES)));
            let mut outcome = Poll::Pending;
            for _ in 0..=polls {
                outcome = futures_util::poll!(storing.as_mut());
                if outcome.is_ready() {
                    break;
                }
                // What was woken meanwhile is woken by the runtime.
                tokio::task::yield_now().await;
            }
            outcome.is_ready()
        };
        blobs.close().await;
        if finished {
            assert_eq!((count(&seen.aborted), count(&seen.completed)), (0, 1));
            break;
        }
        assert_eq!((count(&seen.aborted), count(&seen.completed)), (1, 0), "after {polls} polls");
        assert_eq!(blobs.list("").await.unwrap(), []);
        dropped += 1;
    }
    assert!(dropped > 3, "it was dropped at {dropped} places");
}
