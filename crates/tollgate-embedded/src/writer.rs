//! The writer: one thread that takes what is waiting, lets a [`Group`] decide it, syncs once and answers. So concurrent
//! commits and deletions share the price of a sync, and no two commits race. It owns the tables; readers get a [`View`]
//! that it renews after each sync.
//!
//! A failed sync is final: what the system did with the pages is unknown, and a second sync that succeeds would prove
//! nothing. So from then on every write is refused, until the store is opened again and reads what is really there.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tollgate_proto::{Commit, CommitOutcome, StoreAlias, StoreError, TokenRef};

use crate::group::{Answer, Group, Reply};
use crate::statistics::Tallies;
use crate::tables::{Changes, Tables, View};

/// Most requests that wait for the writer; whoever comes later waits for room.
const QUEUE_MAX: usize = 4096;

/// Most requests that share a sync.
const GROUP_MAX: usize = 1024;

/// A group of so many bytes is not added to: with the largest transaction on top, it is what a batch takes of memory.
const GROUP_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Longest wait for the companions of a request, as a part of what the last sync took: 1 / this. Those who were answered
/// together come back together, one after the other; without the wait the first to come back would have a sync of its
/// own, and all others would wait for it.
const COMPANY_SHARE: u32 = 2;

/// Longest wait for companions at all: a disk that stalled once must not make the next request wait as long.
const COMPANY_WAIT_MAX: Duration = Duration::from_millis(5);

/// What can be asked of the writer.
pub(crate) enum WriteRequest {
    Commit(Box<Commit>, Reply<CommitOutcome>),
    Delete(Vec<TokenRef>, Reply<()>),
    /// Keys of deduplication records, and the time by which they are judged expired.
    Expire(Vec<Vec<u8>>, u64, Reply<u64>),
    #[cfg(feature = "bench-internals")]
    Plain(Vec<crate::plain_records::PlainWrite>, Reply<bool>),
    /// Closes the database, empties its journals and opens it again.
    Reopen(oneshot::Sender<Result<(), String>>),
    /// Closes the database and empties its journals.
    Close(oneshot::Sender<Result<(), String>>),
}

/// What readers may read from.
#[derive(Clone)]
pub(crate) enum Access {
    Open(Arc<View>),
    /// For some milliseconds, while journals are emptied.
    Reopening,
    /// For good, and why.
    Closed(String),
}

/// The handle of the writer's thread.
pub(crate) struct Writer {
    /// `None` once the store is closing: then the thread ends when its queue is empty.
    requests: Option<mpsc::Sender<WriteRequest>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start(
        tables: Tables,
        directory: PathBuf,
        alias: StoreAlias,
        tallies: Arc<Tallies>,
    ) -> std::io::Result<(Self, watch::Receiver<Access>)> {
        let (requests, queue) = mpsc::channel(QUEUE_MAX);
        let tables = Arc::new(tables);
        let (access, readers) = watch::channel(Access::Open(Arc::new(View::of(&tables))));
        let mut desk = Desk {
            tables: Some(tables),
            access,
            directory,
            alias,
            tallies,
            refusal: None,
            company: Company::default(),
        };
        let thread = thread::Builder::new().name("tollgate-writer".into()).spawn(move || desk.run(queue))?;
        Ok((Self { requests: Some(requests), thread: Some(thread) }, readers))
    }

    /// Hands a request to the thread. If the thread is gone, the request is dropped and with it its sender, which tells
    /// whoever waits.
    pub(crate) async fn send(&self, request: WriteRequest) {
        if let Some(requests) = &self.requests {
            let _ = requests.send(request).await;
        }
    }

    /// The way to the thread, for another thread that may block.
    pub(crate) fn requests(&self) -> Option<mpsc::Sender<WriteRequest>> {
        self.requests.clone()
    }

    /// Lets the thread finish what waits, and waits for its end.
    pub(crate) fn join(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // Whoever waited for a thread that panicked has been told by a dropped sender.
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.join();
    }
}

