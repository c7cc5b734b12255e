//! Stories of gates whose loop is the caller's own: no broker, a sender that puts messages into a list, and messages that are
//! handed in by the test, as often as it likes.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod harness;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness::{Add, TOTAL, add, broker, left_over, memory_store, total, until};
use tollgate::proto::{
    BoxFuture, BrokerError, Delivery, EndpointName, OutgoingMessage, Settlement, StoreError,
};
use tollgate::{
    Backoff, Broker, Endpoint, Gate, GateBuilder, HandlerError, Received, Store, TollgateError, Tx, Verdict,
};
use tollgate_testkit::{FaultRates, FaultyStore};

/// What the sender was given, in order.
#[derive(Clone, Default)]
struct Sent(Arc<Mutex<Vec<OutgoingMessage>>>);

impl Sent {
    /// Takes what was sent to an endpoint.
    fn take(&self, endpoint: &str) -> Vec<OutgoingMessage> {
        let mut sent = self.0.lock().unwrap();
        let (taken, left) =
            std::mem::take(&mut *sent).into_iter().partition(|message| message.endpoint.as_str() == endpoint);
        *sent = left;
        taken
    }
}

fn received(message: &OutgoingMessage) -> Received {
    Received::new(message.envelope.clone())
}

fn gate(store: &Arc<dyn Store>, sent: &Sent) -> GateBuilder {
    let sent = sent.clone();
    Gate::builder()
        .store(Arc::clone(store))
        .sender(move |messages: Vec<OutgoingMessage>| {
            let answers = messages.iter().map(|_| Ok(())).collect();
            sent.0.lock().unwrap().extend(messages);
            std::future::ready(answers)
        })
        .endpoint(Endpoint::new("edge").driven())
        .redelivery(Backoff { first: Duration::from_millis(10), cap: Duration::from_millis(100) })
}

fn adder() -> Endpoint {
    Endpoint::new("adder").driven().preload(TOTAL).on::<Add, _, _>(add)
}

