//! Streams 100 MB through a handler into blob storage and back, verified, and measures how much memory that takes: in a directory, on
//! S3's emulator and on Azure's. It fails if a storage takes more than it may. Linux only: it reads the peak that the kernel keeps.
//!
//! ```sh
//! cargo run --release -p tollgate-blobs --features s3,azure --example stream_100_mb
//! ```

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{TryStreamExt, stream};
use tollgate::proto::StoreAlias;
use tollgate::proto::blobs::BlobStream;
use tollgate::{BlobReference, Blobs, Broker, Endpoint, Gate, HandlerError, Store, Tx};
use tollgate_blobs::ObjectStoreBlobs;
use tollgate_brokers::InProcessBroker;
use tollgate_embedded::{DirectoryBlobs, MemoryStore};
use tollgate_testkit::LocalServer;

/// How much is streamed.
const BLOB_BYTES: usize = 100_000_000;

/// In pieces of so much.
const PIECE_BYTES: usize = 256 * 1024;

/// How much more memory than before a storage may take: two parts under way, one that fills, and what reading needs.
const GROWTH_MAX_KIB: u64 = 32 * 1024;

/// Emulators are slow, and this machine may be busy.
const ATTEMPT_MAX: Duration = Duration::from_secs(600);

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<ExitCode, Failure> {
    let directory = tempfile::tempdir()?;
    let mut all_within = measure("directory", Arc::new(DirectoryBlobs::open(directory.path())?)).await?;
    let infra = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/blobs");
    // What can't be started says so, loudly.
    if let Some(server) = LocalServer::start(infra.join("start-s3")) {
        let blobs = ObjectStoreBlobs::s3_at_emulator(server.address(), "tollgate")?;
        all_within &= measure("S3 (ministack)", Arc::new(blobs)).await?;
    }
    if let Some(server) = LocalServer::start(infra.join("start-azurite")) {
        let blobs = ObjectStoreBlobs::azure_at_emulator(server.address(), "tollgate")?;
        all_within &= measure("Azure (Azurite)", Arc::new(blobs)).await?;
    }
    Ok(if all_within { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Streams a blob there and back. Returns whether its memory stayed within bounds.
async fn measure(storage: &str, blobs: Arc<dyn Blobs>) -> Result<bool, Failure> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(StoreAlias::new("main")?));
    let broker: Arc<dyn Broker> = Arc::new(InProcessBroker::builder().build());
    let gate = Gate::builder()
        .store(store)
        .broker(broker)
        .blobs(Arc::clone(&blobs))
        .attempt_max(ATTEMPT_MAX)
        .endpoint(Endpoint::new("films"))
        .open()
        .await?;
    let edge = gate.edge("films")?;
    let retention = Duration::from_secs(60);

    // From here on the kernel keeps a new peak.
    std::fs::write("/proc/self/clear_refs", "5")?;
    let before = status_kib("VmRSS:")?;
    let started = Instant::now();
    let film: BlobReference = edge
        .execute("film", "store", retention, |tx: Tx| async move {
            let film = tx.put_blob("films/", film()).await?;
            tx.put("film", &film)?;
            Ok(film)
        })
        .await?;
    let stored = started.elapsed();
    let growth_storing = status_kib("VmHWM:")?.saturating_sub(before);

    std::fs::write("/proc/self/clear_refs", "5")?;
    let before = status_kib("VmRSS:")?;
    let started = Instant::now();
    let bytes: usize = edge
        .execute("film", "read", retention, |tx: Tx| async move {
            let film: BlobReference =
                tx.get("film").await?.ok_or_else(|| HandlerError::permanent("there is no film"))?;
            let content =
                tx.read_blob(&film).await?.ok_or_else(|| HandlerError::permanent("the film is not there"))?;
            // The stream ends with an error if it is not what was stored.
            Ok(content.try_fold(0, |count, piece| std::future::ready(Ok(count + piece.len()))).await?)
        })
        .await?;
    let read = started.elapsed();
    let growth_reading = status_kib("VmHWM:")?.saturating_sub(before);
    gate.close().await;
    blobs.delete(film.name()).await?;

    println!(
        "{storage:<16} {bytes} bytes: stored in {:.1} s, peak +{:.1} MiB; read and verified in {:.1} s, peak +{:.1} MiB",
        stored.as_secs_f64(),
        mib(growth_storing),
        read.as_secs_f64(),
        mib(growth_reading),
    );
    let is_within = bytes == BLOB_BYTES && growth_storing.max(growth_reading) <= GROWTH_MAX_KIB;
    if !is_within {
        println!(
            "{storage}: {BLOB_BYTES} bytes were expected within {} MiB more than before",
            GROWTH_MAX_KIB / 1024
        );
    }
    Ok(is_within)
}

/// Made while it is read, and different everywhere.
fn film() -> BlobStream {
    let pieces = (0..BLOB_BYTES.div_ceil(PIECE_BYTES)).map(|number| {
        let length = PIECE_BYTES.min(BLOB_BYTES - number * PIECE_BYTES);
        let mut random = fastrand::Rng::with_seed(number as u64);
        let mut piece = vec![0; length];
        random.fill(&mut piece);
        Ok(Bytes::from(piece))
    });
    Box::pin(stream::iter(pieces))
}

/// A line of what the kernel says of this process, in KiB.
fn status_kib(name: &str) -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("the kernel does not say")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn mib(kib: u64) -> f64 {
    f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / 1024.0
}
