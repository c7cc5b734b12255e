//! Time limits and panic guards around stores, blob storage and side effects. A call over its limit counts as one whose answer was
//! lost, and so does one that panics.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tollgate_proto::{
    AttachedEffect, BlobError, BlobStream, Blobs, BoxFuture, Commit, CommitOutcome, EffectError, EffectKind,
    EffectName, EntryRead, LoadRequest, LoadedPartition, ScanCursor, ScanPage, SessionMark, SideEffect,
    Store, StoreError, StoreWrapper, TokenRef,
};

use crate::limited::{NoAnswer, caught, guarded, within};
use crate::runtime::Tasks;

/// The longest that calls to something outside may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallLimits {
    /// One call to a store.
    pub(crate) store: Duration,
    /// One call to the broker, but not the wait for messages.
    pub(crate) broker: Duration,
    /// One call to blob storage or a step of a side effect; of a download the time between two pieces.
    pub(crate) effect: Duration,
}

impl Default for CallLimits {
    fn default() -> Self {
        // Longer than the adapters' own limits, which know better what happened.
        Self {
            store: Duration::from_secs(30),
            broker: Duration::from_secs(60),
            effect: Duration::from_secs(60),
        }
    }
}

/// A store whose every call ends.
pub(crate) struct LimitedStore {
    pub(crate) inner: Arc<dyn Store>,
    pub(crate) tasks: Tasks,
    pub(crate) limit: Duration,
}

impl LimitedStore {
    async fn within<T>(&self, call: impl Future<Output = T>) -> Result<T, NoAnswer> {
        within(self.tasks.runtime(), self.limit, call).await
    }

    fn unavailable(&self, why: &NoAnswer) -> StoreError {
        StoreError::Unavailable { store: self.inner.alias().clone(), reason: why.to_string() }
    }

    /// A batched call: without an answer each request fails.
    async fn each<T>(
        &self,
        count: usize,
        call: impl Future<Output = Vec<Result<T, StoreError>>>,
    ) -> Vec<Result<T, StoreError>> {
        match self.within(call).await {
            Ok(answers) => answers,
            Err(why) => (0..count).map(|_| Err(self.unavailable(&why))).collect(),
        }
    }

    async fn one<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        self.within(call).await.unwrap_or_else(|why| Err(self.unavailable(&why)))
    }
}

impl StoreWrapper for LimitedStore {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    fn verify(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.one(async { self.inner.verify().await }))
    }

    fn load(&self, requests: Vec<LoadRequest>) -> BoxFuture<'_, Vec<Result<LoadedPartition, StoreError>>> {
        Box::pin(self.each(requests.len(), async { self.inner.load(requests).await }))
    }

    fn read_entries(&self, reads: Vec<EntryRead>) -> BoxFuture<'_, Vec<Result<Option<Bytes>, StoreError>>> {
        Box::pin(self.each(reads.len(), async { self.inner.read_entries(reads).await }))
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, StoreError>> {
        let partition = commit.partition.clone();
        // The store takes the commit before there is a future, which would otherwise hold it twice.
        let call = guarded(|| self.inner.commit(commit));
        Box::pin(async move {
            let answer = match call {
                Ok(call) => self.within(call).await,
                Err(why) => Err(why),
            };
            answer.unwrap_or_else(|why| {
                // It may still take effect, whatever became of its caller (R7).
                let (store, reason) = (self.inner.alias().clone(), why.to_string());
                Err(StoreError::OutcomeUnknown { store, partition, reason })
            })
        })
    }

    fn delete_entries(
        &self,
        tokens: Vec<TokenRef>,
    ) -> BoxFuture<'_, Vec<Result<Option<SessionMark>, StoreError>>> {
        Box::pin(self.each(tokens.len(), async { self.inner.delete_entries(tokens).await }))
    }

    fn scan(&self, cursor: Option<ScanCursor>, limit: usize) -> BoxFuture<'_, Result<ScanPage, StoreError>> {
        Box::pin(self.one(async move { self.inner.scan(cursor, limit).await }))
    }

    fn expire(&self, now_ms: u64) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(self.one(async move { self.inner.expire(now_ms).await }))
    }
}

/// Blob storage whose every call ends. An upload has the attempt's own deadline.
pub(crate) struct LimitedBlobs {
    pub(crate) inner: Arc<dyn Blobs>,
    pub(crate) tasks: Tasks,
    pub(crate) limit: Duration,
}

