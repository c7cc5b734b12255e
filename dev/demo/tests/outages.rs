//! A real broker, the store, or both are gone for a minute while a gate works through a backlog: it goes on by itself, nothing is lost or
//! doubled, and nobody is hammered meanwhile. The same on a paused clock, with every call counted, is in the engine's tests; here
//! the server is killed with SIGKILL, and it is counted how often somebody tries to connect.
//!
//! Each test takes over a minute, so they are run by hand:
//! `cargo test --release -p tollgate-demo --features nats,rabbitmq --test outages -- --ignored --nocapture`
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tollgate::proto::{
    BoxFuture, BrokerError, BrokerWrapper, Delivery, EndpointName, LoadRequest, OutgoingMessage, Settlement,
    StoreAlias,
};
use tollgate::{Broker, Edge, Endpoint, Gate, HandlerError, Message, Statistics, Store, Tx};
use tollgate_embedded::MemoryStore;
use tollgate_nats::{NatsBroker, Provisioning};
use tollgate_rabbitmq::RabbitMqBroker;
use tollgate_testkit::{CountingStore, FaultRates, FaultyStore, LocalServer};

const MESSAGES: usize = 20_000;
const PARTITIONS: usize = 500;

/// How many of them are committed when the outage begins, at least.
const BEFORE: u64 = 2000;

/// How long the outage lasts.
const OUTAGE: Duration = Duration::from_secs(60);

/// How long everything may take after it: what the dead server had given out comes again after a visibility timeout of 30 s.
const DRAINED_WITHIN: Duration = Duration::from_secs(120);

/// How long the sender waits before it tries again: as long as the gate at most.
const SENT_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Most calls to what is gone in any second of an outage after the first one, in which what was in progress fails. Two endpoints look
/// whether the trouble is over, each by one call and four repetitions; a request of the sender makes five calls six times.
const CALLS_A_SECOND_MAX: u64 = 60;

/// Most calls to it in the rest of the minute.
const CALLS_A_MINUTE_MAX: u64 = 600;

/// RabbitMQ 3.10 writes a few seconds later which files are whose quorum queue's. One that was made just before it is killed comes back empty
/// and without a leader (docs/brokers/rabbitmq.md).
const QUEUES_WRITTEN_WITHIN: Duration = Duration::from_secs(6);

/// What is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gone {
    Broker,
    Store,
    Both,
}

impl Gone {
    fn is_broker(self) -> bool {
        matches!(self, Self::Broker | Self::Both)
    }

    fn is_store(self) -> bool {
        matches!(self, Self::Store | Self::Both)
    }
}

const TOTAL: &str = "total";

#[derive(Clone, Serialize, Deserialize)]
struct Add {
    amount: u64,
}

impl Message for Add {
    const TYPE: &'static str = "test.add";
}

async fn add(tx: Tx, message: Add) -> Result<(), HandlerError> {
    let total: u64 = tx.get(TOTAL).await?.unwrap_or_default();
    tx.put(TOTAL, &(total + message.amount))?;
    Ok(())
}

/// A broker whose calls are counted when they are made.
struct Counted {
    inner: Arc<dyn Broker>,
    calls: AtomicU64,
}

impl BrokerWrapper for Counted {
    fn inner(&self) -> &dyn Broker {
        &*self.inner
    }

    fn send(&self, messages: Vec<OutgoingMessage>) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.inner.send(messages)
    }

    fn receive(
        &self,
        endpoint: &EndpointName,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<Delivery>, BrokerError>> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.inner.receive(endpoint, max)
    }

    fn settle(
        &self,
        endpoint: &EndpointName,
        settlements: Vec<Settlement>,
    ) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.inner.settle(endpoint, settlements)
    }
}

/// Stands before the server, and counts who comes. If nobody is behind it, it hangs up.
struct Doorman {
    address: String,
    visitors: Arc<AtomicU64>,
}

impl Doorman {
    async fn before(server: &LocalServer) -> Self {
        let (scheme, behind) = server.address().split_once("://").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("{scheme}://{}", listener.local_addr().unwrap());
        let visitors = Arc::new(AtomicU64::new(0));
        let (counted, behind) = (Arc::clone(&visitors), behind.to_owned());
        tokio::spawn(async move {
            while let Ok((mut visitor, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let behind = behind.clone();
                tokio::spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(behind).await {
                        let _ = tokio::io::copy_bidirectional(&mut visitor, &mut server).await;
                    }
                });
            }
        });
        Self { address, visitors }
    }
}

