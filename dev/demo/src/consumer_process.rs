//! `tollgate consumer`: a consumer in a process of its own, with its own gate, cache and memory, and the host's broker, or one outside.
//! It is meant to be killed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use clap::Args;
use tollgate::Broker;

use crate::broker_choice::BrokerOptions;
use crate::consumer::{Cleaning, Consumer};
use crate::error::DemoError;
use crate::flights::Input;
use crate::lifeline::{self, ConsumerReport, Order, SourceState, WhenAbandoned};
use crate::queues::Chaos;
use crate::remote::{Connection, RemoteBroker};
use crate::store_choice::StoreOptions;

/// What a consumer can be asked to do.
#[derive(Args)]
pub struct Options {
    /// The file with the host's address.
    #[arg(long, value_name = "FILE")]
    connect: PathBuf,
    /// Which store it uses.
    #[command(flatten)]
    store: StoreOptions,
    /// Which broker it uses.
    #[command(flatten)]
    broker: BrokerOptions,
    /// What goes wrong on the way to a broker outside of the host.
    #[command(flatten)]
    chaos: Chaos,
    /// The seed of that. Default: another one each time.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// The flights, one JSON object a line. Default: a sample of 4,000 flights.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// How many messages each endpoint works on at a time.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    workers: u16,
}

/// How often it tells how it is doing.
const REPORT_EVERY: Duration = Duration::from_millis(10);

/// How long to wait before the gate is opened again, after the store failed for a passing reason.
const REOPEN_AFTER: Duration = Duration::from_millis(50);

/// Consumes until it is told to end, by the line `close` or `sweep` on standard input; when that ends, it ends at once.
/// On standard output it tells what it has done.
///
/// # Errors
/// If the input, the store or the host can't be used, or whoever started it does not listen.
pub fn run(options: &Options) -> Result<(), DemoError> {
    let orders = lifeline::listen(WhenAbandoned::Exit);
    let input = Arc::new(Input::read(options.input.as_deref())?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .thread_name("connection")
        .build()
        .map_err(|error| DemoError::Open(format!("the connection's runtime can't be started: {error}")))?;
    let connection = {
        let _in_runtime = runtime.enter();
        Arc::new(Connection::open(&options.connect))
    };
    let store = runtime.block_on(options.store.open(&connection))?;
    // The prefix of the queues is among the options, so the directory does not matter.
    let broker: Arc<dyn Broker> = match runtime.block_on(options.broker.open(Path::new("")))? {
        Some(outside) => {
            let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
            options.chaos.around(outside.broker, seed)
        }
        None => Arc::new(RemoteBroker::new(connection)),
    };
    let workers = usize::from(options.workers);
    let consumer = loop {
        match Consumer::start(Arc::clone(&store), Arc::clone(&broker), workers, &input) {
            Err(DemoError::Gate(error)) if error.is_retryable() => std::thread::sleep(REOPEN_AFTER),
            started => break started?,
        }
    };
    let order = loop {
        let source = if consumer.has_sent_everything() { SourceState::Done } else { SourceState::Sending };
        tell(&ConsumerReport { source, counts: consumer.statistics().into() })?;
        match orders.recv_timeout(REPORT_EVERY) {
            Ok(order) => break order,
            Err(RecvTimeoutError::Timeout) => {}
            // The process is about to end.
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    };
    let source = if consumer.has_sent_everything() { SourceState::Done } else { SourceState::Sending };
    let cleaning = match order {
        Order::Close => Cleaning::Own,
        Order::Sweep => Cleaning::Sweep,
    };
    let statistics = consumer.close(cleaning)?;
    tell(&ConsumerReport { source, counts: statistics.into() })
}

fn tell(report: &ConsumerReport) -> Result<(), DemoError> {
    lifeline::report(report).map_err(|error| DemoError::process("reporting", &error))
}
