//! The durable embedded store: a directory that one process at a time keeps open. Reads come straight from the engine,
//! as it was after the last sync; writes go through the writer's thread, which syncs once for all that wait.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tollgate_proto::{
    BoxFuture, Commit, CommitOutcome, EntryRead, LoadRequest, LoadedPartition, ScanCursor, ScanPage,
    SessionMark, Store, StoreAlias, StoreError, StoreLimits, TokenRef,
};

use crate::directory;
use crate::directory_lock::DirectoryLock;
use crate::error::EmbeddedError;
use crate::limits::EMBEDDED_LIMITS;
use crate::reading::Reading;
use crate::statistics::{EmbeddedStatistics, Tallies};
use crate::tables::{Tables, View};
use crate::writer::{Access, WriteRequest, Writer};

/// A durable store in a directory.
///
/// Every confirmed write has been synced to the disk. A read takes what it asks for from memory or from the disk on the
/// thread that polls it, and waits for no sync. When the store is dropped, the writes that it has begun are finished.
///
/// ```
/// # let directory = tempfile::tempdir().unwrap();
/// use tollgate_proto::StoreAlias;
/// use tollgate_embedded::EmbeddedStore;
///
/// let store = EmbeddedStore::open(directory.path(), StoreAlias::new("main").unwrap()).unwrap();
/// store.close().unwrap();
/// ```
pub struct EmbeddedStore {
    alias: StoreAlias,
    directory: PathBuf,
    /// The thread of the compaction that was begun last.
    compaction: Mutex<Option<JoinHandle<()>>>,
    pub(crate) writer: Writer,
    access: watch::Receiver<Access>,
    tallies: Arc<Tallies>,
    /// Dropped last: nobody else may have the directory while anything above is at work in it.
    _lock: DirectoryLock,
}

impl EmbeddedStore {
    /// Opens the store in a directory, creating it if there is none. After a crash it opens by itself, with every commit
    /// that was answered and no half commit.
    ///
    /// # Errors
    /// [`EmbeddedError::InUse`] if another process, or another store in this one, has it open;
    /// [`EmbeddedError::Unusable`] if it can't be read or written.
    pub fn open(directory: impl AsRef<Path>, alias: StoreAlias) -> Result<Self, EmbeddedError> {
        let given = directory.as_ref();
        let directory = std::path::absolute(given).map_err(|error| EmbeddedError::unusable(given, &error))?;
        let unusable = |error: io::Error| EmbeddedError::unusable(&directory, &error);
        directory::create(&directory).map_err(unusable)?;
        let lock = DirectoryLock::acquire(&directory)?;
        let tables = Tables::open(&directory).map_err(|error| match error {
            fjall::Error::Locked => EmbeddedError::InUse { directory: directory.clone() },
            error => EmbeddedError::unusable(&directory, &error),
        })?;
        let tallies = Arc::new(Tallies::new(&alias));
        let (writer, access) = Writer::start(tables, directory.clone(), alias.clone(), Arc::clone(&tallies))
            .map_err(unusable)?;
        Ok(Self { alias, directory, compaction: Mutex::default(), writer, access, tallies, _lock: lock })
    }

    /// Where it keeps its files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What it has done since it was opened.
    pub fn statistics(&self) -> EmbeddedStatistics {
        self.tallies.read()
    }

    /// How many bytes its files take on the disk.
    ///
    /// # Errors
    /// If the directory can't be read.
    pub fn disk_usage(&self) -> Result<u64, EmbeddedError> {
        directory::bytes_on_disk(&self.directory)
            .map_err(|error| EmbeddedError::unusable(&self.directory, &error))
    }

