//! Stories of the whole engine on the in-memory store and the in-process broker, on a paused clock.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use harness::{Add, OddBroker, Sends, TOTAL, add, broker, left_over, memory_store, total, until, waiting};
use serde::{Deserialize, Serialize};
use tollgate::core::{
    AttemptId, Content, Destination, EndpointName, Envelope, MessageId, OutgoingMessage, codec,
};
use tollgate::{
    Backoff, Blobs, Broker, Deduplicate, Endpoint, Gate, GateBuilder, HandlerError, Message, Store,
    TollgateError, Tx,
};
use tollgate_brokers::InProcessBroker;
use tollgate_embedded::MemoryBlobs;
use tollgate_testkit::{FaultRates, FaultyStore, Operation, Phase};

fn gate(store: &Arc<dyn Store>, broker: &Arc<InProcessBroker>) -> GateBuilder {
    Gate::builder()
        .store(Arc::clone(store))
        .broker(Arc::clone(broker) as Arc<dyn Broker>)
        .endpoint(Endpoint::new("edge"))
        .redelivery(Backoff { first: Duration::from_millis(10), cap: Duration::from_millis(100) })
}

fn adder() -> Endpoint {
    Endpoint::new("adder").preload(TOTAL).on::<Add, _, _>(add)
}

/// Sends messages to partition `P` of endpoint `adder`, exactly once for each name.
async fn send(gate: &Gate, name: &str, messages: Vec<Add>) {
    let messages = Arc::new(messages);
    let handler = move |tx: Tx| {
        let messages = Arc::clone(&messages);
        async move {
            for message in messages.iter() {
                tx.send("adder", "P", message)?;
            }
            Ok::<_, HandlerError>(messages.len())
        }
    };
    gate.edge("edge").unwrap().execute("requests", name, Duration::from_secs(1), handler).await.unwrap();
}

/// Copies of whatever a queue holds are sent again by a broker with no manners.
async fn send_raw(broker: &InProcessBroker, endpoint: &str, envelope: impl Into<bytes::Bytes>) {
    let message = OutgoingMessage {
        endpoint: EndpointName::new(endpoint).unwrap(),
        partition: "P".try_into().unwrap(),
        message_id: MessageId::from_bytes([0; 16]),
        envelope: envelope.into(),
        headers: Vec::new(),
        delay: Duration::ZERO,
    };
    broker.send(vec![message]).await.pop().unwrap().unwrap();
}

