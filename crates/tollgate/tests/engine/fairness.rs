//! Nobody takes all there is: one partition, one store, requests without callers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tollgate::proto::{
    BoxFuture, BrokerError, Delivery, EndpointName, OutgoingMessage, ScanCursor, ScanPage, Settlement,
    StoreAlias, StoreError, StoreWrapper,
};
use tollgate::{Broker, Edge, Endpoint, Gate, HandlerError, Store, TollgateError, Tx};
use tollgate_brokers::InProcessBroker;
use tollgate_embedded::MemoryStore;

use crate::harness::{
    Add, OddBroker, Sends, TOTAL, add, broker, left_over, memory_store, send_many, total, until, waiting,
};
use crate::{adder, gate};

const HOUR: Duration = Duration::from_secs(3600);

fn slow_adder(takes: Duration) -> Endpoint {
    Endpoint::new("adder").preload(TOTAL).on(move |tx: Tx, message: Add| async move {
        tokio::time::sleep(takes).await;
        add(tx, message).await
    })
}

#[tokio::test(start_paused = true)]
async fn a_burst_for_one_partition_leaves_room_for_the_others() {
    let store = memory_store();
    let broker = Arc::new(InProcessBroker::builder().visibility_timeout(HOUR).build());
    let gate = gate(&store, &broker).endpoint(slow_adder(Duration::from_secs(1))).open().await.unwrap();
    let edge = gate.edge("edge").unwrap();
    send_many(&edge, "adder", 1_000, |_| "hot".to_owned()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let start = tokio::time::Instant::now();
    send_many(&edge, "adder", 1, |_| "cold".to_owned()).await;
    while total(&*store, "cold").await == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(start.elapsed() < Duration::from_secs(3), "it waited for {:?}", start.elapsed());
    until(&gate, |_| waiting(&broker, "adder") == 0).await;
    assert_eq!(total(&*store, "hot").await, 1_000);
    assert_eq!(gate.close().await.dead_letters, 0);
    assert_eq!(left_over(&*store).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_whose_messages_send_to_it_goes_on() {
    let store = memory_store();
    let queues = Arc::new(InProcessBroker::builder().capacity(100).build());
    let filling = gate(&store, &queues).open().await.unwrap();
    let source = |tx: Tx| async move {
        for n in 0..100 {
            tx.send("adder", &format!("P{n}"), &Add { amount: 1, hops: 1 })?;
        }
        Ok::<_, HandlerError>(())
    };
    filling.edge("edge").unwrap().execute("requests", "one", HOUR, source).await.unwrap();
    until(&filling, |_| waiting(&queues, "adder") == 100).await;
    filling.close().await;
    let gate = gate(&store, &queues).endpoint(adder()).open().await.unwrap();
    until(&gate, |_| waiting(&queues, "adder") == 0).await;
    assert_eq!(gate.close().await.committed, 200);
    assert_eq!(left_over(&*store).await, 0);
}

#[tokio::test(start_paused = true)]
async fn the_largest_concurrency_there_is_is_as_good_as_none() {
    let (store, broker) = (memory_store(), broker());
    let endpoint = adder().concurrency(usize::MAX).requests_max(usize::MAX);
    let gate = gate(&store, &broker).endpoint(endpoint).open().await.unwrap();
    send_many(&gate.edge("adder").unwrap(), "adder", 500, |n| format!("P{}", n % 2)).await;
    until(&gate, |_| waiting(&broker, "adder") == 0).await;
    gate.close().await;
    assert_eq!(total(&*store, "P0").await + total(&*store, "P1").await, 500);
}

/// A request that takes a second and counts itself.
async fn slow_request(edge: Edge, id: usize) -> Result<(), TollgateError> {
    edge.execute("P", &id.to_string(), HOUR, |tx: Tx| async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let total: u64 = tx.get(TOTAL).await?.unwrap_or_default();
        tx.put(TOTAL, &(total + 1))?;
        Ok::<_, HandlerError>(())
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn requests_whose_callers_have_gone_are_not_executed() {
    let (store, broker) = (memory_store(), broker());
    let gate = gate(&store, &broker).open().await.unwrap();
    let edge = gate.edge("edge").unwrap();
    let running = tokio::spawn(slow_request(edge.clone(), 0));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let gone: Vec<_> = (1..30).map(|id| tokio::spawn(slow_request(edge.clone(), id))).collect();
    let stays = tokio::spawn(slow_request(edge.clone(), 30));
    tokio::time::sleep(Duration::from_millis(100)).await;
    for caller in gone {
        caller.abort();
    }
    running.await.unwrap().unwrap();
    stays.await.unwrap().unwrap();
    let statistics = gate.close().await;
    assert_eq!((statistics.requests, statistics.requests_shed), (2, 29));
    assert_eq!(total(&*store, "P").await, 2);
}

#[tokio::test(start_paused = true)]
async fn more_requests_than_an_endpoint_takes_are_refused_at_once_and_may_come_again() {
    let (store, broker) = (memory_store(), broker());
    let endpoint = Endpoint::new("shop").requests_max(40);
    let gate = gate(&store, &broker).endpoint(endpoint).open().await.unwrap();
    let edge = gate.edge("shop").unwrap();
    let first = tokio::spawn(slow_request(edge.clone(), 0));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let start = tokio::time::Instant::now();
    let waiting: Vec<_> = (1..=10).map(|id| tokio::spawn(slow_request(edge.clone(), id))).collect();
    tokio::task::yield_now().await;
    let refused = slow_request(edge.clone(), 11).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "10 requests wait for partition P, and no more are taken; back off and try again with the same key"
    );
    assert!(refused.is_retryable() && start.elapsed().is_zero());
    first.await.unwrap().unwrap();
    for request in waiting {
        request.await.unwrap().unwrap();
    }
    slow_request(edge, 11).await.unwrap();
    assert_eq!(gate.close().await.requests_shed, 1);
    assert_eq!(total(&*store, "P").await, 12);
}

/// A store that can't be scanned.
struct Unscannable(Arc<dyn Store>);

impl StoreWrapper for Unscannable {
    fn inner(&self) -> &dyn Store {
        &*self.0
    }

    fn scan(&self, _: Option<ScanCursor>, _: usize) -> BoxFuture<'_, Result<ScanPage, StoreError>> {
        let (store, reason) = (self.0.alias().clone(), "the scan was refused".to_owned());
        Box::pin(std::future::ready(Err(StoreError::Unavailable { store, reason })))
    }
}

/// A broker that sends nothing while it is told so.
struct OneWay {
    inner: Arc<InProcessBroker>,
    is_mute: AtomicBool,
    receives: AtomicU64,
}

impl Broker for OneWay {
    fn send(&self, messages: Vec<OutgoingMessage>) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        if !self.is_mute.load(Ordering::SeqCst) {
            return self.inner.send(messages);
        }
        let refused = messages.into_iter().map(|OutgoingMessage { endpoint, .. }| {
            Err(BrokerError::Unavailable { endpoint, reason: "connection refused".to_owned() })
        });
        Box::pin(std::future::ready(refused.collect()))
    }

    fn receive(
        &self,
        endpoint: &EndpointName,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<Delivery>, BrokerError>> {
        let received = self.inner.receive(endpoint, max);
        Box::pin(async move {
            let received = received.await;
            self.receives.fetch_add(1, Ordering::SeqCst);
            received
        })
    }

    fn settle(
        &self,
        endpoint: &EndpointName,
        settlements: Vec<Settlement>,
    ) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        self.inner.settle(endpoint, settlements)
    }

    fn verify(&self, endpoint: &EndpointName) -> BoxFuture<'_, Result<(), BrokerError>> {
        self.inner.verify(endpoint)
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_sending_slows_receiving_until_a_send_succeeds() {
    let (store, queues) = (memory_store(), broker());
    let mute = Arc::new(OneWay {
        inner: Arc::clone(&queues),
        is_mute: AtomicBool::new(false),
        receives: AtomicU64::new(0),
    });
    let gate = Gate::builder()
        .store(Arc::clone(&store))
        .broker(Arc::clone(&mute) as Arc<dyn Broker>)
        .endpoint(Endpoint::new("edge"))
        .endpoint(adder())
        .open()
        .await
        .unwrap();
    let edge = gate.edge("edge").unwrap();
    let source = |tx: Tx| async move {
        for n in 0..400 {
            tx.send("adder", &format!("P{n}"), &Add { amount: 1, hops: 1 })?;
        }
        Ok::<_, HandlerError>(())
    };
    edge.execute("requests", "one", HOUR, source).await.unwrap();
    mute.is_mute.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before = mute.receives.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let during = mute.receives.load(Ordering::SeqCst) - before;
    assert!((1..=120).contains(&during), "it looks now and then: {during} in a minute");
    mute.is_mute.store(false, Ordering::SeqCst);
    until(&gate, |_| waiting(&queues, "adder") + waiting(&queues, "edge") == 0).await;
    assert_eq!(gate.close().await.dead_letters, 0);
    assert_eq!(left_over(&*store).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_scanned_stops_no_other_stores_sweep() {
    let queues = broker();
    let (first, second) = (memory_store(), Arc::new(MemoryStore::new(StoreAlias::new("second").unwrap())));
    let open = async |broker: Arc<dyn Broker>, sweeps: Option<Duration>| {
        Gate::builder()
            .store(Arc::new(Unscannable(Arc::clone(&first))))
            .store(Arc::clone(&second) as Arc<dyn Store>)
            .broker(broker)
            .broker_call_max(Duration::from_secs(1))
            .endpoint(Endpoint::new("edge").store("second").driven())
            .sweep_every(sweeps)
            .open()
            .await
            .unwrap()
    };
    // It commits, and its outputs do not get out.
    let dying =
        open(Arc::new(OddBroker { inner: Arc::clone(&queues), sends: Sends::OnlyDelayed }), None).await;
    let handler = |tx: Tx| async move { Ok(tx.send("adder", "P", &Add { amount: 1, hops: 0 }).map(|_| ())?) };
    dying.edge("edge").unwrap().execute("requests", "one", HOUR, handler).await.unwrap();
    dying.close().await;
    assert_eq!(waiting(&queues, "adder"), 0);
    let sweeper = open(Arc::clone(&queues) as Arc<dyn Broker>, Some(Duration::from_secs(60))).await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(waiting(&queues, "adder"), 1, "the second store's work is completed");
    assert!(sweeper.sweep().await.is_err(), "and the failure of the first one is told");
    sweeper.close().await;
}
