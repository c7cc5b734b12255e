//! Messages on their way: chains, races of several gates, copies, handlers that panic, bounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tollgate::proto::{Content, Destination, Envelope, MessageId, codec};
use tollgate::{Backoff, Broker, Deduplicate, Endpoint, Gate, HandlerError, Message, Store, Tx};
use tollgate_testkit::{FaultRates, FaultyStore, Operation, Phase};

use crate::harness::{Add, OddBroker, Sends, add, broker, left_over, memory_store, total, until, waiting};
use crate::{adder, gate, harness, send, send_raw};

#[tokio::test(start_paused = true)]
async fn a_chain_of_partitions_is_worked_through_once_and_leaves_nothing_behind() {
    let (store, broker) = (memory_store(), broker());
    let gate = gate(&store, &broker).endpoint(adder()).open().await.unwrap();
    send(&gate, "one", vec![Add { amount: 5, hops: 3 }, Add { amount: 2, hops: 0 }]).await;
    until(&gate, |statistics| statistics.committed == 6).await;
    until(&gate, |_| waiting(&broker, "edge") == 0).await;
    gate.close().await;
    for (partition, sum) in [("P", 7), ("P+", 5), ("P++", 5), ("P+++", 5), ("P++++", 0)] {
        assert_eq!(total(&*store, partition).await, sum, "{partition}");
    }
    assert_eq!(left_over(&*store).await, 0);
    assert_eq!(waiting(&broker, "adder"), 0);
}

#[tokio::test(start_paused = true)]
async fn three_gates_on_one_store_apply_what_is_delivered_three_times_once() {
    let (store, queues) = (memory_store(), broker());
    let triplicating: Arc<dyn Broker> =
        Arc::new(OddBroker { inner: Arc::clone(&queues), sends: Sends::ThreeTimes });
    let mut gates = Vec::new();
    for _ in 0..3 {
        let slow = harness::SlowStore {
            inner: Arc::clone(&store),
            latency: Duration::from_millis(3).into(),
            log: harness::Log::default(),
        };
        let gate = Gate::builder()
            .store(Arc::new(slow))
            .broker(Arc::clone(&triplicating))
            .endpoint(Endpoint::new("edge"))
            .endpoint(adder().concurrency(5))
            .deliveries_max(1000)
            .redelivery(Backoff { first: Duration::from_millis(10), cap: Duration::from_millis(100) });
        gates.push(gate.open().await.unwrap());
    }
    for request in 0..20 {
        let messages = (0..10).map(|n| Add { amount: 1, hops: n % 3 }).collect();
        send(&gates[request % 3], &format!("request {request}"), messages).await;
    }
    until(&gates[0], |_| waiting(&queues, "adder") == 0 && waiting(&queues, "edge") == 0).await;
    let conflicts: u64 = gates.iter().map(|gate| gate.statistics().conflicts).sum();
    assert!(conflicts > 0, "the gates must have met");
    for gate in gates {
        gate.close().await;
    }
    assert_eq!(total(&*store, "P").await, 200);
    assert_eq!(total(&*store, "P+").await, 20 * 6);
    assert_eq!(total(&*store, "P++").await, 20 * 3);
    store.expire(u64::MAX).await.unwrap();
    // Each gate has pruned only what it finished itself; the sweep of a fourth finds the rest.
    let sweeper = gate(&store, &queues).open().await.unwrap();
    sweeper.sweep().await.unwrap();
    sweeper.close().await;
    assert_eq!(left_over(&*store).await, 0);
}

#[tokio::test(start_paused = true)]
async fn an_event_reaches_every_subscriber_in_the_partition_that_the_sender_computed() {
    let (store, broker) = (memory_store(), broker());
    let gate = gate(&store, &broker)
        .endpoint(adder())
        .endpoint(Endpoint::new("auditor").on::<Add, _, _>(add))
        .subscribe::<Add>("adder", |event| format!("amount {}", event.amount))
        .subscribe::<Add>("auditor", |_| "all".to_owned())
        .open()
        .await
        .unwrap();
    let handler = |tx: Tx| async move {
        tx.publish(&Add { amount: 3, hops: 0 })?;
        Ok::<_, HandlerError>(tx.publish(&Add { amount: 4, hops: 0 })?)
    };
    let subscribers: usize = gate.edge("edge").unwrap().advance("source", "1", handler).await.unwrap();
    assert_eq!(subscribers, 2);
    until(&gate, |statistics| statistics.committed == 5).await;
    gate.close().await;
    assert_eq!(total(&*store, "amount 3").await, 3);
    assert_eq!(total(&*store, "amount 4").await, 4);
    assert_eq!(total(&*store, "all").await, 7);
}

