//! Stores around stores: what counts, delays, fails or charges calls says what it does with those that it is about, and everything else
//! goes on to the store inside. Nothing of what a store decides may be decided here.

use bytes::Bytes;

use crate::ids::StoreAlias;
use crate::limits::StoreLimits;
use crate::sequence::{Placement, SessionMark, TokenRef};
use crate::store::{
    BoxFuture, Commit, CommitOutcome, EntryRead, LoadRequest, LoadedPartition, ScanCursor, ScanPage,
    ScanPrice, Store, StoreError,
};

/// A store around another one. It is a [`Store`]; what it does not say is what the inner store says, also where [`Store`] has an answer
/// for those that say nothing: a wrapper can't forget where its inner store wants entries to lie, or what its scans cost.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use tollgate_proto::{BoxFuture, Commit, CommitOutcome, Store, StoreError, StoreWrapper};
///
/// struct Commits {
///     inner: Arc<dyn Store>,
///     count: AtomicU64,
/// }
///
/// impl StoreWrapper for Commits {
///     fn inner(&self) -> &dyn Store {
///         &*self.inner
///     }
///
///     fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, StoreError>> {
///         self.count.fetch_add(1, Ordering::Relaxed);
///         self.inner.commit(commit)
///     }
/// }
///
/// fn wrapped(inner: Arc<dyn Store>) -> Arc<dyn Store> {
///     Arc::new(Commits { inner, count: AtomicU64::new(0) })
/// }
/// ```
pub trait StoreWrapper: Send + Sync + 'static {
    /// The store inside.
    fn inner(&self) -> &dyn Store;

    /// [`Store::verify`].
    fn verify(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner().verify()
    }

    /// [`Store::load`].
    fn load(&self, requests: Vec<LoadRequest>) -> BoxFuture<'_, Vec<Result<LoadedPartition, StoreError>>> {
        self.inner().load(requests)
    }

    /// [`Store::read_entries`].
    fn read_entries(&self, reads: Vec<EntryRead>) -> BoxFuture<'_, Vec<Result<Option<Bytes>, StoreError>>> {
        self.inner().read_entries(reads)
    }

    /// [`Store::commit`].
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, StoreError>> {
        self.inner().commit(commit)
    }

    /// [`Store::delete_entries`].
    fn delete_entries(
        &self,
        tokens: Vec<TokenRef>,
    ) -> BoxFuture<'_, Vec<Result<Option<SessionMark>, StoreError>>> {
        self.inner().delete_entries(tokens)
    }

    /// [`Store::scan`].
    fn scan(&self, cursor: Option<ScanCursor>, limit: usize) -> BoxFuture<'_, Result<ScanPage, StoreError>> {
        self.inner().scan(cursor, limit)
    }

    /// [`Store::survey`]. This wrapper's scan, so that what it does with scans happens to sweeps too.
    ///
    /// One that does nothing with them can ask the inner store, whose surveys may be cheaper.
    fn survey(
        &self,
        cursor: Option<ScanCursor>,
        limit: usize,
    ) -> BoxFuture<'_, Result<ScanPage, StoreError>> {
        self.scan(cursor, limit)
    }

    /// [`Store::expire`].
    fn expire(&self, now_ms: u64) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.inner().expire(now_ms)
    }
}

impl<W: StoreWrapper> Store for W {
    fn alias(&self) -> &StoreAlias {
        self.inner().alias()
    }

    fn limits(&self) -> StoreLimits {
        self.inner().limits()
    }

    fn placement(&self, commit: &Commit) -> Placement {
        self.inner().placement(commit)
    }

    fn scan_price(&self) -> ScanPrice {
        self.inner().scan_price()
    }

    fn verify(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        StoreWrapper::verify(self)
    }

    fn load(&self, requests: Vec<LoadRequest>) -> BoxFuture<'_, Vec<Result<LoadedPartition, StoreError>>> {
        StoreWrapper::load(self, requests)
    }

    fn read_entries(&self, reads: Vec<EntryRead>) -> BoxFuture<'_, Vec<Result<Option<Bytes>, StoreError>>> {
        StoreWrapper::read_entries(self, reads)
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, StoreError>> {
        StoreWrapper::commit(self, commit)
    }

    fn delete_entries(
        &self,
        tokens: Vec<TokenRef>,
    ) -> BoxFuture<'_, Vec<Result<Option<SessionMark>, StoreError>>> {
        StoreWrapper::delete_entries(self, tokens)
    }

    fn scan(&self, cursor: Option<ScanCursor>, limit: usize) -> BoxFuture<'_, Result<ScanPage, StoreError>> {
        StoreWrapper::scan(self, cursor, limit)
    }

    fn survey(
        &self,
        cursor: Option<ScanCursor>,
        limit: usize,
    ) -> BoxFuture<'_, Result<ScanPage, StoreError>> {
        StoreWrapper::survey(self, cursor, limit)
    }

    fn expire(&self, now_ms: u64) -> BoxFuture<'_, Result<u64, StoreError>> {
        StoreWrapper::expire(self, now_ms)
    }
}
