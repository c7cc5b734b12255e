//! `tollgate-verify simulate`: runs random systems under chaos on a virtual clock, seed by seed, and prints what went wrong in them and
//! whether they came to what they must.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tollgate_verify::simulation::{Report, random_scenario};

use super::explore::grouped;

/// Which seeds.
#[derive(Args)]
pub struct Options {
    /// How many seeds to run.
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    seeds: u64,
    /// The first one.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    first: u64,
    /// Runs this seed only, and prints what went wrong in it and the hash of all that happened.
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// How many seeds to run at a time. Default: one for each core.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// So many runs meet every kind of fault: fewer need not.
const SEEDS_THAT_MEET_EVERYTHING: u64 = 2_000;

/// How many failing seeds are printed.
const FAILURES_SHOWN: usize = 20;

/// Simulates.
pub fn run(options: &Options) -> ExitCode {
    if let Some(seed) = options.seed {
        return run_one(seed);
    }
    let threads =
        options.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let started = Instant::now();
    let report = run_all(options.first, options.seeds, threads);
    print(&report, started.elapsed());
    let missing: Vec<&str> =
        report.faults.kinds().into_iter().filter(|(_, count)| *count == 0).map(|(kind, _)| kind).collect();
    if options.seeds >= SEEDS_THAT_MEET_EVERYTHING && !missing.is_empty() {
        println!("the runs have met no {}: they show less than they should", missing.join(", no "));
        return ExitCode::FAILURE;
    }
    if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_one(seed: u64) -> ExitCode {
    match random_scenario(seed).run_seed(seed) {
        Ok(run) => {
            for (kind, count) in run.faults.kinds() {
                println!("{:>10}  {}", count, kind.replace('_', " "));
            }
            println!("seed {seed} comes to what it must; trace {:016x}", run.trace);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// Each thread takes the next seed: runs share nothing.
fn run_all(first: u64, seeds: u64, threads: usize) -> Report {
    let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} seeds, {per_sec}, {eta} left")
        .expect("the template is a constant and well formed");
    let progress = ProgressBar::new(seeds).with_style(style);
    let next = AtomicU64::new(first);
    let report = Mutex::new(Report::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        return;
                    }
                    let outcome = random_scenario(seed).run_seed(seed);
                    if let Ok(mut report) = report.lock() {
                        report.add(outcome);
                    }
                    progress.inc(1);
                }
            });
        }
    });
    progress.finish_and_clear();
    report.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn print(report: &Report, elapsed: Duration) {
    println!("injected in {} runs:", grouped(usize::try_from(report.runs).unwrap_or(usize::MAX)));
    for (kind, count) in report.faults.kinds() {
        let count = grouped(usize::try_from(count).unwrap_or(usize::MAX));
        println!("{count:>14}  {}", kind.replace('_', " "));
    }
    for failure in report.failures.iter().take(FAILURES_SHOWN) {
        println!("{failure}");
    }
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    println!(
        "{} runs in {:.1} s, {} a second; {} came to something else than they must",
        report.runs,
        elapsed.as_secs_f64(),
        report.runs.saturating_mul(1000) / millis,
        report.failures.len()
    );
}
