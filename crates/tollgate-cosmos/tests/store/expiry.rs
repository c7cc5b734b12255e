//! Deduplication records and their time to live: the service deletes what has expired, and nothing else.

use std::sync::Arc;

use tollgate_proto::{RecordWrite, Store};
use tollgate_testkit::store_conformance::Partition;

use crate::accounts::{account, store};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_expire_by_their_time_to_live_and_nothing_else_does() {
    let emulator = account().start().unwrap();
    let client = emulator.client().await.unwrap();
    let store: Arc<dyn Store> = Arc::new(store(&emulator).await);
    let mut partition = Partition::fresh(&store, "expiry");
    let mut commit = partition.next_commit();
    let record = |key: &str, seconds: u64| RecordWrite {
        key: key.try_into().unwrap(),
        response: "done".into(),
        expires_at_ms: commit.now_ms + seconds * 1000,
    };
    commit.records = vec![record("soon", 60), record("late", 86_400)];
    partition.commit(commit).await;
    partition.put(&[("item", b"1")], &[b"entry"]).await;

    // The service counts from its own time stamp.
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert_eq!(emulator.delete_expired(&client, now + 30).await.unwrap(), 0);
    assert_eq!(emulator.delete_expired(&client, now + 120).await.unwrap(), 1);
    assert_eq!(partition.response("soon").await, None);
    assert_eq!(partition.response("late").await.as_deref(), Some(&b"done"[..]));
    assert!(partition.item("item").await.is_some());
}
