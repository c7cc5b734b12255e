//! A wrapper that counts the calls to a store, so that a test can say what a message costs: two calls before dispatch and
//! one after. It changes nothing about the calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tollgate_proto::{
    BoxFuture, Commit, CommitOutcome, EntryRead, LoadRequest, LoadedPartition, ScanCursor, ScanPage,
    SessionMark, Store, StoreError, StoreWrapper, TokenRef,
};

use crate::store_operation::Operation;

/// A store whose calls are counted when they are made, whatever comes of them.
///
/// ```
/// # use std::sync::Arc;
/// # use tollgate_proto::Store;
/// # use tollgate_testkit::{CountingStore, Operation};
/// # async fn example(store: Arc<dyn Store>) {
/// let store = CountingStore::new(store);
/// let before = store.counts();
/// let _ = store.load(vec![]).await;
/// let counts = store.counts().since(&before);
/// assert_eq!(counts.of(Operation::Load).calls, 1);
/// assert_eq!(counts.calls(), 1);
/// # }
/// ```
pub struct CountingStore {
    inner: Arc<dyn Store>,
    counters: [Counter; Operation::ALL.len()],
}

#[derive(Default)]
struct Counter {
    calls: AtomicU64,
    requests: AtomicU64,
}

impl CountingStore {
    /// Counts the calls to `inner` from now on.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, counters: Default::default() }
    }

    /// What has been counted so far.
    pub fn counts(&self) -> StoreCounts {
        let read = |counter: &Counter| OperationCount {
            calls: counter.calls.load(Ordering::SeqCst),
            requests: counter.requests.load(Ordering::SeqCst),
        };
        StoreCounts { operations: self.counters.each_ref().map(read) }
    }

    fn count(&self, operation: Operation, requests: usize) {
        let counter = &self.counters[operation as usize];
        counter.calls.fetch_add(1, Ordering::SeqCst);
        counter.requests.fetch_add(requests as u64, Ordering::SeqCst);
    }
}

/// How often each operation was called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreCounts {
    operations: [OperationCount; Operation::ALL.len()],
}

/// How often one operation was called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OperationCount {
    /// Calls: round trips.
    pub calls: u64,
    /// Requests in these calls: partitions loaded, entries read or deleted. A commit, scan or expiry is one.
    pub requests: u64,
}

impl StoreCounts {
    /// The calls of one operation.
    pub const fn of(&self, operation: Operation) -> OperationCount {
        self.operations[operation as usize]
    }

    /// The calls of all operations.
    pub fn calls(&self) -> u64 {
        self.operations.iter().map(|count| count.calls).sum()
    }

    /// What was counted since `earlier` was taken from the same store.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut operations = self.operations;
        for (count, earlier) in operations.iter_mut().zip(&earlier.operations) {
            count.calls -= earlier.calls;
            count.requests -= earlier.requests;
        }
        Self { operations }
    }
}

impl StoreWrapper for CountingStore {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    fn load(&self, requests: Vec<LoadRequest>) -> BoxFuture<'_, Vec<Result<LoadedPartition, StoreError>>> {
        self.count(Operation::Load, requests.len());
        self.inner.load(requests)
    }

    fn read_entries(&self, reads: Vec<EntryRead>) -> BoxFuture<'_, Vec<Result<Option<Bytes>, StoreError>>> {
        self.count(Operation::ReadEntries, reads.len());
        self.inner.read_entries(reads)
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, StoreError>> {
        self.count(Operation::Commit, 1);
        self.inner.commit(commit)
    }

    fn delete_entries(
        &self,
        tokens: Vec<TokenRef>,
    ) -> BoxFuture<'_, Vec<Result<Option<SessionMark>, StoreError>>> {
        self.count(Operation::DeleteEntries, tokens.len());
        self.inner.delete_entries(tokens)
    }

    fn scan(&self, cursor: Option<ScanCursor>, limit: usize) -> BoxFuture<'_, Result<ScanPage, StoreError>> {
        self.count(Operation::Scan, 1);
        self.inner.scan(cursor, limit)
    }

    fn expire(&self, now_ms: u64) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.count(Operation::Expire, 1);
        self.inner.expire(now_ms)
    }
}
