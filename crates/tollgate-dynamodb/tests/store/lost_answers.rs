//! Commits and deletions whose answers are lost (R7), in both layouts: what happened is never called a conflict by the
//! transaction's own repetition, and what nobody knows is said to be unknown.

use tollgate_dynamodb_emulator::{Cancellation, Effect, Fault, FaultPlan, Operation, Throttling};
use tollgate_proto::{CommitOutcome, EntryRead, Store, StoreError};

use crate::layouts::Partition;
use crate::tables::in_process_store;

/// Large enough to be wide.
const LARGE: usize = 40 * 1024;

#[tokio::test]
async fn a_single_update_whose_answer_is_lost_has_an_unknown_outcome_and_is_not_repeated() {
    for effect in [Effect::None, Effect::Done] {
        for fault in [Fault::Timeout(effect), Fault::Disconnect(effect), Fault::InternalError(effect)] {
            let (dynamodb, store) = in_process_store().await;
            let partition = Partition::new();
            dynamodb.fail_next(Operation::UpdateItem, fault);
            let commit = partition.next(&store, &[("a", Some(10))], &[20]);
            let answer = store.commit(commit).await;
            assert!(matches!(answer, Err(StoreError::OutcomeUnknown { .. })), "{fault:?}: {answer:?}");
            assert_eq!(dynamodb.counts().of(Operation::UpdateItem).calls, 1, "{fault:?}");
            let happened = partition.sizes(&store, &["a"]).await == [Some(10)];
            assert_eq!(happened, effect == Effect::Done, "{fault:?}");
        }
    }
}

#[tokio::test]
async fn a_transaction_whose_answer_is_lost_is_repeated_and_has_happened_once() {
    for effect in [Effect::None, Effect::Done] {
        for fault in [Fault::Timeout(effect), Fault::Disconnect(effect), Fault::InternalError(effect)] {
            let (dynamodb, store) = in_process_store().await;
            let mut partition = Partition::new();
            let first = partition.next(&store, &[("a", Some(LARGE)), ("b", Some(10))], &[]);
            partition.commit(&store, first).await;
            dynamodb.fail_next(Operation::TransactWriteItems, fault);
            let wide = partition.next(&store, &[("b", Some(11))], &[30]);
            let entries = partition.commit(&store, wide).await;
            assert_eq!(dynamodb.counts().of(Operation::TransactWriteItems).calls, 2, "{fault:?}");
            assert_eq!(partition.sizes(&store, &["a", "b"]).await, [Some(LARGE), Some(11)]);
            assert_eq!(partition.entry(&store, entries[0]).await, Some(30));
        }
    }
}

#[tokio::test]
async fn a_transaction_that_never_gets_an_answer_has_an_unknown_outcome() {
    let (dynamodb, store) = in_process_store().await;
    let mut partition = Partition::new();
    let first = partition.next(&store, &[("a", Some(LARGE)), ("b", Some(10))], &[]);
    partition.commit(&store, first).await;
    let plan =
        FaultPlan::none().inject_into(Operation::TransactWriteItems, Fault::Timeout(Effect::Done), 1.0);
    dynamodb.set_faults(plan);
    let wide = partition.next(&store, &[("b", Some(11))], &[30]);
    let answer = store.commit(wide).await;
    assert!(matches!(answer, Err(StoreError::OutcomeUnknown { .. })), "{answer:?}");
    dynamodb.set_faults(FaultPlan::none());
    assert_eq!(partition.sizes(&store, &["b"]).await, [Some(11)], "it had happened all the same");
}

