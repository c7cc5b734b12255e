//! Whole engines on a store that throttles, conflicts, breaks connections and loses answers: nothing is lost, nothing is counted
//! twice, and it goes on as before when the storm is over.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tollgate::Gate;
use tollgate_dynamodb_emulator::{Cancellation, Effect, Fault, FaultPlan, InProcessDynamoDb, Throttling};

use crate::tables::{fresh_store, two_stores_on_one_table};
use tollgate_testkit::ring::{Ring, broker, ring_gate, until_drained};

/// A network's round trips. They differ, since calls of one length let all workers march in step and share their batches until the
/// first disturbance: a throughput that no other one can be compared with.
const LATENCY: RangeInclusive<Duration> = Duration::from_millis(2)..=Duration::from_millis(12);

/// Messages a second over so many seconds of the paused clock.
async fn throughput(gate: &Gate, seconds: u64) -> u64 {
    let (before, start) = (gate.statistics().committed, Instant::now());
    tokio::time::sleep_until(start + Duration::from_secs(seconds)).await;
    (gate.statistics().committed - before) / seconds
}

#[tokio::test(start_paused = true)]
async fn a_minute_in_which_half_of_all_calls_are_throttled_loses_nothing_and_throughput_recovers() {
    // More than is done by the end of the measurement: a ring that has run dry would look like a standstill.
    let ring = Ring { messages: 320, hops: 170, partitions: 200 };
    let dynamodb = InProcessDynamoDb::new();
    let store = Arc::new(fresh_store(dynamodb.client()).await);
    let broker = broker();
    let calm = || FaultPlan::seeded(1).latency(LATENCY);
    let throttling = || calm().inject(Fault::Throttle(Throttling::ProvisionedThroughput), 0.5);
    dynamodb.set_faults(calm());
    let gate = ring_gate(store.clone(), broker.clone(), 64).open().await.unwrap();
    ring.start(&gate).await;
    throughput(&gate, 1).await;
    let before = throughput(&gate, 2).await;
    dynamodb.set_faults(throttling());
    let during = throughput(&gate, 60).await;
    dynamodb.set_faults(calm());
    // Messages that were put back wait for their next delivery, the limiter opens step by step.
    let opening = throughput(&gate, 3).await;
    let after = throughput(&gate, 2).await;
    println!("messages/s before {before}, during {during}, opening {opening}, after {after}");
    println!("throttled: {}", dynamodb.counts().faults(Fault::Throttle(Throttling::ProvisionedThroughput)));
    assert!(during > 0, "it stood still");
    assert!(after * 10 >= before * 9, "{before} messages/s before and {after} after the storm");
    until_drained(&broker).await;
    let statistics = gate.close().await;
    assert_eq!(statistics.dead_letters, 0);
    dynamodb.set_faults(FaultPlan::none());
    ring.audit(&*store).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_goes_wrong_on_the_wire_every_message_counts_once() {
    const SEEDS: u64 = 24;
    let ring = Ring { messages: 60, hops: 9, partitions: 12 };
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let dynamodb = InProcessDynamoDb::new();
        let [store, other_store] = two_stores_on_one_table(&dynamodb).await.map(Arc::new);
        let broker = broker();
        let plan = FaultPlan::seeded(seed)
            .latency(Duration::from_millis(1)..=Duration::from_millis(20))
            .inject(Fault::Throttle(Throttling::Rate), 0.02)
            .inject(Fault::Cancel(Cancellation::Conflict), 0.02)
            .inject(Fault::Cancel(Cancellation::Throttling), 0.02)
            .inject(Fault::TransactionInProgress, 0.02)
            .inject(Fault::LeaveUnprocessed, 0.05)
            .inject(Fault::InternalError(Effect::None), 0.01)
            .inject(Fault::InternalError(Effect::Done), 0.02)
            .inject(Fault::Disconnect(Effect::Done), 0.02)
            .inject(Fault::Timeout(Effect::Done), 0.02)
            .inject(Fault::Timeout(Effect::Late), 0.02);
        // Two processes with caches of their own.
        let gates = [
            ring_gate(store.clone(), broker.clone(), 8).open().await.unwrap(),
            ring_gate(other_store, broker.clone(), 8).open().await.unwrap(),
        ];
        ring.start(&gates[0]).await;
        dynamodb.set_faults(plan);
        let drained = tokio::time::timeout(Duration::from_secs(3600), until_drained(&broker)).await;
        assert!(drained.is_ok(), "seed {seed}: messages are still under way");
        dynamodb.set_faults(FaultPlan::none());
        for gate in gates {
            assert_eq!(gate.close().await.dead_letters, 0, "seed {seed}");
        }
        let sweeper = ring_gate(store.clone(), broker.clone(), 1).open().await.unwrap();
        sweeper.sweep().await.unwrap();
        until_drained(&broker).await;
        dynamodb.settle_late_requests();
        sweeper.close().await;
        ring.audit(&*store).await;
    }
}
