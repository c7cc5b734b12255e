//! The in-memory store: the same promises as the durable one but durability. For tests, and for measuring what the engine
//! itself costs. Its futures are ready at once.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use foldhash::fast::RandomState;
use tollgate_proto::{
    BoxFuture, Commit, CommitOutcome, DeduplicationKey, EntryKey, EntryRead, ItemName, ItemValue,
    LoadRequest, LoadedPartition, PartitionKey, ScanCursor, ScanPage, ScannedPartition, SessionMark, Store,
    StoreAlias, StoreError, StoreLimits, TokenRef, Version,
};

use crate::embedded_store::check_token;
use crate::limits::EMBEDDED_LIMITS;
use crate::statistics::MemoryStatistics;

/// How many independently locked parts there are: more than a machine has cores, so that they rarely meet.
const SHARDS: usize = 64;

/// A store in memory. What is in it goes with it.
///
/// ```
/// use tollgate_proto::{Store, StoreAlias};
/// use tollgate_embedded::MemoryStore;
///
/// let store = MemoryStore::new(StoreAlias::new("main").unwrap());
/// assert_eq!(store.statistics().commits, 0);
/// ```
pub struct MemoryStore {
    alias: StoreAlias,
    limits: StoreLimits,
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
    counts: Counts,
}

/// Like [`MemoryStatistics`].
#[derive(Default)]
struct Counts {
    load_calls: AtomicU64,
    loads: AtomicU64,
    entry_read_calls: AtomicU64,
    entry_reads: AtomicU64,
    commit_calls: AtomicU64,
    commits: AtomicU64,
    deletion_calls: AtomicU64,
    deletions: AtomicU64,
}

fn count(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Ordering::Relaxed);
}

type Shard = HashMap<PartitionKey, Partition, RandomState>;

#[derive(Default)]
struct Partition {
    control: Option<(Version, Bytes)>,
    items: BTreeMap<ItemName, ItemValue>,
    entries: HashMap<EntryKey, Bytes, RandomState>,
    records: HashMap<DeduplicationKey, Record, RandomState>,
}

struct Record {
    response: Bytes,
    expires_at_ms: u64,
}

impl MemoryStore {
    /// An empty store with the limits of the durable one.
    pub fn new(alias: StoreAlias) -> Self {
        Self::with_limits(alias, EMBEDDED_LIMITS)
    }

    /// An empty store with limits of your own, e.g. those of the store that you will use.
    pub fn with_limits(alias: StoreAlias, limits: StoreLimits) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { alias, limits, hasher: RandomState::default(), shards, counts: Counts::default() }
    }

    /// What it was asked since it was made.
    pub fn statistics(&self) -> MemoryStatistics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        MemoryStatistics {
            load_calls: read(&self.counts.load_calls),
            loads: read(&self.counts.loads),
            entry_read_calls: read(&self.counts.entry_read_calls),
            entry_reads: read(&self.counts.entry_reads),
            commit_calls: read(&self.counts.commit_calls),
            commits: read(&self.counts.commits),
            deletion_calls: read(&self.counts.deletion_calls),
            deletions: read(&self.counts.deletions),
        }
    }

    fn shard(&self, partition: &PartitionKey) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one(partition);
        // The map inside uses the low bits of another hash; any bits will do here.
        let place = usize::try_from(hash % SHARDS as u64).expect("there are few shards");
        self.shards[place].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load_one(&self, request: LoadRequest) -> LoadedPartition {
        let shard = self.shard(&request.partition);
        let partition = shard.get(&request.partition);
        LoadedPartition {
            control: partition
                .and_then(|partition| partition.control.as_ref())
                .map(|(_, bytes)| bytes.clone()),
            items: request
                .items
                .into_iter()
                .map(|name| {
                    let value = partition.and_then(|partition| partition.items.get(&name)).cloned();
                    (name, value)
                })
                .collect(),
            records: request
                .records
                .into_iter()
                .map(|key| {
                    let record = partition.and_then(|partition| partition.records.get(&key));
                    let response = record.map(|record| record.response.clone());
                    (key, response)
                })
                .collect(),
            session: None,
        }
    }

    fn read_one(&self, token: &TokenRef) -> Result<Option<Bytes>, StoreError> {
        check_token(&self.alias, token)?;
        let shard = self.shard(&token.partition);
        Ok(shard.get(&token.partition).and_then(|partition| partition.entries.get(&token.entry)).cloned())
    }

    fn delete_one(&self, token: &TokenRef) -> Result<Option<SessionMark>, StoreError> {
        check_token(&self.alias, token)?;
        if let Some(partition) = self.shard(&token.partition).get_mut(&token.partition) {
            partition.entries.remove(&token.entry);
        }
        Ok(None)
    }

    fn commit_one(&self, commit: Commit) -> Result<CommitOutcome, StoreError> {
        if let Err(limit) = commit.check(&self.limits, 0) {
            return Err(StoreError::TooLarge {
                store: self.alias.clone(),
                partition: commit.partition,
                limit,
            });
        }
        let mut shard = self.shard(&commit.partition);
        let known = shard.get_mut(&commit.partition);
        let version =
            known.as_ref().and_then(|partition| partition.control.as_ref()).map(|(version, _)| *version);
        if version != commit.expected {
            return Ok(CommitOutcome::Conflict);
        }
        let partition = match known {
            Some(partition) => partition,
            None => shard.entry(commit.partition).or_default(),
        };
        let is_alive = |key: &DeduplicationKey| {
            partition.records.get(key).is_some_and(|record| record.expires_at_ms > commit.now_ms)
        };
        let existing: Vec<DeduplicationKey> =
            commit.records.iter().map(|record| &record.key).filter(|key| is_alive(key)).cloned().collect();
        if !existing.is_empty() {
            return Ok(CommitOutcome::RecordsExist(existing));
        }
        partition.control = Some((commit.version, commit.control));
        for (name, value) in commit.items {
            match value {
                Some(value) => partition.items.insert(name, value),
                None => partition.items.remove(&name),
            };
        }
        partition.entries.extend(commit.entries);
        for key in commit.deleted_entries {
            partition.entries.remove(&key);
        }
        for record in commit.records {
            let value = Record { response: record.response, expires_at_ms: record.expires_at_ms };
            partition.records.insert(record.key, value);
        }
        drop(shard);
        count(&self.counts.commits, 1);
        Ok(CommitOutcome::Committed { session: None })
    }

    fn scan_page(&self, cursor: Option<&ScanCursor>, limit: usize) -> ScanPage {
        let after = cursor.map(|cursor| String::from_utf8_lossy(&cursor.0).into_owned());
        let mut sorted: BTreeMap<String, ScannedPartition> = BTreeMap::new();
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for (key, partition) in shard.iter() {
                if after.as_deref().is_none_or(|after| key.as_str() > after) {
                    sorted.insert(key.as_str().to_owned(), partition.scanned(key));
                }
            }
        }
        let is_more = sorted.len() > limit;
        let partitions: Vec<ScannedPartition> = sorted.into_values().take(limit).collect();
        let last = partitions.last().map(|scanned| scanned.partition.as_str().to_owned());
        ScanPage { partitions, next: last.filter(|_| is_more).map(|last| ScanCursor(Bytes::from(last))) }
    }
}

