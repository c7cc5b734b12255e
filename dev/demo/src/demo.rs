//! The demo: real flights through a hostile broker and mortal consumers, on a durable store; then the audit. This file
//! runs the show in one process, the room `processes` in several; what is processed is in `source`, `aircraft` and
//! `airports`, and what is right in `audit`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tollgate::proto::{ItemName, LoadRequest, PartitionKey};
use tollgate::{Broker, Statistics, Store};

use crate::audit::{Leftovers, Totals};
use crate::consumer::{Cleaning, Consumer};
use crate::error::DemoError;
use crate::flights::Input;
use crate::processes;
use crate::queues::{Chaos, Queues};
use crate::remote::QueueDepth;
use crate::report::{Crashes, Report, Verdict};
use crate::source::{self, Position};

/// What the demo can be asked to do.
#[derive(Args)]
pub struct Options {
    /// The flights, one JSON object a line; `-` for standard input. Default: a sample of 4,000 flights.
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Where the store and the broker keep their files. A rerun goes on where the last one stopped.
    #[arg(long, value_name = "DIR", default_value = "tollgate-data")]
    pub data: PathBuf,
    /// What the broker does wrong.
    #[command(flatten)]
    pub chaos: Chaos,
    /// How many times a consumer dies at a random point, losing its memory, and another takes over.
    #[arg(long, value_name = "N", default_value_t = 5)]
    crashes: usize,
    /// How many consumers run at a time; they share the store and the broker.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    consumers: u16,
    /// How many messages each endpoint of a consumer works on at a time.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub workers: u16,
    /// The seed of everything random. Default: another one each time.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Writes the figures to a file, as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Writes the totals, read back from the store, to a file: one JSON object a line, sorted by kind and key.
    #[arg(long, value_name = "FILE")]
    totals: Option<PathBuf>,
    /// Exits with 2 if a line of the input is no flight.
    #[arg(long)]
    strict: bool,
    /// What is run in processes of its own, and killed.
    #[command(flatten)]
    pub processes: processes::Options,
}

/// How often the demo looks whether it is done.
pub const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Messages that one flight causes: one to its aircraft, two to airports.
pub const MESSAGES_PER_FLIGHT: u64 = 3;

/// Most times that the demo starts over to finish what dead consumers have left.
pub const ROUNDS_MAX: usize = 10;

/// The longest wait without any progress before the demo gives up and lets the audit say what is missing.
pub const STUCK_AFTER: Duration = Duration::from_secs(60);

/// Runs the demo.
///
/// # Errors
/// If the input, the data directory or an output can't be used. Differences found by the audit are no error but a verdict.
pub fn run(options: &Options) -> Result<Verdict, DemoError> {
    let input = Arc::new(Input::read(options.input.as_deref())?);
    for (line, problem) in &input.bad_lines {
        eprintln!("line {line} is no flight and is skipped: {problem}");
    }
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    println!(
        "{} flights, {} bad lines; seed {seed}; data in {}",
        input.flights.len(),
        input.bad_lines.len(),
        options.data.display()
    );
    let outcome = match options.processes.consumers() {
        None => run_in_one_process(options, &input, seed)?,
        Some(consumers) => processes::run(options, consumers, &input, seed)?,
    };
    let Outcome { elapsed, crashes, statistics, stored, leftovers, left } = outcome;
    let report = Report {
        flights: input.flights.len(),
        bad_lines: input.bad_lines.len(),
        seed,
        elapsed_seconds: elapsed.as_secs_f64(),
        crashes,
        statistics,
        leftovers,
        broker_left: left.left,
        dead_letters_left: left.dead,
        differences: Totals::of_flights(&input.flights).differences(&stored),
    };
    report.print();
    if let Some(path) = &options.totals {
        stored.write(path)?;
    }
    if let Some(path) = &options.report {
        report.write(path)?;
    }
    Ok(report.verdict(options.strict))
}

/// What a show has come to.
pub struct Outcome {
    /// From the first consumer's start to the last one's end.
    pub elapsed: Duration,
    /// Who died.
    pub crashes: Crashes,
    /// What all consumers did, the dead ones included.
    pub statistics: Statistics,
    /// What the store holds.
    pub stored: Totals,
    /// What else it holds.
    pub leftovers: Leftovers,
    /// What the broker holds.
    pub left: QueueDepth,
}

fn run_in_one_process(options: &Options, input: &Arc<Input>, seed: u64) -> Result<Outcome, DemoError> {
    options.processes.check_broker_alone()?;
    // A database's client keeps connections on the runtime that opened it, and consumers use them while this
    // thread waits: the runtime needs a thread of its own.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| DemoError::Open(format!("the runtime can't be started: {error}")))?;
    let store = runtime.block_on(options.processes.open_store_alone(&options.data))?;
    check_input_is_this_directorys(&runtime, &*store, input, &options.data)?;
    let queues = Queues::open(&options.data, options.chaos, seed)?;
    let started = Instant::now();
    let mut show = Show {
        store: Arc::clone(&store),
        broker: queues.broker(),
        queues: queues.clone(),
        workers: usize::from(options.workers),
        input: Arc::clone(input),
        consumers: Vec::new(),
        past: Vec::new(),
        crashes: 0,
    };
    let mut random = fastrand::Rng::with_seed(seed);
    show.run(usize::from(options.consumers), options.crashes, &mut random)?;
    show.end()?;
    // A consumer that died at the very end may have left something that was found only by the last sweep.
    for _ in 0..ROUNDS_MAX {
        let (_, leftovers) = runtime.block_on(Totals::of_store(&*store))?;
        if leftovers.count() == 0 && queues.total()?.left == 0 {
            break;
        }
        show.run(1, 0, &mut random)?;
        show.end()?;
    }
    let elapsed = started.elapsed();
    let (stored, leftovers) = runtime.block_on(Totals::of_store(&*store))?;
    Ok(Outcome {
        elapsed,
        crashes: Crashes { consumers: show.crashes, ..Crashes::default() },
        statistics: show.past.iter().copied().sum(),
        stored,
        leftovers,
        left: queues.total()?,
    })
}

