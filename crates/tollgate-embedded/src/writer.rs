//! The writer: one thread that takes what is waiting, checks every condition, writes one batch and syncs once. So
//! concurrent commits and deletions share the price of a sync, and no two commits race.
//!
//! Nobody reads a write before it is durable: the engine applies a batch to what readers see only after the journal was
//! synced. So nobody acts on a deletion or a version that a crash could take back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use fjall::{Database, Keyspace, PersistMode};
use foldhash::fast::RandomState;
use tokio::sync::{mpsc, oneshot};
use tollgate_core::{
    Commit, CommitOutcome, DeduplicationKey, PartitionKey, StoreAlias, StoreError, TokenRef, Version,
};

use crate::layout::{self, Space};
use crate::statistics::Counters;

/// Most requests that wait for the writer; whoever comes later waits for room.
const QUEUE_MAX: usize = 4096;

/// Most requests that share a sync.
const GROUP_MAX: usize = 1024;

/// Most bytes that share a sync, more or less: the memory that a batch may take.
const GROUP_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The database and its parts.
#[derive(Clone)]
pub(crate) struct Spaces {
    pub(crate) database: Database,
    keyspaces: Arc<[Keyspace; 4]>,
}

impl Spaces {
    pub(crate) fn new(database: Database, keyspaces: [Keyspace; 4]) -> Self {
        Self { database, keyspaces: Arc::new(keyspaces) }
    }

    pub(crate) fn of(&self, space: Space) -> &Keyspace {
        &self.keyspaces[space.place()]
    }
}

/// What can be asked of the writer.
pub(crate) enum WriteRequest {
    Commit(Box<Commit>, oneshot::Sender<Result<CommitOutcome, StoreError>>),
    Delete(Vec<TokenRef>, oneshot::Sender<Result<(), StoreError>>),
    Expire(u64, oneshot::Sender<Result<u64, StoreError>>),
}

/// The handle of the writer's thread.
pub(crate) struct Writer {
    /// `None` once the store is closing: then the thread ends when its queue is empty.
    requests: Option<mpsc::Sender<WriteRequest>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start(spaces: Spaces, alias: StoreAlias, counters: Arc<Counters>) -> std::io::Result<Self> {
        let (requests, queue) = mpsc::channel(QUEUE_MAX);
        let mut group_commit = GroupCommit { spaces, alias, counters, failure: None };
        let thread = std::thread::Builder::new()
            .name("tollgate-writer".into())
            .spawn(move || group_commit.run(queue))?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    /// Hands a request to the thread. If the thread is gone, the request is dropped and with it its sender, which tells
    /// whoever waits.
    pub(crate) async fn send(&self, request: WriteRequest) {
        if let Some(requests) = &self.requests {
            let _ = requests.send(request).await;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // It ends after the group in hand. A panic there has been answered by dropped senders.
            let _ = thread.join();
        }
    }
}

struct GroupCommit {
    spaces: Spaces,
    alias: StoreAlias,
    counters: Arc<Counters>,
    /// Why no more writes are taken.
    failure: Option<String>,
}

/// An answer that is given when the group is durable.
enum Reply {
    Commit(PartitionKey, CommitOutcome, oneshot::Sender<Result<CommitOutcome, StoreError>>),
    Delete(oneshot::Sender<Result<(), StoreError>>),
    Expire(u64, oneshot::Sender<Result<u64, StoreError>>),
}

/// What the group in hand will change: the last write to each key counts.
#[derive(Default)]
struct Staged {
    writes: HashMap<(Space, Vec<u8>), Option<Vec<u8>>, RandomState>,
    bytes: usize,
}

impl Staged {
    fn put(&mut self, space: Space, key: Vec<u8>, value: Vec<u8>) {
        self.bytes += key.len() + value.len();
        self.writes.insert((space, key), Some(value));
    }

    fn delete(&mut self, space: Space, key: Vec<u8>) {
        self.bytes += key.len();
        self.writes.insert((space, key), None);
    }
}

impl GroupCommit {
    fn run(&mut self, mut queue: mpsc::Receiver<WriteRequest>) {
        let mut group = Vec::with_capacity(GROUP_MAX);
        while let Some(first) = queue.blocking_recv() {
            group.push(first);
            while group.len() < GROUP_MAX
                && let Ok(next) = queue.try_recv()
            {
                group.push(next);
            }
            let mut requests = std::mem::take(&mut group).into_iter();
            while requests.len() > 0 {
                self.write_some(&mut requests);
            }
        }
    }

