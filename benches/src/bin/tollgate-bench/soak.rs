//! `tollgate-bench soak`: payments through one broker for an hour, or ten million messages, to see that nothing grows and nothing slows down. This
//! file knows the command line and runs the show; what is sent and what is right is in `workload`, what is looked at in
//! `sampling`, what counts as flat in `judgement`, and the picture in `plot`.

mod judgement;
mod plot;
mod sampling;
mod workload;

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use tollgate::proto::{EndpointName, StoreAlias};
use tollgate::{Backoff, Broker, Gate, Store};
use tollgate_bench::watched_broker::WatchedBroker;
use tollgate_brokers::InProcessBroker;
use tollgate_embedded::MemoryStore;
use tollgate_testkit::ChaosBroker;

use judgement::Judgement;
use sampling::{Sampler, Samples};
use tollgate_demo::audit::Leftovers;
use tollgate_demo::broker_choice::{BrokerOptions, OutsideBroker};
use tollgate_demo::demo::STUCK_AFTER;
use tollgate_demo::error::DemoError;
use tollgate_demo::queues::{Chaos, Queues, VISIBILITY_TIMEOUT};
use tollgate_demo::remote::QueueDepth;
use tollgate_demo::store_choice::open_embedded;
use workload::{Arrivals, Plan, Producers, messages};

/// What a soak can be asked to do.
#[derive(Args)]
pub struct Options {
    /// Messages a second that arrive, or `max`: as many as the window lets in.
    #[arg(long, value_name = "RATE", default_value = "max", value_parser = arrivals)]
    rate: Arrivals,
    /// How long messages arrive: `90s`, `60m`, `1h`. Default: an hour, if no number of messages is given.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// How many messages arrive at most. Half of them are sent by handlers.
    #[arg(long, value_name = "N")]
    messages: Option<u64>,
    /// Where the store keeps its files, and the broker of this process its log; and where `soak.jsonl` and `soak.svg` are written. It must
    /// hold no store yet.
    #[arg(long, value_name = "DIR", default_value = "tollgate-soak")]
    data: PathBuf,
    /// Where partitions are stored.
    #[arg(long, value_name = "STORE", value_enum, default_value_t = SoakStore::Embedded)]
    store: SoakStore,
    /// Which broker, and where it is.
    #[command(flatten)]
    broker: BrokerOptions,
    /// Accounts that messages go to, each a partition.
    #[arg(long, value_name = "N", default_value = "1000")]
    accounts: NonZeroU32,
    /// How many messages each endpoint works on at a time.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    workers: u16,
    /// How many messages may be under way: at this bound nothing more arrives.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    window: u64,
    /// The part of the messages that are sent more than once.
    #[arg(long, value_name = "PART", default_value_t = 0.05, value_parser = tollgate_demo::queues::rate)]
    duplicates: f64,
    /// The part of the acknowledgements that are lost: their messages come again when they are done.
    #[arg(long, value_name = "PART", default_value_t = 0.01, value_parser = tollgate_demo::queues::rate)]
    lose_acks: f64,
    /// How often everything is looked at.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    sample_every: Duration,
    /// The seed of everything random.
    #[arg(long, value_name = "S", default_value_t = 4711)]
    seed: u64,
    /// Measures nothing: judges and draws the samples of an earlier run, a `soak.jsonl`, once more.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

/// Where the partitions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SoakStore {
    /// The embedded store, in the data directory. The broker of this process is durable then.
    Embedded,
    /// In memory, and so is what the broker of this process holds.
    Memory,
}

fn arrivals(text: &str) -> Result<Arrivals, String> {
    if text == "max" {
        return Ok(Arrivals::AtOnce);
    }
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(Arrivals::Rate(rate)),
        _ => Err("it is `max`, or a number of messages a second above 0".to_owned()),
    }
}

const SECONDS_IN_A_MINUTE: f64 = 60.0;

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "it is a number with `ms`, `s`, `m` or `h`, as in `90s`".to_owned();
    let digits = text.find(|letter: char| letter.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => SECONDS_IN_A_MINUTE,
        "h" => SECONDS_IN_A_MINUTE * SECONDS_IN_A_MINUTE,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    match Duration::try_from_secs_f64(number * seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(wrong()),
    }
}

/// How long messages arrive if nobody says how long or how many.
const DURATION_DEFAULT: Duration = Duration::from_secs(3_600);

/// How long a run goes on that is to end after so many messages: as good as for ever.
const NO_END: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Threads of the gate, the producers and the store's readers.
const WORKER_THREADS: usize = 2;

/// Deliveries after which a message that still fails is dead-lettered. Lost acknowledgements count as such.
const DELIVERIES_MAX: u32 = 1_000;

/// Messages that the volatile broker takes: more than the window's, with all their copies.
const VOLATILE_CAPACITY: usize = 10_000_000;

