//! `tollgate host`: a process that holds the broker, and the store if only one process can, and serves them to consumers
//! on the loopback interface. It is meant to be killed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tollgate::Store;

use crate::error::DemoError;
use crate::lifeline::{self, WhenAbandoned};
use crate::queues::{Chaos, Queues};
use crate::remote::{Address, Served, serve};
use crate::store_choice::StoreOptions;

/// What a host can be asked to do.
#[derive(Args)]
pub struct Options {
    /// Where the store and the broker keep their files.
    #[arg(long, value_name = "DIR", default_value = "tollgate-data")]
    data: PathBuf,
    /// The file into which the host writes where it is found, once it is ready.
    #[arg(long, value_name = "FILE")]
    address_file: PathBuf,
    /// Where to listen. Anything but a loopback address is refused: whoever can read the file may do everything.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Which store it serves.
    #[command(flatten)]
    store: StoreOptions,
    /// What its broker does wrong.
    #[command(flatten)]
    chaos: Chaos,
    /// The seed of what the broker does wrong. Default: another one each time.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
}

/// Threads that serve. The store and the broker have threads of their own for the disk.
const WORKER_THREADS: usize = 2;

/// Serves until it is told to close, by the line `close` on standard input; when that ends, it ends at once.
///
/// # Errors
/// If the directory, the address or the file can't be used.
pub fn run(options: &Options) -> Result<(), DemoError> {
    let orders = lifeline::listen(WhenAbandoned::Exit);
    if !options.listen.ip().is_loopback() {
        return Err(DemoError::Open(format!("{} is not a loopback address", options.listen)));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()
        .map_err(|error| DemoError::Open(format!("the runtime can't be started: {error}")))?;
    let store = options.store.open_in_host(&options.data)?.map(Arc::new);
    let queues = runtime.block_on(async {
        Queues::open(&options.data, options.chaos, options.seed.unwrap_or_else(|| fastrand::u64(..)))
    })?;
    let listener = runtime
        .block_on(TcpListener::bind(options.listen))
        .map_err(|error| DemoError::Open(format!("can't listen on {}: {error}", options.listen)))?;
    let socket = listener.local_addr().map_err(|error| DemoError::Open(error.to_string()))?;
    let address = Address { socket, secret: fastrand::u64(..) };
    let depths = queues.clone();
    let served = Served {
        store: store.clone().map(|store| store as Arc<dyn Store>),
        broker: queues.broker(),
        depth: Arc::new(move |endpoint| depths.depth(endpoint)),
    };
    let closing = CancellationToken::new();
    let serving = runtime.spawn(serve(listener, address.secret, served, closing.clone()));
    address.write(&options.address_file).map_err(|error| DemoError::file(&options.address_file, error))?;
    // If nobody can give orders any more, the process is about to end.
    let _order = orders.recv();
    closing.cancel();
    runtime.block_on(async {
        serving.await.map_err(|error| DemoError::process("serving", &error))?;
        queues.close().await
    })?;
    match store.map(Arc::try_unwrap) {
        Some(Ok(store)) => store.close().map_err(|error| DemoError::Open(error.to_string())),
        // A call that was dropped may still hold it; dropping it is as safe as closing it.
        Some(Err(_)) | None => Ok(()),
    }
}
