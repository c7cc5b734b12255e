//! The recovery log on disk: records in an embedded database, its recovery, and its rewriting into a new
//! generation when most of it is rubbish. One thread owns it ([`super::writer`]); nothing here waits, locks
//! or knows of queues.

use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use tollgate_proto::EndpointName;

use super::directory::{Directory, Generation};
use super::record::{self, MessageRecord};
use crate::error::RecoveryLogError;
use crate::in_process::Recovered;
use crate::in_process::messages::{Arrival, Change, LogNumber};

const MESSAGES: &str = "messages";
const DEAD_LETTERS: &str = "dead_letters";
const META: &str = "meta";
const OPENING: &[u8] = b"opening";
const END: &[u8] = b"end";
const CLEAN_END: &[u8] = b"clean";
const UNCLEAN_END: &[u8] = b"unclean";

/// Messages that are acknowledged while they are still in this buffer never reach a table. Half of what the
/// database takes by itself: recovery reads at most this and the journal, and a queue's log is mostly such
/// messages.
const BUFFER_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// The journals are to be cut off early; this is the smallest bound that allows one journal to be written (64
/// MiB, fixed by fjall 3.1) while the one before is still needed.
const JOURNAL_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// The log is read once, at recovery, front to back: a cache would hold what nobody asks for again.
const CACHE_BYTES: u64 = 1024 * 1024;

/// Below this a log is not worth rewriting.
const REWRITTEN_BYTES_MIN: u64 = 8 * 1024 * 1024;

/// How many records one write of a rewriting takes.
const REWRITTEN_AT_ONCE: usize = 4096;

/// What a record takes in the log beside its content: key, lengths, checksum. An estimate, for deciding about
/// rewriting.
const RECORD_OVERHEAD_BYTES: u64 = 40;

/// A message that the log is to write, as the caller of `send` has given it.
pub(crate) struct NewMessage {
    pub(crate) endpoint: EndpointName,
    pub(crate) envelope: Bytes,
    pub(crate) delay: Duration,
}

/// Whether the log's records are up to date when it ends.
#[derive(Clone, Copy)]
pub(crate) enum End {
    Clean,
    Unclean,
}

/// The log on disk.
pub(crate) struct LogDatabase {
    // Closed first, while the directory is still locked.
    tables: Tables,
    directory: Directory,
    generation: Generation,
    opening: u32,
    last_number: u64,
    written: Written,
}

struct Tables {
    database: Database,
    messages: Keyspace,
    dead_letters: Keyspace,
    meta: Keyspace,
}

/// What this generation has taken, and how much of it still counts.
#[derive(Clone, Copy, Default)]
struct Written {
    bytes: u64,
    records: u64,
    live_records: u64,
}

/// What a log held when it was opened.
pub(crate) type Contents = Vec<(EndpointName, Recovered)>;

impl LogDatabase {
    /// Opens the log in a directory, or makes one.
    pub(crate) fn open(path: &Path) -> Result<(Self, Contents), RecoveryLogError> {
        let directory = Directory::lock(path)?;
        let generation = directory.current()?;
        directory.delete_all_but(generation)?;
        let place = directory.of(generation);
        let is_new = !place.exists();
        let tables = Tables::open(&place).map_err(fault(path))?;
        directory.make_current(generation)?;
        let mut log =
            Self { directory, generation, tables, opening: 0, last_number: 0, written: Written::default() };
        log.begin_opening()?;
        if is_new {
            return Ok((log, Contents::new()));
        }
        let contents = log.read()?;
        if log.is_worth_rewriting() {
            log.rewrite()?;
        }
        Ok((log, contents))
    }

    /// Counts the opening, if the one before ended without having brought its records up to date.
    fn begin_opening(&mut self) -> Result<(), RecoveryLogError> {
        let fault = fault(self.directory.path());
        let stored = self.tables.meta.get(OPENING).map_err(&fault)?;
        let end = self.tables.meta.get(END).map_err(&fault)?;
        self.opening = match stored {
            None => 1,
            Some(bytes) => {
                let bytes = <[u8; 4]>::try_from(bytes.as_ref())
                    .map_err(|_| damaged(self.directory.path(), "the number of openings is not a number"))?;
                let is_clean = end.is_some_and(|end| end.as_ref() == CLEAN_END);
                u32::from_le_bytes(bytes) + u32::from(!is_clean)
            }
        };
        self.write_meta(End::Unclean)
    }

