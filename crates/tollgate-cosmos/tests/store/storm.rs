//! Whole engines on an account that throttles, loses answers and splits its partitions: nothing is lost, nothing is counted twice.

use std::sync::Arc;
use std::time::Duration;

use tollgate_brokers::InProcessBroker;
use tollgate_cosmos_emulator::FaultRules;
use tollgate_testkit::ring::{Ring, ring_gate, until_drained};

use crate::accounts::{CONTAINER, DATABASE, account, store, store_with};

/// How long the storm is to last, in seconds: short unless somebody has the time for a long one.
const STORM_SECONDS_VARIABLE: &str = "TOLLGATE_STORM_SECONDS";
const STORM_SECONDS: u64 = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_half_of_all_requests_are_throttled_and_partitions_split_every_message_counts_once() {
    let seconds =
        std::env::var(STORM_SECONDS_VARIABLE).map_or(STORM_SECONDS, |seconds| seconds.parse().unwrap());
    // More than can go through while it lasts: some of it goes through afterwards.
    let hops = u32::try_from(5 * seconds).unwrap();
    let ring = Ring { messages: 60, hops, partitions: 40 };
    let emulator = account().start().unwrap();
    let faults = FaultRules::throttling(0.5);
    faults.disable();
    let throttled = Arc::new(store_with(&emulator, None, &faults).await);
    let broker = Arc::new(InProcessBroker::builder().visibility_timeout(Duration::from_secs(30)).build());
    let gate = ring_gate(throttled, broker.clone(), 32).open().await.unwrap();
    ring.start(&gate).await;
    let start = tokio::time::Instant::now();
    faults.enable();
    for physical_partition in 0..4 {
        tokio::time::sleep(Duration::from_secs(seconds) / 5).await;
        emulator.split(DATABASE, CONTAINER, physical_partition, Duration::from_millis(50)).await;
    }
    tokio::time::sleep_until(start + Duration::from_secs(seconds)).await;
    let during = gate.statistics().committed;
    faults.disable();
    until_drained(&broker).await;
    let elapsed = start.elapsed().as_secs_f64();
    println!(
        "{} requests were throttled in {seconds} s; {during} of {} messages went through during the storm, all after {elapsed:.1} s",
        faults.hits(),
        ring.handled()
    );
    assert!(faults.hits() > 100);
    assert_eq!(gate.close().await.dead_letters, 0);
    ring.audit(&store(&emulator).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_answers_are_lost_every_message_counts_once() {
    let ring = Ring { messages: 40, hops: 10, partitions: 15 };
    let emulator = account().start().unwrap();
    let faults = FaultRules::losing_answers(0.2);
    faults.disable();
    let broker = Arc::new(InProcessBroker::builder().visibility_timeout(Duration::from_secs(30)).build());
    let gates = [
        ring_gate(Arc::new(store_with(&emulator, None, &faults).await), broker.clone(), 8)
            .open()
            .await
            .unwrap(),
        ring_gate(Arc::new(store_with(&emulator, None, &faults).await), broker.clone(), 8)
            .open()
            .await
            .unwrap(),
    ];
    ring.start(&gates[0]).await;
    faults.enable();
    until_drained(&broker).await;
    faults.disable();
    println!("{} answers were lost", faults.hits());
    assert!(faults.hits() > 10);
    for gate in gates {
        assert_eq!(gate.close().await.dead_letters, 0);
    }
    let sweeper = ring_gate(Arc::new(store(&emulator).await), broker.clone(), 1).open().await.unwrap();
    sweeper.sweep().await.unwrap();
    until_drained(&broker).await;
    sweeper.close().await;
    ring.audit(&store(&emulator).await).await;
}
