//! A slow store slows receiving: what is taken from the broker is bounded by configuration, and does not wait in this process until
//! the broker loses patience.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod harness;

use std::sync::Arc;
use std::time::Duration;

use harness::{Add, Log, SlowStore, TOTAL, add, left_over, memory_store, send_many, total, until, waiting};
use tollgate::proto::{Content, Destination, EndpointName, Envelope, MessageId, OutgoingMessage, codec};
use tollgate::{Broker, Deduplicate, Endpoint, Gate, Message, Statistics, Store};
use tollgate_brokers::InProcessBroker;
use tollgate_testkit::{FaultRates, FaultyStore};

/// How long each call to the store takes.
const LATENCY: Duration = Duration::from_secs(10);

/// How long the longest message is in progress: each of its four calls may first have to wait for the one in flight.
const LONGEST: Duration = Duration::from_secs(8 * 10);

fn envelope(partition: usize) -> OutgoingMessage {
    let to = Destination {
        endpoint: "adder".try_into().unwrap(),
        partition: format!("P{partition}").as_str().try_into().unwrap(),
    };
    let envelope = Envelope {
        message_id: MessageId::from_name("back-pressure", &partition.to_string()),
        to: to.clone(),
        message_type: Add::TYPE.try_into().unwrap(),
        headers: vec![],
        content: Content::Body(r#"{"amount":1,"hops":0}"#.into()),
    };
    OutgoingMessage::without_token(
        to.endpoint,
        to.partition,
        envelope.message_id,
        codec::encode_envelope(&envelope),
    )
}

#[tokio::test(start_paused = true)]
async fn of_a_million_waiting_messages_a_slow_store_makes_a_gate_take_no_more_than_its_concurrency() {
    const MESSAGES: usize = 1_000_000;
    const CONCURRENCY: usize = 64;
    let broker =
        Arc::new(InProcessBroker::builder().capacity(MESSAGES).visibility_timeout(2 * LONGEST).build());
    // One envelope for many messages: only their number matters, and a copy takes no memory.
    let envelopes: Vec<_> = (0..1000).map(envelope).collect();
    for _ in 0..MESSAGES / envelopes.len() {
        assert!(broker.send(envelopes.clone()).await.iter().all(Result::is_ok));
    }
    let slow = SlowStore { inner: memory_store(), latency: LATENCY.into(), log: Log::default() };
    let endpoint =
        Endpoint::new("adder").concurrency(CONCURRENCY).on_tokenless::<Add, _, _>(Deduplicate::Natural, add);
    let gate = Gate::builder()
        .store(Arc::new(slow))
        .broker(Arc::clone(&broker) as Arc<dyn Broker>)
        .endpoint(endpoint)
        .open()
        .await
        .unwrap();
    let adder = EndpointName::new("adder").unwrap();
    let mut most = 0;
    for _ in 0..1200 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let depth = broker.depth(&adder);
        most = most.max(depth.in_flight);
        assert!(depth.in_flight <= CONCURRENCY, "{depth:?}");
    }
    let statistics = gate.statistics();
    println!("in ten minutes {} of {MESSAGES} were taken, {most} at a time at most", statistics.deliveries);
    assert_eq!(most, CONCURRENCY, "the window is used");
    assert!(statistics.committed > 0);
    assert!(
        statistics.deliveries <= statistics.committed + CONCURRENCY as u64,
        "what was taken is done or in progress: {statistics:?}"
    );
    gate.close().await;
}

/// Works through a backlog on a slow store; what the gate did, and how many messages were delivered.
async fn work(visibility_timeout: Duration, messages: usize, partitions: usize) -> Statistics {
    let queues = Arc::new(InProcessBroker::builder().visibility_timeout(visibility_timeout).build());
    let inner = memory_store();
    let source = Gate::builder()
        .store(Arc::clone(&inner))
        .broker(Arc::clone(&queues) as Arc<dyn Broker>)
        .endpoint(Endpoint::new("edge").driven())
        .open()
        .await
        .unwrap();
    send_many(&source.edge("edge").unwrap(), "adder", messages, |n| format!("P{}", n % partitions)).await;
    source.close().await;
    let slow = SlowStore { inner: Arc::clone(&inner), latency: LATENCY.into(), log: Log::default() };
    let gate = Gate::builder()
        .store(Arc::new(slow))
        .broker(Arc::clone(&queues) as Arc<dyn Broker>)
        .endpoint(Endpoint::new("adder").concurrency(8).preload(TOTAL).on::<Add, _, _>(add))
        // A copy that comes too early is no failure.
        .deliveries_max(1000)
        .open()
        .await
        .unwrap();
    until(&gate, |_| waiting(&queues, "adder") == 0).await;
    let statistics = gate.close().await;
    assert_eq!((statistics.committed, statistics.dead_letters), (messages as u64, 0), "each once");
    for partition in 0..partitions {
        let sum = total(&*inner, &format!("P{partition}")).await;
        assert_eq!(sum, (messages / partitions) as u64, "partition {partition}");
    }
    assert_eq!(left_over(&*inner).await, 0);
    statistics
}

#[tokio::test(start_paused = true)]
async fn no_visibility_timeout_passes_while_a_message_waits_behind_others_for_the_same_slow_partition() {
    // The backlog takes many times the visibility timeout; what is taken of it waits for the fold in progress, and no longer.
    let messages = 160;
    let start = tokio::time::Instant::now();
    let visibility_timeout = LONGEST;
    for partitions in [1, 40] {
        let statistics = work(visibility_timeout, messages, partitions).await;
        assert_eq!(statistics.deliveries, messages as u64, "none was delivered twice: {statistics:?}");
    }
    assert!(start.elapsed() > 10 * visibility_timeout, "it was no backlog: {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_visibility_timeout_shorter_than_a_call_to_the_store_brings_copies_and_no_harm() {
    let statistics = work(LATENCY / 2, 40, 10).await;
    assert!(statistics.deliveries > 40 && statistics.duplicates() > 0, "{statistics:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_throttles_everything_slows_receiving_to_a_message_now_and_then() {
    let broker = Arc::new(InProcessBroker::builder().build());
    for _ in 0..10 {
        assert!(broker.send((0..1000).map(envelope).collect()).await.iter().all(Result::is_ok));
    }
    let store = Arc::new(FaultyStore::new(memory_store(), 1, FaultRates::default()));
    let endpoint =
        Endpoint::new("adder").concurrency(64).on_tokenless::<Add, _, _>(Deduplicate::Natural, add);
    let gate = Gate::builder()
        .store(Arc::clone(&store) as Arc<dyn Store>)
        .broker(Arc::clone(&broker) as Arc<dyn Broker>)
        .endpoint(endpoint);
    store.set_rates(FaultRates { throttled: 1.0, ..FaultRates::default() });
    let gate = gate.open().await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = gate.statistics();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let during = gate.statistics();
    println!("in a minute of throttling {} messages were taken", during.deliveries - before.deliveries);
    assert!(during.deliveries - before.deliveries <= 60, "{during:?}");
    assert_eq!((during.committed, during.dead_letters), (0, 0));
    store.set_rates(FaultRates::default());
    until(&gate, |statistics| statistics.committed == 10_000).await;
    assert_eq!(gate.close().await.dead_letters, 0);
}
