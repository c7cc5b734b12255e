//! A store at a distance: each call takes a while on its way, and only so many are on their way at a time. With tokio's clock
//! paused the waits are exact and cost nothing. It also looks how many calls there were, and how many at a time.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};
use tollgate::proto::{
    BoxFuture, Commit, CommitOutcome, EntryRead, LoadRequest, LoadedPartition, SessionMark, Store,
    StoreError, StoreWrapper, TokenRef,
};

/// Wraps a store.
pub struct SlowStore {
    inner: Arc<dyn Store>,
    latency: Duration,
    /// How much shorter or longer a call takes, as a part of the latency.
    spread: f64,
    random: Mutex<fastrand::Rng>,
    connections: Semaphore,
    calls: AtomicU64,
    in_flight: AtomicUsize,
    peak: AtomicUsize,
}

/// A call on its way.
struct Way<'a> {
    store: &'a SlowStore,
    _connection: SemaphorePermit<'a>,
}

impl Drop for Way<'_> {
    fn drop(&mut self) {
        self.store.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl SlowStore {
    /// A store each of whose calls takes `latency`, evenly up to `spread` (a part of 1) less or more of it, and at most
    /// `connections` of them at a time.
    pub fn new(inner: Arc<dyn Store>, latency: Duration, spread: f64, connections: usize) -> Self {
        Self {
            inner,
            latency,
            spread,
            random: Mutex::new(fastrand::Rng::with_seed(SEED)),
            connections: Semaphore::new(connections),
            calls: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
        }
    }

    /// How many calls were made, and how many of them were on their way at a time.
    pub fn traffic(&self) -> (u64, usize) {
        (self.calls.load(Ordering::Relaxed), self.peak.load(Ordering::Relaxed))
    }

    async fn way(&self) -> Way<'_> {
        let connection = self.connections.acquire().await.expect("nobody closes the connections");
        self.calls.fetch_add(1, Ordering::Relaxed);
        let in_flight = 1 + self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.peak.fetch_max(in_flight, Ordering::Relaxed);
        let way = Way { store: self, _connection: connection };
        let even = self.random.lock().unwrap_or_else(PoisonError::into_inner).f64();
        tokio::time::sleep(self.latency.mul_f64(1.0 + self.spread * (2.0 * even - 1.0))).await;
        way
    }
}

const SEED: u64 = 4711;

impl StoreWrapper for SlowStore {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    fn load(&self, requests: Vec<LoadRequest>) -> BoxFuture<'_, Vec<Result<LoadedPartition, StoreError>>> {
        Box::pin(async move {
            let _way = self.way().await;
            self.inner.load(requests).await
        })
    }

    fn read_entries(&self, reads: Vec<EntryRead>) -> BoxFuture<'_, Vec<Result<Option<Bytes>, StoreError>>> {
        Box::pin(async move {
            let _way = self.way().await;
            self.inner.read_entries(reads).await
        })
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, StoreError>> {
        Box::pin(async move {
            let _way = self.way().await;
            self.inner.commit(commit).await
        })
    }

    fn delete_entries(
        &self,
        tokens: Vec<TokenRef>,
    ) -> BoxFuture<'_, Vec<Result<Option<SessionMark>, StoreError>>> {
        Box::pin(async move {
            let _way = self.way().await;
            self.inner.delete_entries(tokens).await
        })
    }
}
