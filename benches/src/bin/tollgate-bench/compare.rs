//! `tollgate-bench compare`: Tollgate beside what its users would do instead. This room knows the command line and the terminal; what is run and
//! what figures mean is in `tollgate_bench::side_by_side`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use tollgate_bench::side_by_side::BenchError;
use tollgate_bench::side_by_side::contenders;
use tollgate_bench::side_by_side::demands::{Demand, Verdict, Weight, demands};
use tollgate_bench::side_by_side::latency::Latency;
use tollgate_bench::side_by_side::report;
use tollgate_bench::side_by_side::rounds::compare;
use tollgate_bench::side_by_side::scenario::{Arrival, Deletions, Scenario, Skew, StoreKind};
use tollgate_bench::side_by_side::suite::{Effort, growth, measure};
use tollgate_bench::side_by_side::tables::TextTable;

use tollgate_demo::error::DemoError;

/// One scenario, or everything.
#[derive(Args)]
pub struct Options {
    /// Measures everything and writes `index.html`, the raw `results.json` and the pictures there.
    #[arg(long, value_name = "DIRECTORY")]
    report: Option<PathBuf>,
    /// Measures everything, prints what must be shown, and fails if something of it is not.
    #[arg(long)]
    check: bool,
    /// With `--report`: brings the tables and pictures of this page, docs/benchmarks.md, up to date as well.
    #[arg(long, value_name = "FILE", requires = "report")]
    page: Option<PathBuf>,
    /// With `--report`: writes everything again from a `results.json` and measures nothing.
    #[arg(long, value_name = "FILE", requires = "report")]
    from: Option<PathBuf>,
    /// Measures only what is left in the store and in memory after 1,000, 10,000 and so on messages, up to so many, a million at most.
    #[arg(long, value_name = "MESSAGES", conflicts_with_all = ["report", "check"])]
    growth: Option<u64>,
    /// How much `--report` and `--check` measure.
    #[arg(long, value_enum, default_value_t = Amount::Quick)]
    effort: Amount,
    #[command(flatten)]
    scenario: ScenarioOptions,
}

/// How much is measured.
#[derive(Clone, Copy, ValueEnum)]
enum Amount {
    /// Two minutes.
    Quick,
    /// Up to twenty.
    Full,
}

/// The scenario, if not everything is measured.
#[derive(Args)]
struct ScenarioOptions {
    /// Contenders, separated by commas. Default: all.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    contenders: Vec<String>,
    /// How often each runs, in turns.
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
    /// Messages in a run.
    #[arg(long, value_name = "N", default_value_t = 4_000)]
    messages: u64,
    /// Partitions that they go to.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    partitions: u64,
    /// `uniform`, `hot`, or an exponent of Zipf's law.
    #[arg(long, value_name = "SKEW", default_value = "uniform", value_parser = skew)]
    skew: Skew,
    /// Outputs of a message that goes on.
    #[arg(long, value_name = "N", default_value_t = 1)]
    outputs: u64,
    /// Bytes in a body.
    #[arg(long, value_name = "BYTES", default_value_t = 500)]
    body: usize,
    /// Bytes in a partition's state.
    #[arg(long, value_name = "BYTES", default_value_t = 500)]
    state: usize,
    /// Part of all deliveries that are copies, below 1.
    #[arg(long, value_name = "PART", default_value_t = 0.0)]
    duplicates: f64,
    /// Part of the copies that come late; the others race their original.
    #[arg(long, value_name = "PART", default_value_t = 0.5)]
    late_copies: f64,
    /// Messages a second that are due (open loop). Default: all wait from the beginning (closed loop).
    #[arg(long, value_name = "RATE")]
    arrivals: Option<f64>,
    /// Messages taken and not settled.
    #[arg(long, value_name = "N", default_value_t = 256)]
    in_flight: usize,
    /// Calls to the store at a time; 0: no bound.
    #[arg(long, value_name = "N", default_value_t = 64)]
    connections: usize,
    /// What each call waits for, in milliseconds: `0`, `5`, or `5~0.5` for a log-normal wait with that median and sigma.
    #[arg(long, value_name = "MS", default_value = "5", value_parser = latency)]
    latency: Latency,
    /// Deletes each token by a call of its own.
    #[arg(long)]
    single_deletions: bool,
    /// The store: `memory`, `embedded`, or with the feature `full` `dynamodb`, `dynamodb-server` (on a file) and `cosmos`.
    #[arg(long, value_name = "STORE", default_value = "memory", value_parser = store)]
    store: StoreKind,
    /// From which all randomness follows.
    #[arg(long, value_name = "N", default_value_t = 4711)]
    seed: u64,
}

fn store(text: &str) -> Result<StoreKind, String> {
    StoreKind::named(text).ok_or_else(|| format!("it is {}", StoreKind::ALL.map(StoreKind::name).join(", ")))
}

fn skew(text: &str) -> Result<Skew, String> {
    match text {
        "uniform" => Ok(Skew::Uniform),
        "hot" => Ok(Skew::OneHot),
        _ => text.parse().map(Skew::Zipf).map_err(|_| "it is `uniform`, `hot` or a number".to_owned()),
    }
}