async fn until(what: &str, within: Duration, mut done: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !done().await {
        assert!(started.elapsed() < within, "{what}: it never came to that");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn total(store: &dyn Store, partition: &str) -> u64 {
    let request = LoadRequest {
        partition: partition.try_into().unwrap(),
        items: vec![TOTAL.try_into().unwrap()],
        records: vec![],
    };
    let loaded = store.load(vec![request]).await.pop().unwrap().unwrap();
    let value = loaded.items.into_iter().next().unwrap().1;
    value.map_or(0, |value| serde_json::from_slice(value.bytes()).unwrap())
}

/// Sends all messages, by requests that are repeated until they succeed.
fn send_everything(edge: Edge) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        for start in (0..MESSAGES).step_by(100) {
            let chunk = move |tx: Tx| async move {
                for n in start..start + 100 {
                    tx.send("adder", &format!("P{}", n % PARTITIONS), &Add { amount: 1 })?;
                }
                Ok::<_, HandlerError>(())
            };
            // The same request again is the same request.
            while edge.advance(&format!("source/{start}"), &start.to_string(), chunk).await.is_err() {
                tokio::time::sleep(SENT_AGAIN_AFTER).await;
            }
        }
    })
}

/// Calls to the store, calls to the broker's adapter, and connections to the server, in each second.
struct Rates(Vec<[u64; 3]>);

impl Rates {
    async fn of_the_outage(calls: impl Fn() -> [u64; 3]) -> Self {
        let mut rates = Vec::new();
        for _ in 0..OUTAGE.as_secs() {
            let sofar = calls();
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = calls();
            rates.push([now[0] - sofar[0], now[1] - sofar[1], now[2] - sofar[2]]);
        }
        Self(rates)
    }

    fn most(&self, what: usize) -> u64 {
        self.0[1..].iter().map(|rate| rate[what]).max().unwrap()
    }

    fn sum(&self, what: usize) -> u64 {
        self.0[1..].iter().map(|rate| rate[what]).sum()
    }

    fn hammer(&self, what: usize) -> bool {
        self.most(what) > CALLS_A_SECOND_MAX || self.sum(what) > CALLS_A_MINUTE_MAX
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, name) in ["store", "broker", "connections"].into_iter().enumerate() {
            let (first, most, sum) = (self.0[0][what], self.most(what), self.sum(what));
            write!(
                f,
                "{name}: {first} in the first second, {most} in any later one at most, {sum} in all of them; "
            )?;
        }
        Ok(())
    }
}

