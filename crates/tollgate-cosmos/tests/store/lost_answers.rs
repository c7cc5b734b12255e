//! Lost answers (R7) and refusals: what happened is never denied for good, what nobody knows is said to be unknown or to be a
//! conflict, and the engine looks.

use std::sync::Arc;

use tollgate_cosmos_emulator::FaultRules;
use tollgate_proto::{CommitOutcome, Store, StoreError};
use tollgate_testkit::store_conformance::Partition;

use crate::accounts::{account, store, store_with};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_unknown_or_conflicts_with_itself_and_has_happened() {
    let emulator = account().start().unwrap();
    let faults = FaultRules::losing_answers(1.0);
    let lossy: Arc<dyn Store> = Arc::new(store_with(&emulator, None, &faults).await);
    let healthy: Arc<dyn Store> = Arc::new(store(&emulator).await);
    let partition = Partition::fresh(&lossy, "lost");
    let mut commit = partition.next_commit();
    commit.items = vec![("item".try_into().unwrap(), Some(tollgate_proto::ItemValue::Json("1".into())))];
    let answer = lossy.commit(commit.clone()).await;
    // The SDK repeats writes by itself, and its second try meets what the first one did.
    let said_so = matches!(answer, Err(StoreError::OutcomeUnknown { .. }) | Ok(CommitOutcome::Conflict));
    assert!(said_so, "{answer:?}");
    assert!(faults.hits() > 0);
    let seen = Partition { store: healthy, ..partition };
    assert_eq!(seen.item("item").await.as_deref(), Some(&b"1"[..]), "it had happened all the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttled_commit_says_how_long_to_wait_and_has_not_happened() {
    let emulator = account().start().unwrap();
    let faults = FaultRules::throttling(1.0);
    let throttled: Arc<dyn Store> = Arc::new(store_with(&emulator, None, &faults).await);
    let partition = Partition::fresh(&throttled, "throttled");
    let answer = throttled.commit(partition.next_commit()).await;
    let Err(StoreError::Throttled { retry_after, .. }) = answer else { panic!("{answer:?}") };
    assert_eq!(retry_after, Some(std::time::Duration::from_millis(3)));
    faults.disable();
    assert_eq!(partition.load(&[], &[]).await.control, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_whose_answer_is_lost_may_be_repeated() {
    let emulator = account().start().unwrap();
    let faults = FaultRules::losing_answers(1.0);
    faults.disable();
    let lossy: Arc<dyn Store> = Arc::new(store_with(&emulator, None, &faults).await);
    let mut partition = Partition::fresh(&lossy, "deleted");
    let keys = partition.put(&[], &[b"entry"]).await;
    faults.enable();
    let answer = lossy.delete_entries(vec![partition.token(keys[0])]).await.pop().unwrap();
    assert!(answer.is_ok() || answer.unwrap_err().is_retryable());
    faults.disable();
    partition.delete(keys[0]).await;
    assert_eq!(partition.entry(keys[0]).await, None);
}
