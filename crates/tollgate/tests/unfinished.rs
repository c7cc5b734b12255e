//! A past that can't be completed does not block the present (R5): dead targets and refused outputs beside
//! healthy messages of the same partition, on a virtual clock.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use harness::{Add, TOTAL, add, broker, left_over, memory_store, total, until, waiting};
use serde::{Deserialize, Serialize};
use tollgate::proto::{
    AttachedEffect, BoxFuture, BrokerError, BrokerWrapper, EffectError, EffectKind, EffectName, EndpointName,
    OutgoingMessage,
};
use tollgate::{Broker, Endpoint, Gate, GateBuilder, HandlerError, Message, SideEffect, Store, Tx};
use tollgate_brokers::InProcessBroker;

/// A broker that refuses what is sent to endpoint `nowhere`, as long as it is told to.
struct Partial {
    inner: Arc<InProcessBroker>,
    refuses: AtomicBool,
    refusals: AtomicUsize,
}

impl Partial {
    fn new() -> Arc<Self> {
        Arc::new(Self { inner: broker(), refuses: true.into(), refusals: 0.into() })
    }

    fn refusal(&self, endpoint: &EndpointName) -> Option<BrokerError> {
        if endpoint.as_str() != "nowhere" || !self.refuses.load(Ordering::SeqCst) {
            return None;
        }
        self.refusals.fetch_add(1, Ordering::SeqCst);
        let reason = "there is no such queue".to_owned();
        Some(BrokerError::Misconfigured { endpoint: endpoint.clone(), reason })
    }
}

impl BrokerWrapper for Partial {
    fn inner(&self) -> &dyn Broker {
        &*self.inner
    }

    fn send(&self, messages: Vec<OutgoingMessage>) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        Box::pin(async move {
            let mut answers = Vec::new();
            for message in messages {
                answers.push(match self.refusal(&message.endpoint) {
                    Some(refusal) => Err(refusal),
                    None => self.inner.send(vec![message]).await.pop().unwrap(),
                });
            }
            answers
        })
    }
}

/// A system that answers nothing but preparations: publishing takes 20 s, and then fails.
struct Unreachable(EffectKind);

impl SideEffect for Unreachable {
    fn kind(&self) -> &EffectKind {
        &self.0
    }

    fn register(&self, unique: &str, _: &Bytes) -> Result<EffectName, EffectError> {
        Ok(EffectName::new(format!("call/{unique}")).unwrap())
    }

    fn prepare<'a>(&'a self, _: &'a EffectName, intent: Bytes) -> BoxFuture<'a, Result<Bytes, EffectError>> {
        Box::pin(std::future::ready(Ok(intent)))
    }

    fn publish<'a>(&'a self, effect: &'a AttachedEffect) -> BoxFuture<'a, Result<(), EffectError>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(20)).await;
            let reason = "no answer".to_owned();
            Err(EffectError::Unavailable { name: effect.name.clone(), reason, retry_after: None })
        })
    }

    fn fetch<'a>(&'a self, _: &'a AttachedEffect) -> BoxFuture<'a, Result<Bytes, EffectError>> {
        Box::pin(std::future::ready(Ok(Bytes::new())))
    }

    fn clean_up<'a>(&'a self, _: &'a EffectName) -> BoxFuture<'a, Result<(), EffectError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct Call;

impl Message for Call {
    const TYPE: &'static str = "test.call";
}

#[derive(Clone, Serialize, Deserialize)]
struct Stray;

impl Message for Stray {
    const TYPE: &'static str = "test.stray";
}

fn worker() -> Endpoint {
    Endpoint::new("worker")
        .preload(TOTAL)
        .on::<Add, _, _>(add)
        .on(|tx: Tx, _: Call| async move {
            let call = tx.prepare("call", "pay").await?;
            tx.send_with("worker", "Q", &Add { amount: 1, hops: 0 }, vec![call]).await?;
            Ok(())
        })
        .on(|tx: Tx, _: Stray| async move {
            tx.send("nowhere", "N", &Add { amount: 1, hops: 0 })?;
            Ok(())
        })
}

fn gate(store: &Arc<dyn Store>, broker: &Arc<Partial>) -> GateBuilder {
    Gate::builder()
        .store(Arc::clone(store))
        .broker(Arc::clone(broker) as Arc<dyn Broker>)
        .side_effect(Arc::new(Unreachable(EffectKind::new("call").unwrap())))
        .endpoint(Endpoint::new("edge"))
        .endpoint(worker())
}