    /// Notes how the log ends, or would end if the process ended now. Synced, with all that was written
    /// before.
    pub(crate) fn write_meta(&self, end: End) -> Result<(), RecoveryLogError> {
        let mut batch = self.tables.database.batch().durability(Some(PersistMode::SyncAll));
        self.tables.put_meta(&mut batch, self.opening, end);
        batch.commit().map_err(fault(self.directory.path()))
    }

    fn read(&mut self) -> Result<Contents, RecoveryLogError> {
        let fault = fault(self.directory.path());
        let now_ms = unix_ms();
        let mut contents = Vec::new();
        let mut live_bytes = 0;
        for guard in self.tables.messages.iter() {
            let (key, value) = guard.into_inner().map_err(&fault)?;
            let damaged = |what| damaged(self.directory.path(), &format!("message {key:?}: {what}"));
            let number = record::number(&key).map_err(damaged)?;
            let message = MessageRecord::decode(&value).map_err(damaged)?;
            let unclean_ends = self.opening.saturating_sub(message.opening);
            live_bytes += RECORD_OVERHEAD_BYTES + value.len() as u64;
            self.last_number = self.last_number.max(number.0.get());
            let arrival = Arrival {
                envelope: message.envelope,
                delay: Duration::from_millis(message.due_ms.saturating_sub(now_ms)),
                delivery_count: message.delivery_count.saturating_add(unclean_ends),
                record: Some(number),
            };
            contents.push((message.endpoint, Recovered::Message(arrival)));
        }
        for guard in self.tables.dead_letters.iter() {
            let (key, value) = guard.into_inner().map_err(&fault)?;
            let damaged = |what| damaged(self.directory.path(), &format!("dead letter {key:?}: {what}"));
            let number = record::number(&key).map_err(damaged)?;
            let (endpoint, letter) = record::decode_dead_letter(&value).map_err(damaged)?;
            live_bytes += RECORD_OVERHEAD_BYTES + value.len() as u64;
            self.last_number = self.last_number.max(number.0.get());
            contents.push((endpoint, Recovered::Dead(letter, number)));
        }
        // Recovery has cut the journal, which is made long and empty, to what is valid: its length is what
        // was written.
        let database = &self.tables.database;
        let on_disk = database.disk_space().map_err(&fault)?.max(live_bytes);
        let live_records = contents.len() as u64;
        // As if all records were of the same size: good enough to tell rubbish from content.
        let records = live_records.max(1) * on_disk / live_bytes.max(RECORD_OVERHEAD_BYTES);
        self.written = Written { bytes: on_disk, records, live_records };
        Ok(contents)
    }

