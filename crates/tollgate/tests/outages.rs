//! The store, the broker or both are gone for a minute while a gate works through a backlog: it goes on by itself, nothing is lost,
//! doubled or dead-lettered, and nobody is hammered meanwhile. On a paused clock; refusals come at once, which is the worst
//! that can happen to somebody who tries again.
//!
//! `cargo test -p tollgate --test outages -- --nocapture` prints the rates.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use harness::{
    Latency, Log, SlowStore, TOTAL, add, broker, left_over, memory_store, send_many, total, until, waiting,
};
use tollgate::proto::{
    BoxFuture, BrokerError, BrokerWrapper, Delivery, EndpointName, OutgoingMessage, Settlement,
};
use tollgate::{Broker, Endpoint, Gate, Store};
use tollgate_brokers::InProcessBroker;
use tollgate_testkit::{CountingStore, FaultRates, FaultyStore};

const MESSAGES: usize = 4000;
const PARTITIONS: usize = 500;

/// How long a call to the store takes in better times.
const LATENCY: Duration = Duration::from_millis(20);

/// How long the outage lasts.
const OUTAGE: Duration = Duration::from_secs(60);

/// Most calls to what is gone in any second of an outage after the first one, in which what was in progress fails. An endpoint that
/// looks whether the trouble is over makes one call and four repetitions of it; besides, a marker is flushed now and then.
const CALLS_A_SECOND_MAX: u64 = 30;

/// Most calls to it in the rest of the minute.
const CALLS_A_MINUTE_MAX: u64 = 600;

/// What is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gone {
    Store,
    /// It refuses nothing and answers nothing.
    StoreSilently,
    Broker,
    Both,
}

/// A broker that can be unplugged, and counts the calls.
struct Unpluggable {
    inner: Arc<InProcessBroker>,
    is_gone: AtomicBool,
    calls: AtomicU64,
}

impl Unpluggable {
    fn call(&self, endpoint: &EndpointName) -> Result<(), BrokerError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.is_gone.load(Ordering::SeqCst) {
            let reason = "connection refused".to_owned();
            return Err(BrokerError::Unavailable { endpoint: endpoint.clone(), reason });
        }
        Ok(())
    }
}

impl BrokerWrapper for Unpluggable {
    fn inner(&self) -> &dyn Broker {
        &*self.inner
    }

    fn send(&self, messages: Vec<OutgoingMessage>) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        Box::pin(async move {
            match messages.first().map(|first| self.call(&first.endpoint)) {
                Some(Err(error)) => messages.iter().map(|_| Err(error.clone())).collect(),
                _ => self.inner.send(messages).await,
            }
        })
    }

    fn receive(
        &self,
        endpoint: &EndpointName,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<Delivery>, BrokerError>> {
        let endpoint = endpoint.clone();
        Box::pin(async move {
            self.call(&endpoint)?;
            let received = self.inner.receive(&endpoint, max).await;
            // Whoever waited when the connection broke learns of it; what was delivered meanwhile comes again.
            if self.is_gone.load(Ordering::SeqCst) {
                self.call(&endpoint)?;
            }
            received
        })
    }

    fn settle(
        &self,
        endpoint: &EndpointName,
        settlements: Vec<Settlement>,
    ) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        let endpoint = endpoint.clone();
        Box::pin(async move {
            match self.call(&endpoint) {
                Err(error) => settlements.iter().map(|_| Err(error.clone())).collect(),
                Ok(()) => self.inner.settle(&endpoint, settlements).await,
            }
        })
    }
}

