//! The promises of stores and of blob storage, checked on those of this crate by the suites that all of them run. What only these stores
//! promise is in the other files.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer, in its helpers as well")]

use std::sync::Arc;

use tollgate_embedded::{DirectoryBlobs, EmbeddedStore, MemoryBlobs, MemoryStore};
use tollgate_proto::{Blobs, StoreAlias};
use tollgate_testkit::store_conformance::Subject;

mod embedded {
    use super::{EmbeddedStore, StoreAlias, Subject};

    tollgate_testkit::store_conformance_tests!(|| async {
        let directory = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(directory.path(), StoreAlias::new("main").unwrap()).unwrap();
        Subject::new(store).keeping(directory)
    });
}

mod memory {
    use super::{MemoryStore, StoreAlias, Subject};

    tollgate_testkit::store_conformance_tests!(|| async {
        Subject::new(MemoryStore::new(StoreAlias::new("main").unwrap()))
    });
}

#[tokio::test]
async fn blobs_in_memory_keep_every_promise() {
    let blobs: Arc<dyn Blobs> = Arc::new(MemoryBlobs::new());
    tollgate_testkit::blob_conformance::check_blobs(&blobs, "").await;
}

#[tokio::test]
async fn blobs_in_a_directory_keep_every_promise() {
    let directory = tempfile::tempdir().unwrap();
    let blobs: Arc<dyn Blobs> = Arc::new(DirectoryBlobs::open(directory.path()).unwrap());
    tollgate_testkit::blob_conformance::check_blobs(&blobs, "").await;
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "no unfinished file is left");
}
