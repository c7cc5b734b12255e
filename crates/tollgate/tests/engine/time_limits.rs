//! Handlers and calls that do not end: they are given up, and nothing else waits for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tollgate::proto::{
    BoxFuture, BrokerError, Commit, CommitOutcome, Delivery, EndpointName, LoadRequest, LoadedPartition,
    OutgoingMessage, Settlement, StoreError, StoreWrapper,
};
use tollgate::{Broker, Endpoint, HandlerError, Store, TollgateError, Tx};
use tollgate_brokers::InProcessBroker;

use crate::harness::{
    Add, Latency, Log, SlowStore, TOTAL, add, broker, left_over, memory_store, send_many, total, until,
    waiting,
};
use crate::{adder, dead_letter_reason, gate, send};

/// The amount whose handler never returns.
const HANGS: u64 = 1_000;

const HOUR: Duration = Duration::from_secs(3600);

fn hanging_adder() -> Endpoint {
    Endpoint::new("adder").preload(TOTAL).on(|tx: Tx, message: Add| async move {
        if message.amount == HANGS {
            std::future::pending::<()>().await;
        }
        add(tx, message).await
    })
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_hangs_is_dead_lettered_at_its_limit_and_200_others_of_its_partition_are_handled() {
    // Its visibility timeout is shorter than the handler's limit: each run has several deliveries.
    let (store, broker) = (memory_store(), broker());
    let endpoint = hanging_adder().handler_time_max(Duration::from_secs(50));
    let gate = gate(&store, &broker).endpoint(endpoint).open().await.unwrap();
    let mut messages = vec![Add { amount: 1, hops: 0 }; 200];
    messages.insert(20, Add { amount: HANGS, hops: 0 });
    send(&gate, "burst", messages).await;
    until(&gate, |statistics| statistics.committed == 201).await;
    assert_eq!(total(&*store, "P").await, 200);
    assert_eq!(gate.statistics().dead_letters, 0);
    until(&gate, |statistics| statistics.dead_letters > 0).await;
    let reason = dead_letter_reason(&broker, "adder").await;
    assert!(reason.contains("the handler was dropped at its time limit of 50 s"), "{reason}");
    until(&gate, |_| waiting(&broker, "adder") == 0).await;
    let statistics = gate.close().await;
    assert_eq!(statistics.committed, 201, "with the request that sent them");
    assert_eq!(broker.dead_letters(&EndpointName::new("adder").unwrap()).len(), 1);
    assert!((2..=10).contains(&statistics.handlers_timed_out), "{statistics:?}");
    assert_eq!(total(&*store, "P").await, 200);
    assert_eq!(left_over(&*store).await, 1, "the token of the dead letter");
}

#[tokio::test(start_paused = true)]
async fn a_gate_with_a_hanging_handler_closes_within_its_time_and_says_which_message_it_was() {
    let (store, broker) = (memory_store(), broker());
    let gate = gate(&store, &broker).endpoint(hanging_adder()).open().await.unwrap();
    send(&gate, "one", vec![Add { amount: HANGS, hops: 0 }, Add { amount: 1, hops: 0 }]).await;
    tokio::time::sleep(Duration::from_secs(40)).await;
    let oldest = gate.oldest_in_progress();
    let oldest = oldest.iter().find(|oldest| oldest.endpoint.as_str() == "adder").unwrap();
    assert_eq!((oldest.partition.as_str(), oldest.message_type.as_str()), ("P", "test.add"));
    assert!((39..=40).contains(&oldest.age.as_secs()), "{oldest:?}");
    let start = tokio::time::Instant::now();
    let statistics = gate.close_within(Duration::from_secs(5)).await;
    assert!(start.elapsed() <= Duration::from_secs(5), "{:?}", start.elapsed());
    // The one that was not handled is put back, and the other commits in what is left of the time.
    assert_eq!((statistics.committed, statistics.dead_letters, statistics.unfinished), (2, 0, 0));
    assert_eq!(total(&*store, "P").await, 1);
    assert_eq!((waiting(&broker, "adder"), left_over(&*store).await), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_gate_closes_within_its_time_although_a_store_never_answers() {
    let (inner, broker) = (memory_store(), broker());
    let store = Arc::new(SilentStore {
        inner: Arc::clone(&inner),
        commits: AtomicBool::new(false),
        loads: AtomicBool::new(false),
    });
    let gate = gate(&(Arc::clone(&store) as Arc<dyn Store>), &broker).endpoint(adder()).open().await.unwrap();
    store.commits.store(true, Ordering::SeqCst);
    let edge = gate.edge("edge").unwrap();
    let request = tokio::spawn(async move {
        edge.execute("P", "one", HOUR, |tx: Tx| async move { Ok(tx.put(TOTAL, &1)?) }).await
    });
    until(&gate, |_| !store.commits.load(Ordering::SeqCst)).await;
    let start = tokio::time::Instant::now();
    let statistics = gate.close_within(Duration::from_secs(5)).await;
    assert!(start.elapsed() <= Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(statistics.unfinished, 1, "{statistics:?}");
    // What is left ends at its own limits.
    request.await.unwrap().unwrap();
    assert_eq!(total(&*inner, "P").await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_flush_does_not_wait_for_a_lane_that_hangs() {
    const PARTITIONS: usize = 300;
    let (inner, broker) = (memory_store(), broker());
    let latency = Latency::from(Duration::ZERO);
    let store: Arc<dyn Store> =
        Arc::new(SlowStore { inner: Arc::clone(&inner), latency: latency.clone(), log: Log::default() });
    let endpoint = hanging_adder().handler_time_max(HOUR);
    let gate = gate(&store, &broker).endpoint(endpoint).flush_after(HOUR).open().await.unwrap();
    let edge = gate.edge("edge").unwrap();
    send_many(&edge, "adder", PARTITIONS, |n| format!("P{n:03}")).await;
    until(&gate, |_| waiting(&broker, "adder") + waiting(&broker, "edge") == 0).await;
    assert!(left_over(&*inner).await >= PARTITIONS as u64, "each partition has a marker");
    // The last partition's handler begins to hang while the first ones are flushed.
    let gate = Arc::new(gate);
    let start = tokio::time::Instant::now();
    latency.set(Duration::from_millis(10));
    let flushing = tokio::spawn({
        let gate = Arc::clone(&gate);
        async move { gate.flush().await }
    });
    let hanging =
        |tx: Tx| async move { Ok(tx.send("adder", "P299", &Add { amount: HANGS, hops: 0 }).map(|_| ())?) };
    edge.execute("requests", "hang", HOUR, hanging).await.unwrap();
    flushing.await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(62), "{:?}", start.elapsed());
    let left = left_over(&*inner).await;
    assert!(left < 10, "the others are flushed: {left}");
    let gate = Arc::into_inner(gate).unwrap();
    gate.close_within(Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn redeliveries_of_a_message_in_progress_take_no_place_of_others() {
    static HANGING: AtomicBool = AtomicBool::new(true);
    let (store, queues) = (
        memory_store(),
        Arc::new(InProcessBroker::builder().visibility_timeout(Duration::from_secs(1)).build()),
    );
    let endpoint =
        Endpoint::new("adder").concurrency(4).handler_time_max(HOUR).on(|tx: Tx, message: Add| async move {
            while message.amount == HANGS && HANGING.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            add(tx, message).await
        });
    let gate = gate(&store, &queues).endpoint(endpoint).open().await.unwrap();
    send(&gate, "one", vec![Add { amount: HANGS, hops: 0 }]).await;
    // Many more deliveries than the window has places.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(gate.statistics().copies_attached > 40, "{:?}", gate.statistics());
    let edge = gate.edge("edge").unwrap();
    let other = |tx: Tx| async move { Ok(tx.send("adder", "Q", &Add { amount: 1, hops: 0 }).map(|_| ())?) };
    edge.execute("requests", "two", HOUR, other).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(total(&*store, "Q").await, 1, "another partition is handled meanwhile");
    HANGING.store(false, Ordering::SeqCst);
    until(&gate, |_| waiting(&queues, "adder") == 0).await;
    let statistics = gate.close().await;
    assert_eq!((statistics.committed, statistics.dead_letters), (4, 0), "each once, by its latest receipt");
    assert_eq!(total(&*store, "P").await, HANGS);
    assert_eq!(left_over(&*store).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_handler_hangs_fails_and_its_partition_goes_on() {
    let (store, broker) = (memory_store(), broker());
    let endpoint = Endpoint::new("shop").handler_time_max(Duration::from_secs(5));
    let gate = gate(&store, &broker).endpoint(endpoint).open().await.unwrap();
    let shop = gate.edge("shop").unwrap();
    let start = tokio::time::Instant::now();
    let hangs = |tx: Tx| async move {
        tx.put(TOTAL, &1)?;
        std::future::pending::<()>().await;
        Ok(())
    };
    let works = |tx: Tx| async move { Ok(tx.put(TOTAL, &2)?) };
    let (hanging, working) =
        tokio::join!(shop.execute("P", "one", HOUR, hangs), shop.execute("P", "two", HOUR, works));
    let error = hanging.unwrap_err();
    assert!(matches!(error, TollgateError::TimedOut { .. }) && error.is_retryable(), "{error}");
    working.unwrap();
    assert!(start.elapsed() < Duration::from_secs(7), "it was run once: {:?}", start.elapsed());
    assert_eq!(total(&*store, "P").await, 2);
    shop.execute("P", "one", HOUR, works).await.unwrap();
    gate.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_waits_for_its_own_partition_is_refused_at_once_also_through_other_partitions() {
    let (store, broker) = (memory_store(), broker());
    let gate = gate(&store, &broker).open().await.unwrap();
    let edge = gate.edge("edge").unwrap();
    let start = tokio::time::Instant::now();
    let refused = |error: &TollgateError| matches!(error, TollgateError::WaitsForItself { partition } if partition.as_str() == "A");
    let nested = {
        let edge = edge.clone();
        move |_: Tx| {
            let edge = edge.clone();
            async move {
                let inner = |_: Tx| async move { Ok(1) };
                let direct = edge.execute("A", "direct", HOUR, inner).await.unwrap_err();
                let apart = edge.clone();
                // A spawned task that the handler waits for is part of the handler.
                let spawned = edge.to_its_end(async move { apart.advance("A", "apart", inner).await }).await;
                let through_b = {
                    let edge = edge.clone();
                    move |_: Tx| {
                        let edge = edge.clone();
                        async move {
                            Ok(edge.execute("A", "through B", HOUR, inner).await.unwrap_err().to_string())
                        }
                    }
                };
                let through_b: String = edge.execute("B", "from A", HOUR, through_b).await?;
                assert!(refused(&direct) && !direct.is_retryable(), "{direct}");
                assert!(refused(&spawned?.unwrap_err()));
                Ok(through_b)
            }
        }
    };
    let through_b: String = edge.execute("A", "outer", HOUR, nested).await.unwrap();
    assert!(
        through_b.contains("a handler of partition A waits for a request to the same partition"),
        "{through_b}"
    );
    assert!(start.elapsed() < Duration::from_secs(1), "nothing waited: {:?}", start.elapsed());
    gate.close().await;
}

/// A store and a broker with one call each that takes effect and is never answered.
struct Silent<T> {
    inner: Arc<T>,
    is_silent: AtomicBool,
}

impl<T> Silent<T> {
    fn new(inner: Arc<T>) -> Arc<Self> {
        Arc::new(Self { inner, is_silent: AtomicBool::new(false) })
    }

    async fn answer<A>(&self, answer: A) -> A {
        if self.is_silent.swap(false, Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        answer
    }
}

struct SilentStore {
    inner: Arc<dyn Store>,
    commits: AtomicBool,
    loads: AtomicBool,
}

impl SilentStore {
    async fn hang_if(flag: &AtomicBool) {
        if flag.swap(false, Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }
}

impl StoreWrapper for SilentStore {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    fn load(&self, requests: Vec<LoadRequest>) -> BoxFuture<'_, Vec<Result<LoadedPartition, StoreError>>> {
        Box::pin(async move {
            Self::hang_if(&self.loads).await;
            self.inner.load(requests).await
        })
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, StoreError>> {
        Box::pin(async move {
            let answer = self.inner.commit(commit).await;
            Self::hang_if(&self.commits).await;
            answer
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_call_that_is_never_answered_counts_as_a_lost_answer() {
    let (inner, broker) = (memory_store(), broker());
    let store = Arc::new(SilentStore {
        inner: Arc::clone(&inner),
        commits: AtomicBool::new(false),
        loads: AtomicBool::new(false),
    });
    let gate = gate(&(Arc::clone(&store) as Arc<dyn Store>), &broker).endpoint(adder()).open().await.unwrap();
    let start = tokio::time::Instant::now();
    store.commits.store(true, Ordering::SeqCst);
    store.loads.store(true, Ordering::SeqCst);
    send(&gate, "one", vec![Add { amount: 1, hops: 0 }]).await;
    until(&gate, |_| waiting(&broker, "adder") == 0).await;
    assert!(!store.commits.load(Ordering::SeqCst) && !store.loads.load(Ordering::SeqCst), "both have hung");
    assert!(start.elapsed() > Duration::from_secs(60), "{:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(75), "{:?}", start.elapsed());
    let statistics = gate.close().await;
    assert_eq!((statistics.conflicts, statistics.dead_letters), (1, 0));
    assert_eq!(total(&*inner, "P").await, 1);
    assert_eq!(left_over(&*inner).await, 0);
}

impl Broker for Silent<InProcessBroker> {
    fn send(&self, messages: Vec<OutgoingMessage>) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        Box::pin(async move {
            let answers = self.inner.send(messages).await;
            self.answer(answers).await
        })
    }

    fn receive(
        &self,
        endpoint: &EndpointName,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<Delivery>, BrokerError>> {
        self.inner.receive(endpoint, max)
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
async fn a_send_that_is_never_answered_is_sent_again() {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let (store, queues) = (memory_store(), broker());
    let silent = Silent::new(Arc::clone(&queues));
    let gate = tollgate::Gate::builder()
        .store(Arc::clone(&store))
        .broker(Arc::clone(&silent) as Arc<dyn Broker>)
        .broker_call_max(Duration::from_secs(10))
        .endpoint(Endpoint::new("edge"))
        .endpoint(Endpoint::new("adder").on(|tx: Tx, message: Add| async move {
            RUNS.fetch_add(1, Ordering::SeqCst);
            add(tx, message).await
        }))
        .open()
        .await
        .unwrap();
    let switch = Arc::clone(&silent);
    let edge = gate.edge("edge").unwrap();
    let handler = move |tx: Tx| {
        // The wake-up is the next message that is sent.
        switch.is_silent.store(RUNS.load(Ordering::SeqCst) == 0, Ordering::SeqCst);
        async move {
            tx.send("adder", "P", &Add { amount: 1, hops: 0 })?;
            Ok::<_, HandlerError>(())
        }
    };
    edge.execute("requests", "one", HOUR, handler).await.unwrap_err();
    assert_eq!(total(&*store, "P").await, 0);
    silent.is_silent.store(false, Ordering::SeqCst);
    edge.execute("requests", "one", HOUR, |tx: Tx| async move {
        tx.send("adder", "P", &Add { amount: 1, hops: 0 })?;
        Ok::<_, HandlerError>(())
    })
    .await
    .unwrap();
    until(&gate, |_| waiting(&queues, "adder") == 0).await;
    assert_eq!(total(&*store, "P").await, 1);
    gate.close().await;
}