/// Sends one message from the edge to partition `P` of the worker.
async fn send<M: Message + Clone + Sync>(gate: &Gate, id: &str, message: M) {
    let handler = move |tx: Tx| {
        let message = message.clone();
        async move {
            tx.send("worker", "P", &message)?;
            Ok::<_, HandlerError>(())
        }
    };
    gate.edge("edge").unwrap().execute("clients", id, Duration::from_secs(60), handler).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_target_and_an_unroutable_output_stop_no_other_message_of_their_partition() {
    let (store, broker) = (memory_store(), Partial::new());
    let first = gate(&store, &broker).open().await.unwrap();
    send(&first, "call", Call).await;
    send(&first, "stray", Stray).await;
    until(&first, |statistics| statistics.committed == 4).await;
    for number in 0..100 {
        send(&first, &format!("first-{number}"), Add { amount: 1, hops: 0 }).await;
    }
    until(&first, |statistics| statistics.committed == 204).await;
    assert_eq!(first.statistics().dead_letters, 0);
    // Another process, which knows nothing of what has failed.
    let second = gate(&store, &broker).open().await.unwrap();
    let started = tokio::time::Instant::now();
    for number in 0..100 {
        send(&second, &format!("second-{number}"), Add { amount: 1, hops: 0 }).await;
    }
    while total(&*store, "P").await < 200 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(started.elapsed() < Duration::from_secs(10), "the dead target cost {:?}", started.elapsed());
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(first.statistics().dead_letters + second.statistics().dead_letters, 0);
    assert_eq!(total(&*store, "P").await, 200);
}

#[tokio::test(start_paused = true)]
async fn a_failed_completion_is_tried_again_by_its_process_without_any_redelivery() {
    let (store, broker) = (memory_store(), Partial::new());
    let gate = gate(&store, &broker)
        .endpoint(Endpoint::new("nowhere").on::<Add, _, _>(add))
        .sweep_every(None)
        // No wake-up comes within this test.
        .wake_up_after(Duration::from_secs(1_000_000))
        .open()
        .await
        .unwrap();
    let stray = |tx: Tx| async move {
        tx.send("nowhere", "N", &Add { amount: 1, hops: 0 })?;
        Ok::<_, HandlerError>(())
    };
    gate.edge("edge").unwrap().execute("P", "stray", Duration::from_secs(60), stray).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let refusals = broker.refusals.load(Ordering::SeqCst);
    assert!((5..30).contains(&refusals), "it is tried now and then: {refusals} times in a minute");
    broker.refuses.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(total(&*store, "N").await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_wake_up_is_never_dead_lettered_for_a_completion_that_fails() {
    let (store, broker) = (memory_store(), Partial::new());
    let dies = gate(&store, &broker).open().await.unwrap();
    let stray = |tx: Tx| async move {
        tx.send("nowhere", "N", &Add { amount: 1, hops: 0 })?;
        Ok::<_, HandlerError>(())
    };
    dies.edge("edge").unwrap().execute("P", "stray", Duration::from_secs(60), stray).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1_800)).await;
    assert_eq!(dies.statistics().dead_letters, 0);
    assert_eq!(waiting(&broker.inner, "edge"), 1, "the wake-up stands for the output that is not out");
    broker.refuses.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(waiting(&broker.inner, "edge"), 0);
    assert_eq!(waiting(&broker.inner, "nowhere"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_process_is_finishing_itself_is_neither_completed_twice_nor_counted_as_a_recovery() {
    let (store, broker) = (memory_store(), Partial::new());
    let gate = gate(&store, &broker).open().await.unwrap();
    for number in 0..400 {
        send(&gate, &number.to_string(), Add { amount: 1, hops: 0 }).await;
    }
    until(&gate, |statistics| statistics.committed == 800).await;
    let statistics = gate.close().await;
    assert_eq!(statistics.recoveries, 0, "no process has died");
    // One message and one wake-up for each request.
    assert_eq!(statistics.published, 800, "and none was sent twice");
    assert_eq!(total(&*store, "P").await, 400);
    assert_eq!(left_over(&*store).await, 0);
}
