//! The durable embedded store: a directory that one process at a time keeps open. Reads come straight from the engine
//! and see only what is durable; writes go through the writer's thread, which syncs once for all that wait.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use fjall::{Database, KeyspaceCreateOptions, Readable, Snapshot};
use tokio::sync::oneshot;
use tollgate_core::{
    BoxFuture, Commit, CommitOutcome, EntryRead, LoadRequest, LoadedPartition, PartitionKey, ScanCursor,
    ScanPage, ScannedPartition, SessionMark, Store, StoreAlias, StoreError, StoreLimits, TokenRef,
};

use crate::error::EmbeddedError;
use crate::layout::{self, Space};
use crate::limits::EMBEDDED_LIMITS;
use crate::statistics::{Counters, EmbeddedStatistics};
use crate::writer::{Spaces, WriteRequest, Writer};

/// Memory for what was not written to tables yet, in bytes, for each keyspace. Small, so that journals are soon obsolete.
const MEMTABLE_BYTES: u64 = 8 * 1024 * 1024;

/// Most bytes in journals: the least that the engine accepts.
const JOURNALS_BYTES: u64 = 64 * 1024 * 1024;

/// A durable store in a directory.
///
/// ```
/// # let directory = tempfile::tempdir().unwrap();
/// use tollgate_core::StoreAlias;
/// use tollgate_embedded::EmbeddedStore;
///
/// let store = EmbeddedStore::open(directory.path(), StoreAlias::new("main").unwrap()).unwrap();
/// # drop(store);
/// ```
pub struct EmbeddedStore {
    alias: StoreAlias,
    directory: PathBuf,
    // Before the database: the writer's thread uses it until it is joined.
    writer: Writer,
    spaces: Spaces,
    counters: Arc<Counters>,
}