    /// Writes as many requests as fit into one batch.
    fn write_some(&mut self, requests: &mut impl Iterator<Item = WriteRequest>) {
        let mut staged = Staged::default();
        let mut replies = Vec::new();
        for request in requests {
            if let Some(reason) = self.failure.clone() {
                self.refuse(request, &reason);
                continue;
            }
            match self.stage(request, &mut staged) {
                Ok(reply) => replies.push(reply),
                Err(answered) => answered,
            }
            if staged.bytes >= GROUP_BYTES_MAX {
                break;
            }
        }
        if replies.is_empty() {
            return;
        }
        let result = self.sync(staged);
        if let Err(reason) = &result {
            tracing::error!(store = %self.alias, %reason, "a batch could not be made durable; the store takes no more writes");
            self.failure = Some(reason.clone());
        }
        for reply in replies {
            self.answer(reply, result.as_ref().err());
        }
    }

    fn sync(&self, staged: Staged) -> Result<(), String> {
        if staged.writes.is_empty() {
            return Ok(());
        }
        let mut batch = self.spaces.database.batch().durability(Some(PersistMode::SyncData));
        for ((space, key), value) in staged.writes {
            match value {
                Some(value) => batch.insert(self.spaces.of(space), key, value),
                None => batch.remove(self.spaces.of(space), key),
            }
        }
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        batch.commit().map_err(|error| error.to_string())
    }

    /// Adds a request to the group, or answers it at once if it can't be decided.
    fn stage(&self, request: WriteRequest, staged: &mut Staged) -> Result<Reply, ()> {
        match request {
            WriteRequest::Commit(commit, reply) => match self.decide(&commit, staged) {
                Ok(outcome) => {
                    let partition = commit.partition.clone();
                    if matches!(outcome, CommitOutcome::Committed { .. }) {
                        stage_commit(*commit, staged);
                    }
                    Ok(Reply::Commit(partition, outcome, reply))
                }
                Err(error) => {
                    // Nobody may be left to hear it.
                    let _ = reply.send(Err(error));
                    Err(())
                }
            },
            WriteRequest::Delete(tokens, reply) => {
                for token in tokens {
                    staged.delete(Space::Entries, layout::entry_key(&token.partition, token.entry));
                }
                Ok(Reply::Delete(reply))
            }
            WriteRequest::Expire(now_ms, reply) => match self.expired(now_ms) {
                Ok(keys) => {
                    let count = keys.len() as u64;
                    for key in keys {
                        // A record of the group in hand is younger than what was found expired.
                        staged.writes.entry((Space::Records, key)).or_insert(None);
                    }
                    Ok(Reply::Expire(count, reply))
                }
                Err(error) => {
                    let _ = reply.send(Err(self.unavailable(&error)));
                    Err(())
                }
            },
        }
    }

    /// What the commit would come to, after everything that is staged before it.
    fn decide(&self, commit: &Commit, staged: &Staged) -> Result<CommitOutcome, StoreError> {
        let key = layout::control_key(&commit.partition);
        if self.version(&commit.partition, key, staged)? != commit.expected {
            return Ok(CommitOutcome::Conflict);
        }
        let mut existing = Vec::new();
        for record in &commit.records {
            if self.is_alive(&commit.partition, &record.key, commit.now_ms, staged)? {
                existing.push(record.key.clone());
            }
        }
        if existing.is_empty() {
            Ok(CommitOutcome::Committed { session: None })
        } else {
            Ok(CommitOutcome::RecordsExist(existing))
        }
    }

