//! Whole engines on an account that throttles, loses answers and splits its partitions: nothing is lost, nothing is counted twice.

use std::sync::Arc;
use std::time::Duration;

use tollgate_brokers::InProcessBroker;
use tollgate_cosmos_emulator::FaultRules;
use tollgate_testkit::ring::{Ring, ring_gate, until_drained};

use crate::accounts::{CONTAINER, DATABASE, account, store, store_with};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_half_of_all_requests_are_throttled_and_partitions_split_every_message_counts_once() {
    let ring = Ring { messages: 60, hops: 20, partitions: 40 };
    let emulator = account().start().unwrap();
    let faults = FaultRules::throttling(0.5);
    faults.disable();
    let throttled = Arc::new(store_with(&emulator, None, &faults).await);
    let broker = Arc::new(InProcessBroker::builder().visibility_timeout(Duration::from_secs(30)).build());
    let gate = ring_gate(throttled, broker.clone(), 32).open().await.unwrap();
    ring.start(&gate).await;
    faults.enable();
    for physical_partition in 0..4 {
        emulator.split(DATABASE, CONTAINER, physical_partition, Duration::from_millis(50)).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    until_drained(&broker).await;
    faults.disable();
    println!("{} requests were throttled", faults.hits());
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