impl EmbeddedStore {
    /// Opens the store in a directory, creating it if there is none. After a crash it opens by itself, with every commit
    /// that was answered and no half commit.
    ///
    /// # Errors
    /// [`EmbeddedError::InUse`] if another process has it open, [`EmbeddedError::Unusable`] if it can't be read or
    /// written.
    pub fn open(directory: impl AsRef<Path>, alias: StoreAlias) -> Result<Self, EmbeddedError> {
        let directory = directory.as_ref().to_owned();
        let unusable = |reason: String| EmbeddedError::Unusable { directory: directory.clone(), reason };
        if let Some(parent) = directory.parent() {
            std::fs::create_dir_all(parent).map_err(|error| unusable(error.to_string()))?;
        }
        let database = Database::builder(&directory).max_journaling_size(JOURNALS_BYTES).open();
        let database = database.map_err(|error| match error {
            fjall::Error::Locked => EmbeddedError::InUse { directory: directory.clone() },
            error => unusable(error.to_string()),
        })?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let open = |space: Space| {
            database.keyspace(space.name(), options).map_err(|error| unusable(error.to_string()))
        };
        let keyspaces =
            [open(Space::Control)?, open(Space::Items)?, open(Space::Entries)?, open(Space::Records)?];
        let spaces = Spaces::new(database, keyspaces);
        let counters = Arc::new(Counters::default());
        let writer = Writer::start(spaces.clone(), alias.clone(), Arc::clone(&counters))
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Self { alias, directory, writer, spaces, counters })
    }

    /// Where it keeps its files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What it has done since it was opened.
    pub fn statistics(&self) -> EmbeddedStatistics {
        self.counters.read()
    }

    /// Writes what is in memory to tables and removes what was deleted or overwritten from them, so that the directory
    /// holds no more than the live data needs. Takes as long as it takes to rewrite the live data; call it from a thread
    /// that may block.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn compact(&self) -> Result<(), EmbeddedError> {
        let failed = |error: fjall::Error| EmbeddedError::Failed {
            directory: self.directory.clone(),
            reason: error.to_string(),
        };
        for space in Space::ALL {
            self.spaces.of(space).rotate_memtable_and_wait().map_err(failed)?;
        }
        for space in Space::ALL {
            self.spaces.of(space).major_compact().map_err(failed)?;
        }
        Ok(())
    }

    /// How many bytes its tables take on disk, journals not counted.
    pub fn table_bytes(&self) -> u64 {
        Space::ALL.iter().map(|space| self.spaces.of(*space).disk_space()).sum()
    }

    fn load_one(&self, snapshot: &Snapshot, request: LoadRequest) -> Result<LoadedPartition, StoreError> {
        let LoadRequest { partition, items, records } = request;
        let control = match self.get(snapshot, Space::Control, &layout::control_key(&partition))? {
            Some(value) => {
                let record = layout::control_record(&value);
                Some(record.ok_or_else(|| self.corrupt(&partition, "the control record"))?)
            }
            None => None,
        };
        let mut loaded = LoadedPartition { control, ..LoadedPartition::default() };
        for name in items {
            let value = match self.get(snapshot, Space::Items, &layout::item_key(&partition, &name))? {
                Some(value) => {
                    Some(layout::item_value(&value).ok_or_else(|| self.corrupt(&partition, name.as_str()))?)
                }
                None => None,
            };
            loaded.items.push((name, value));
        }
        for key in records {
            let value = match self.get(snapshot, Space::Records, &layout::record_key(&partition, &key))? {
                Some(value) => {
                    let (_, response) =
                        layout::record(&value).ok_or_else(|| self.corrupt(&partition, key.as_str()))?;
                    Some(Bytes::copy_from_slice(response))
                }
                None => None,
            };
            loaded.records.push((key, value));
        }
        Ok(loaded)
    }

    fn read_one(&self, snapshot: &Snapshot, token: &TokenRef) -> Result<Option<Bytes>, StoreError> {
        self.check_token(token)?;
        let entry = self.get(snapshot, Space::Entries, &layout::entry_key(&token.partition, token.entry))?;
        Ok(entry.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn check_token(&self, token: &TokenRef) -> Result<(), StoreError> {
        if token.store == self.alias {
            return Ok(());
        }
        Err(StoreError::ForeignToken { store: self.alias.clone(), token: token.clone() })
    }

    fn get(
        &self,
        snapshot: &Snapshot,
        space: Space,
        key: &[u8],
    ) -> Result<Option<fjall::UserValue>, StoreError> {
        snapshot.get(self.spaces.of(space), key).map_err(|error| self.unavailable(&error.to_string()))
    }

    fn scan_page(&self, cursor: Option<&ScanCursor>, limit: usize) -> Result<ScanPage, StoreError> {
        let snapshot = self.spaces.database.snapshot();
        let failed = |error: fjall::Error| self.unavailable(&error.to_string());
        let lower = match cursor {
            Some(cursor) => std::ops::Bound::Excluded(cursor.0.to_vec()),
            None => std::ops::Bound::Unbounded,
        };
        let mut page = ScanPage::default();
        let range =
            snapshot.range::<Vec<u8>, _>(self.spaces.of(Space::Control), (lower, std::ops::Bound::Unbounded));
        for pair in range {
            if page.partitions.len() == limit {
                let last = page.partitions.last().map(|scanned| scanned.partition.as_str().to_owned());
                page.next = last.map(|last| ScanCursor(Bytes::from(last)));
                break;
            }
            let (key, value) = pair.into_inner().map_err(failed)?;
            let name = std::str::from_utf8(&key).ok().and_then(|key| PartitionKey::new(key).ok());
            let Some(partition) = name else {
                return Err(self.unavailable("a partition key in the store is damaged"));
            };
            let prefix = layout::prefix(&partition, 0);
            let count = |space: Space| snapshot.prefix(self.spaces.of(space), &prefix).count() as u64;
            let mut items = Vec::new();
            for pair in snapshot.prefix(self.spaces.of(Space::Items), &prefix) {
                let key = pair.key().map_err(failed)?;
                items.extend(layout::item_name(&partition, &key));
            }
            page.partitions.push(ScannedPartition {
                control: layout::control_record(&value),
                entries: count(Space::Entries),
                records: count(Space::Records),
                items,
                partition,
            });
        }
        Ok(page)
    }

    fn unavailable(&self, reason: &str) -> StoreError {
        StoreError::Unavailable { store: self.alias.clone(), reason: reason.to_owned() }
    }

    fn corrupt(&self, partition: &PartitionKey, what: &str) -> StoreError {
        StoreError::Corrupt {
            store: self.alias.clone(),
            partition: partition.clone(),
            what: what.to_owned(),
            reason: "it is shorter than what was written".to_owned(),
        }
    }

    /// Waits for the writer's answer. A writer that is gone leaves it open what happened.
    async fn commit_durably(&self, commit: Commit) -> Result<CommitOutcome, StoreError> {
        let partition = commit.partition.clone();
        if let Err(limit) = commit.check(&EMBEDDED_LIMITS, 0) {
            return Err(StoreError::TooLarge { store: self.alias.clone(), partition, limit });
        }
        let (reply, answer) = oneshot::channel();
        self.writer.send(WriteRequest::Commit(Box::new(commit), reply)).await;
        answer.await.unwrap_or_else(|_| {
            let reason = "the store's writer has ended".to_owned();
            Err(StoreError::OutcomeUnknown { store: self.alias.clone(), partition, reason })
        })
    }

    async fn delete_durably(&self, tokens: Vec<TokenRef>) -> Vec<Result<Option<SessionMark>, StoreError>> {
        let checks: Vec<Result<(), StoreError>> =
            tokens.iter().map(|token| self.check_token(token)).collect();
        let own: Vec<TokenRef> = tokens.into_iter().filter(|token| token.store == self.alias).collect();
        self.counters.deletions.fetch_add(own.len() as u64, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        self.writer.send(WriteRequest::Delete(own, reply)).await;
        let deleted = answer.await.unwrap_or_else(|_| Err(self.unavailable("the store's writer has ended")));
        checks.into_iter().map(|check| check.and_then(|()| deleted.clone()).map(|()| None)).collect()
    }
}

impl Store for EmbeddedStore {
    fn alias(&self) -> &StoreAlias {
        &self.alias
    }

    fn limits(&self) -> StoreLimits {
        EMBEDDED_LIMITS
    }

    fn verify(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        // Opening has shown that it can be read; an empty deletion shows that the writer lives.
        Box::pin(async {
            let (reply, answer) = oneshot::channel();
            self.writer.send(WriteRequest::Delete(Vec::new(), reply)).await;
            answer.await.unwrap_or_else(|_| Err(self.unavailable("the store's writer has ended")))
        })
    }

    fn load(&self, requests: Vec<LoadRequest>) -> BoxFuture<'_, Vec<Result<LoadedPartition, StoreError>>> {
        Box::pin(async move {
            self.counters.loads.fetch_add(requests.len() as u64, Ordering::Relaxed);
            let snapshot = self.spaces.database.snapshot();
            requests.into_iter().map(|request| self.load_one(&snapshot, request)).collect()
        })
    }

    fn read_entries(&self, reads: Vec<EntryRead>) -> BoxFuture<'_, Vec<Result<Option<Bytes>, StoreError>>> {
        Box::pin(async move {
            self.counters.entry_reads.fetch_add(reads.len() as u64, Ordering::Relaxed);
            let snapshot = self.spaces.database.snapshot();
            reads.iter().map(|read| self.read_one(&snapshot, &read.token)).collect()
        })
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, StoreError>> {
        Box::pin(self.commit_durably(commit))
    }

    fn delete_entries(
        &self,
        tokens: Vec<TokenRef>,
    ) -> BoxFuture<'_, Vec<Result<Option<SessionMark>, StoreError>>> {
        Box::pin(self.delete_durably(tokens))
    }

    fn scan(&self, cursor: Option<ScanCursor>, limit: usize) -> BoxFuture<'_, Result<ScanPage, StoreError>> {
        Box::pin(async move { self.scan_page(cursor.as_ref(), limit) })
    }

    fn expire(&self, now_ms: u64) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            self.writer.send(WriteRequest::Expire(now_ms, reply)).await;
            answer.await.unwrap_or_else(|_| Err(self.unavailable("the store's writer has ended")))
        })
    }
}
