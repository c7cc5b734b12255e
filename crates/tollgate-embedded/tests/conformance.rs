//! The promises of a store, checked on both stores of this crate by the suite that all stores run. What only these stores
//! promise is in the other files.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer, in its helpers as well")]

use tollgate_core::StoreAlias;
use tollgate_embedded::{EmbeddedStore, MemoryStore};
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