impl LimitedBlobs {
    async fn one<T>(
        &self,
        name: &EffectName,
        call: impl Future<Output = Result<T, BlobError>>,
    ) -> Result<T, BlobError> {
        let answer = within(self.tasks.runtime(), self.limit, call).await;
        answer.unwrap_or_else(|why| Err(no_blob(name, &why)))
    }
}

fn no_blob(name: &EffectName, why: &NoAnswer) -> BlobError {
    BlobError::Unavailable { name: name.clone(), reason: why.to_string() }
}

impl Blobs for LimitedBlobs {
    fn put(&self, name: &EffectName, content: BlobStream) -> BoxFuture<'_, Result<(), BlobError>> {
        let name = name.clone();
        Box::pin(async move {
            let stored = caught(async { self.inner.put(&name, content).await }).await;
            stored.unwrap_or_else(|why| Err(no_blob(&name, &why)))
        })
    }

    fn get(&self, name: &EffectName) -> BoxFuture<'_, Result<Option<BlobStream>, BlobError>> {
        let name = name.clone();
        Box::pin(async move {
            let content = self.one(&name, async { self.inner.get(&name).await }).await?;
            Ok(content.map(|content| piece_by_piece(name, content, self.tasks.clone(), self.limit)))
        })
    }

    fn delete(&self, name: &EffectName) -> BoxFuture<'_, Result<(), BlobError>> {
        let name = name.clone();
        Box::pin(async move { self.one(&name, async { self.inner.delete(&name).await }).await })
    }

    fn list(&self, prefix: &str) -> BoxFuture<'_, Result<Vec<EffectName>, BlobError>> {
        self.inner.list(prefix)
    }
}

/// A download that ends with an error when its next piece does not come in time.
fn piece_by_piece(name: EffectName, content: BlobStream, tasks: Tasks, limit: Duration) -> BlobStream {
    let pieces = stream::unfold(Some((name, content, tasks)), move |rest| async move {
        let (name, mut content, tasks) = rest?;
        match within(tasks.runtime(), limit, content.next()).await {
            Ok(piece) => piece.map(|piece| (piece, Some((name, content, tasks)))),
            Err(why) => Some((Err(no_blob(&name, &why)), None)),
        }
    });
    Box::pin(pieces)
}

/// A kind of side effect whose every step ends. A preparation has the attempt's own deadline.
pub(crate) struct LimitedEffect {
    pub(crate) inner: Arc<dyn SideEffect>,
    pub(crate) tasks: Tasks,
    pub(crate) limit: Duration,
}

impl LimitedEffect {
    async fn one<T>(
        &self,
        name: &EffectName,
        step: impl Future<Output = Result<T, EffectError>>,
    ) -> Result<T, EffectError> {
        let answer = within(self.tasks.runtime(), self.limit, step).await;
        answer.unwrap_or_else(|why| Err(no_effect(name, &why)))
    }
}

fn no_effect(name: &EffectName, why: &NoAnswer) -> EffectError {
    EffectError::Unavailable { name: name.clone(), reason: why.to_string(), retry_after: None }
}

impl SideEffect for LimitedEffect {
    fn kind(&self) -> &EffectKind {
        self.inner.kind()
    }

    fn register(&self, unique: &str, intent: &Bytes) -> Result<EffectName, EffectError> {
        self.inner.register(unique, intent)
    }

    fn prepare<'a>(
        &'a self,
        name: &'a EffectName,
        intent: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, EffectError>> {
        Box::pin(async move {
            let prepared = caught(async { self.inner.prepare(name, intent).await }).await;
            prepared.unwrap_or_else(|why| Err(no_effect(name, &why)))
        })
    }

    fn publish<'a>(&'a self, effect: &'a AttachedEffect) -> BoxFuture<'a, Result<(), EffectError>> {
        Box::pin(self.one(&effect.name, async { self.inner.publish(effect).await }))
    }

    fn fetch<'a>(&'a self, effect: &'a AttachedEffect) -> BoxFuture<'a, Result<Bytes, EffectError>> {
        Box::pin(self.one(&effect.name, async { self.inner.fetch(effect).await }))
    }

    fn clean_up<'a>(&'a self, name: &'a EffectName) -> BoxFuture<'a, Result<(), EffectError>> {
        Box::pin(self.one(name, async { self.inner.clean_up(name).await }))
    }
}
