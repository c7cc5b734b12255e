//! What a message costs in calls to the store: counted on a paused clock against a store with latency, so that batches
//! form as they do over a network.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod harness;

use std::sync::Arc;
use std::time::Duration;

use harness::{
    Add, Log, OddBroker, Sends, SlowStore, add, broker, left_over, memory_store, send_many, total, until,
};
use tollgate::{Broker, Endpoint, Gate, HandlerError, Store, Tx};

/// A network's round trip.
const LATENCY: Duration = Duration::from_millis(5);

async fn add_and_tell(tx: Tx, message: Add) -> Result<(), HandlerError> {
    tx.send("elsewhere", "Q", &message)?;
    add(tx, message).await
}

#[tokio::test(start_paused = true)]
async fn warm_and_unbatched_a_message_with_one_output_takes_two_calls_before_dispatch_and_one_after() {
    let (inner, queues, log) = (memory_store(), broker(), Log::default());
    // The source is another process, whose calls are not counted.
    let source = Gate::builder()
        .store(Arc::clone(&inner))
        .broker(Arc::clone(&queues) as Arc<dyn Broker>)
        .endpoint(Endpoint::new("edge"))
        .open()
        .await
        .unwrap();
    let store = SlowStore { inner: Arc::clone(&inner), latency: LATENCY.into(), log: log.clone() };
    let broker = OddBroker { inner: queues, sends: Sends::Logged(log.clone()) };
    let gate = Gate::builder()
        .store(Arc::new(store))
        .broker(Arc::new(broker))
        .endpoint(Endpoint::new("adder").preload(harness::TOTAL).on::<Add, _, _>(add_and_tell))
        .open()
        .await
        .unwrap();
    let edge = source.edge("edge").unwrap();
    let settle = Duration::from_millis(100);

    send_many(&edge, "adder", 1, |_| "P".to_owned()).await;
    tokio::time::sleep(settle).await;
    assert_eq!(log.take(), ["load", "read", "commit", "send", "delete"], "cold: one call more");

    edge.advance("another source", "1", |tx: Tx| async move {
        Ok(tx.send("adder", "P", &Add { amount: 1, hops: 0 })?.to_string())
    })
    .await
    .unwrap();
    tokio::time::sleep(settle).await;
    assert_eq!(
        log.take(),
        ["read", "commit", "send", "delete"],
        "warm: two calls before dispatch, one after"
    );
    source.close().await;
    gate.close().await;
    assert_eq!(log.take(), ["commit"], "the flush of the marker");
    assert_eq!(left_over(&*inner).await, 2, "the two outputs, whose consumer is elsewhere");
}

#[tokio::test(start_paused = true)]
async fn under_load_over_a_thousand_partitions_a_message_takes_at_most_1_3_store_calls() {
    const MESSAGES: usize = 30_000;
    let store = Arc::new(SlowStore { inner: memory_store(), latency: LATENCY.into(), log: Log::default() });
    let broker = broker();
    // The messages are there before anybody consumes them, as under load.
    let source = Gate::builder()
        .store(Arc::clone(&store) as Arc<dyn Store>)
        .broker(Arc::clone(&broker) as Arc<dyn Broker>)
        .endpoint(Endpoint::new("edge"))
        .open()
        .await
        .unwrap();
    send_many(&source.edge("edge").unwrap(), "adder", MESSAGES, |n| format!("P{}", n % 1000)).await;
    source.close().await;

    let gate = Gate::builder()
        .store(Arc::clone(&store) as Arc<dyn Store>)
        .broker(Arc::clone(&broker) as Arc<dyn Broker>)
        .endpoint(Endpoint::new("adder").preload(harness::TOTAL).concurrency(64).on::<Add, _, _>(add))
        .open()
        .await
        .unwrap();
    until(&gate, |statistics| statistics.committed == MESSAGES as u64).await;
    let statistics = gate.close().await;
    #[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    let calls = statistics.store_calls() as f64 / MESSAGES as f64;
    println!("{calls:.3} store calls a message, loads and flushes included: {statistics:?}");
    assert!(calls <= 1.3, "{calls:.3} store calls a message: {statistics:?}");
    assert_eq!(total(&*store, "P7").await, 30);
    assert_eq!(left_over(&*store).await, 0);
}

#[tokio::test(start_paused = true)]
async fn on_one_hot_partition_a_message_takes_at_most_a_fifth_of_a_commit() {
    const MESSAGES: usize = 10_000;
    let store = Arc::new(SlowStore { inner: memory_store(), latency: LATENCY.into(), log: Log::default() });
    let broker = broker();
    let gate = Gate::builder()
        .store(Arc::clone(&store) as Arc<dyn Store>)
        .broker(broker as Arc<dyn Broker>)
        .endpoint(Endpoint::new("edge"))
        .endpoint(Endpoint::new("adder").preload(harness::TOTAL).concurrency(64).on::<Add, _, _>(add))
        .open()
        .await
        .unwrap();
    send_many(&gate.edge("edge").unwrap(), "adder", MESSAGES, |_| "hot".to_owned()).await;
    let sources = (MESSAGES / 1000) as u64;
    until(&gate, |statistics| statistics.committed == MESSAGES as u64 + sources).await;
    let statistics = gate.close().await;
    #[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    let commits = statistics.commit_calls as f64 / MESSAGES as f64;
    println!("{commits:.3} commits a message, those of the sources and flushes included");
    assert!(commits <= 0.2, "{commits:.3} commits a message: {statistics:?}");
    assert_eq!(total(&*store, "hot").await, MESSAGES as u64);
    assert_eq!(left_over(&*store).await, 0);
}