/// A directory holds the totals of one input: a second one would be added to them, and the audit would fail.
pub fn check_input_is_this_directorys(
    runtime: &tokio::runtime::Runtime,
    store: &dyn Store,
    input: &Input,
    data: &Path,
) -> Result<(), DemoError> {
    let item = ItemName::new(source::POSITION)?;
    let partition = PartitionKey::new(source::PARTITION)?;
    let request = LoadRequest { partition, items: vec![item.clone()], records: Vec::new() };
    let Some(loaded) = runtime.block_on(store.load(vec![request])).pop() else { return Ok(()) };
    let Some((_, Some(value))) = loaded?.items.into_iter().next() else { return Ok(()) };
    let position: Position = serde_json::from_slice(value.bytes()).map_err(|source| DemoError::Stored {
        item: item.to_string(),
        partition: source::PARTITION.to_owned(),
        source,
    })?;
    if position.sent > 0 && position.fingerprint != input.fingerprint {
        return Err(DemoError::OtherInput { path: data.to_owned() });
    }
    Ok(())
}

/// The consumers, alive and dead, and what they work on.
struct Show {
    store: Arc<dyn Store>,
    broker: Arc<dyn Broker>,
    queues: Queues,
    workers: usize,
    input: Arc<Input>,
    consumers: Vec<Consumer>,
    /// What those did that have died.
    past: Vec<Statistics>,
    crashes: usize,
}

impl Show {
    /// Keeps `count` consumers alive, kills `crashes` of them at random points, and returns when the broker is empty.
    fn run(&mut self, count: usize, crashes: usize, random: &mut fastrand::Rng) -> Result<(), DemoError> {
        for _ in 0..count {
            self.start_one()?;
        }
        let total = self.input.flights.len() as u64 * MESSAGES_PER_FLIGHT;
        let mut crash_points: Vec<u64> = (0..crashes).map(|_| random.u64(0..total.max(1))).collect();
        crash_points.sort_unstable_by(|a, b| b.cmp(a));
        let progress = progress_bar(total);
        let mut last_progress = (0, Instant::now());
        loop {
            let deliveries: u64 = self.sum(|statistics| statistics.deliveries);
            let committed: u64 = self.sum(|statistics| statistics.committed);
            progress.set_position(committed.min(total));
            while crash_points.last().is_some_and(|point| *point <= committed) {
                crash_points.pop();
                self.crash_one(random)?;
            }
            if self.source_is_done() && self.queues.total()?.left == 0 {
                // A rerun of a finished run commits nothing, so crash points may be left: then they come last.
                for _ in 0..crash_points.len() {
                    self.crash_one(random)?;
                }
                crash_points.clear();
                if self.queues.total()?.left == 0 {
                    break;
                }
            }
            if deliveries != last_progress.0 {
                last_progress = (deliveries, Instant::now());
            } else if last_progress.1.elapsed() > STUCK_AFTER {
                eprintln!(
                    "nothing has happened for {} s: the audit will tell what is missing",
                    STUCK_AFTER.as_secs()
                );
                break;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        progress.finish_and_clear();
        Ok(())
    }

    fn start_one(&mut self) -> Result<(), DemoError> {
        let (store, broker) = (Arc::clone(&self.store), Arc::clone(&self.broker));
        self.consumers.push(Consumer::start(store, broker, self.workers, &self.input)?);
        Ok(())
    }

    fn crash_one(&mut self, random: &mut fastrand::Rng) -> Result<(), DemoError> {
        let victim = self.consumers.swap_remove(random.usize(..self.consumers.len()));
        self.past.push(victim.crash());
        self.crashes += 1;
        self.start_one()
    }

    /// Closes the consumers; the last one cleans up what the dead have left.
    fn end(&mut self) -> Result<(), DemoError> {
        let last = self.consumers.pop();
        for consumer in self.consumers.drain(..) {
            self.past.push(consumer.close(Cleaning::Own)?);
        }
        if let Some(last) = last {
            self.past.push(last.close(Cleaning::Sweep)?);
        }
        Ok(())
    }

    fn source_is_done(&self) -> bool {
        self.consumers.iter().any(Consumer::has_sent_everything)
    }

    fn sum(&self, of: impl Fn(&Statistics) -> u64) -> u64 {
        self.past.iter().map(&of).sum::<u64>()
            + self.consumers.iter().map(|one| of(&one.statistics())).sum::<u64>()
    }
}

/// A progress bar of `total` messages, for a terminal.
pub fn progress_bar(total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} messages, {per_sec}, {eta} left")
        .expect("the template is a constant and well formed");
    ProgressBar::new(total).with_style(style)
}
