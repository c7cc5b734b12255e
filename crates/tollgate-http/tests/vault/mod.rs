//! A vault on a real socket that takes things of any size: it reads them as streams and answers with their length and hash. What the
//! tests of large bodies are played with.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use tollgate::{Blobs, Broker, Edge, Endpoint, Gate, HandlerError, Store, Tx};
use tollgate_http::Response;
use tollgate_http::server::{ExactlyOnce, Request};

/// Most bytes of a thing.
pub const BYTES_MAX: usize = 120_000_000;

/// How long it may take to arrive: the machine may be busy.
pub const TIME_MAX: Duration = Duration::from_secs(300);

pub async fn gate(store: Arc<dyn Store>, broker: Arc<dyn Broker>, blobs: Arc<dyn Blobs>) -> Gate {
    Gate::builder()
        .store(store)
        .broker(broker)
        .blobs(blobs)
        .attempt_max(TIME_MAX * 2)
        .flush_after(Duration::from_millis(50))
        .endpoint(Endpoint::new("vault"))
        .open()
        .await
        .unwrap()
}

/// The vault: whatever begins with the same byte lies on the same partition.
pub fn server(edge: Edge) -> ExactlyOnce {
    let partition = |request: Request| async move {
        let first = request.body.stream().await?.next().await.transpose()?.unwrap_or_default();
        let first = first.first().ok_or_else(|| HandlerError::permanent("there is nothing in it"))?;
        Ok(format!("thing/{first}"))
    };
    ExactlyOnce::new(edge, "/things", partition, keep).body_bytes_max(BYTES_MAX).body_time_max(TIME_MAX)
}

async fn keep(tx: Tx, request: Request) -> Result<Response, HandlerError> {
    let mut hasher = blake3::Hasher::new();
    let mut content = request.body.stream().await?;
    while let Some(piece) = content.try_next().await? {
        hasher.update(&piece);
    }
    let kept: u64 = tx.get("kept").await?.unwrap_or_default();
    tx.put("kept", &(kept + 1))?;
    Ok(Response::text(receipt(request.body.bytes(), &hasher.finalize())))
}

/// What the vault answers.
pub fn receipt(bytes: u64, hash: &blake3::Hash) -> String {
    format!("{bytes} bytes, {}", hash.to_hex())
}

const PIECE_BYTES: usize = 64 * 1024;

/// A thing that is made while it is read: so many bytes, other ones for another seed.
pub fn thing(seed: u64, bytes: usize) -> impl Iterator<Item = Bytes> + Send + 'static {
    (0..bytes.div_ceil(PIECE_BYTES)).map(move |number| {
        let mut piece = vec![0; PIECE_BYTES.min(bytes - number * PIECE_BYTES)];
        fastrand::Rng::with_seed(seed ^ (number as u64) << 32).fill(&mut piece);
        if number == 0 {
            piece[0] = b'A';
        }
        Bytes::from(piece)
    })
}

/// What the vault has to answer for it.
pub fn expected(seed: u64, bytes: usize) -> String {
    let mut hasher = blake3::Hasher::new();
    for piece in thing(seed, bytes) {
        hasher.update(&piece);
    }
    receipt(bytes as u64, &hasher.finalize())
}

/// A body of these pieces, one after the other.
pub fn body(pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Body {
    Body::from_stream(stream::iter(pieces.map(Ok::<_, std::io::Error>)))
}