/// `left`: how many messages are in the queue of the endpoint `adder`; `None` if nobody can tell.
async fn survive<B: Broker>(
    gone: Gone,
    name: &str,
    mut server: LocalServer,
    doorman: Doorman,
    broker: Arc<B>,
    left: impl AsyncFn(&B, &EndpointName) -> Option<u64>,
) {
    let inner: Arc<dyn Store> = Arc::new(MemoryStore::new(StoreAlias::new("main").unwrap()));
    let faulty = Arc::new(FaultyStore::new(Arc::clone(&inner), 1, FaultRates::default()));
    let store = Arc::new(CountingStore::new(Arc::clone(&faulty) as Arc<dyn Store>));
    let counted =
        Arc::new(Counted { inner: Arc::clone(&broker) as Arc<dyn Broker>, calls: AtomicU64::new(0) });
    let gate = Gate::builder()
        .store(Arc::clone(&store) as Arc<dyn Store>)
        .broker(Arc::clone(&counted) as Arc<dyn Broker>)
        .endpoint(Endpoint::new("edge"))
        .endpoint(Endpoint::new("adder").concurrency(64).preload(TOTAL).on::<Add, _, _>(add))
        .open()
        .await
        .unwrap();
    let sending = send_everything(gate.edge("edge").unwrap());
    let committed = |statistics: &Statistics| statistics.committed;
    until("a part is committed", DRAINED_WITHIN, async || committed(&gate.statistics()) >= BEFORE).await;
    let before = gate.statistics();

    if gone.is_broker() {
        server.kill();
    }
    if gone.is_store() {
        faulty.set_rates(FaultRates { unavailable: 1.0, ..FaultRates::default() });
    }
    let calls = || {
        [
            store.counts().calls(),
            counted.calls.load(Ordering::SeqCst),
            doorman.visitors.load(Ordering::SeqCst),
        ]
    };
    let rates = Rates::of_the_outage(calls).await;
    let during = gate.statistics();
    let end = Instant::now();
    faulty.set_rates(FaultRates::default());
    if gone.is_broker() {
        server.restart();
    }
    let started = end.elapsed();
    until("it resumes", DRAINED_WITHIN, async || committed(&gate.statistics()) > during.committed).await;
    let resumed = end.elapsed();
    let endpoint = EndpointName::new("adder").unwrap();
    let drained = async {
        let mut told = Instant::now();
        loop {
            let sent = sending.is_finished();
            let (committed, left) = (committed(&gate.statistics()), left(&broker, &endpoint).await);
            if sent && committed >= MESSAGES as u64 && left == Some(0) {
                return;
            }
            if told.elapsed() > Duration::from_secs(10) {
                told = Instant::now();
                println!(
                    "{name}: {gone:?}: everything is sent: {sent}; {committed} committed, {left:?} left"
                );
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DRAINED_WITHIN, drained).await.expect("all is done in time");
    let drained = end.elapsed();
    sending.await.unwrap();
    gate.flush().await;
    let statistics = gate.close().await;

    println!(
        "{name}: {gone:?} gone for {OUTAGE:?} after {} commits; {rates}the server was up {started:?} after the end, the first commit came after \
         {resumed:?}, all was done after {drained:?}; {} deliveries, {} commits",
        before.committed, statistics.deliveries, statistics.committed,
    );
    for partition in 0..PARTITIONS {
        assert_eq!(total(&*inner, &format!("P{partition}")).await, (MESSAGES / PARTITIONS) as u64);
    }
    assert_eq!(statistics.dead_letters, 0);
    let hammered =
        (gone.is_store() && rates.hammer(0)) || (gone.is_broker() && (rates.hammer(1) || rates.hammer(2)));
    assert!(!hammered, "it is hammered: {:?}", rates.0);
}

fn infra(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra").join(script)
}

async fn survive_on_nats(gone: Gone) {
    let Some(server) = LocalServer::start(infra("nats/start-nats")) else { return };
    let doorman = Doorman::before(&server).await;
    let broker = NatsBroker::at(doorman.address.clone()).provisioning(Provisioning::OnUse);
    let broker = Arc::new(broker.connect().await.unwrap());
    let left = async |broker: &NatsBroker, endpoint: &EndpointName| {
        broker.depth(endpoint).await.ok().map(|depth| depth.left)
    };
    survive(gone, "NATS", server, doorman, Arc::clone(&broker), left).await;
    broker.close().await;
}

async fn survive_on_rabbitmq(gone: Gone) {
    let Some(server) = LocalServer::start(infra("rabbitmq/start-rabbitmq")) else { return };
    let doorman = Doorman::before(&server).await;
    let broker = RabbitMqBroker::builder(doorman.address.clone()).open();
    let broker = Arc::new(broker.unwrap());
    for endpoint in ["edge", "adder"] {
        broker.provision(&EndpointName::new(endpoint).unwrap()).await.unwrap();
    }
    tokio::time::sleep(QUEUES_WRITTEN_WITHIN).await;
    // What consumers hold is not counted there.
    let left = async |broker: &RabbitMqBroker, endpoint: &EndpointName| {
        broker.depth(endpoint).await.ok().map(|depth| depth.ready + depth.delayed)
    };
    survive(gone, "RabbitMQ", server, doorman, Arc::clone(&broker), left).await;
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes over a minute"]
async fn nats_is_gone_for_a_minute_and_nothing_is_lost() {
    survive_on_nats(Gone::Broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes over a minute"]
async fn the_store_is_gone_for_a_minute_and_nats_loses_nothing() {
    survive_on_nats(Gone::Store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes over a minute"]
async fn nats_and_the_store_are_gone_for_a_minute_and_nothing_is_lost() {
    survive_on_nats(Gone::Both).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes over a minute"]
async fn rabbitmq_is_gone_for_a_minute_and_nothing_is_lost() {
    survive_on_rabbitmq(Gone::Broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes over a minute"]
async fn the_store_is_gone_for_a_minute_and_rabbitmq_loses_nothing() {
    survive_on_rabbitmq(Gone::Store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes over a minute"]
async fn rabbitmq_and_the_store_are_gone_for_a_minute_and_nothing_is_lost() {
    survive_on_rabbitmq(Gone::Both).await;
}
