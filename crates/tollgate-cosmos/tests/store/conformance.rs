//! The promises of a store, by the suite that all stores run.

use tollgate_testkit::store_conformance::Subject;

use crate::accounts::{account, store};

tollgate_testkit::store_conformance_tests!(|| async {
    let emulator = account().start().unwrap();
    Subject::new(store(&emulator).await).keeping(emulator)
});