#[tokio::test(start_paused = true)]
async fn a_producer_without_tokens_is_deduplicated_by_id_and_what_it_causes_by_token() {
    let (store, broker) = (memory_store(), broker());
    let retention = Duration::from_secs(3600);
    let gate = gate(&store, &broker)
        .endpoint(
            Endpoint::new("adder").on_tokenless::<Add, _, _>(Deduplicate::ByIdentity { retention }, add),
        )
        .open()
        .await
        .unwrap();
    let envelope = Envelope {
        message_id: MessageId::from_name("legacy", "1"),
        to: Destination { endpoint: "adder".try_into().unwrap(), partition: "P".try_into().unwrap() },
        message_type: Add::TYPE.try_into().unwrap(),
        headers: vec![],
        content: Content::Body(r#"{"amount":1,"hops":2}"#.into()),
    };
    for _ in 0..5 {
        send_raw(&broker, "adder", codec::encode_envelope(&envelope)).await;
    }
    until(&gate, |_| waiting(&broker, "adder") == 0).await;
    gate.close().await;
    for partition in ["P", "P+", "P++"] {
        assert_eq!(total(&*store, partition).await, 1, "{partition}");
    }
    assert_eq!(left_over(&*store).await, 0);
    assert_eq!(store.expire(u64::MAX).await.unwrap(), 1, "one id is remembered until its retention ends");
}

#[tokio::test(start_paused = true)]
async fn without_a_memory_for_consumed_tokens_copies_are_processed_once_all_the_same() {
    let (store, broker) = (memory_store(), broker());
    let odd: Arc<dyn Broker> = Arc::new(OddBroker { inner: Arc::clone(&broker), sends: Sends::ThreeTimes });
    let gate = Gate::builder()
        .store(Arc::clone(&store))
        .broker(odd)
        .endpoint(Endpoint::new("edge"))
        .endpoint(adder())
        .consumed_tokens(0)
        .open()
        .await
        .unwrap();
    send(&gate, "1", vec![Add { amount: 1, hops: 2 }]).await;
    until(&gate, |_| waiting(&broker, "adder") == 0).await;
    let statistics = gate.close().await;
    assert_eq!(statistics.duplicates_by_cache, 0);
    for partition in ["P", "P+", "P++"] {
        assert_eq!(total(&*store, partition).await, 1, "{partition}");
    }
    assert_eq!(left_over(&*store).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_is_tried_again_and_spoils_no_other() {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let (store, broker) = (memory_store(), broker());
    let gate = gate(&store, &broker)
        .endpoint(Endpoint::new("adder").on::<Add, _, _>(|tx, message: Add| async move {
            assert!(message.amount != 13 || RUNS.fetch_add(1, Ordering::SeqCst) > 0, "unlucky");
            add(tx, message).await
        }))
        .open()
        .await
        .unwrap();
    send(&gate, "one", vec![Add { amount: 13, hops: 0 }, Add { amount: 1, hops: 0 }]).await;
    until(&gate, |statistics| statistics.committed == 3).await;
    let statistics = gate.close().await;
    assert_eq!((statistics.panics, statistics.retries), (1, 1));
    assert_eq!(total(&*store, "P").await, 14);
}

#[tokio::test(start_paused = true)]
async fn no_more_handlers_run_at_a_time_than_the_endpoint_allows() {
    static RUNNING: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    let (store, broker) = (memory_store(), broker());
    let endpoint = Endpoint::new("adder").concurrency(4).on::<Add, _, _>(|tx: Tx, message| async move {
        MOST.fetch_max(RUNNING.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(10)).await;
        RUNNING.fetch_sub(1, Ordering::SeqCst);
        add(tx, message).await
    });
    let gate = gate(&store, &broker).endpoint(endpoint).open().await.unwrap();
    let handler = |tx: Tx| async move {
        for n in 0..50 {
            tx.send("adder", &format!("P{n}"), &Add { amount: 1, hops: 0 })?;
        }
        Ok::<_, HandlerError>(())
    };
    gate.edge("edge").unwrap().advance("source", "1", handler).await.unwrap();
    until(&gate, |statistics| statistics.committed == 51).await;
    gate.close().await;
    assert_eq!(MOST.load(Ordering::SeqCst), 4);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_only_waits_for_its_completion_makes_room_for_another_and_no_more_than_one() {
    let faulty = Arc::new(FaultyStore::new(memory_store(), 1, FaultRates::default()));
    let (store, broker) = (Arc::clone(&faulty) as Arc<dyn Store>, broker());
    let gate = gate(&store, &broker).endpoint(adder().concurrency(1)).open().await.unwrap();
    let deletion = faulty.pause_next(Operation::DeleteEntries, Phase::Before);
    let handler = |tx: Tx| async move {
        for n in 0..3 {
            tx.send("adder", &format!("P{n}"), &Add { amount: 1, hops: 0 })?;
        }
        Ok::<_, HandlerError>(())
    };
    gate.edge("edge").unwrap().advance("source", "1", handler).await.unwrap();
    deletion.reached().await;
    // The request, the message that is held, and those after it, which finish one after the other.
    until(&gate, |statistics| statistics.committed == 4 && waiting(&broker, "adder") == 1).await;
    deletion.open();
    until(&gate, |_| waiting(&broker, "adder") == 0).await;
    gate.close().await;
    assert_eq!(left_over(&*store).await, 0);
}