/// Where the thread works.
struct Desk {
    /// `None`: closed, or could not be opened again.
    tables: Option<Arc<Tables>>,
    access: watch::Sender<Access>,
    directory: PathBuf,
    alias: StoreAlias,
    tallies: Arc<Tallies>,
    /// Why no more writes are taken.
    refusal: Option<String>,
    company: Company,
}

/// How many requests to expect together, and how long waiting for them pays.
#[derive(Default)]
struct Company {
    requests: usize,
    wait: Duration,
}

impl Desk {
    fn run(&mut self, mut queue: mpsc::Receiver<WriteRequest>) {
        while let Some(first) = queue.blocking_recv() {
            let mut group = Group::default();
            self.take(first, &mut group);
            self.company.requests = 1 + self.gather(&mut queue, &mut group);
            self.finish(group);
        }
    }

    /// Takes what is waiting, and what comes soon if as many came together the last time. Each is decided while the next
    /// ones are on their way. Answers how many it took.
    fn gather(&mut self, queue: &mut mpsc::Receiver<WriteRequest>, group: &mut Group) -> usize {
        let begin = Instant::now();
        let mut companions = 0;
        loop {
            while companions + 1 < GROUP_MAX
                && let Ok(next) = queue.try_recv()
            {
                self.take(next, group);
                companions += 1;
            }
            let is_complete = companions + 1 >= self.company.requests.min(GROUP_MAX);
            if is_complete || begin.elapsed() >= self.company.wait {
                return companions;
            }
            thread::yield_now();
        }
    }

    fn take(&mut self, request: WriteRequest, group: &mut Group) {
        match request {
            WriteRequest::Reopen(reply) => {
                self.finish(std::mem::take(group));
                drop(reply.send(self.reopen()));
            }
            WriteRequest::Close(reply) => {
                self.finish(std::mem::take(group));
                drop(reply.send(self.close()));
            }
            request => match (&self.refusal, &self.tables) {
                (None, Some(tables)) => {
                    add(&self.alias, tables, group, request);
                    if group.bytes() >= GROUP_BYTES_MAX {
                        self.finish(std::mem::take(group));
                    }
                }
                (reason, _) => self.refuse(request, reason.as_deref().unwrap_or("it is closed")),
            },
        }
    }

    /// Makes a group durable, lets readers see it, and answers.
    fn finish(&mut self, group: Group) {
        let (changes, answers) = group.into_parts();
        let written = self.write(changes);
        if let Err(reason) = &written {
            tracing::error!(
                store = %self.alias,
                directory = %self.directory.display(),
                %reason,
                "a group of writes could not be made durable; the store takes no more writes until it is opened again"
            );
            self.refusal = Some(format!("a write to {} failed: {reason}", self.directory.display()));
        }
        for answer in answers {
            self.answer(answer, written.as_ref().err());
        }
    }

    fn write(&mut self, changes: Changes) -> Result<(), String> {
        let Some(tables) = self.tables.as_ref().filter(|_| !changes.is_empty()) else { return Ok(()) };
        let begin = Instant::now();
        self.tallies.syncs.add(1);
        tables.write(changes).map_err(|error| error.to_string())?;
        self.access.send_replace(Access::Open(Arc::new(View::of(tables))));
        self.company.wait = (begin.elapsed() / COMPANY_SHARE).min(COMPANY_WAIT_MAX);
        Ok(())
    }

    fn answer(&self, answer: Answer, failure: Option<&String>) {
        match (answer, failure) {
            (Answer::Commit { outcome, reply, .. }, None) => {
                if matches!(outcome, CommitOutcome::Committed { .. }) {
                    self.tallies.commits.add(1);
                }
                drop(reply.send(Ok(outcome)));
            }
            // The journal may hold the group or not: opening the store again will tell. Nor is a conflict one if what it
            // conflicts with did not happen.
            (Answer::Commit { partition, reply, .. }, Some(reason)) => {
                let store = self.alias.clone();
                drop(reply.send(Err(StoreError::OutcomeUnknown {
                    store,
                    partition,
                    reason: reason.clone(),
                })));
            }
            (Answer::Deletion { reply }, None) => drop(reply.send(Ok(()))),
            (Answer::Deletion { reply }, Some(reason)) => drop(reply.send(Err(self.unavailable(reason)))),
            (Answer::Expiry { records, reply }, None) => drop(reply.send(Ok(records))),
            (Answer::Expiry { reply, .. }, Some(reason)) => drop(reply.send(Err(self.unavailable(reason)))),
            #[cfg(feature = "bench-internals")]
            (Answer::Plain { written, reply }, None) => drop(reply.send(Ok(written))),
            #[cfg(feature = "bench-internals")]
            (Answer::Plain { reply, .. }, Some(reason)) => drop(reply.send(Err(self.unavailable(reason)))),
        }
    }

