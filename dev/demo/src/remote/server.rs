//! The server's end: carries out the calls of its clients, each as a task of its own, and drops those whose caller has
//! gone. Which store and which broker they end at, it does not know.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tollgate::proto::{Commit, Delivery, EndpointName};
use tollgate::{Broker, Store};

use super::connection::{ANSWERED, REFUSED};
use super::frames::{self, CALLS_MAX, FRAME_BYTES_MAX, FRAMES_WAITING_MAX, Source};
use super::operation::{DepthOf, Operation};
use super::receipts::Life;
use super::wire::{Garbled, Wire};

/// What a server serves.
#[derive(Clone)]
pub struct Served {
    /// The store. `None`: clients open theirs by themselves.
    pub store: Option<Arc<dyn Store>>,
    /// The broker.
    pub broker: Arc<dyn Broker>,
    /// How deep its queues are.
    pub depth: Arc<DepthOf>,
}

/// Most clients at a time: a demo has a handful.
const CONNECTIONS_MAX: usize = 256;

/// Most calls of one connection: twice what a client makes, for those that nobody waits for any more.
const SERVED_CALLS_MAX: usize = 2 * CALLS_MAX;

/// How long to leave a listener alone that fails, which it does when the process has too many files open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves every client that knows the secret until `closing`; then calls that are being carried out are dropped.
pub async fn serve(listener: TcpListener, secret: u64, served: Served, closing: CancellationToken) {
    let life = Life::begin();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = closing.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(_) if connections.len() >= CONNECTIONS_MAX => {
                tracing::warn!(CONNECTIONS_MAX, "a client is turned away: there are too many");
            }
            Ok((stream, _)) => {
                let served = served.clone();
                connections.spawn(async move {
                    if let Err(error) = attend(stream, secret, life, served).await {
                        tracing::debug!(%error, "a client's connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a client could not be let in");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.shutdown().await;
}

/// Serves one client until it goes. What it was waiting for is dropped with the connection.
async fn attend(stream: TcpStream, secret: u64, life: Life, served: Served) -> io::Result<()> {
    let (mut source, mut sink) = frames::split(stream)?;
    frames::welcome(&mut source, &mut sink, secret).await?;
    let (outgoing, waiting) = mpsc::channel(FRAMES_WAITING_MAX);
    tokio::select! {
        end = carry_out(source, outgoing, life, served) => end,
        end = frames::write(sink, waiting) => end,
    }
}

/// The calls that are being carried out. Dropping a sender drops the call.
#[derive(Clone, Default)]
struct Running(Arc<Mutex<HashMap<u64, oneshot::Sender<()>>>>);

impl Running {
    fn calls(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<()>>> {
        self.0.lock().expect("nothing panics while it holds the calls")
    }
}

async fn carry_out(
    mut source: Source,
    outgoing: mpsc::Sender<Bytes>,
    life: Life,
    served: Served,
) -> io::Result<()> {
    let running = Running::default();
    let mut tasks = JoinSet::new();
    loop {
        let frame = tokio::select! {
            Some(ended) = tasks.join_next() => {
                // The caller has to learn that its call has no answer, and which one it was only the task knew.
                ended.map_err(io::Error::other)?;
                continue;
            }
            frame = source.next() => frame,
        };
        let Some(frame) = frame else { return Ok(()) };
        let mut frame = frame?.freeze();
        let garbled = |garbled: Garbled| io::Error::new(io::ErrorKind::InvalidData, garbled);
        let number = u64::take(&mut frame).map_err(garbled)?;
        let operation = Operation::take(&mut frame).map_err(garbled)?;
        if operation == Operation::Cancel {
            running.calls().remove(&number);
            continue;
        }
        let (guard, dropped) = oneshot::channel();
        {
            let mut calls = running.calls();
            if calls.len() >= SERVED_CALLS_MAX {
                return Err(io::Error::other("the client makes too many calls at a time"));
            }
            calls.insert(number, guard);
        }
        let (served, outgoing, running) = (served.clone(), outgoing.clone(), running.clone());
        tasks.spawn(async move {
            let answer = tokio::select! {
                answer = answer(&served, life, operation, frame) => Some(answer),
                _ = dropped => None,
            };
            running.calls().remove(&number);
            if let Some(answer) = answer {
                // If the writer has ended, so does this connection.
                let _ = outgoing.send(answer_frame(number, answer)).await;
            }
        });
    }
}

fn answer_frame(number: u64, answer: Result<BytesMut, Refusal>) -> Bytes {
    let mut frame = BytesMut::new();
    number.put(&mut frame);
    let answer = match answer {
        Ok(answer) if answer.len() + frame.len() >= FRAME_BYTES_MAX => Err(Refusal::TooLong(answer.len())),
        answer => answer,
    };
    match answer {
        Ok(answer) => {
            ANSWERED.put(&mut frame);
            frame.unsplit(answer);
        }
        Err(refusal) => {
            REFUSED.put(&mut frame);
            refusal.to_string().put(&mut frame);
        }
    }
    frame.freeze()
}

/// Why a call is not carried out.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Garbled(#[from] Garbled),
    #[error("this host serves no store: each process opens its own")]
    NoStore,
    #[error("the answer has {0} bytes, {FRAME_BYTES_MAX} at most: ask for less at a time")]
    TooLong(usize),
}

async fn answer(
    served: &Served,
    life: Life,
    operation: Operation,
    mut from: Bytes,
) -> Result<BytesMut, Refusal> {
    let mut to = BytesMut::new();
    let store = || served.store.as_deref().ok_or(Refusal::NoStore);
    match operation {
        // It was dealt with before.
        Operation::Cancel => {}
        Operation::Describe => {
            let store = store()?;
            (store.alias().clone(), store.limits()).put(&mut to);
        }
        Operation::Verify => store()?.verify().await.put(&mut to),
        Operation::Load => store()?.load(Wire::take(&mut from)?).await.put(&mut to),
        Operation::ReadEntries => store()?.read_entries(Wire::take(&mut from)?).await.put(&mut to),
        Operation::Commit => store()?.commit(Commit::take(&mut from)?).await.put(&mut to),
        Operation::DeleteEntries => store()?.delete_entries(Wire::take(&mut from)?).await.put(&mut to),
        Operation::Scan => {
            let (cursor, limit) = Wire::take(&mut from)?;
            store()?.scan(cursor, limit).await.put(&mut to);
        }
        Operation::Expire => store()?.expire(Wire::take(&mut from)?).await.put(&mut to),
        Operation::Send => served.broker.send(Wire::take(&mut from)?).await.put(&mut to),
        Operation::Receive => {
            let (endpoint, max) = <(EndpointName, usize)>::take(&mut from)?;
            let received = served.broker.receive(&endpoint, max).await;
            let stamp = |deliveries: Vec<Delivery>| -> Vec<Delivery> {
                deliveries.into_iter().map(|delivery| life.stamp(delivery)).collect()
            };
            received.map(stamp).put(&mut to);
        }
        Operation::Settle => {
            let (endpoint, settlements) = <(EndpointName, _)>::take(&mut from)?;
            life.settle(&*served.broker, &endpoint, settlements).await.put(&mut to);
        }
        Operation::Depth => (served.depth)(&EndpointName::take(&mut from)?).put(&mut to),
    }
    Ok(to)
}
