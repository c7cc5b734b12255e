//! Hot keys beside healthy ones: what DynamoDB throttles by its key slows nobody else.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tollgate_dynamodb::DynamoDbStore;
use tollgate_dynamodb_emulator::{Fault, FaultPlan, InProcessDynamoDb, Throttling, WireCall};
use tollgate_proto::{PartitionKey, Store, StoreError};

use crate::layouts::Partition;
use crate::tables::fresh_store;

const COLD: usize = 200;
const HOT: usize = 10;
/// Writers of the hot keys, which write as fast as they can.
const WRITERS_OF_A_HOT_KEY: usize = 5;
const LATENCY: Duration = Duration::from_millis(20);
const MEASURED: Duration = Duration::from_secs(10);

/// Throttles each hot key by a bucket of its own.
fn bucket(call: WireCall<'_>, buckets: &mut HashMap<String, (Instant, f64)>) -> Option<Fault> {
    const CALLS_A_SECOND: f64 = 20.0;
    let body = std::str::from_utf8(call.body).ok()?;
    let key = body.split("\"hot").nth(1)?.split('"').next()?.to_owned();
    let (since, tokens) = buckets.entry(key).or_insert((Instant::now(), CALLS_A_SECOND));
    *tokens = (*tokens + since.elapsed().as_secs_f64() * CALLS_A_SECOND).min(CALLS_A_SECOND);
    *since = Instant::now();
    if *tokens < 1.0 {
        return Some(Fault::Throttle(Throttling::KeyRange));
    }
    *tokens -= 1.0;
    None
}

/// Commits of cold partitions in the time measured, beside so many hot ones.
async fn cold_commits(hot: usize) -> u64 {
    let dynamodb = InProcessDynamoDb::new();
    let store = Arc::new(fresh_store(dynamodb.client()).await);
    let mut buckets = HashMap::new();
    dynamodb.decide_faults(move |call| bucket(call, &mut buckets));
    dynamodb.set_faults(FaultPlan::seeded(1).latency(LATENCY..=LATENCY));
    let end = Instant::now() + MEASURED;
    let mut heat = Vec::new();
    for writer in 0..hot * WRITERS_OF_A_HOT_KEY {
        let store = Arc::clone(&store);
        heat.push(tokio::spawn(async move {
            let key = PartitionKey::new(format!("hot{}", writer % hot)).unwrap();
            let mut named = 0;
            while Instant::now() < end {
                named += u64::from(write_blindly(&store, &key).await);
            }
            named
        }));
    }
    let mut cold = Vec::new();
    for number in 0..COLD {
        let store = Arc::clone(&store);
        cold.push(tokio::spawn(async move {
            let mut partition = Partition::new();
            partition.key = PartitionKey::new(format!("cold{number}")).unwrap();
            let mut commits = 0;
            while Instant::now() < end {
                let commit = partition.next(&store, &[("a", Some(100))], &[]);
                partition.commit(&store, commit).await;
                commits += 1;
            }
            commits
        }));
    }
    let mut commits = 0;
    for task in cold {
        commits += task.await.unwrap();
    }
    let mut named = 0;
    for task in heat {
        named += task.await.unwrap();
    }
    assert!(hot == 0 || named > 0, "the hot keys were not throttled");
    commits
}

/// Whether the key was throttled, and the error says so.
async fn write_blindly(store: &DynamoDbStore, key: &PartitionKey) -> bool {
    let mut partition = Partition::new();
    partition.key = key.clone();
    // It conflicts, or it is throttled.
    match store.commit(partition.next(store, &[("a", Some(10))], &[])).await {
        Ok(_) => false,
        Err(StoreError::Throttled { partition, .. }) => {
            assert_eq!(partition.as_ref(), Some(key));
            true
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(start_paused = true)]
async fn ten_throttled_keys_take_nothing_from_two_hundred_healthy_partitions() {
    let alone = cold_commits(0).await;
    let beside = cold_commits(HOT).await;
    println!("{alone} commits of healthy partitions alone, {beside} beside {HOT} throttled keys");
    assert!(beside * 100 >= alone * 95, "{alone} commits alone, {beside} beside {HOT} throttled keys");
}