    fn refuse(&self, request: WriteRequest, reason: &str) {
        let error = self.unavailable(reason);
        match request {
            WriteRequest::Commit(_, reply) => drop(reply.send(Err(error))),
            WriteRequest::Delete(_, reply) => drop(reply.send(Err(error))),
            WriteRequest::Expire(_, _, reply) => drop(reply.send(Err(error))),
            #[cfg(feature = "bench-internals")]
            WriteRequest::Plain(_, reply) => drop(reply.send(Err(error))),
            WriteRequest::Reopen(reply) | WriteRequest::Close(reply) => {
                drop(reply.send(Err(error.to_string())));
            }
        }
    }

    fn unavailable(&self, reason: &str) -> StoreError {
        StoreError::Unavailable { store: self.alias.clone(), reason: reason.to_owned() }
    }

    fn reopen(&mut self) -> Result<(), String> {
        if let Some(reason) = &self.refusal {
            return Err(reason.clone());
        }
        let reopened = self.shut(Access::Reopening).and_then(|()| Tables::open(&self.directory));
        match reopened {
            Ok(tables) => {
                let tables = Arc::new(tables);
                self.access.send_replace(Access::Open(Arc::new(View::of(&tables))));
                self.tables = Some(tables);
                Ok(())
            }
            Err(error) => {
                let reason = format!("{} could not be opened again: {error}", self.directory.display());
                tracing::error!(store = %self.alias, %reason, "the store is closed");
                self.access.send_replace(Access::Closed(reason.clone()));
                self.refusal = Some(reason.clone());
                Err(reason)
            }
        }
    }

    fn close(&mut self) -> Result<(), String> {
        let closed = self.shut(Access::Closed("it is closed".into()));
        self.refusal.get_or_insert_with(|| "it is closed".into());
        closed.map_err(|error| error.to_string())
    }

    /// Takes the tables from the readers, flushes and closes them, and empties their journals.
    fn shut(&mut self, access: Access) -> fjall::Result<()> {
        let Some(tables) = self.tables.take() else { return Ok(()) };
        // While readers still read: they would have to wait for it otherwise.
        let flushed = tables.flush();
        if let Access::Open(view) = self.access.send_replace(access) {
            drop(last(view));
        }
        let tables = last(tables);
        flushed.and_then(|()| tables.close_flushed(&self.directory))
    }
}

/// Adds what can be added to a group.
fn add(alias: &StoreAlias, tables: &Tables, group: &mut Group, request: WriteRequest) {
    match request {
        WriteRequest::Commit(commit, reply) => group.commit(alias, tables, *commit, reply),
        WriteRequest::Delete(tokens, reply) => group.delete(tokens, reply),
        WriteRequest::Expire(keys, now_ms, reply) => group.expire(alias, tables, keys, now_ms, reply),
        #[cfg(feature = "bench-internals")]
        WriteRequest::Plain(writes, reply) => group.write_plain(alias, tables, writes, reply),
        WriteRequest::Reopen(_) | WriteRequest::Close(_) => unreachable!("they are no part of a group"),
    }
}

/// Waits for readers that are in the middle of a read; they hold what they read from no longer than one read takes.
fn last<T>(mut shared: Arc<T>) -> T {
    loop {
        match Arc::try_unwrap(shared) {
            Ok(own) => return own,
            Err(still_shared) => shared = still_shared,
        }
        thread::yield_now();
    }
}