fn latency(text: &str) -> Result<Latency, String> {
    let number = |text: &str| text.parse::<f64>().map_err(|_| "it is `MS` or `MS~SIGMA`".to_owned());
    if let Some((median, sigma)) = text.split_once('~') {
        return Ok(Latency::LogNormal { median_ms: number(median)?, sigma: number(sigma)? });
    }
    let ms = number(text)?;
    Ok(if ms > 0.0 { Latency::Fixed { ms } } else { Latency::None })
}

impl ScenarioOptions {
    fn scenario(&self) -> Scenario {
        Scenario {
            name: "scenario".to_owned(),
            messages: self.messages,
            partitions: self.partitions,
            skew: self.skew,
            outputs: self.outputs,
            body_bytes: self.body,
            state_bytes: self.state,
            duplicates: self.duplicates,
            late_copies: self.late_copies,
            arrival: self.arrivals.map_or(Arrival::Closed, Arrival::Open),
            in_flight: self.in_flight,
            connections: self.connections,
            latency: self.latency,
            deletions: if self.single_deletions { Deletions::OneByOne } else { Deletions::Batched },
            store: self.store,
            seed: self.seed,
            ..Scenario::headline()
        }
    }
}

/// Measures what was asked for.
pub fn run(options: &Options) -> Result<ExitCode, DemoError> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(DemoError::Runtime)?;
    let progress = ProgressBar::new_spinner();
    let result = runtime.block_on(async {
        if let Some(most) = options.growth {
            let growth = growth(most, &mut teller(&progress)).await?;
            Ok((report::growth_text(&growth), ExitCode::SUCCESS))
        } else if options.check || options.report.is_some() {
            everything(options, &progress).await
        } else {
            one_scenario(&options.scenario, &progress).await
        }
    });
    progress.finish_and_clear();
    let (text, code) = result.map_err(|error| DemoError::Bench(error.to_string()))?;
    print!("{text}");
    Ok(code)
}

async fn one_scenario(
    options: &ScenarioOptions,
    progress: &ProgressBar,
) -> Result<(String, ExitCode), BenchError> {
    let contenders = if options.contenders.is_empty() {
        contenders::all()
    } else {
        let names: Vec<&str> = options.contenders.iter().map(String::as_str).collect();
        let unknown = |name| {
            let known: Vec<_> = contenders::all().iter().map(|contender| contender.name()).collect();
            BenchError::Scenario(format!("there is no contender {name}; there are {}", known.join(", ")))
        };
        contenders::named(&names).map_err(unknown)?
    };
    let comparison = compare(&options.scenario(), &contenders, options.rounds, |_, outcome| {
        progress.set_message(format!("{} {:.0}/s", outcome.contender, outcome.rate));
        progress.tick();
    })
    .await?;
    Ok((TextTable::of(&comparison).to_text(), ExitCode::SUCCESS))
}

async fn everything(options: &Options, progress: &ProgressBar) -> Result<(String, ExitCode), BenchError> {
    let effort = match options.effort {
        Amount::Quick => Effort::Quick,
        Amount::Full => Effort::Full,
    };
    let results = match &options.from {
        Some(file) => report::read(file)?,
        None => measure(effort, &mut teller(progress)).await?,
    };
    if let Some(directory) = &options.report {
        report::write(&results, directory)?;
    }
    if let Some(page) = &options.page {
        report::refresh_page(&results, page)?;
    }
    let demands = demands(&results);
    let mut text = TextTable::of(&results.headline).to_text();
    text.push('\n');
    text.push_str(&TextTable::of_demands(&demands).to_text());
    let failed = |demand: &Demand| demand.weight == Weight::Demanded && demand.verdict() != Verdict::Reached;
    let missed = demands.iter().filter(|demand| failed(demand)).count();
    if options.check && missed > 0 {
        text.extend(["\n", &missed.to_string(), " demands are not met\n"]);
        return Ok((text, ExitCode::FAILURE));
    }
    Ok((text, ExitCode::SUCCESS))
}

/// Tells what is measured just now.
fn teller(progress: &ProgressBar) -> impl FnMut(&str) {
    |what: &str| {
        if progress.is_hidden() {
            eprintln!("{what}");
        }
        progress.set_message(what.to_owned());
        progress.tick();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_and_skews_are_written_as_the_help_says() {
        assert_eq!(latency("0"), Ok(Latency::None));
        assert_eq!(latency("5"), Ok(Latency::Fixed { ms: 5.0 }));
        assert_eq!(latency("5~0.5"), Ok(Latency::LogNormal { median_ms: 5.0, sigma: 0.5 }));
        assert!(latency("five").is_err());
        assert_eq!(skew("hot"), Ok(Skew::OneHot));
        assert_eq!(skew("1.1"), Ok(Skew::Zipf(1.1)));
        assert!(skew("cold").is_err());
        assert_eq!(store("dynamodb-server"), Ok(StoreKind::DynamoDbServer));
        assert_eq!(store("paper").unwrap_err(), "it is memory, embedded, dynamodb, dynamodb-server, cosmos");
    }
}
