//! The thread that writes the recovery log, and the desk where work is left for it. While one sync is under
//! way the next group collects: senders share syncs, and nobody waits for a timer.

use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use metrics::Counter;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tollgate_proto::EndpointName;

use super::database::{End, LogDatabase, NewMessage};
use crate::error::RecoveryLogError;
use crate::in_process::messages::{Arrival, Change, LogNumber};
use crate::in_process::queue::{Journal, Queue};

/// How long changes that nobody waits for may wait for company. A crash within that time redelivers their
/// messages.
const CHANGES_WAIT: Duration = Duration::from_millis(20);

/// So many changes are written without waiting any longer.
const CHANGES_AT_ONCE: usize = 4096;

/// After so long without work the log is rewritten if it is mostly rubbish.
const IDLE_AFTER: Duration = Duration::from_secs(2);

/// A message that the log is to write and then to put into its queue.
pub(crate) struct Append {
    pub(crate) queue: Arc<Queue>,
    pub(crate) envelope: Bytes,
    pub(crate) delay: Duration,
}

/// The messages of one call of `send`.
pub(super) struct Group {
    pub(super) appends: Vec<Append>,
    /// Room in the log; given back when the group is written.
    pub(super) permits: OwnedSemaphorePermit,
    pub(super) written: oneshot::Sender<Result<(), String>>,
}

/// Where somebody waits for the end of a compaction or of the log.
pub(super) type Waiter = oneshot::Sender<Result<(), RecoveryLogError>>;

/// Where work is left for the writer.
#[derive(Default)]
pub(super) struct Desk {
    work: Mutex<Work>,
    left: Condvar,
}

#[derive(Default)]
struct Work {
    stage: Stage,
    groups: Vec<Group>,
    changes: Vec<(EndpointName, Change)>,
    compactions: Vec<Waiter>,
    closings: Vec<Waiter>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Open,
    /// The writer does what is left on the desk and ends.
    Closing,
    /// Nobody works here any more.
    Closed,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().expect("nothing panics while it holds the desk's lock")
    }

    /// Leaves a group to be written. A group that comes too late is dropped: its sender hears that nobody
    /// wrote it.
    pub(super) fn leave_group(&self, group: Group) {
        let mut work = self.lock();
        if work.stage == Stage::Open {
            work.groups.push(group);
            self.left.notify_one();
        }
    }

    /// Asks for a rewriting.
    pub(super) fn leave_compaction(&self, waiter: Waiter) {
        let mut work = self.lock();
        if work.stage == Stage::Open {
            work.compactions.push(waiter);
            self.left.notify_one();
        }
    }

    /// Asks the writer to end. A waiter is told when the directory is free.
    pub(super) fn leave_closing(&self, waiter: Option<Waiter>) {
        let mut work = self.lock();
        match (work.stage, waiter) {
            (Stage::Closed, Some(waiter)) => {
                // A caller that has gone does not want to know.
                let _ = waiter.send(Ok(()));
            }
            (Stage::Closed, None) => {}
            (Stage::Open | Stage::Closing, waiter) => {
                work.stage = Stage::Closing;
                work.closings.extend(waiter);
                self.left.notify_one();
            }
        }
    }

    /// Waits for something to do.
    fn take(&self, may_rewrite: bool) -> Task {
        let mut work = self.lock();
        loop {
            let is_urgent = !work.groups.is_empty() || work.changes.len() >= CHANGES_AT_ONCE;
            let is_closing = work.stage != Stage::Open;
            if is_urgent || (is_closing && !work.changes.is_empty()) {
                return Task::Write(mem::take(&mut work.groups), mem::take(&mut work.changes));
            }
            if is_closing {
                return Task::End(mem::take(&mut work.compactions));
            }
            if !work.compactions.is_empty() {
                return Task::Compact(mem::take(&mut work.compactions), mem::take(&mut work.changes));
            }
            let patience = match (work.changes.is_empty(), may_rewrite) {
                (false, _) => CHANGES_WAIT,
                (true, true) => IDLE_AFTER,
                (true, false) => Duration::MAX,
            };
            let (woken, waited) = self
                .left
                .wait_timeout_while(work, patience, |work| work.is_quiet(patience == CHANGES_WAIT))
                .expect("nothing panics while it holds the desk's lock");
            work = woken;
            if waited.timed_out() {
                let changes = mem::take(&mut work.changes);
                return if changes.is_empty() { Task::Rewrite } else { Task::Write(Vec::new(), changes) };
            }
        }
    }
}

impl Work {
    /// Whether the writer has no reason to get up before its patience ends.
    fn is_quiet(&self, changes_wait: bool) -> bool {
        let has_news = self.stage != Stage::Open || !self.groups.is_empty() || !self.compactions.is_empty();
        let bound = if changes_wait { CHANGES_AT_ONCE } else { 1 };
        !has_news && self.changes.len() < bound
    }
}

impl Journal for Desk {
    fn note(&self, endpoint: &EndpointName, changes: &mut Vec<Change>) {
        let mut work = self.lock();
        if work.stage == Stage::Closed {
            changes.clear();
            return;
        }
        let was = work.changes.len();
        work.changes.extend(changes.drain(..).map(|change| (endpoint.clone(), change)));
        if was == 0 || (was < CHANGES_AT_ONCE && work.changes.len() >= CHANGES_AT_ONCE) {
            self.left.notify_one();
        }
    }
}