    fn version(
        &self,
        partition: &PartitionKey,
        key: Vec<u8>,
        staged: &Staged,
    ) -> Result<Option<Version>, StoreError> {
        let version_of = |value: &[u8]| {
            layout::version_of(value).ok_or_else(|| StoreError::Corrupt {
                store: self.alias.clone(),
                partition: partition.clone(),
                what: "the control record".into(),
                reason: format!("it has {} bytes and no version", value.len()),
            })
        };
        let key = (Space::Control, key);
        if let Some(value) = staged.writes.get(&key) {
            return value.as_deref().map(version_of).transpose();
        }
        let stored = self.spaces.of(Space::Control).get(&key.1).map_err(|error| self.unavailable(&error))?;
        stored.as_deref().map(version_of).transpose()
    }

    fn is_alive(
        &self,
        partition: &PartitionKey,
        record: &DeduplicationKey,
        now_ms: u64,
        staged: &Staged,
    ) -> Result<bool, StoreError> {
        let key = (Space::Records, layout::record_key(partition, record));
        let is_alive =
            |value: &[u8]| layout::record(value).is_none_or(|(expires_at_ms, _)| expires_at_ms > now_ms);
        if let Some(value) = staged.writes.get(&key) {
            return Ok(value.as_deref().is_some_and(is_alive));
        }
        let stored = self.spaces.of(Space::Records).get(&key.1).map_err(|error| self.unavailable(&error))?;
        Ok(stored.as_deref().is_some_and(is_alive))
    }

    fn expired(&self, now_ms: u64) -> Result<Vec<Vec<u8>>, fjall::Error> {
        let mut keys = Vec::new();
        for pair in self.spaces.of(Space::Records).iter() {
            let (key, value) = pair.into_inner()?;
            if layout::record(&value).is_some_and(|(expires_at_ms, _)| expires_at_ms <= now_ms) {
                keys.push(key.to_vec());
            }
        }
        Ok(keys)
    }

    fn answer(&self, reply: Reply, failure: Option<&String>) {
        // Whoever asked may have been cancelled: nothing is lost by that.
        match (reply, failure) {
            (Reply::Commit(_, outcome, reply), None) => {
                if matches!(outcome, CommitOutcome::Committed { .. }) {
                    self.counters.commits.fetch_add(1, Ordering::Relaxed);
                }
                let _ = reply.send(Ok(outcome));
            }
            (Reply::Commit(partition, _, reply), Some(reason)) => {
                // The journal may hold the batch or not: opening the store again will tell.
                let store = self.alias.clone();
                let _ =
                    reply.send(Err(StoreError::OutcomeUnknown { store, partition, reason: reason.clone() }));
            }
            (Reply::Delete(reply), None) => drop(reply.send(Ok(()))),
            (Reply::Delete(reply), Some(reason)) => drop(reply.send(Err(self.unavailable(reason)))),
            (Reply::Expire(count, reply), None) => drop(reply.send(Ok(count))),
            (Reply::Expire(_, reply), Some(reason)) => drop(reply.send(Err(self.unavailable(reason)))),
        }
    }

    fn refuse(&self, request: WriteRequest, reason: &String) {
        let error = self.unavailable(reason);
        match request {
            WriteRequest::Commit(_, reply) => drop(reply.send(Err(error))),
            WriteRequest::Delete(_, reply) => drop(reply.send(Err(error))),
            WriteRequest::Expire(_, reply) => drop(reply.send(Err(error))),
        }
    }

    fn unavailable(&self, reason: &impl ToString) -> StoreError {
        StoreError::Unavailable { store: self.alias.clone(), reason: reason.to_string() }
    }
}

fn stage_commit(commit: Commit, staged: &mut Staged) {
    let Commit { partition, version, control, items, entries, deleted_entries, records, .. } = commit;
    staged.put(Space::Control, layout::control_key(&partition), layout::control_value(version, &control));
    for (name, value) in items {
        let key = layout::item_key(&partition, &name);
        match value {
            Some(value) => staged.put(Space::Items, key, layout::item_value_bytes(&value)),
            None => staged.delete(Space::Items, key),
        }
    }
    for (entry, bytes) in entries {
        staged.put(Space::Entries, layout::entry_key(&partition, entry), bytes.to_vec());
    }
    for entry in deleted_entries {
        staged.delete(Space::Entries, layout::entry_key(&partition, entry));
    }
    for record in records {
        let value = layout::record_value(record.expires_at_ms, &record.response);
        staged.put(Space::Records, layout::record_key(&partition, &record.key), value);
    }
}