async fn survive(gone: Gone) {
    let (inner, queues) = (memory_store(), broker());
    let source = Gate::builder()
        .store(Arc::clone(&inner))
        .broker(Arc::clone(&queues) as Arc<dyn Broker>)
        .endpoint(Endpoint::new("edge"))
        .open()
        .await
        .unwrap();
    let edge = source.edge("edge").unwrap();
    send_many(&edge, "adder", MESSAGES, |n| format!("P{}", n % PARTITIONS)).await;
    until(&source, |_| waiting(&queues, "edge") == 0).await;
    source.close().await;

    let latency = Latency::from(LATENCY);
    let slow = SlowStore { inner: Arc::clone(&inner), latency: latency.clone(), log: Log::default() };
    let faulty = Arc::new(FaultyStore::new(Arc::new(slow), 1, FaultRates::default()));
    let store = Arc::new(CountingStore::new(Arc::clone(&faulty) as Arc<dyn Store>));
    let unpluggable = Arc::new(Unpluggable {
        inner: Arc::clone(&queues),
        is_gone: AtomicBool::new(false),
        calls: AtomicU64::new(0),
    });
    let gate = Gate::builder()
        .store(Arc::clone(&store) as Arc<dyn Store>)
        .broker(Arc::clone(&unpluggable) as Arc<dyn Broker>)
        .endpoint(Endpoint::new("adder").concurrency(16).preload(TOTAL).on::<harness::Add, _, _>(add))
        // Silence within the limit is waited for.
        .store_call_max(2 * OUTAGE)
        .open()
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let before = gate.statistics();
    assert!((500..MESSAGES as u64 / 2).contains(&before.committed), "in the middle of it: {before:?}");

    let calls = || match gone {
        Gone::Store | Gone::StoreSilently => store.counts().calls(),
        Gone::Broker => unpluggable.calls.load(Ordering::SeqCst),
        Gone::Both => store.counts().calls() + unpluggable.calls.load(Ordering::SeqCst),
    };
    match gone {
        Gone::Store | Gone::Both => {
            faulty.set_rates(FaultRates { unavailable: 1.0, ..FaultRates::default() });
        }
        Gone::StoreSilently => latency.set(OUTAGE),
        Gone::Broker => {}
    }
    unpluggable.is_gone.store(matches!(gone, Gone::Broker | Gone::Both), Ordering::SeqCst);
    let mut rates = Vec::new();
    for _ in 0..OUTAGE.as_secs() {
        let sofar = calls();
        tokio::time::sleep(Duration::from_secs(1)).await;
        rates.push(calls() - sofar);
    }
    let during = gate.statistics();
    faulty.set_rates(FaultRates::default());
    latency.set(LATENCY);
    unpluggable.is_gone.store(false, Ordering::SeqCst);

    let end = tokio::time::Instant::now();
    until(&gate, |statistics| statistics.committed > during.committed).await;
    let resumed = end.elapsed();
    until(&gate, |statistics| statistics.committed == MESSAGES as u64).await;
    until(&gate, |_| waiting(&queues, "adder") == 0).await;
    let drained = end.elapsed();
    let statistics = gate.close().await;
    let later = &rates[1..];
    let (most, sum) = (later.iter().max().unwrap(), later.iter().sum::<u64>());
    println!(
        "{gone:?} gone for {OUTAGE:?}: {} calls to it in the first second, then {most} a second at most and {} a minute; \
         the first commit {resumed:?} after the end, all done after {drained:?}; {} deliveries of {MESSAGES} messages",
        rates[0], sum, statistics.deliveries
    );
    // Of a store that does not answer nobody knows that it is gone: partitions that have become idle are flushed, once.
    assert!(gone == Gone::StoreSilently || *most <= CALLS_A_SECOND_MAX, "it is hammered: {rates:?}");
    assert!(sum <= CALLS_A_MINUTE_MAX, "it is hammered: {rates:?}");
    assert!(resumed < Duration::from_secs(10), "it does not resume: {resumed:?}");
    assert_eq!(statistics.committed, MESSAGES as u64, "each once");
    assert_eq!(statistics.dead_letters, 0);
    assert!(queues.dead_letters(&EndpointName::new("adder").unwrap()).is_empty());
    let extra = statistics.deliveries - MESSAGES as u64;
    assert!(
        extra < 100,
        "an outage must not use up the deliveries of a whole queue: {extra} more than needed"
    );
    for partition in 0..PARTITIONS {
        assert_eq!(total(&*inner, &format!("P{partition}")).await, (MESSAGES / PARTITIONS) as u64);
    }
    let sweeper = Gate::builder().store(Arc::clone(&inner)).broker(queues as Arc<dyn Broker>);
    let sweeper = sweeper.open().await.unwrap();
    sweeper.sweep().await.unwrap();
    sweeper.close().await;
    assert_eq!(left_over(&*inner).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_gone_for_a_minute_is_looked_for_now_and_then_and_nothing_is_lost() {
    survive(Gone::Store).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_for_a_minute_is_waited_for_and_nothing_is_lost() {
    survive(Gone::StoreSilently).await;
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_gone_for_a_minute_is_looked_for_now_and_then_and_nothing_is_lost() {
    survive(Gone::Broker).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_and_a_broker_that_are_gone_for_a_minute_are_looked_for_and_nothing_is_lost() {
    survive(Gone::Both).await;
}
