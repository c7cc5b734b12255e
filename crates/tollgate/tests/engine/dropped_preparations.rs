//! Handlers that drop a preparation half way, or keep it and never poll it again: their attempts do not commit, and nobody else's
//! suffers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{Either, select};
use tollgate::proto::{
    BlobError, BlobStream, BoxFuture, Commit, CommitOutcome, EffectName, StoreError, StoreWrapper,
};
use tollgate::{Blobs, HandlerError, Store, TollgateError, Tx};
use tollgate_embedded::MemoryBlobs;

use crate::gate;
use crate::harness::{TOTAL, broker, left_over, memory_store, total};

const HOUR: Duration = Duration::from_secs(3600);
const COMMIT_TAKES: Duration = Duration::from_millis(20);
const UPLOAD_TAKES: Duration = Duration::from_secs(2);

/// A store whose commits take a while.
struct SlowCommits(Arc<dyn Store>);

impl StoreWrapper for SlowCommits {
    fn inner(&self) -> &dyn Store {
        &*self.0
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, StoreError>> {
        let commit = self.0.commit(commit);
        Box::pin(async move {
            let answer = commit.await;
            tokio::time::sleep(COMMIT_TAKES).await;
            answer
        })
    }
}

/// Blob storage where an upload takes effect although its sender waits no more, if it is told so.
struct SlowBlobs {
    inner: Arc<MemoryBlobs>,
    is_slow: AtomicBool,
}

impl Blobs for SlowBlobs {
    fn put(&self, name: &EffectName, content: BlobStream) -> BoxFuture<'_, Result<(), BlobError>> {
        let (inner, name, is_slow) =
            (Arc::clone(&self.inner), name.clone(), self.is_slow.load(Ordering::SeqCst));
        let upload = tokio::spawn(async move {
            if is_slow {
                tokio::time::sleep(UPLOAD_TAKES).await;
            }
            inner.put(&name, content).await
        });
        Box::pin(async move { upload.await.unwrap() })
    }