impl Partition {
    fn scanned(&self, key: &PartitionKey) -> ScannedPartition {
        ScannedPartition {
            partition: key.clone(),
            control: self.control.as_ref().map(|(_, bytes)| bytes.clone()),
            entries: self.entries.keys().copied().collect(),
            records: self.records.len() as u64,
            items: self.items.keys().cloned().collect(),
        }
    }
}

fn ready<'a, T: Send + 'a>(answer: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(answer))
}

impl Store for MemoryStore {
    fn alias(&self) -> &StoreAlias {
        &self.alias
    }

    fn limits(&self) -> StoreLimits {
        self.limits
    }

    fn verify(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        ready(Ok(()))
    }

    fn load(&self, requests: Vec<LoadRequest>) -> BoxFuture<'_, Vec<Result<LoadedPartition, StoreError>>> {
        count(&self.counts.load_calls, 1);
        count(&self.counts.loads, requests.len());
        ready(requests.into_iter().map(|request| Ok(self.load_one(request))).collect())
    }

    fn read_entries(&self, reads: Vec<EntryRead>) -> BoxFuture<'_, Vec<Result<Option<Bytes>, StoreError>>> {
        count(&self.counts.entry_read_calls, 1);
        count(&self.counts.entry_reads, reads.len());
        ready(reads.iter().map(|read| self.read_one(&read.token)).collect())
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, StoreError>> {
        count(&self.counts.commit_calls, 1);
        ready(self.commit_one(commit))
    }

    fn delete_entries(
        &self,
        tokens: Vec<TokenRef>,
    ) -> BoxFuture<'_, Vec<Result<Option<SessionMark>, StoreError>>> {
        count(&self.counts.deletion_calls, 1);
        count(&self.counts.deletions, tokens.len());
        ready(tokens.iter().map(|token| self.delete_one(token)).collect())
    }

    fn scan(&self, cursor: Option<ScanCursor>, limit: usize) -> BoxFuture<'_, Result<ScanPage, StoreError>> {
        ready(Ok(self.scan_page(cursor.as_ref(), limit)))
    }

    fn expire(&self, now_ms: u64) -> BoxFuture<'_, Result<u64, StoreError>> {
        let mut expired = 0;
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for partition in shard.values_mut() {
                let before = partition.records.len();
                partition.records.retain(|_, record| record.expires_at_ms > now_ms);
                expired += (before - partition.records.len()) as u64;
            }
        }
        ready(Ok(expired))
    }
}

#[cfg(test)]
mod tests {
    use tollgate_proto::{Incarnation, Sequence};

    use super::*;

    #[tokio::test]
    async fn calls_and_the_requests_in_them_are_counted() {
        let store = MemoryStore::new(StoreAlias::new("main").unwrap());
        let partition = PartitionKey::new("here").unwrap();
        let commit = Commit {
            partition: partition.clone(),
            expected: None,
            version: Version::first(Incarnation(1)),
            control: Bytes::new(),
            items: vec![],
            entries: vec![],
            deleted_entries: vec![],
            records: vec![],
            now_ms: 0,
        };
        store.commit(commit.clone()).await.unwrap();
        assert_eq!(store.commit(commit).await.unwrap(), CommitOutcome::Conflict);
        let sequence = Sequence { incarnation: Incarnation(1), counter: 1 };
        let token =
            TokenRef { store: store.alias().clone(), partition, entry: EntryKey { sequence, index: 0 } };
        let read = EntryRead { token: token.clone(), sessions: vec![] };
        store.read_entries(vec![read.clone(), read]).await;
        store.delete_entries(vec![token.clone(), token.clone(), token]).await;
        let statistics = store.statistics();
        assert_eq!((statistics.commit_calls, statistics.commits), (2, 1));
        assert_eq!((statistics.entry_read_calls, statistics.entry_reads), (1, 2));
        assert_eq!((statistics.deletion_calls, statistics.deletions), (1, 3));
        assert_eq!((statistics.load_calls, statistics.loads), (0, 0));
    }
}