/// What the writer does next.
enum Task {
    Write(Vec<Group>, Vec<(EndpointName, Change)>),
    Compact(Vec<Waiter>, Vec<(EndpointName, Change)>),
    Rewrite,
    End(Vec<Waiter>),
}

/// The thread's own state.
pub(super) struct Writer {
    desk: Arc<Desk>,
    database: LogDatabase,
    /// Why nothing is written any more: the database refuses everything after a write or a sync has failed,
    /// because nobody can know what of it is on disk.
    failure: Option<RecoveryLogError>,
    /// Together they tell how many messages share a sync.
    syncs: Counter,
    synced_messages: Counter,
}

impl Writer {
    pub(super) fn new(desk: Arc<Desk>, database: LogDatabase, failure: Option<RecoveryLogError>) -> Self {
        let syncs = metrics::counter!("tollgate_broker_log_syncs_total");
        let synced_messages = metrics::counter!("tollgate_broker_log_messages_total");
        Self { desk, database, failure, syncs, synced_messages }
    }

    /// Works until asked to end.
    pub(super) fn run(mut self) {
        let clear_desk = ClearDesk(Arc::clone(&self.desk));
        loop {
            let may_rewrite = self.failure.is_none() && self.database.is_worth_rewriting();
            match self.desk.take(may_rewrite) {
                Task::Write(groups, changes) => self.write(groups, &changes),
                Task::Compact(waiters, changes) => {
                    self.write(Vec::new(), &changes);
                    let outcome = self.rewrite();
                    answer(waiters, &outcome);
                }
                Task::Rewrite => {
                    // It was reported; the next idle time tries again.
                    let _ = self.rewrite();
                }
                Task::End(compactions) => {
                    let outcome = self.end();
                    answer(compactions, &outcome);
                    clear_desk.answer_closings(&outcome);
                    return;
                }
            }
        }
    }

    fn write(&mut self, groups: Vec<Group>, changes: &[(EndpointName, Change)]) {
        if self.failure.is_none() {
            let new = |append: &Append| NewMessage {
                endpoint: append.queue.endpoint().clone(),
                envelope: append.envelope.clone(),
                delay: append.delay,
            };
            let messages = groups.iter().flat_map(|group| &group.appends).map(new);
            match self.database.write(messages, changes.iter()) {
                Ok(numbers) => {
                    if !numbers.is_empty() {
                        self.syncs.increment(1);
                        self.synced_messages.increment(numbers.len() as u64);
                    }
                    return confirm(groups, numbers);
                }
                Err(error) => {
                    tracing::error!(%error, "the broker's recovery log failed: sends are refused from now on");
                    self.failure = Some(error);
                }
            }
        }
        if let Some(failure) = &self.failure {
            refuse(groups, failure);
        }
    }

    fn rewrite(&mut self) -> Result<(), RecoveryLogError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        self.database
            .rewrite()
            .inspect_err(|error| tracing::warn!(%error, "the broker's recovery log could not be rewritten"))
    }

    /// Leaves the log small and up to date.
    fn end(self) -> Result<(), RecoveryLogError> {
        let Self { mut database, failure, .. } = self;
        if let Some(failure) = failure {
            return Err(failure);
        }
        if database.is_worth_rewriting() {
            database.rewrite()?;
        }
        database.write_meta(End::Clean)
    }
}

fn confirm(groups: Vec<Group>, numbers: Vec<LogNumber>) {
    let mut numbers = numbers.into_iter();
    for Group { appends, permits, written } in groups {
        for Append { queue, envelope, delay } in appends {
            let record = Some(numbers.next().expect("the database answers a number for each message"));
            queue.arrive_reserved(Arrival { envelope, delay, delivery_count: 0, record });
        }
        drop(permits);
        // A sender that has gone does not want to know; its messages are delivered all the same.
        let _ = written.send(Ok(()));
    }
}

fn refuse(groups: Vec<Group>, failure: &RecoveryLogError) {
    for group in groups {
        for append in &group.appends {
            append.queue.release();
        }
        let _ = group.written.send(Err(failure.to_string()));
    }
}

fn answer(waiters: Vec<Waiter>, outcome: &Result<(), RecoveryLogError>) {
    for waiter in waiters {
        // A caller that has gone does not want to know.
        let _ = waiter.send(outcome.clone());
    }
}

/// Closes the desk when the thread ends, in whatever way: nobody may wait for a writer that is not there.
struct ClearDesk(Arc<Desk>);

impl ClearDesk {
    fn answer_closings(&self, outcome: &Result<(), RecoveryLogError>) {
        let mut work = self.0.lock();
        work.stage = Stage::Closed;
        answer(mem::take(&mut work.closings), outcome);
    }
}

impl Drop for ClearDesk {
    fn drop(&mut self) {
        let mut work = self.0.lock();
        // Dropping what waits tells those who wait.
        *work = Work { stage: Stage::Closed, ..Work::default() };
    }
}