    /// Makes the directory as small as its content allows: what was deleted or overwritten leaves the tables, and the
    /// journals are emptied. A thread of its own does the work, which is about that of copying the content; meanwhile the
    /// store is in use as ever, but for some tens of milliseconds in which all requests wait.
    ///
    /// A future that is dropped does not end the work. A second call waits for the first one's.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn compact(&self) -> Result<(), EmbeddedError> {
        let failed = |reason: &dyn ToString| EmbeddedError::failed(&self.directory, &reason.to_string());
        let (reply, answer) = oneshot::channel();
        {
            let mut compaction = self.compaction.lock().unwrap_or_else(PoisonError::into_inner);
            let before = compaction.take();
            let access = self.access.clone();
            let requests = self.writer.requests();
            let work = move || {
                // One after the other: each needs the tables for itself at some point. A panic of the one before was
                // told to its caller.
                let _ = before.map(JoinHandle::join);
                drop(reply.send(compact(&access, requests)));
            };
            let thread = thread::Builder::new().name("tollgate-compaction".into()).spawn(work);
            *compaction = Some(thread.map_err(|error| failed(&error))?);
        }
        let compacted = answer.await.map_err(|_| failed(&"the compaction's thread has ended"))?;
        compacted.map_err(|reason| failed(&reason))
    }

    /// Closes the store: finishes the writes that it has begun, puts everything into tables and empties the journals, so
    /// that it opens quickly the next time. Dropping it is as safe, but leaves that to the next opening.
    ///
    /// # Errors
    /// If the disk fails now, or has failed before. Nothing that was confirmed is lost by that.
    pub fn close(mut self) -> Result<(), EmbeddedError> {
        self.join_compaction();
        let (reply, mut answer) = oneshot::channel();
        let mut request = WriteRequest::Close(reply);
        if let Some(requests) = self.writer.requests() {
            // Nobody else can send any more, so there soon is room.
            while let Err(mpsc::error::TrySendError::Full(again)) = requests.try_send(request) {
                request = again;
                thread::yield_now();
            }
        }
        self.writer.join();
        let closed = answer.try_recv().unwrap_or_else(|_| Err("the store's writer has ended".into()));
        closed.map_err(|reason| EmbeddedError::failed(&self.directory, &reason))
    }

    fn join_compaction(&mut self) {
        let compaction = self.compaction.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = compaction.take() {
            // A panic there was told to whoever asked for the compaction.
            let _ = thread.join();
        }
    }

    /// What to read from; waits while the store is reopening its tables.
    pub(crate) async fn view(&self) -> Result<Arc<View>, StoreError> {
        if let Access::Open(view) = &*self.access.borrow() {
            return Ok(Arc::clone(view));
        }
        let mut access = self.access.clone();
        let settled = access.wait_for(|access| !matches!(access, Access::Reopening)).await;
        match settled.as_deref() {
            Ok(Access::Open(view)) => Ok(Arc::clone(view)),
            Ok(Access::Closed(reason)) => Err(self.unavailable(reason)),
            Ok(Access::Reopening) | Err(_) => Err(self.writer_ended()),
        }
    }

    fn reading<'a>(&'a self, view: &'a View) -> Reading<'a> {
        Reading { alias: &self.alias, view }
    }

    pub(crate) fn unavailable(&self, reason: &str) -> StoreError {
        StoreError::Unavailable { store: self.alias.clone(), reason: reason.to_owned() }
    }

    pub(crate) fn writer_ended(&self) -> StoreError {
        self.unavailable("the store's writer has ended")
    }

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
            tokens.iter().map(|token| check_token(&self.alias, token)).collect();
        let own: Vec<TokenRef> = tokens.into_iter().filter(|token| token.store == self.alias).collect();
        self.tallies.deletions.add(own.len());
        let (reply, answer) = oneshot::channel();
        self.writer.send(WriteRequest::Delete(own, reply)).await;
        let deleted = answer.await.unwrap_or_else(|_| Err(self.writer_ended()));
        checks.into_iter().map(|check| check.and_then(|()| deleted.clone()).map(|()| None)).collect()
    }

    async fn expire_durably(&self, now_ms: u64) -> Result<u64, StoreError> {
        let mut expired = 0;
        let mut cursor: Option<Vec<u8>> = None;
        loop {
            let view = self.view().await?;
            let found = self.reading(&view).expired_records(cursor.as_deref(), now_ms)?;
            drop(view);
            let (reply, answer) = oneshot::channel();
            // Sent even if none was found: the wait for the answer lets other tasks run between two pages.
            self.writer.send(WriteRequest::Expire(found.keys, now_ms, reply)).await;
            expired += answer.await.unwrap_or_else(|_| Err(self.writer_ended()))?;
            cursor = found.next;
            if cursor.is_none() {
                return Ok(expired);
            }
        }
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.join_compaction();
        self.writer.join();
    }
}

pub(crate) fn check_token(alias: &StoreAlias, token: &TokenRef) -> Result<(), StoreError> {
    if token.store == *alias {
        return Ok(());
    }
    Err(StoreError::ForeignToken { store: alias.clone(), token: token.clone() })
}

/// Merges first: the engine keeps replaced tables for readers that may have begun before, and drops them when it is opened
/// anew, which emptying the journals needs in any case.
fn compact(
    access: &watch::Receiver<Access>,
    requests: Option<mpsc::Sender<WriteRequest>>,
) -> Result<(), String> {
    let tables = match &*access.borrow() {
        Access::Open(view) => Arc::clone(view.tables()),
        Access::Reopening => return Err("it is being reopened".to_owned()),
        Access::Closed(reason) => return Err(reason.clone()),
    };
    tables.flush().and_then(|()| tables.merge()).map_err(|error| error.to_string())?;
    // The writer waits for whoever still holds the tables.
    drop(tables);
    let ended = || "the store's writer has ended".to_owned();
    let (reply, answer) = oneshot::channel();
    requests.ok_or_else(ended)?.blocking_send(WriteRequest::Reopen(reply)).map_err(|_| ended())?;
    answer.blocking_recv().map_err(|_| ended())?
}

impl Store for EmbeddedStore {
    fn alias(&self) -> &StoreAlias {
        &self.alias
    }

    fn limits(&self) -> StoreLimits {
        EMBEDDED_LIMITS
    }

    fn verify(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        // Opening has shown that it can be read and written; an empty deletion shows that the writer still takes writes.
        Box::pin(async {
            let (reply, answer) = oneshot::channel();
            self.writer.send(WriteRequest::Delete(Vec::new(), reply)).await;
            answer.await.unwrap_or_else(|_| Err(self.writer_ended()))
        })
    }

    fn load(&self, requests: Vec<LoadRequest>) -> BoxFuture<'_, Vec<Result<LoadedPartition, StoreError>>> {
        Box::pin(async move {
            self.tallies.loads.add(requests.len());
            match self.view().await {
                Ok(view) => requests.into_iter().map(|request| self.reading(&view).load(request)).collect(),
                Err(error) => requests.iter().map(|_| Err(error.clone())).collect(),
            }
        })
    }

    fn read_entries(&self, reads: Vec<EntryRead>) -> BoxFuture<'_, Vec<Result<Option<Bytes>, StoreError>>> {
        Box::pin(async move {
            self.tallies.entry_reads.add(reads.len());
            match self.view().await {
                Ok(view) => reads.iter().map(|read| self.reading(&view).entry(&read.token)).collect(),
                Err(error) => reads.iter().map(|_| Err(error.clone())).collect(),
            }
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
        Box::pin(async move {
            let view = self.view().await?;
            self.reading(&view).scan(cursor.as_ref(), limit)
        })
    }

    fn expire(&self, now_ms: u64) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(self.expire_durably(now_ms))
    }
}
