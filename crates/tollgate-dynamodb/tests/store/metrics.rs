//! What operators see: calls, consumed capacity, throttling, repetitions and conflicts, by operation.

use std::collections::BTreeMap;

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tollgate_dynamodb_emulator::{Effect, Fault, Operation, Throttling};
use tollgate_proto::{CommitOutcome, Store};

use crate::layouts::Partition;
use crate::tables::in_process_store;

#[test]
fn everything_that_costs_is_counted_by_operation() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work());
    });
    let counts: BTreeMap<(String, String), u64> = snapshotter
        .snapshot()
        .into_vec()
        .into_iter()
        .filter_map(|(key, _, _, value)| {
            let operation = key.key().labels().find(|label| label.key() == "operation")?.value().to_owned();
            let DebugValue::Counter(count) = value else { return None };
            Some(((key.key().name().to_owned(), operation), count))
        })
        .collect();
    let count = |metric: &str, operation: &str| {
        let key = (format!("tollgate_dynamodb_{metric}_total"), operation.to_owned());
        counts.get(&key).copied().unwrap_or(0)
    };
    assert_eq!(count("calls", "UpdateItem"), 4, "a commit, a throttled one and its repetition, a conflict");
    assert_eq!(count("throttled", "UpdateItem"), 1);
    assert_eq!(count("repetitions", "UpdateItem"), 1);
    assert_eq!(count("conflicts", "commit"), 1);
    assert_eq!(count("calls", "TransactWriteItems"), 2, "one that got no answer, and its repetition");
    assert_eq!(count("repetitions", "TransactWriteItems"), 1);
    assert_eq!(count("capacity_units", "UpdateItem"), 40 + 40, "two writes of 40 KB");
    // Two items that move out, and the main item, which is charged as large as it was.
    assert_eq!(count("capacity_units", "TransactWriteItems"), 2 * (40 + 1 + 40));
    assert_eq!(count("capacity_units", "BatchGetItem"), 1);
}

async fn work() {
    let (dynamodb, store) = in_process_store().await;
    let mut partition = Partition::new();
    let large = partition.next(&store, &[("a", Some(39 * 1024)), ("b", Some(700))], &[]);
    let again = large.clone();
    partition.commit(&store, large).await;
    assert_eq!(store.commit(again).await.unwrap(), CommitOutcome::Conflict);
    dynamodb.fail_next(Operation::UpdateItem, Fault::Throttle(Throttling::Rate));
    let large = partition.next(&store, &[("a", Some(39 * 1024 + 1))], &[]);
    partition.commit(&store, large).await;
    dynamodb.fail_next(Operation::TransactWriteItems, Fault::Timeout(Effect::None));
    let small = partition.next(&store, &[("b", Some(701))], &[]);
    partition.commit(&store, small).await;
    // Nothing lies there.
    store.read_entries(vec![]).await;
    let entry = tollgate_proto::EntryKey { sequence: partition.version.unwrap().sequence(), index: 0 };
    assert_eq!(partition.entry(&store, entry).await, None);
}
