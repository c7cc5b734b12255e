//! A store in another process. What it promises is what the served store promises, and what it says of a broken
//! connection: a commit may have happened, anything else is safe to repeat.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tollgate::Store;
use tollgate::proto::{
    BoxFuture, Commit, CommitOutcome, EntryRead, LoadRequest, LoadedPartition, ScanCursor, ScanPage,
    SessionMark, StoreAlias, StoreError, StoreLimits, TokenRef,
};

use super::connection::{CallError, Connection};
use super::operation::Operation;

/// A store that a host serves.
///
/// Where the served store wants outbox entries to lie is not asked for: a store with two places for them has to be opened
/// in each process by itself.
pub struct RemoteStore {
    connection: Arc<Connection>,
    alias: StoreAlias,
    limits: StoreLimits,
}

impl RemoteStore {
    /// Asks the host what its store is called and takes.
    ///
    /// # Errors
    /// If the host can't be reached now, or serves no store.
    pub async fn open(connection: Arc<Connection>) -> Result<Self, CallError> {
        let (alias, limits) = connection.call(Operation::Describe, &()).await?;
        Ok(Self { connection, alias, limits })
    }

    /// For everything but commits.
    fn failed(&self, error: &CallError) -> StoreError {
        let store = self.alias.clone();
        match error {
            CallError::NotSent(_) | CallError::Lost => {
                StoreError::Unavailable { store, reason: error.to_string() }
            }
            CallError::Refused(_) => StoreError::Misconfigured { store, reason: error.to_string() },
        }
    }

    async fn one<T>(
        &self,
        call: impl Future<Output = Result<Result<T, StoreError>, CallError>>,
    ) -> Result<T, StoreError> {
        call.await.unwrap_or_else(|error| Err(self.failed(&error)))
    }

    async fn each<T>(
        &self,
        count: usize,
        call: impl Future<Output = Result<Vec<Result<T, StoreError>>, CallError>>,
    ) -> Vec<Result<T, StoreError>> {
        call.await.unwrap_or_else(|error| (0..count).map(|_| Err(self.failed(&error))).collect())
    }
}

impl Store for RemoteStore {
    fn alias(&self) -> &StoreAlias {
        &self.alias
    }

    fn limits(&self) -> StoreLimits {
        self.limits
    }

    fn verify(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.one(async { self.connection.call(Operation::Verify, &()).await }))
    }

    fn load(&self, requests: Vec<LoadRequest>) -> BoxFuture<'_, Vec<Result<LoadedPartition, StoreError>>> {
        Box::pin(
            self.each(requests.len(), async move { self.connection.call(Operation::Load, &requests).await }),
        )
    }

    fn read_entries(&self, reads: Vec<EntryRead>) -> BoxFuture<'_, Vec<Result<Option<Bytes>, StoreError>>> {
        Box::pin(
            self.each(reads.len(), async move { self.connection.call(Operation::ReadEntries, &reads).await }),
        )
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, StoreError>> {
        Box::pin(async move {
            match self.connection.call(Operation::Commit, &commit).await {
                Ok(outcome) => outcome,
                Err(error @ CallError::Lost) => Err(StoreError::OutcomeUnknown {
                    store: self.alias.clone(),
                    partition: commit.partition,
                    reason: error.to_string(),
                }),
                Err(error) => Err(self.failed(&error)),
            }
        })
    }

    fn delete_entries(
        &self,
        tokens: Vec<TokenRef>,
    ) -> BoxFuture<'_, Vec<Result<Option<SessionMark>, StoreError>>> {
        Box::pin(
            self.each(
                tokens.len(),
                async move { self.connection.call(Operation::DeleteEntries, &tokens).await },
            ),
        )
    }

    fn scan(&self, cursor: Option<ScanCursor>, limit: usize) -> BoxFuture<'_, Result<ScanPage, StoreError>> {
        Box::pin(self.one(async move { self.connection.call(Operation::Scan, &(cursor, limit)).await }))
    }

    fn expire(&self, now_ms: u64) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(self.one(async move { self.connection.call(Operation::Expire, &now_ms).await }))
    }
}

impl fmt::Debug for RemoteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteStore").field("alias", &self.alias).finish_non_exhaustive()
    }
}