/// Runs a soak.
///
/// # Errors
/// If something can't be opened or written. What the audit and the judgement find is no error but the exit code.
pub fn run(options: &Options) -> Result<ExitCode, DemoError> {
    let (samples, is_exact) = match &options.from {
        Some(file) => (Samples::read(file)?, true),
        None => soak(options)?,
    };
    let judgement = Judgement::of(&samples.0);
    judgement.print();
    std::fs::create_dir_all(&options.data).map_err(|error| DemoError::file(&options.data, error))?;
    let picture = options.data.join("soak.svg");
    std::fs::write(&picture, plot::svg(&samples.0)).map_err(|error| DemoError::file(&picture, error))?;
    println!("plot: {}", picture.display());
    Ok(if is_exact && judgement.is_flat() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn soak(options: &Options) -> Result<(Samples, bool), DemoError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()
        .map_err(DemoError::Runtime)?;
    runtime.block_on(Soak::run(options))
}

/// Everything that a soak works with.
struct Soak {
    store: Arc<dyn Store>,
    broker: SoakBroker,
    misbehaving: Arc<ChaosBroker>,
    /// Shared with the producers as long as they live.
    gate: Arc<Gate>,
}

/// What carries the messages, beneath what goes wrong with it.
enum SoakBroker {
    /// With a log in the data directory.
    Durable(Queues),
    /// In memory.
    Volatile(Arc<InProcessBroker>),
    /// In a server.
    Outside(OutsideBroker),
}

impl Soak {
    async fn run(options: &Options) -> Result<(Samples, bool), DemoError> {
        let plan = Arc::new(Plan::new(options.accounts, options.seed));
        let soak = Self::open(options, &plan).await?;
        let duration = options
            .duration
            .unwrap_or_else(|| if options.messages.is_some() { NO_END } else { DURATION_DEFAULT });
        let lines = options.data.join("soak.jsonl");
        println!("samples: {}", lines.display());
        let mut producers =
            Producers::start(&soak.gate, &plan, options.rate, options.messages, options.window)?;
        let mut sampler = Sampler::create(&lines, &options.data.join("store"))?;
        let mut seen = Samples::default();
        let mut clock = tokio::time::interval(options.sample_every);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        clock.tick().await;
        let ends = plan.begin + duration;
        loop {
            let is_last = tokio::select! {
                _ = clock.tick() => false,
                ended = producers.until_all_sent() => { ended?; true }
                () = tokio::time::sleep_until(ends.into()) => true,
            };
            if is_last {
                break;
            }
            seen.add(soak.look(&mut sampler, &producers, &plan).await?);
        }
        let sent = producers.stop().await?;
        println!("{} messages have arrived; waiting for the last ones", sent.messages());
        soak.drain(sent.messages()).await?;
        soak.gate.flush().await;
        soak.gate.sweep().await?;
        let Self { store, broker, misbehaving, gate } = soak;
        let gate = Arc::into_inner(gate).expect("the producers have ended");
        let statistics = gate.close().await;
        let left = broker.depth().await?;
        let (stored, leftovers) = plan.stored(&*store).await?;
        let differences = sent.differences(&stored);
        let is_exact = print_audit(&differences, leftovers, left);
        let faults = misbehaving.counts();
        println!(
            "{} copies sent, {} acknowledgements lost, {} wake-ups; {} deliveries, {} duplicates dropped, {} conflicts, {} \
             recoveries, {} retries",
            faults.duplicates,
            faults.acks_lost_silently + faults.acks_lost_with_an_error,
            statistics.requests,
            statistics.deliveries,
            statistics.duplicates(),
            statistics.conflicts,
            statistics.recoveries,
            statistics.retries
        );
        broker.close().await?;
        Ok((seen, is_exact))
    }

    async fn open(options: &Options, plan: &Arc<Plan>) -> Result<Self, DemoError> {
        refuse_used(&options.data)?;
        std::fs::create_dir_all(&options.data).map_err(|error| DemoError::file(&options.data, error))?;
        let store: Arc<dyn Store> = match options.store {
            SoakStore::Embedded => Arc::new(open_embedded(&options.data)?),
            SoakStore::Memory => Arc::new(MemoryStore::new(StoreAlias::new("main")?)),
        };
        let chaos = Chaos::copies(options.duplicates, options.lose_acks);
        let broker = match (options.broker.open(&options.data).await?, options.store) {
            (Some(outside), _) => SoakBroker::Outside(outside),
            (None, SoakStore::Embedded) => {
                SoakBroker::Durable(Queues::open(&options.data, chaos, options.seed)?)
            }
            (None, SoakStore::Memory) => SoakBroker::Volatile(Arc::new(
                InProcessBroker::builder()
                    .visibility_timeout(VISIBILITY_TIMEOUT)
                    .capacity(VOLATILE_CAPACITY)
                    .build(),
            )),
        };
        let misbehaving = match &broker {
            SoakBroker::Durable(queues) => queues.chaos(),
            SoakBroker::Volatile(queues) => chaos.around(Arc::clone(queues) as _, options.seed),
            SoakBroker::Outside(outside) => chaos.around(Arc::clone(&outside.broker), options.seed),
        };
        let timed = Arc::clone(plan);
        let watched =
            WatchedBroker::around(Arc::clone(&misbehaving) as _, move |time| timed.delivery.note(time));
        let mut gate = Gate::builder()
            .store(Arc::clone(&store))
            .broker(Arc::new(watched) as Arc<dyn Broker>)
            .deliveries_max(DELIVERIES_MAX)
            .redelivery(Backoff { first: Duration::from_millis(20), cap: Duration::from_millis(500) });
        for endpoint in plan.endpoints(usize::from(options.workers)) {
            gate = gate.endpoint(endpoint);
        }
        let gate = Arc::new(gate.open().await?);
        Ok(Self { store, broker, misbehaving, gate })
    }

    async fn look(
        &self,
        sampler: &mut Sampler,
        producers: &Producers,
        plan: &Plan,
    ) -> Result<sampling::Sample, DemoError> {
        let messages = messages(&self.gate);
        sampler
            .look(sampling::Seen {
                seconds: plan.begin.elapsed().as_secs_f64(),
                messages,
                behind: producers.due().saturating_sub(messages),
                delivery: plan.delivery.take(),
                whole_way: plan.whole_way.take(),
                left_in_broker: self.broker.depth().await.ok().map(|depth| depth.left as u64),
                store: &*self.store,
            })
            .await
    }

    /// Waits until everything has been processed, or nothing happens any more.
    async fn drain(&self, expected: u64) -> Result<(), DemoError> {
        let mut progress = (0, Instant::now());
        loop {
            let depth = self.broker.depth().await?;
            if depth.left == 0 && messages(&self.gate) >= expected {
                return Ok(());
            }
            let deliveries = self.gate.statistics().deliveries;
            if deliveries != progress.0 {
                progress = (deliveries, Instant::now());
            } else if progress.1.elapsed() > STUCK_AFTER {
                let waited = STUCK_AFTER.as_secs();
                eprintln!("nothing has happened for {waited} s: the audit will tell what is missing");
                return Ok(());
            }
            tokio::time::sleep(DRAINED_LOOK_EVERY).await;
        }
    }
}

/// How often it is looked whether everything has been processed.
const DRAINED_LOOK_EVERY: Duration = Duration::from_millis(100);

impl SoakBroker {
    async fn depth(&self) -> Result<QueueDepth, DemoError> {
        let endpoints = workload::endpoint_names()?;
        let sum = |of: &dyn Fn(&EndpointName) -> QueueDepth| endpoints.iter().map(of).sum();
        match self {
            Self::Durable(queues) => Ok(sum(&|endpoint| queues.depth(endpoint))),
            Self::Volatile(queues) => Ok(sum(&|endpoint| tollgate_demo::queues::depth(queues, endpoint))),
            Self::Outside(outside) => outside.depth_of(&endpoints).await,
        }
    }

    async fn close(self) -> Result<(), DemoError> {
        match self {
            Self::Durable(queues) => queues.close().await,
            Self::Volatile(queues) => {
                queues.close().await.map_err(|error| DemoError::Open(error.to_string()))
            }
            Self::Outside(_) => Ok(()),
        }
    }
}

/// What an earlier run has left would be counted with this one's.
fn refuse_used(data: &Path) -> Result<(), DemoError> {
    if data.join("store").exists() || data.join("broker").exists() {
        let problem = format!(
            "{} holds a store already: a soak needs a directory of its own, give another with --data",
            data.display()
        );
        return Err(DemoError::Open(problem));
    }
    Ok(())
}

/// Most differences that are printed.
const DIFFERENCES_SHOWN: usize = 20;

fn print_audit(differences: &[String], leftovers: Leftovers, left: QueueDepth) -> bool {
    for difference in differences.iter().take(DIFFERENCES_SHOWN) {
        println!("  WRONG {difference}");
    }
    println!(
        "left over: {} outbox entries, {} markers, {} registrations, {} records, {} in the broker, {} dead letters",
        leftovers.outbox_entries,
        leftovers.pending_markers,
        leftovers.registrations,
        leftovers.deduplication_records,
        left.left,
        left.dead
    );
    let is_exact = differences.is_empty() && leftovers.count() == 0 && left == QueueDepth::default();
    if is_exact {
        println!("audit: every total is exact, nothing is left over");
    } else {
        println!("audit: FAILED, {} differences", differences.len());
    }
    is_exact
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3_600)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for wrong in ["", "5", "s", "-1s", "0s", "1d", "1e400h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rate_is_a_positive_number_or_max() {
        assert_eq!(arrivals("max"), Ok(Arrivals::AtOnce));
        assert_eq!(arrivals("1000"), Ok(Arrivals::Rate(1_000.0)));
        for wrong in ["", "0", "-3", "inf", "NaN", "fast"] {
            assert!(arrivals(wrong).is_err(), "{wrong}");
        }
    }
}
