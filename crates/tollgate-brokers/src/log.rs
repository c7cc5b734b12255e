//! The recovery log of the in-process broker: what a durable broker has to find again after the process was
//! killed. The hot path is in memory; this is written to, and read when the broker is opened. This file is
//! the handle that the broker holds; the thread behind it is in `writer`, the disk in `database`.

mod database;
mod directory;
mod record;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::error::RecoveryLogError;
use crate::in_process::queue::Journal;
use database::{Contents, LogDatabase};
pub(crate) use writer::Append;
use writer::{Desk, Group, Writer};

/// Most messages that wait for the log's writer; further senders wait before they leave theirs. At 100,000
/// messages a second this is a sixth of a second's work.
const WAITING_MESSAGES_MAX: u32 = 16 * 1024;

/// The log's name among the threads of the process.
const THREAD_NAME: &str = "tollgate-broker-log";

/// An open log.
pub(crate) struct Log {
    path: PathBuf,
    desk: Arc<Desk>,
    room: Arc<Semaphore>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Log {
    /// Opens the log in a directory and answers what it held.
    pub(crate) fn open(path: &Path) -> Result<(Self, Contents), RecoveryLogError> {
        let (database, contents) = LogDatabase::open(path)?;
        Ok((Self::start(path, database, None)?, contents))
    }

    fn start(
        path: &Path,
        database: LogDatabase,
        failure: Option<RecoveryLogError>,
    ) -> Result<Self, RecoveryLogError> {
        let desk = Arc::new(Desk::default());
        let writer = Writer::new(Arc::clone(&desk), database, failure);
        let thread = std::thread::Builder::new()
            .name(THREAD_NAME.to_owned())
            .spawn(move || writer.run())
            .map_err(|error| RecoveryLogError::Files { path: path.to_owned(), reason: error.to_string() })?;
        Ok(Self {
            path: path.to_owned(),
            desk,
            room: Arc::new(Semaphore::new(WAITING_MESSAGES_MAX as usize)),
            writer: Mutex::new(Some(thread)),
        })
    }

    /// Where queues tell what became of their messages.
    pub(crate) fn journal(&self) -> Arc<dyn Journal> {
        Arc::<Desk>::clone(&self.desk)
    }

    /// Waits for room for so many messages. A call with more than fit at all waits for an empty desk.
    pub(crate) async fn admit(&self, messages: usize) -> OwnedSemaphorePermit {
        let permits =
            u32::try_from(messages).map_or(WAITING_MESSAGES_MAX, |count| count.min(WAITING_MESSAGES_MAX));
        Arc::clone(&self.room).acquire_many_owned(permits).await.expect("this semaphore is never closed")
    }

    /// Leaves messages to be written at once, and answers, when waited for, whether they are on disk.
    pub(crate) fn append(
        &self,
        appends: Vec<Append>,
        permits: OwnedSemaphorePermit,
    ) -> impl Future<Output = Result<(), String>> + use<> {
        let (written, outcome) = oneshot::channel();
        self.desk.leave_group(Group { appends, permits, written });
        async move { outcome.await.unwrap_or_else(|_| Err("the recovery log is closed".to_owned())) }
    }

    /// Rewrites the log with what it still needs.
    pub(crate) async fn compact(&self) -> Result<(), RecoveryLogError> {
        let (waiter, outcome) = oneshot::channel();
        self.desk.leave_compaction(waiter);
        outcome.await.unwrap_or_else(|_| Err(RecoveryLogError::Closed { directory: self.path.clone() }))
    }

    /// Writes what is left and frees the directory. Closing twice is closing once.
    pub(crate) async fn close(&self) -> Result<(), RecoveryLogError> {
        let (waiter, outcome) = oneshot::channel();
        self.desk.leave_closing(Some(waiter));
        let outcome =
            outcome.await.unwrap_or_else(|_| Err(RecoveryLogError::Closed { directory: self.path.clone() }));
        self.join();
        outcome
    }

    /// The thread has ended or is about to.
    fn join(&self) {
        let thread = self.writer.lock().expect("nothing panics while it holds the thread's handle").take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(
                "the writer of the broker's recovery log panicked; reopening the broker recovers it"
            );
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.desk.leave_closing(None);
        self.join();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use tollgate_proto::EndpointName;

    use super::*;
    use crate::in_process::messages::QueueLimits;
    use crate::in_process::queue::Queue;

    fn append(queue: &Arc<Queue>) -> Append {
        queue.reserve().unwrap();
        Append { queue: Arc::clone(queue), envelope: Bytes::from_static(b"envelope"), delay: Duration::ZERO }
    }

    fn queue(log: &Log) -> Arc<Queue> {
        let limits =
            QueueLimits { capacity: 1, visibility_timeout: Duration::from_secs(30), delivery_limit: None };
        Arc::new(Queue::new(EndpointName::new("orders").unwrap(), limits, Some(log.journal())))
    }

    #[tokio::test]
    async fn after_a_failed_write_sends_are_refused_with_the_cause_and_take_no_room() {
        let directory = tempfile::tempdir().unwrap();
        let (database, _) = LogDatabase::open(directory.path()).unwrap();
        let cause = Arc::new(fjall::Error::Poisoned);
        let failure = Some(RecoveryLogError::Log { directory: directory.path().to_owned(), cause });
        let log = Log::start(directory.path(), database, failure).unwrap();
        let queue = queue(&log);
        for _ in 0..3 {
            // The queue takes one message: were the room not given back, the second one would find none.
            let error = log.append(vec![append(&queue)], log.admit(1).await).await.unwrap_err();
            assert!(error.contains("Poisoned"), "{error}");
        }
        assert_eq!(queue.depth().total(), 0);
        assert!(matches!(log.compact().await, Err(RecoveryLogError::Log { .. })));
        assert!(matches!(log.close().await, Err(RecoveryLogError::Log { .. })));
    }

    #[tokio::test]
    async fn what_comes_after_the_end_is_told_so_and_does_not_wait() {
        let directory = tempfile::tempdir().unwrap();
        let (log, _) = Log::open(directory.path()).unwrap();
        let queue = queue(&log);
        log.close().await.unwrap();
        let error = log.append(vec![append(&queue)], log.admit(1).await).await.unwrap_err();
        assert_eq!(error, "the recovery log is closed");
        log.close().await.unwrap();
    }
}