    /// Writes messages and changes together, and syncs if there are messages: their senders are waiting for
    /// that. Answers the messages' numbers, in their order.
    pub(crate) fn write<'a>(
        &mut self,
        messages: impl Iterator<Item = NewMessage>,
        changes: impl Iterator<Item = &'a (EndpointName, Change)>,
    ) -> Result<Vec<LogNumber>, RecoveryLogError> {
        let mut batch = self.tables.database.batch();
        let mut numbers = Vec::with_capacity(messages.size_hint().0);
        let now_ms = unix_ms();
        for NewMessage { endpoint, envelope, delay } in messages {
            self.last_number += 1;
            let number = NonZeroU64::new(self.last_number).expect("it was increased just now");
            numbers.push(LogNumber(number));
            let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            let due_ms = if delay.is_zero() { 0 } else { now_ms.saturating_add(delay_ms) };
            self.put_message(&mut batch, LogNumber(number), &endpoint, envelope, 0, due_ms);
            self.written.live_records += 1;
        }
        for (endpoint, change) in changes {
            self.put_change(&mut batch, endpoint, change);
        }
        let durability = if numbers.is_empty() { PersistMode::Buffer } else { PersistMode::SyncData };
        batch.durability(Some(durability)).commit().map_err(fault(self.directory.path()))?;
        Ok(numbers)
    }

    fn put_message(
        &mut self,
        batch: &mut OwnedWriteBatch,
        number: LogNumber,
        endpoint: &EndpointName,
        envelope: Bytes,
        delivery_count: u32,
        due_ms: u64,
    ) {
        let endpoint = endpoint.clone();
        let record = MessageRecord { opening: self.opening, delivery_count, due_ms, endpoint, envelope };
        let bytes = record.encode();
        self.written.count(bytes.len());
        batch.insert(&self.tables.messages, record::key(number), bytes);
    }

    fn put_change(&mut self, batch: &mut OwnedWriteBatch, endpoint: &EndpointName, change: &Change) {
        match change {
            Change::Acknowledged(number) => {
                self.written.count(0);
                self.written.live_records = self.written.live_records.saturating_sub(1);
                batch.remove(&self.tables.messages, record::key(*number));
            }
            Change::DeadLettered(number, letter) => {
                let bytes = record::encode_dead_letter(endpoint, letter);
                self.written.count(bytes.len());
                batch.remove(&self.tables.messages, record::key(*number));
                batch.insert(&self.tables.dead_letters, record::key(*number), bytes);
            }
            Change::Redriven(number, envelope) => {
                batch.remove(&self.tables.dead_letters, record::key(*number));
                self.put_message(batch, *number, endpoint, envelope.clone(), 0, 0);
            }
            Change::Delivered(number, envelope, count) => {
                self.put_message(batch, *number, endpoint, envelope.clone(), *count, 0);
            }
        }
    }

    /// Whether there is so much rubbish that deleting it is worth writing the rest again.
    pub(crate) fn is_worth_rewriting(&self) -> bool {
        self.written.bytes >= REWRITTEN_BYTES_MIN && self.written.live_records * 2 < self.written.records
    }

    /// Writes what still counts into a new generation, makes that the current one, and deletes the old one.
    /// Until then a crash or an error leaves the old one in use.
    pub(crate) fn rewrite(&mut self) -> Result<(), RecoveryLogError> {
        let fault = fault(self.directory.path());
        let generation = self.generation.next();
        // What a failed rewriting may have left.
        self.directory.delete_all_but(self.generation)?;
        let tables = Tables::open(&self.directory.of(generation)).map_err(&fault)?;
        let mut written = Written::default();
        for (from, to) in
            [(&self.tables.messages, &tables.messages), (&self.tables.dead_letters, &tables.dead_letters)]
        {
            let mut batch = tables.database.batch();
            for guard in from.iter() {
                let (key, value) = guard.into_inner().map_err(&fault)?;
                written.count(value.len());
                written.live_records += 1;
                batch.insert(to, key, value);
                if batch.len() >= REWRITTEN_AT_ONCE {
                    std::mem::replace(&mut batch, tables.database.batch()).commit().map_err(&fault)?;
                }
            }
            batch.commit().map_err(&fault)?;
        }
        let mut batch = tables.database.batch().durability(Some(PersistMode::SyncAll));
        tables.put_meta(&mut batch, self.opening, End::Unclean);
        batch.commit().map_err(&fault)?;
        self.directory.make_current(generation)?;
        tracing::debug!(
            directory = %self.directory.path().display(),
            bytes_before = self.written.bytes,
            bytes = written.bytes,
            "the broker's recovery log was rewritten"
        );
        (self.generation, self.written) = (generation, written);
        // The old database has to be closed before its files are deleted.
        drop(std::mem::replace(&mut self.tables, tables));
        self.directory.delete_all_but(self.generation)
    }
}

impl Tables {
    fn open(path: &Path) -> fjall::Result<Self> {
        let database = Database::builder(path)
            .worker_threads(1)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(BUFFER_BYTES_MAX);
        Ok(Self {
            messages: database.keyspace(MESSAGES, options)?,
            dead_letters: database.keyspace(DEAD_LETTERS, options)?,
            meta: database.keyspace(META, options)?,
            database,
        })
    }

    fn put_meta(&self, batch: &mut OwnedWriteBatch, opening: u32, end: End) {
        let end = match end {
            End::Clean => CLEAN_END,
            End::Unclean => UNCLEAN_END,
        };
        batch.insert(&self.meta, OPENING, opening.to_le_bytes());
        batch.insert(&self.meta, END, end);
    }
}

impl Written {
    fn count(&mut self, value_bytes: usize) {
        self.bytes += RECORD_OVERHEAD_BYTES + value_bytes as u64;
        self.records += 1;
    }
}

/// An error of the database, with the directory it happened in.
fn fault(directory: &Path) -> impl Fn(fjall::Error) -> RecoveryLogError + use<> {
    let directory = directory.to_owned();
    move |error| match error {
        fjall::Error::Locked => RecoveryLogError::InUse { directory: directory.clone() },
        error => RecoveryLogError::Log { directory: directory.clone(), cause: Arc::new(error) },
    }
}

fn damaged(directory: &Path, what: &str) -> RecoveryLogError {
    RecoveryLogError::Damaged { directory: directory.to_owned(), what: what.to_owned() }
}

/// The only reading of the wall clock: delays have to outlive the process, and no other clock does. It
/// decides when a message is delivered first, never whether.
fn unix_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
