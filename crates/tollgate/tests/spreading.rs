//! Several processes share one endpoint: with a broker that keeps a partition's messages together, and with one that gives each message
//! to whoever asks first. The second is slower, and never wrong.
//!
//! `cargo test -p tollgate --test spreading -- --nocapture` prints what affinity is worth.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod harness;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use harness::{Log, SlowStore, TOTAL, add, broker, left_over, memory_store, send_many, total};
use tollgate::proto::{
    BoxFuture, BrokerError, BrokerWrapper, Delivery, EndpointName, OutgoingMessage, Settlement,
};
use tollgate::{Broker, Endpoint, Gate, Statistics};
use tollgate_brokers::InProcessBroker;

const CONSUMERS: usize = 4;
const MESSAGES: usize = 20_000;
const PARTITIONS: usize = 400;
const LATENCY: Duration = Duration::from_millis(5);

/// Who gets which message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Affinity {
    /// Whoever asks first.
    None,
    /// Each partition has its consumer, as with a FIFO group, a Kafka key or a partitioned subject of NATS.
    ByPartition,
}

/// A broker as one consumer sees it: with affinity, the endpoint has a queue for each consumer.
struct Shared {
    inner: Arc<InProcessBroker>,
    consumer: usize,
    affinity: Affinity,
}

impl Shared {
    fn queue(&self, endpoint: &EndpointName, consumer: usize) -> EndpointName {
        match self.affinity {
            Affinity::None => endpoint.clone(),
            Affinity::ByPartition => EndpointName::new(format!("{endpoint}-{consumer}")).unwrap(),
        }
    }
}

impl BrokerWrapper for Shared {
    fn inner(&self) -> &dyn Broker {
        &*self.inner
    }

    fn send(&self, mut messages: Vec<OutgoingMessage>) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        for message in &mut messages {
            let mut hasher = DefaultHasher::new();
            message.partition.hash(&mut hasher);
            let consumer = usize::try_from(hasher.finish() % CONSUMERS as u64).unwrap();
            message.endpoint = self.queue(&message.endpoint, consumer);
        }
        self.inner.send(messages)
    }

    fn receive(
        &self,
        endpoint: &EndpointName,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<Delivery>, BrokerError>> {
        self.inner.receive(&self.queue(endpoint, self.consumer), max)
    }

    fn settle(
        &self,
        endpoint: &EndpointName,
        settlements: Vec<Settlement>,
    ) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        self.inner.settle(&self.queue(endpoint, self.consumer), settlements)
    }
}

/// Works through a backlog with several consumers; how long it took, and what they did.
async fn consume(affinity: Affinity) -> (Duration, Statistics) {
    let (store, queues) = (memory_store(), broker());
    let shared = |consumer| Shared { inner: Arc::clone(&queues), consumer, affinity };
    let source = Gate::builder().store(Arc::clone(&store)).broker(Arc::new(shared(0)));
    // A source's wake-ups are of no interest here.
    let source = source.endpoint(Endpoint::new("edge").driven()).open().await.unwrap();
    let edge = source.edge("edge").unwrap();
    send_many(&edge, "adder", MESSAGES, |n| format!("P{}", n % PARTITIONS)).await;
    source.close().await;

    let start = tokio::time::Instant::now();
    let mut gates = Vec::new();
    for consumer in 0..CONSUMERS {
        let slow = SlowStore { inner: Arc::clone(&store), latency: LATENCY.into(), log: Log::default() };
        let gate = Gate::builder()
            .store(Arc::new(slow))
            .broker(Arc::new(shared(consumer)))
            .endpoint(Endpoint::new("adder").concurrency(32).preload(TOTAL).on::<harness::Add, _, _>(add));
        gates.push(gate.open().await.unwrap());
    }
    let committed = || gates.iter().map(|gate| gate.statistics().committed).sum::<u64>();
    while committed() < MESSAGES as u64 {
        assert!(start.elapsed() < Duration::from_secs(3600), "it never ends: {} committed", committed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = start.elapsed();
    let mut all = Vec::new();
    for gate in gates {
        all.push(gate.close().await);
    }
    let statistics: Statistics = all.into_iter().sum();
    for partition in 0..PARTITIONS {
        let sum = total(&*store, &format!("P{partition}")).await;
        assert_eq!(sum, (MESSAGES / PARTITIONS) as u64, "partition {partition} with affinity {affinity:?}");
    }
    assert_eq!((statistics.committed, statistics.dead_letters), (MESSAGES as u64, 0), "{affinity:?}");
    let sweeper = Gate::builder().store(Arc::clone(&store)).broker(queues as Arc<dyn Broker>);
    let sweeper = sweeper.open().await.unwrap();
    sweeper.sweep().await.unwrap();
    sweeper.close().await;
    assert_eq!(left_over(&*store).await, 0, "{affinity:?}");
    (took, statistics)
}

/// Which part of the runs of lanes began with a view that another consumer had outdated, and ended in a conflict.
#[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn stale(statistics: &Statistics) -> f64 {
    statistics.conflicts as f64 / (statistics.cache_hits + statistics.cache_misses) as f64
}

#[tokio::test(start_paused = true)]
async fn without_affinity_the_work_is_slower_and_never_wrong() {
    let with = consume(Affinity::ByPartition).await;
    let without = consume(Affinity::None).await;
    println!(
        "{CONSUMERS} consumers, {MESSAGES} messages to {PARTITIONS} partitions, {LATENCY:?} a store call:"
    );
    for (affinity, (took, statistics)) in [("by partition", &with), ("none", &without)] {
        #[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
        let calls = statistics.store_calls() as f64 / MESSAGES as f64;
        println!(
            "affinity {affinity}: {took:?}, cache hit rate {:.3} of which {:.3} stale, {} conflicts, {calls:.2} store calls a message",
            statistics.cache_hit_rate(),
            stale(statistics),
            statistics.conflicts,
        );
    }
    assert_eq!(with.1.conflicts, 0, "nobody else touches a consumer's partitions");
    assert!(with.1.cache_hit_rate() > 0.9, "{:?}", with.1);
    assert!(without.1.conflicts > 0, "consumers must have met: {:?}", without.1);
    assert!(stale(&without.1) > 0.1, "what was cached must have been changed by others: {:?}", without.1);
    assert!(with.0 < without.0, "affinity must be worth something: {:?} and {:?}", with.0, without.0);
}
