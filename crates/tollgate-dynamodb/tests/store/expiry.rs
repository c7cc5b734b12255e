//! Deduplication records and their time: DynamoDB deletes them when it likes, and commits judge by their own clock.

use tollgate_proto::{CommitOutcome, DeduplicationKey, LoadRequest, RecordWrite, Store};

use crate::layouts::Partition;
use crate::tables::in_process_store;

#[tokio::test]
async fn dynamodb_deletes_expired_records_an_hour_after_their_time_and_no_others() {
    let (dynamodb, store) = in_process_store().await;
    let mut partition = Partition::new();
    let record = |name: &str, expires_at_ms: u64| RecordWrite {
        key: DeduplicationKey::new(name).unwrap(),
        response: "done".into(),
        expires_at_ms,
    };
    let mut commit = partition.next(&store, &[("a", Some(10))], &[]);
    let now_ms = commit.now_ms;
    commit.records = vec![record("soon", now_ms + 1000), record("late", now_ms + 86_400_000)];
    partition.commit(&store, commit).await;
    let present = async || {
        let keys = ["soon", "late"].map(|name| DeduplicationKey::new(name).unwrap());
        let request = LoadRequest { partition: partition.key.clone(), items: vec![], records: keys.to_vec() };
        let loaded = store.load(vec![request]).await.pop().unwrap().unwrap();
        loaded.records.into_iter().map(|(_, response)| response.is_some()).collect::<Vec<_>>()
    };
    dynamodb.set_clock(now_ms / 1000 + 60);
    assert_eq!(dynamodb.expire_items(), 0, "its clock may be ahead of ours");
    assert_eq!(present().await, [true, true]);
    assert_eq!(store.expire(now_ms + 60_000).await.unwrap(), 0, "DynamoDB does it");
    dynamodb.set_clock(now_ms / 1000 + 3700);
    assert_eq!(dynamodb.expire_items(), 1);
    assert_eq!(present().await, [false, true]);
}

#[tokio::test]
async fn an_expired_record_that_dynamodb_has_not_deleted_yet_does_not_stand_in_the_way() {
    let (_dynamodb, store) = in_process_store().await;
    let mut partition = Partition::new();
    let record = |expires_at_ms: u64| RecordWrite {
        key: DeduplicationKey::new("request").unwrap(),
        response: "done".into(),
        expires_at_ms,
    };
    let mut first = partition.next(&store, &[], &[]);
    first.records = vec![record(first.now_ms + 1000)];
    let expires_at_ms = first.records[0].expires_at_ms;
    partition.commit(&store, first).await;
    let mut second = partition.next(&store, &[], &[]);
    second.records = vec![record(expires_at_ms + 5000)];
    second.now_ms = expires_at_ms - 1;
    let refused = store.commit(second.clone()).await.unwrap();
    assert!(matches!(refused, CommitOutcome::RecordsExist(ref keys) if keys.len() == 1), "{refused:?}");
    second.now_ms = expires_at_ms;
    partition.commit(&store, second).await;
}
