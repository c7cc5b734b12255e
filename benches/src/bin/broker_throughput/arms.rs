//! The three consumers that are compared, and how one of them is run once: the messages are put into the queue, the consumer is started,
//! and what it did is counted in the store.

use std::fmt;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tollgate::Gate;
use tollgate::proto::{
    Broker, Delivery, EndpointName, ItemName, LoadRequest, PartitionKey, Settlement, Store, StoreAlias,
    Verdict, codec,
};
use tollgate_bench::naive_consumer::get_and_put;
use tollgate_bench::watched_broker::WatchedBroker;
use tollgate_bench::{ENDPOINT, TOTAL, adder, seed, send};
use tollgate_embedded::{EmbeddedStore, MemoryStore};

use crate::Failure;
use crate::bare;
use crate::brokers::Kind;
use crate::meter::Meter;

/// Partitions that messages go to, round and round.
const PARTITIONS: u64 = 500;

/// Messages that a consumer works on at a time.
const WINDOW: usize = 64;

/// Who consumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    /// The broker's own client, and nothing but acknowledgements.
    Bare,
    /// The same adapter as Tollgate's; gets an item, puts it and acknowledges, and deduplicates nothing.
    Naive,
    /// Tollgate.
    Tollgate,
}

/// What a run has shown.
pub struct Figures {
    /// Messages a second.
    pub rate: f64,
    /// In milliseconds, from delivery to acknowledgement.
    pub p50: f64,
    /// The same, for 99 of 100.
    pub p99: f64,
    /// What has been done: counted in the store; by a bare consumer, in its own memory.
    pub processed: u64,
    /// What was to be done.
    pub sent: u64,
}

impl Arm {
    pub const ALL: [Self; 3] = [Self::Bare, Self::Naive, Self::Tollgate];
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bare => "bare: acknowledge",
            Self::Naive => "naive: get, put, acknowledge",
            Self::Tollgate => "Tollgate",
        })
    }
}

/// Runs a consumer once, on queues and a store of its own.
pub async fn run(
    arm: Arm,
    kind: Kind,
    address: &str,
    prefix: &str,
    messages: u64,
) -> Result<Figures, Failure> {
    let endpoint = EndpointName::new(ENDPOINT)?;
    let directory = tempfile::tempdir()?;
    let alias = StoreAlias::new("main")?;
    let store = Arc::new(EmbeddedStore::open(directory.path(), alias.clone())?);
    let opened = kind.open(address, prefix, &endpoint).await?;
    let sent = PARTITIONS + messages;
    let announced = match arm {
        Arm::Tollgate => seed(&*store, sent, PARTITIONS).await,
        // The same bytes; nobody looks for the tokens.
        Arm::Bare | Arm::Naive => seed(&MemoryStore::new(alias), sent, PARTITIONS).await,
    };
    send(&opened.broker(), &announced).await;
    let meter = Arc::new(Meter::new(PARTITIONS, messages));
    let noting = Arc::clone(&meter);
    let watched = Arc::new(WatchedBroker::around(opened.broker(), move |time| noting.note(time)));
    let processed = match arm {
        Arm::Bare => bare::consume(kind, address, prefix, &meter).await?,
        Arm::Naive => {
            let mut consumer = JoinSet::new();
            consumer.spawn(consume_naively(Arc::clone(&store) as _, watched as _));
            tokio::select! {
                () = meter.until_ended() => {}
                Some(ended) = consumer.join_next() => ended??,
            }
            consumer.shutdown().await;
            total(&*store).await?
        }
        Arm::Tollgate => {
            let gate = Gate::builder().store(Arc::clone(&store) as _).broker(watched as _);
            let gate = gate.endpoint(adder(WINDOW)).open().await?;
            meter.until_ended().await;
            gate.close().await;
            total(&*store).await?
        }
    };
    opened.close().await;
    let (rate, times) = meter.read();
    Ok(Figures { rate, p50: times.p50, p99: times.p99, processed, sent })
}

/// The totals of all partitions.
async fn total(store: &dyn Store) -> Result<u64, Failure> {
    let item = ItemName::new(TOTAL)?;
    let mut total = 0;
    for partition in 0..PARTITIONS {
        let partition = PartitionKey::new(format!("partition/{partition}"))?;
        let request = LoadRequest { partition, items: vec![item.clone()], records: Vec::new() };
        let loaded = store.load(vec![request]).await.pop().ok_or("the store gave no answer")??;
        if let Some((_, Some(value))) = loaded.items.into_iter().next() {
            total += serde_json::from_slice::<u64>(value.bytes())?;
        }
    }
    Ok(total)
}

/// Takes as many messages as there is room for, and works on them at the same time.
async fn consume_naively(store: Arc<dyn Store>, broker: Arc<dyn Broker>) -> Result<(), Failure> {
    let endpoint = EndpointName::new(ENDPOINT)?;
    let window = Arc::new(Semaphore::new(WINDOW));
    let mut working = JoinSet::new();
    loop {
        // One that is free is worth waiting for; what else is free is taken along.
        let one = Arc::clone(&window).acquire_owned().await?;
        let deliveries = broker.receive(&endpoint, 1 + window.available_permits()).await?;
        drop(one);
        for delivery in deliveries {
            let permit = Arc::clone(&window).acquire_owned().await?;
            let (store, broker, endpoint) = (Arc::clone(&store), Arc::clone(&broker), endpoint.clone());
            working.spawn(async move {
                let worked = work(&*store, &*broker, &endpoint, delivery).await;
                drop(permit);
                worked
            });
        }
        while let Some(worked) = working.try_join_next() {
            worked??;
        }
    }
}

async fn work(
    store: &dyn Store,
    broker: &dyn Broker,
    endpoint: &EndpointName,
    delivery: Delivery,
) -> Result<(), Failure> {
    let partition = codec::decode_envelope(&delivery.envelope)?.to.partition;
    while !get_and_put(store, &partition).await? {}
    let done = Settlement { receipt: delivery.receipt, verdict: Verdict::Acknowledge };
    broker.settle(endpoint, vec![done]).await.into_iter().collect::<Result<(), _>>()?;
    Ok(())
}