    fn get(&self, name: &EffectName) -> BoxFuture<'_, Result<Option<BlobStream>, BlobError>> {
        self.inner.get(name)
    }

    fn delete(&self, name: &EffectName) -> BoxFuture<'_, Result<(), BlobError>> {
        self.inner.delete(name)
    }

    fn list(&self, prefix: &str) -> BoxFuture<'_, Result<Vec<EffectName>, BlobError>> {
        self.inner.list(prefix)
    }
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_is_dropped_half_way_takes_no_other_request_along() {
    let (inner, broker) = (memory_store(), broker());
    let store: Arc<dyn Store> = Arc::new(SlowCommits(Arc::clone(&inner)));
    let blobs: Arc<dyn Blobs> = Arc::new(MemoryBlobs::new());
    let gate = gate(&store, &broker).blobs(Arc::clone(&blobs)).open().await.unwrap();
    let edge = gate.edge("edge").unwrap();
    // Among others in the middle of the registration's commit, and of the upload that follows it.
    for round in 0..12_u64 {
        let limit = Duration::from_millis(3 * round);
        let drops = move |tx: Tx| async move {
            let thumbnail = tokio::time::timeout(limit, tx.put_blob("thumb/", "small")).await;
            tx.put(TOTAL, &(2 * round + 1))?;
            Ok(thumbnail.is_ok())
        };
        let innocent = move |tx: Tx| async move {
            tx.put(&format!("paid {round}"), &100)?;
            Ok(())
        };
        let (one, two) = (format!("one {round}"), format!("two {round}"));
        let (dropped, paid) =
            tokio::join!(edge.execute("P", &one, HOUR, drops), edge.execute("P", &two, HOUR, innocent));
        paid.unwrap();
        let paid = edge.read("P", &format!("paid {round}")).await.unwrap();
        assert_eq!(paid.as_deref(), Some(&b"100"[..]), "the innocent request is stored");
        match dropped {
            Ok(_) => assert_eq!(total(&*inner, "P").await, 2 * round + 1, "what was answered is stored"),
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    }
    tokio::time::sleep(Duration::from_secs(200)).await;
    gate.sweep().await.unwrap();
    gate.close().await;
    let kept = blobs.list("thumb/").await.unwrap();
    assert!(kept.len() < 12, "{kept:?}");
    assert_eq!(left_over(&*inner).await, 0);
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_is_dropped_half_way_leaves_no_blob_behind() {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let (store, broker) = (memory_store(), broker());
    let inner = Arc::new(MemoryBlobs::new());
    let blobs = Arc::new(SlowBlobs { inner: Arc::clone(&inner), is_slow: AtomicBool::new(true) });
    let gate = gate(&store, &broker)
        .blobs(Arc::clone(&blobs) as Arc<dyn Blobs>)
        .attempt_max(Duration::from_secs(10))
        .under_way_max(Duration::from_secs(5))
        .open()
        .await
        .unwrap();
    let edge = gate.edge("edge").unwrap();
    let handler = |tx: Tx| async move {
        RUNS.fetch_add(1, Ordering::SeqCst);
        let thumbnail = tokio::time::timeout(Duration::from_secs(1), tx.put_blob("thumb/", "small")).await;
        tx.put(TOTAL, &1)?;
        Ok(thumbnail.is_ok())
    };
    let error = edge.execute("P", "one", HOUR, handler).await.unwrap_err();
    assert!(error.to_string().contains("dropped the preparation of a side effect"), "{error}");
    assert_eq!((RUNS.load(Ordering::SeqCst), total(&*store, "P").await), (6, 0));
    // Uploads that nobody waits for arrive late, and are deleted when nothing can arrive any more.
    tokio::time::sleep(Duration::from_secs(30)).await;
    gate.sweep().await.unwrap();
    assert_eq!(inner.list("thumb/").await.unwrap(), []);
    gate.close().await;
    assert_eq!(left_over(&*store).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_preparation_that_is_kept_and_not_polled_holds_up_no_other() {
    let (store, broker) = (memory_store(), broker());
    let inner = Arc::new(MemoryBlobs::new());
    let blobs = Arc::new(SlowBlobs { inner: Arc::clone(&inner), is_slow: AtomicBool::new(true) });
    let gate = gate(&store, &broker).blobs(Arc::clone(&blobs) as Arc<dyn Blobs>).open().await.unwrap();
    let edge = gate.edge("edge").unwrap();
    let start = tokio::time::Instant::now();
    let handler = |tx: Tx| async move {
        let first = Box::pin(tx.put_blob("thumb/", "one"));
        let pause = Box::pin(tokio::time::sleep(Duration::from_secs(1)));
        let Either::Right(((), first)) = select(first, pause).await else {
            return Err(HandlerError::permanent("the upload was too quick"));
        };
        let second = tx.put_blob("thumb/", "two").await?;
        let first = first.await?;
        tx.put(TOTAL, &1)?;
        Ok(vec![first.as_str().to_owned(), second.as_str().to_owned()])
    };
    let names: Vec<String> = edge.execute("P", "one", HOUR, handler).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let stored = inner.list("thumb/").await.unwrap();
    assert_eq!(names.len(), 2);
    assert!(names.iter().all(|name| stored.iter().any(|blob| blob.as_str() == name)), "{names:?} {stored:?}");
    // Two at a time, as `try_join!` makes them, are prepared one after the other.
    let handler = |tx: Tx| async move {
        let both = futures_util::try_join!(tx.put_blob("thumb/", "three"), tx.put_blob("thumb/", "four"));
        tx.put(TOTAL, &2)?;
        both.map(|_| ()).map_err(|error: TollgateError| HandlerError::from(error))
    };
    edge.execute("P", "two", HOUR, handler).await.unwrap();
    gate.close().await;
    assert_eq!((inner.list("thumb/").await.unwrap().len(), total(&*store, "P").await), (4, 2));
}