#[tokio::test]
async fn throttled_commits_of_both_layouts_are_repeated_because_nothing_has_happened() {
    let (dynamodb, store) = in_process_store().await;
    let mut partition = Partition::new();
    dynamodb.fail_next(Operation::UpdateItem, Fault::Throttle(Throttling::RequestLimit));
    dynamodb.fail_next(Operation::UpdateItem, Fault::Cancel(Cancellation::Conflict));
    let compact = partition.next(&store, &[("a", Some(LARGE)), ("b", Some(10))], &[]);
    partition.commit(&store, compact).await;
    dynamodb.fail_next(Operation::TransactWriteItems, Fault::Cancel(Cancellation::Conflict));
    dynamodb.fail_next(Operation::TransactWriteItems, Fault::Cancel(Cancellation::ProvisionedThroughput));
    dynamodb.fail_next(Operation::TransactWriteItems, Fault::TransactionInProgress);
    let wide = partition.next(&store, &[("b", Some(11))], &[30]);
    partition.commit(&store, wide).await;
    assert_eq!(partition.sizes(&store, &["a", "b"]).await, [Some(LARGE), Some(11)]);
}

#[tokio::test]
async fn throttling_that_does_not_end_is_handed_to_the_engine_which_knows_that_nothing_happened() {
    let (dynamodb, store) = in_process_store().await;
    let partition = Partition::new();
    dynamodb.set_faults(FaultPlan::none().inject(Fault::Throttle(Throttling::ProvisionedThroughput), 1.0));
    let commit = partition.next(&store, &[("a", Some(10))], &[]);
    let answer = store.commit(commit).await;
    assert!(matches!(answer, Err(StoreError::Throttled { .. })), "{answer:?}");
    assert!(answer.unwrap_err().is_retryable());
    dynamodb.set_faults(FaultPlan::none());
    assert_eq!(partition.sizes(&store, &["a"]).await, [None]);
}

#[tokio::test]
async fn keys_and_deletions_that_stay_unprocessed_are_asked_for_again() {
    let (dynamodb, store) = in_process_store().await;
    let mut partition = Partition::new();
    let mut entries = Vec::new();
    for _ in 0..3 {
        let mut commit = partition.next(&store, &[("a", Some(LARGE))], &[10; 20]);
        for (index, (key, _)) in commit.entries.iter_mut().enumerate() {
            key.index = tollgate_proto::Placement::Apart.first_index() + u32::try_from(index).unwrap();
        }
        entries.extend(partition.commit(&store, commit).await);
    }
    dynamodb.set_faults(FaultPlan::seeded(3).inject(Fault::LeaveUnprocessed, 0.5));
    let reads = entries.iter().map(|entry| EntryRead { token: partition.token(*entry), sessions: vec![] });
    for read in store.read_entries(reads.collect()).await {
        assert_eq!(read.unwrap().map(|entry| entry.len()), Some(10));
    }
    partition.consume(&store, &entries).await;
    assert!(dynamodb.counts().faults(Fault::LeaveUnprocessed) > 0);
    dynamodb.set_faults(FaultPlan::none());
    for entry in &entries {
        assert_eq!(partition.entry(&store, *entry).await, None);
    }
}

#[tokio::test]
async fn a_deletion_whose_answer_is_lost_may_be_repeated() {
    let (dynamodb, store) = in_process_store().await;
    let mut partition = Partition::new();
    let commit = partition.next(&store, &[("a", Some(10))], &[20]);
    let entries = partition.commit(&store, commit).await;
    dynamodb.fail_next(Operation::UpdateItem, Fault::Timeout(Effect::Done));
    let answer = store.delete_entries(vec![partition.token(entries[0])]).await.pop().unwrap();
    assert!(answer.unwrap_err().is_retryable());
    partition.consume(&store, &entries).await;
    assert_eq!(partition.entry(&store, entries[0]).await, None);
}

#[tokio::test]
async fn a_commit_that_is_tried_again_after_its_answer_was_lost_conflicts_with_itself() {
    let (dynamodb, store) = in_process_store().await;
    let partition = Partition::new();
    dynamodb.fail_next(Operation::UpdateItem, Fault::Timeout(Effect::Done));
    let commit = partition.next(&store, &[("a", Some(10))], &[]);
    assert!(store.commit(commit.clone()).await.is_err());
    // So the engine loads and looks for its marker, and does not simply try again.
    assert_eq!(store.commit(commit).await.unwrap(), CommitOutcome::Conflict);
}
