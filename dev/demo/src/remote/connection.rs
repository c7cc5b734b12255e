//! The client's end: calls that travel together over one connection, which is made again whenever it breaks. It knows
//! calls by number and nothing of what they mean.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tollgate::{Backoff, TokioRuntime};

use super::address::Address;
use super::frames::{self, CALLS_MAX, FRAME_BYTES_MAX, FRAMES_WAITING_MAX, Sink, Source};
use super::operation::Operation;
use super::wire::Wire;

/// A connection to a host that comes back when the host does.
pub struct Connection {
    link: watch::Receiver<Option<Arc<Link>>>,
    room: Semaphore,
    last_call: AtomicU64,
    keeper: JoinHandle<()>,
}

/// Why a call was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It was not sent: nothing happened.
    #[error("the host is not there: {0}")]
    NotSent(String),
    /// It was sent, and the connection broke before the answer: it may or may not have happened.
    #[error("the connection to the host broke before the answer")]
    Lost,
    /// The host did not understand it, or does not do such things.
    #[error("the host refuses the call: {0}")]
    Refused(String),
}

/// How long a call waits for a connection before it says that there is none.
const CONNECTED_WITHIN: Duration = Duration::from_secs(1);

/// How long to wait before connecting again.
const RECONNECT: Backoff = Backoff { first: Duration::from_millis(5), cap: Duration::from_millis(100) };

/// What the server says of a call.
pub const ANSWERED: u8 = 0;
/// The call was not carried out; a text says why.
pub const REFUSED: u8 = 1;

/// One connection, for as long as it holds.
struct Link {
    outgoing: mpsc::Sender<Bytes>,
    waiting: Mutex<Waiting>,
}

/// The calls that wait for an answer.
enum Waiting {
    Open(HashMap<u64, oneshot::Sender<Bytes>>),
    Broken,
}

impl Connection {
    /// Begins to connect to the host whose address is in a file, and goes on until the connection is dropped.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn open(address: impl Into<PathBuf>) -> Self {
        let (links, link) = watch::channel(None);
        let keeper = tokio::spawn(keep_connected(address.into(), links));
        Self { link, room: Semaphore::new(CALLS_MAX), last_call: AtomicU64::new(0), keeper }
    }

    /// Makes a call and waits for its answer. When the future is dropped, the server is told to drop the call.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn call<A: Wire, R: Wire>(&self, operation: Operation, arguments: &A) -> Result<R, CallError> {
        let _room = self.room.acquire().await.expect("this semaphore is never closed");
        let link = self.link().await?;
        let number = self.last_call.fetch_add(1, Ordering::Relaxed);
        let mut frame = BytesMut::new();
        number.put(&mut frame);
        operation.put(&mut frame);
        arguments.put(&mut frame);
        if frame.len() > FRAME_BYTES_MAX {
            return Err(CallError::Refused(format!(
                "it has {} bytes, {FRAME_BYTES_MAX} at most",
                frame.len()
            )));
        }
        let broken = || CallError::NotSent("the connection has just broken".to_owned());
        let answer = link.expect_answer(number).ok_or_else(broken)?;
        let _abandoned = Abandoned { link: &link, number };
        link.outgoing.send(frame.freeze()).await.map_err(|_| broken())?;
        let mut answer = answer.await.map_err(|_| CallError::Lost)?;
        let read = |answer: &mut Bytes| match u8::take(answer)? {
            ANSWERED => R::take(answer).map(Ok),
            _ => String::take(answer).map(Err),
        };
        match read(&mut answer) {
            Ok(said) => said.map_err(CallError::Refused),
            Err(garbled) => Err(CallError::Refused(garbled.to_string())),
        }
    }

    async fn link(&self) -> Result<Arc<Link>, CallError> {
        let mut link = self.link.clone();
        let connected = tokio::time::timeout(CONNECTED_WITHIN, link.wait_for(Option::is_some)).await;
        let gone = || CallError::NotSent("its address file names nobody who answers".to_owned());
        match connected {
            Ok(Ok(link)) => (*link).clone().ok_or_else(gone),
            Ok(Err(_)) | Err(_) => Err(gone()),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Link {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("nothing panics while it holds the calls")
    }

    /// `None`: the connection has broken.
    fn expect_answer(&self, call: u64) -> Option<oneshot::Receiver<Bytes>> {
        match &mut *self.waiting() {
            Waiting::Open(calls) => {
                let (answer, waiter) = oneshot::channel();
                calls.insert(call, answer);
                Some(waiter)
            }
            Waiting::Broken => None,
        }
    }

    fn take(&self, call: u64) -> Option<oneshot::Sender<Bytes>> {
        match &mut *self.waiting() {
            Waiting::Open(calls) => calls.remove(&call),
            Waiting::Broken => None,
        }
    }

    /// Every call that waits learns that there will be no answer.
    fn break_off(&self) {
        *self.waiting() = Waiting::Broken;
    }
}

/// Tells the server when a caller has gone away without an answer.
struct Abandoned<'a> {
    link: &'a Link,
    number: u64,
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if self.link.take(self.number).is_none() {
            return;
        }
        let mut frame = BytesMut::new();
        self.number.put(&mut frame);
        Operation::Cancel.put(&mut frame);
        // If too many frames wait, the call is carried out for nobody; what it takes from a queue comes again.
        let _ = self.link.outgoing.try_send(frame.freeze());
    }
}

async fn keep_connected(address: PathBuf, links: watch::Sender<Option<Arc<Link>>>) {
    let runtime = TokioRuntime::new();
    let mut failures = 0;
    loop {
        match connect(&address).await {
            Ok((source, sink)) => {
                failures = 0;
                let (outgoing, waiting) = mpsc::channel(FRAMES_WAITING_MAX);
                let calls = Mutex::new(Waiting::Open(HashMap::new()));
                let link = Arc::new(Link { outgoing, waiting: calls });
                links.send_replace(Some(Arc::clone(&link)));
                let end = tokio::select! {
                    end = read(source, &link) => end,
                    end = frames::write(sink, waiting) => end,
                };
                links.send_replace(None);
                link.break_off();
                tracing::debug!(?end, "the connection to the host broke");
            }
            Err(error) => tracing::debug!(%error, failures, "the host can't be reached"),
        }
        failures += 1;
        tokio::time::sleep(RECONNECT.after(failures, &runtime)).await;
    }
}

async fn connect(address: &Path) -> io::Result<(Source, Sink)> {
    let address = Address::read(address)?;
    let (mut source, mut sink) = frames::split(TcpStream::connect(address.socket).await?)?;
    frames::introduce(&mut source, &mut sink, address.secret).await?;
    Ok((source, sink))
}

/// Hands answers out until the connection ends.
async fn read(mut source: Source, link: &Link) -> io::Result<()> {
    while let Some(frame) = source.next().await {
        let mut frame = frame?.freeze();
        let call =
            u64::take(&mut frame).map_err(|garbled| io::Error::new(io::ErrorKind::InvalidData, garbled))?;
        if let Some(waiter) = link.take(call) {
            // Whoever has just gone away needs no answer.
            let _ = waiter.send(frame);
        }
    }
    Ok(())
}