async fn dead_letter_reason(broker: &InProcessBroker, endpoint: &str) -> String {
    let endpoint = EndpointName::new(endpoint).unwrap();
    for _ in 0..100_000 {
        if let Some(letter) = broker.dead_letters(&endpoint).into_iter().next() {
            return letter.reason;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("nothing was dead-lettered")
}

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
async fn a_message_that_keeps_failing_is_dead_lettered_with_its_token_and_a_replay_is_processed_once() {
    let (store, broker) = (memory_store(), broker());
    let failing = gate(&store, &broker).deliveries_max(3).endpoint(
        Endpoint::new("adder").on::<Add, _, _>(|_, _| async { Err(HandlerError::retry("the moon is full")) }),
    );
    let failing = failing.open().await.unwrap();
    send(&failing, "one", vec![Add { amount: 1, hops: 0 }]).await;
    let reason = dead_letter_reason(&broker, "adder").await;
    assert_eq!(reason, "the moon is full (after 3 deliveries)");
    failing.close().await;

    assert_eq!(broker.redrive(&EndpointName::new("adder").unwrap()), 1);
    let mended = gate(&store, &broker).endpoint(adder()).open().await.unwrap();
    until(&mended, |statistics| statistics.committed == 1).await;
    mended.close().await;
    assert_eq!(total(&*store, "P").await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_poison_message_is_dead_lettered_at_once_with_its_reason() {
    let (store, broker) = (memory_store(), broker());
    let gate = gate(&store, &broker).endpoint(
        Endpoint::new("adder")
            .on::<Add, _, _>(|_, _| async { Err(HandlerError::permanent("no such account")) }),
    );
    let gate = gate.open().await.unwrap();
    send(&gate, "one", vec![Add { amount: 1, hops: 0 }]).await;
    assert_eq!(dead_letter_reason(&broker, "adder").await, "no such account");
    gate.close().await;
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
async fn garbage_strays_and_unknown_types_are_dead_lettered_with_a_reason_each() {
    let (store, broker) = (memory_store(), broker());
    let gate = gate(&store, &broker).endpoint(adder()).endpoint(Endpoint::new("other")).open().await.unwrap();
    send_raw(&broker, "adder", "not an envelope at all").await;
    let reason = dead_letter_reason(&broker, "adder").await;
    assert!(reason.starts_with("the broker message is not an envelope"), "{reason}");

    let envelope = Envelope {
        message_id: MessageId::from_bytes([1; 16]),
        to: Destination { endpoint: "adder".try_into().unwrap(), partition: "P".try_into().unwrap() },
        message_type: Add::TYPE.try_into().unwrap(),
        headers: vec![],
        content: Content::Body("{}".into()),
    };
    send_raw(&broker, "other", codec::encode_envelope(&envelope)).await;
    let reason = dead_letter_reason(&broker, "other").await;
    assert!(reason.contains("addressed to endpoint adder"), "{reason}");
    gate.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_wake_up_for_a_commit_that_never_comes_fences_it_before_it_would_be_dead_lettered() {
    let (store, broker) = (memory_store(), broker());
    for deliveries_max in [1, 2, 10] {
        let gate = gate(&store, &broker).deliveries_max(deliveries_max).open().await.unwrap();
        let partition = format!("source {deliveries_max}");
        let envelope = Envelope {
            message_id: MessageId::from_name("wake-up", &partition),
            to: Destination {
                endpoint: "edge".try_into().unwrap(),
                partition: partition.try_into().unwrap(),
            },
            message_type: tollgate::core::processing::WAKE_UP_TYPE.try_into().unwrap(),
            headers: vec![],
            content: Content::WakeUp { attempt: AttemptId::new(1, 1), expected: None },
        };
        send_raw(&broker, "edge", codec::encode_envelope(&envelope)).await;
        until(&gate, |_| waiting(&broker, "edge") == 0).await;
        gate.close().await;
        assert!(broker.dead_letters(&EndpointName::new("edge").unwrap()).is_empty());
    }
    let page = store.scan(None, 10).await.unwrap();
    assert_eq!(
        page.partitions.len(),
        3,
        "each partition has a control record now, which the stalled commit did not expect"
    );
}

#[derive(Serialize, Deserialize)]
struct Unheard {}

impl Message for Unheard {
    const TYPE: &'static str = "test.unheard";
}

#[tokio::test(start_paused = true)]
async fn a_message_without_a_handler_is_dead_lettered_and_names_its_type() {
    let (store, broker) = (memory_store(), broker());
    let gate = gate(&store, &broker).endpoint(adder()).open().await.unwrap();
    let handler =
        |tx: Tx| async move { Ok::<_, HandlerError>(tx.send("adder", "P", &Unheard {})?.to_string()) };
    gate.edge("edge").unwrap().advance("source", "1", handler).await.unwrap();
    let reason = dead_letter_reason(&broker, "adder").await;
    assert_eq!(reason, "endpoint adder has no handler for message type test.unheard");
    gate.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_not_the_declared_type_is_poison() {
    #[derive(Serialize, Deserialize)]
    struct Impostor(String);
    impl Message for Impostor {
        const TYPE: &'static str = Add::TYPE;
    }
    let (store, broker) = (memory_store(), broker());
    let gate = gate(&store, &broker).endpoint(adder()).open().await.unwrap();
    let handler = |tx: Tx| async move {
        Ok::<_, HandlerError>(tx.send("adder", "P", &Impostor("I am no number".into()))?.to_string())
    };
    gate.edge("edge").unwrap().advance("source", "1", handler).await.unwrap();
    let reason = dead_letter_reason(&broker, "adder").await;
    assert!(reason.starts_with("the body is not a test.add"), "{reason}");
    gate.close().await;
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
async fn a_request_made_twice_is_executed_once_and_answered_twice() {
    let (store, broker) = (memory_store(), broker());
    let gate = gate(&store, &broker).endpoint(adder()).open().await.unwrap();
    let edge = gate.edge("edge").unwrap();
    let handler = |tx: Tx| async move {
        let count = tx.get::<u64>("orders").await?.unwrap_or_default() + 1;
        tx.put("orders", &count)?;
        tx.send("adder", "P", &Add { amount: count, hops: 0 })?;
        Ok::<_, HandlerError>(format!("order {count}"))
    };
    let hour = Duration::from_secs(3600);
    let first = edge.execute("shop", "key-1", hour, handler).await.unwrap();
    let (again, other) = tokio::join!(
        edge.execute("shop", "key-1", hour, handler),
        edge.execute("shop", "key-2", hour, handler)
    );
    assert_eq!(first, "order 1");
    assert_eq!(again.unwrap(), "order 1");
    assert_eq!(other.unwrap(), "order 2");
    // Two at a time of one key: one executes, the other gets its response.
    let (one, same) = tokio::join!(
        edge.execute("shop", "key-3", hour, handler),
        edge.execute("shop", "key-3", hour, handler)
    );
    assert_eq!((one.unwrap(), same.unwrap()), ("order 3".to_owned(), "order 3".to_owned()));
    until(&gate, |statistics| statistics.committed == 6).await;
    let statistics = gate.close().await;
    assert_eq!((statistics.requests, statistics.replays), (3, 2));
    assert_eq!(total(&*store, "P").await, 6);
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_says_why_and_changes_nothing() {
    let (store, broker) = (memory_store(), broker());
    let gate = gate(&store, &broker).open().await.unwrap();
    let edge = gate.edge("edge").unwrap();
    let handler = |tx: Tx| async move {
        tx.put("total", &1)?;
        Err::<String, _>(HandlerError::permanent("no credit"))
    };
    let error = edge.execute("P", "key", Duration::from_secs(1), handler).await.unwrap_err();
    assert!(matches!(&error, TollgateError::RequestRefused { reason } if reason == "no credit"), "{error}");
    assert!(!error.is_retryable());
    assert_eq!(total(&*store, "P").await, 0);
    assert!(matches!(gate.edge("nowhere"), Err(TollgateError::Configuration(_))));
    gate.close().await;
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
async fn the_blob_of_the_attempt_that_commits_stays_and_those_of_failed_ones_go() {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let (store, broker) = (memory_store(), broker());
    let blobs = Arc::new(MemoryBlobs::new());
    let gate = gate(&store, &broker)
        .blobs(Arc::clone(&blobs) as Arc<dyn Blobs>)
        .endpoint(Endpoint::new("adder").on::<Add, _, _>(|tx: Tx, message| async move {
            let name = tx.put_blob("invoices/", "paper").await?;
            tx.put("invoice", name.as_str())?;
            if RUNS.fetch_add(1, Ordering::SeqCst) < 2 {
                return Err(HandlerError::retry("not yet"));
            }
            add(tx, message).await
        }))
        .open()
        .await
        .unwrap();
    send(&gate, "one", vec![Add { amount: 1, hops: 0 }]).await;
    until(&gate, |statistics| statistics.committed == 2).await;
    gate.close().await;
    let names = blobs.list("invoices/").await.unwrap();
    assert_eq!(names.len(), 1, "{names:?}");
    assert_eq!(left_over(&*store).await, 0);
}

#[tokio::test(start_paused = true)]
async fn messages_of_one_burst_have_blobs_of_their_own_and_a_failing_one_takes_only_its_own_along() {
    let (store, broker) = (memory_store(), broker());
    let blobs = Arc::new(MemoryBlobs::new());
    let gate = gate(&store, &broker)
        .blobs(Arc::clone(&blobs) as Arc<dyn Blobs>)
        .endpoint(Endpoint::new("adder").on::<Add, _, _>(|tx: Tx, message| async move {
            let name = tx.put_blob("invoices/", message.amount.to_string()).await?;
            if message.amount == 2 {
                return Err(HandlerError::permanent("no invoice for two"));
            }
            tx.put(&format!("invoice {}", message.amount), name.as_str())?;
            add(tx, message).await
        }))
        .open()
        .await
        .unwrap();
    send(&gate, "one", (0..5).map(|amount| Add { amount, hops: 0 }).collect()).await;
    until(&gate, |statistics| statistics.committed == 5 && statistics.dead_letters == 1).await;
    let statistics = gate.close().await;
    assert!(statistics.commits < 5, "the burst must have been folded: {statistics:?}");
    let mut contents = Vec::new();
    for name in blobs.list("invoices/").await.unwrap() {
        let content = blobs.get(&name).await.unwrap().unwrap();
        contents.push(tollgate::core::blobs::collect(&name, content, 100).await.unwrap());
    }
    contents.sort();
    assert_eq!(contents, ["0", "1", "3", "4"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_process_had_committed_when_it_died_is_published_by_the_next_visitor() {
    let (store, queues) = (memory_store(), broker());
    // A process dies between commit and publication: its broker never answers, but for the wake-up.
    let dies = std::thread::spawn({
        let (store, queues) = (Arc::clone(&store), Arc::clone(&queues));
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            runtime.block_on(async {
                let gate = Gate::builder()
                    .store(store)
                    .broker(Arc::new(OddBroker { inner: queues, sends: Sends::OnlyDelayed }))
                    .endpoint(Endpoint::new("edge"))
                    .open()
                    .await
                    .unwrap();
                send(&gate, "one", vec![Add { amount: 1, hops: 0 }]).await;
            });
        }
    });
    dies.join().unwrap();
    assert_eq!(waiting(&queues, "adder"), 0);
    assert_eq!(left_over(&*store).await, 2, "the outbox entry and its marker");
    let next = gate(&store, &queues).endpoint(adder()).open().await.unwrap();
    until(&next, |statistics| statistics.committed == 1).await;
    next.close().await;
    assert_eq!(total(&*store, "P").await, 1);
    assert_eq!(left_over(&*store).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_sweep_finishes_a_partition_that_nobody_visits() {
    let (store, queues) = (memory_store(), broker());
    let source = gate(&store, &queues).flush_after(Duration::from_secs(1_000_000)).open().await.unwrap();
    send(&source, "one", vec![Add { amount: 1, hops: 0 }]).await;
    until(&source, |_| waiting(&queues, "adder") == 1).await;
    // It is forgotten without being closed: its marker stays.
    drop(source);
    let sweeper = gate(&store, &queues).endpoint(adder()).open().await.unwrap();
    until(&sweeper, |statistics| statistics.committed == 1).await;
    sweeper.sweep().await.unwrap();
    sweeper.close().await;
    assert_eq!(left_over(&*store).await, 0);
}

#[tokio::test(start_paused = true)]
async fn finished_markers_are_flushed_when_a_partition_has_been_idle_for_a_while() {
    let (store, broker) = (memory_store(), broker());
    let gate =
        gate(&store, &broker).endpoint(adder()).flush_after(Duration::from_secs(2)).open().await.unwrap();
    send(&gate, "one", vec![Add { amount: 1, hops: 0 }]).await;
    until(&gate, |statistics| statistics.committed == 2).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(left_over(&*store).await, 0, "and the gate was not closed");
    gate.close().await;
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
async fn closing_finishes_what_was_taken_and_takes_no_more() {
    let (store, broker) = (memory_store(), broker());
    let endpoint = Endpoint::new("adder").concurrency(10).on::<Add, _, _>(|tx: Tx, message| async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        add(tx, message).await
    });
    let gate = gate(&store, &broker).endpoint(endpoint).open().await.unwrap();
    let handler = |tx: Tx| async move {
        for n in 0..100 {
            tx.send("adder", &format!("P{n}"), &Add { amount: 1, hops: 0 })?;
        }
        Ok::<_, HandlerError>(())
    };
    gate.edge("edge").unwrap().advance("source", "1", handler).await.unwrap();
    until(&gate, |statistics| statistics.committed >= 11).await;
    let statistics = gate.close().await;
    assert!(statistics.committed < 101, "it did not wait for the whole queue");
    let done = statistics.committed - 1;
    assert_eq!(waiting(&broker, "adder") as u64, 100 - done, "each is either done or still in the queue");
    assert_eq!(left_over(&*store).await, 100 - done, "and holds its token");
}

#[tokio::test(start_paused = true)]
async fn a_closed_gate_takes_no_requests_either() {
    let (store, broker) = (memory_store(), broker());
    let gate = gate(&store, &broker).open().await.unwrap();
    let edge = gate.edge("edge").unwrap();
    gate.close().await;
    let late =
        edge.execute("P", "late", Duration::from_secs(60), |tx: Tx| async move { Ok(tx.put(TOTAL, &1)?) });
    assert!(matches!(late.await, Err(TollgateError::Closed)));
    assert_eq!(total(&*store, "P").await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_makes_no_sense_does_not_open_and_says_why() {
    let problem = async |builder: GateBuilder| match builder.open().await {
        Err(TollgateError::Configuration(problem)) => problem,
        Err(other) => other.to_string(),
        Ok(_) => panic!("it opened"),
    };
    let (store, broker) = (memory_store(), broker());
    assert_eq!(
        problem(Gate::builder().store(Arc::clone(&store))).await,
        "it has no broker, and no sender for what its handlers send"
    );
    assert_eq!(
        problem(Gate::builder().broker(Arc::clone(&broker) as Arc<dyn Broker>)).await,
        "it has no store"
    );
    let gate = || gate(&store, &broker);
    assert!(problem(gate().store(Arc::clone(&store))).await.contains("two stores have the alias main"));
    assert!(problem(gate().endpoint(Endpoint::new("edge"))).await.contains("declared twice"));
    assert!(problem(gate().endpoint(Endpoint::new(""))).await.contains("it is empty"));
    assert!(problem(gate().endpoint(adder().on::<Add, _, _>(add))).await.contains("two handlers"));
    assert!(problem(gate().endpoint(adder().store("moon"))).await.contains("store moon"));
    assert!(problem(gate().endpoint(adder().concurrency(0))).await.contains("concurrency of 0"));
    assert!(problem(gate().fold_max(65)).await.contains("from 1 to 64"));
    assert!(problem(gate().subscribe::<Add>("", |_| String::new())).await.contains("it is empty"));
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_outlives_its_handler_is_of_no_use() {
    static LEAKED: std::sync::Mutex<Option<Tx>> = std::sync::Mutex::new(None);
    let (store, broker) = (memory_store(), broker());
    let gate = gate(&store, &broker).open().await.unwrap();
    let handler = |tx: Tx| async move {
        *LEAKED.lock().unwrap() = Some(tx);
        Ok::<_, HandlerError>(())
    };
    gate.edge("edge").unwrap().advance("source", "1", handler).await.unwrap();
    let tx = LEAKED.lock().unwrap().take().unwrap();
    assert!(matches!(tx.put("total", &1), Err(TollgateError::Ended)));
    drop(tx);
    gate.close().await;
    assert_eq!(total(&*store, "source").await, 0);
}