/// Sends messages of these amounts to a partition of endpoint `adder`, and takes them from the sender.
async fn messages(
    gate: &Gate,
    sent: &Sent,
    partition: &'static str,
    amounts: &[u64],
) -> Vec<OutgoingMessage> {
    let amounts: Arc<[u64]> = amounts.into();
    let count = amounts.len();
    let handler = move |tx: Tx| {
        let amounts = Arc::clone(&amounts);
        async move {
            for amount in amounts.iter() {
                tx.send("adder", partition, &Add { amount: *amount, hops: 0 })?;
            }
            Ok::<_, HandlerError>(())
        }
    };
    gate.edge("edge").unwrap().advance("source", "1", handler).await.unwrap();
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.extend(sent.take("adder"));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    taken
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_handed_in_three_times_is_acknowledged_three_times_and_applied_once() {
    let (store, sent) = (memory_store(), Sent::default());
    let gate = gate(&store, &sent).endpoint(adder()).open().await.unwrap();
    let message = messages(&gate, &sent, "P", &[5]).await.remove(0);
    for delivery in 1..=2 {
        assert_eq!(gate.process(received(&message).delivery_count(delivery)).await, Verdict::Acknowledge);
    }
    // A process that knows nothing of it: the token is gone.
    let statistics = gate.close().await;
    assert_eq!((statistics.deliveries, statistics.duplicates()), (2, 1));
    let other = self::gate(&store, &sent).endpoint(adder()).open().await.unwrap();
    assert_eq!(other.process(received(&message).delivery_count(3)).await, Verdict::Acknowledge);
    assert_eq!(other.close().await.duplicates_by_store, 1);
    assert_eq!(total(&*store, "P").await, 5);
    assert_eq!(left_over(&*store).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_folded_and_each_of_its_messages_has_a_verdict_of_its_own() {
    let (store, sent) = (memory_store(), Sent::default());
    let endpoint =
        Endpoint::new("adder").driven().preload(TOTAL).on::<Add, _, _>(|tx, message: Add| async move {
            match message.amount {
                13 => Err(HandlerError::permanent("unlucky")),
                7 => Err(HandlerError::retry("not today")),
                _ => add(tx, message).await,
            }
        });
    let gate = gate(&store, &sent).endpoint(endpoint).open().await.unwrap();
    let amounts: Vec<u64> = (0..50).collect();
    let mut batch: Vec<Received> = messages(&gate, &sent, "P", &amounts).await.iter().map(received).collect();
    batch.push(batch[3].clone());
    batch.push(Received::new("nothing that anybody understands"));
    let before = gate.statistics();
    let verdicts = gate.process_all(batch).await;
    assert_eq!(verdicts.len(), 52);
    for (place, verdict) in verdicts.iter().enumerate() {
        match place {
            7 => assert!(matches!(verdict, Verdict::Retry { .. }), "{verdict:?}"),
            13 => assert_eq!(*verdict, Verdict::DeadLetter { reason: "unlucky".into() }),
            51 => {
                assert!(
                    matches!(verdict, Verdict::DeadLetter { reason } if reason.contains("not an envelope")),
                    "{verdict:?}"
                );
            }
            _ => assert_eq!(*verdict, Verdict::Acknowledge, "at {place}"),
        }
    }
    let statistics = gate.close().await;
    let commits = statistics.commits - before.commits;
    assert!(commits < 10, "48 messages of one partition must have been folded, and took {commits} commits");
    assert_eq!(total(&*store, "P").await, (0..50).sum::<u64>() - 13 - 7);
    assert_eq!(left_over(&*store).await, 2, "the tokens of the two that were not processed");
}

#[tokio::test(start_paused = true)]
async fn a_batch_larger_than_the_window_is_processed_in_as_many_turns_as_it_takes() {
    static RUNNING: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    let (store, sent) = (memory_store(), Sent::default());
    let endpoint =
        Endpoint::new("adder").driven().concurrency(4).on::<Add, _, _>(|tx: Tx, message: Add| async move {
            MOST.fetch_max(RUNNING.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(10)).await;
            RUNNING.fetch_sub(1, Ordering::SeqCst);
            let own = format!("P{}", message.amount);
            tx.put("from", &own)?;
            Ok(())
        });
    let gate = gate(&store, &sent).endpoint(endpoint).open().await.unwrap();
    let handler = |tx: Tx| async move {
        for n in 0..40 {
            tx.send("adder", &format!("P{n}"), &Add { amount: n, hops: 0 })?;
        }
        Ok::<_, HandlerError>(())
    };
    gate.edge("edge").unwrap().advance("source", "1", handler).await.unwrap();
    until(&gate, |statistics| statistics.published >= 40).await;
    let batch: Vec<Received> = sent.take("adder").iter().map(received).collect();
    assert_eq!(gate.process_all(batch).await, vec![Verdict::Acknowledge; 40]);
    assert_eq!(MOST.load(Ordering::SeqCst), 4);
    gate.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_loses_nothing_and_the_redelivery_is_recognised() {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let (store, sent) = (memory_store(), Sent::default());
    let endpoint = Endpoint::new("adder").driven().concurrency(1).on::<Add, _, _>(|tx, message| async move {
        RUNS.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(1)).await;
        add(tx, message).await
    });
    let gate = gate(&store, &sent).endpoint(endpoint).open().await.unwrap();
    let both = messages(&gate, &sent, "P", &[1, 2]).await;
    let short = Duration::from_millis(100);
    let before = gate.statistics().deliveries;
    assert!(tokio::time::timeout(short, gate.process(received(&both[0]))).await.is_err(), "it takes longer");
    assert!(tokio::time::timeout(short, gate.process(received(&both[1]))).await.is_err(), "there is no room");
    assert_eq!(gate.statistics().deliveries - before, 1, "what had not begun was not begun");
    until(&gate, |statistics| statistics.committed == 2).await;
    assert_eq!(total(&*store, "P").await, 1, "what had begun was done");
    let batch = both.iter().map(|message| received(message).delivery_count(2)).collect();
    assert_eq!(gate.process_all(batch).await, [Verdict::Acknowledge, Verdict::Acknowledge]);
    gate.close().await;
    assert_eq!(RUNS.load(Ordering::SeqCst), 2);
    assert_eq!(total(&*store, "P").await, 3);
    assert_eq!(left_over(&*store).await, 0);
}

#[tokio::test(start_paused = true)]
async fn poison_is_dead_lettered_at_the_limit_of_failures_and_keeps_its_token() {
    let (store, sent) = (memory_store(), Sent::default());
    let endpoint = Endpoint::new("adder")
        .driven()
        .on::<Add, _, _>(|_, _| async { Err(HandlerError::retry("full moon")) });
    let gate = gate(&store, &sent).deliveries_max(3).endpoint(endpoint).open().await.unwrap();
    let message = messages(&gate, &sent, "P", &[5]).await.remove(0);
    for delivery in 1..=2 {
        let verdict = gate.process(received(&message).delivery_count(delivery)).await;
        assert!(matches!(verdict, Verdict::Retry { after } if after > Duration::ZERO), "{verdict:?}");
    }
    let verdict = gate.process(received(&message).delivery_count(3)).await;
    assert_eq!(verdict, Verdict::DeadLetter { reason: "full moon (after 3 failures)".into() });
    gate.close().await;
    let mended = self::gate(&store, &sent).endpoint(adder()).open().await.unwrap();
    assert_eq!(mended.process(received(&message)).await, Verdict::Acknowledge);
    mended.close().await;
    assert_eq!(total(&*store, "P").await, 5);
}

#[tokio::test(start_paused = true)]
async fn strays_are_dead_lettered_and_messages_of_an_unknown_endpoint_are_put_back() {
    let (store, sent) = (memory_store(), Sent::default());
    let source = gate(&store, &sent).endpoint(adder()).deliveries_max(1).open().await.unwrap();
    let message = messages(&source, &sent, "P", &[5]).await.remove(0);
    let stray = received(&message).from_queue_of(EndpointName::new("edge").unwrap());
    let verdict = source.process(stray).await;
    assert!(
        matches!(&verdict, Verdict::DeadLetter { reason } if reason.contains("addressed to endpoint adder")),
        "{verdict:?}"
    );
    source.close().await;
    let other = gate(&store, &sent).deliveries_max(1).open().await.unwrap();
    let verdict = other.process(received(&message).delivery_count(9)).await;
    assert!(
        matches!(verdict, Verdict::Retry { .. }),
        "the gate is at fault and not the message: {verdict:?}"
    );
    other.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_outputs_could_not_be_sent_is_put_back_until_they_are() {
    static REFUSALS: AtomicUsize = AtomicUsize::new(20);
    let (store, sent) = (memory_store(), Sent::default());
    let source = gate(&store, &sent).open().await.unwrap();
    let handler = |tx: Tx| async move {
        tx.send("adder", "P", &Add { amount: 1, hops: 1 })?;
        Ok::<_, HandlerError>(())
    };
    source.edge("edge").unwrap().advance("source", "1", handler).await.unwrap();
    until(&source, |statistics| statistics.published >= 2).await;
    source.close().await;
    let message = sent.take("adder").remove(0);

    let outputs = sent.clone();
    let gate = Gate::builder()
        .store(Arc::clone(&store))
        .sender(move |messages: Vec<OutgoingMessage>| {
            let outputs = outputs.clone();
            async move {
                if REFUSALS
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                    .is_ok()
                {
                    // Fewer answers than messages: nobody knows what became of them.
                    return Vec::new();
                }
                let answers = messages.iter().map(|_| Ok(())).collect();
                outputs.0.lock().unwrap().extend(messages);
                answers
            }
        })
        .deliveries_max(3)
        .endpoint(adder())
        .open()
        .await
        .unwrap();
    let mut deliveries = 0;
    loop {
        deliveries += 1;
        match gate.process(received(&message).delivery_count(deliveries)).await {
            Verdict::Acknowledge => break,
            Verdict::Retry { after } => tokio::time::sleep(after).await,
            verdict @ Verdict::DeadLetter { .. } => panic!("nothing of an outage is poison: {verdict:?}"),
        }
    }
    assert!(deliveries > 10, "{deliveries}");
    let output = sent.take("adder").remove(0);
    assert_eq!(gate.process(received(&output)).await, Verdict::Acknowledge);
    gate.close().await;
    assert_eq!((total(&*store, "P").await, total(&*store, "P+").await), (1, 1));
    assert_eq!(left_over(&*store).await, 0);
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_gone_messages_are_put_back_and_none_is_dead_lettered() {
    let (inner, sent) = (memory_store(), Sent::default());
    let faulty = Arc::new(FaultyStore::new(Arc::clone(&inner), 1, FaultRates::default()));
    let store: Arc<dyn Store> = Arc::clone(&faulty) as Arc<dyn Store>;
    let gate = gate(&store, &sent).deliveries_max(2).endpoint(adder()).open().await.unwrap();
    let message = messages(&gate, &sent, "P", &[5]).await.remove(0);
    faulty.set_rates(FaultRates { unavailable: 1.0, ..FaultRates::default() });
    assert!(matches!(store.load(vec![]).await.pop(), None | Some(Err(StoreError::Unavailable { .. }))));
    for delivery in 1..20 {
        let verdict = gate.process(received(&message).delivery_count(delivery)).await;
        assert!(matches!(verdict, Verdict::Retry { .. }), "delivery {delivery}: {verdict:?}");
    }
    faulty.set_rates(FaultRates::default());
    assert_eq!(gate.process(received(&message).delivery_count(20)).await, Verdict::Acknowledge);
    gate.close().await;
    assert_eq!(total(&*inner, "P").await, 5);
    assert_eq!(left_over(&*inner).await, 0);
}

/// A broker whose queue a person has to look at.
struct Unprovisioned;

impl Broker for Unprovisioned {
    fn send(&self, messages: Vec<OutgoingMessage>) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        Box::pin(std::future::ready(messages.iter().map(|_| Ok(())).collect()))
    }

    fn receive(&self, _: &EndpointName, _: usize) -> BoxFuture<'_, Result<Vec<Delivery>, BrokerError>> {
        Box::pin(std::future::pending())
    }

    fn settle(
        &self,
        _: &EndpointName,
        settlements: Vec<Settlement>,
    ) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        Box::pin(std::future::ready(settlements.iter().map(|_| Ok(())).collect()))
    }

    fn verify(&self, endpoint: &EndpointName) -> BoxFuture<'_, Result<(), BrokerError>> {
        let error = BrokerError::Misconfigured {
            endpoint: endpoint.clone(),
            reason: "its queue does not exist: create it".to_owned(),
        };
        Box::pin(std::future::ready(Err(error)))
    }
}

#[tokio::test(start_paused = true)]
async fn a_gate_opens_only_if_somebody_drives_its_endpoints_and_their_queues_will_do() {
    let (store, sent) = (memory_store(), Sent::default());
    let problem = async |builder: GateBuilder| match builder.open().await {
        Ok(_) => panic!("it opened"),
        Err(error) => error.to_string(),
    };
    let text = problem(gate(&store, &sent).endpoint(Endpoint::new("orders"))).await;
    assert!(text.contains("endpoint orders takes its messages from a broker"), "{text}");
    let text = problem(gate(&store, &sent).broker(broker())).await;
    assert!(text.contains("a broker and a sender"), "{text}");

    let builder = || Gate::builder().store(Arc::clone(&store)).broker(Arc::new(Unprovisioned));
    let text = problem(builder().endpoint(Endpoint::new("orders"))).await;
    assert!(text.contains("endpoint orders is not usable: its queue does not exist: create it"), "{text}");
    // What the caller drives is the caller's business.
    let gate = builder().endpoint(Endpoint::new("orders").driven()).open().await.unwrap();
    gate.verify().await.unwrap();
    gate.close().await;

    let queues = broker();
    let gate = Gate::builder().store(Arc::clone(&store)).broker(Arc::clone(&queues) as Arc<dyn Broker>);
    let gate = gate.endpoint(Endpoint::new("orders")).open().await.unwrap();
    gate.verify().await.unwrap();
    queues.close().await.unwrap();
    assert!(matches!(gate.verify().await, Err(TollgateError::Broker(BrokerError::Closed { .. }))));
    gate.close().await;
}
