//! What the engine's tests share: a store and a broker that take down every call and may be slow, and a look at what is
//! left in a store.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tollgate::proto::{
    BoxFuture, BrokerError, BrokerWrapper, Commit, CommitOutcome, EndpointName, EntryRead, LoadRequest,
    LoadedPartition, OutgoingMessage, SessionMark, StoreAlias, StoreError, StoreWrapper, TokenRef, codec,
};
use tollgate::{Broker, Edge, Gate, HandlerError, Message, Statistics, Store, Tx};
use tollgate_brokers::InProcessBroker;
use tollgate_embedded::MemoryStore;

/// Adds to the partition's item `total`, and passes itself on as often as `hops` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Add {
    pub amount: u64,
    pub hops: u32,
}

impl Message for Add {
    const TYPE: &'static str = "test.add";
}

pub const TOTAL: &str = "total";

/// The handler of [`Add`].
pub async fn add(tx: Tx, message: Add) -> Result<(), tollgate::HandlerError> {
    let total: u64 = tx.get(TOTAL).await?.unwrap_or_default();
    tx.put(TOTAL, &(total + message.amount))?;
    if message.hops > 0 {
        let next = format!("{}+", tx.partition());
        let endpoint = tx.endpoint().to_string();
        tx.send(&endpoint, &next, &Add { amount: message.amount, hops: message.hops - 1 })?;
    }
    Ok(())
}

pub fn memory_store() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new(StoreAlias::new("main").unwrap()))
}

pub fn broker() -> Arc<InProcessBroker> {
    Arc::new(InProcessBroker::builder().visibility_timeout(Duration::from_secs(30)).build())
}

/// Waits until the gate's statistics satisfy a condition. The clock is paused, so this takes no real time.
pub async fn until(gate: &Gate, done: impl Fn(&Statistics) -> bool) -> Statistics {
    for _ in 0..1_000_000 {
        let statistics = gate.statistics();
        if done(&statistics) {
            return statistics;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it never came to that: {:?}", gate.statistics());
}

/// Sends messages of amount 1 to partitions of an endpoint, a thousand at a time.
pub async fn send_many(
    edge: &Edge,
    endpoint: &'static str,
    count: usize,
    partition: impl Fn(usize) -> String,
) {
    let partitions: Arc<Vec<String>> = Arc::new((0..count).map(partition).collect());
    for start in (0..count).step_by(1000) {
        let partitions = Arc::clone(&partitions);
        let chunk = move |tx: Tx| {
            let partitions = Arc::clone(&partitions);
            async move {
                for partition in &partitions[start..partitions.len().min(start + 1000)] {
                    tx.send(endpoint, partition, &Add { amount: 1, hops: 0 })?;
                }
                Ok::<_, HandlerError>(())
            }
        };
        edge.advance(&format!("source/{start}"), &start.to_string(), chunk).await.unwrap();
    }
}

/// Messages that a queue still holds, dead letters not counted.
pub fn waiting(broker: &InProcessBroker, endpoint: &str) -> usize {
    let depth = broker.depth(&EndpointName::new(endpoint).unwrap());
    depth.ready + depth.delayed + depth.in_flight
}

/// The partition's total, read from the store.
pub async fn total(store: &dyn Store, partition: &str) -> u64 {
    let request = LoadRequest {
        partition: partition.try_into().unwrap(),
        items: vec![TOTAL.try_into().unwrap()],
        records: vec![],
    };
    let loaded = store.load(vec![request]).await.pop().unwrap().unwrap();
    match loaded.items.into_iter().next().unwrap().1 {
        Some(value) => serde_json::from_slice(value.bytes()).unwrap(),
        None => 0,
    }
}

/// Outbox entries, pending markers and registrations in the whole store.
pub async fn left_over(store: &dyn Store) -> u64 {
    let page = store.scan(None, usize::MAX).await.unwrap();
    let mut left = 0;
    for scanned in page.partitions {
        left += scanned.entries.len() as u64;
        if let Some(control) = scanned.control {
            let control = codec::decode_control(&control).unwrap();
            left += (control.pending.len() + control.registrations.len()) as u64;
        }
    }
    left
}

/// What was called, in order.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<&'static str>>>);

impl Log {
    pub fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn add(&self, call: &'static str) {
        self.0.lock().unwrap().push(call);
    }
}

/// How long calls take that are made from now on. Clones share it.
#[derive(Clone)]
pub struct Latency(Arc<Mutex<Duration>>);

impl Latency {
    pub fn set(&self, latency: Duration) {
        *self.0.lock().unwrap() = latency;
    }

    pub fn now(&self) -> Duration {
        *self.0.lock().unwrap()
    }
}

impl From<Duration> for Latency {
    fn from(latency: Duration) -> Self {
        Self(Arc::new(Mutex::new(latency)))
    }
}

/// A store that takes down every call, and answers each only after a while.
pub struct SlowStore {
    pub inner: Arc<dyn Store>,
    pub latency: Latency,
    pub log: Log,
}

impl SlowStore {
    fn call<'a, T: Send + 'a>(&'a self, name: &'static str, call: BoxFuture<'a, T>) -> BoxFuture<'a, T> {
        self.log.add(name);
        Box::pin(async move {
            tokio::time::sleep(self.latency.now()).await;
            call.await
        })
    }
}

impl StoreWrapper for SlowStore {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    fn load(&self, requests: Vec<LoadRequest>) -> BoxFuture<'_, Vec<Result<LoadedPartition, StoreError>>> {
        self.call("load", self.inner.load(requests))
    }

    fn read_entries(&self, reads: Vec<EntryRead>) -> BoxFuture<'_, Vec<Result<Option<Bytes>, StoreError>>> {
        self.call("read", self.inner.read_entries(reads))
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, StoreError>> {
        self.call("commit", self.inner.commit(commit))
    }

    fn delete_entries(
        &self,
        tokens: Vec<TokenRef>,
    ) -> BoxFuture<'_, Vec<Result<Option<SessionMark>, StoreError>>> {
        self.call("delete", self.inner.delete_entries(tokens))
    }
}

/// A broker that sends in a way of its own.
pub struct OddBroker {
    pub inner: Arc<InProcessBroker>,
    pub sends: Sends,
}

/// What an [`OddBroker`] does with messages that it is to send.
pub enum Sends {
    /// Sends each three times.
    ThreeTimes,
    /// Sends only those with a delay, and never answers for the others.
    OnlyDelayed,
    /// Takes down every call.
    Logged(Log),
}

impl BrokerWrapper for OddBroker {
    fn inner(&self) -> &dyn Broker {
        &*self.inner
    }

    fn send(&self, messages: Vec<OutgoingMessage>) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        match &self.sends {
            Sends::ThreeTimes => Box::pin(async move {
                self.inner.send(messages.clone()).await;
                self.inner.send(messages.clone()).await;
                self.inner.send(messages).await
            }),
            Sends::OnlyDelayed if messages.iter().any(|message| message.delay.is_zero()) => {
                Box::pin(std::future::pending())
            }
            Sends::OnlyDelayed => self.inner.send(messages),
            Sends::Logged(log) => {
                log.add("send");
                self.inner.send(messages)
            }
        }
    }
}
