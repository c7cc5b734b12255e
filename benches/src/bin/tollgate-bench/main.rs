//! The program `tollgate-bench`: Tollgate beside other techniques, and the soak. This file holds the command line only.

mod compare;
mod soak;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Counts allocations for `compare`.
#[cfg(feature = "full")]
#[global_allocator]
static ALLOCATOR: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

/// Measures Tollgate.
#[derive(Parser)]
#[command(name = "tollgate-bench", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compare Tollgate with other techniques: the same messages, store and latency, in turns, each audited.
    Compare(compare::Options),
    /// Send messages through one broker for an hour, or ten million of them, and check that nothing grows and nothing slows down.
    Soak(soak::Options),
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let (name, ended) = match Arguments::parse().command {
        Command::Compare(options) => ("compare", compare::run(&options)),
        Command::Soak(options) => ("soak", soak::run(&options)),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("tollgate-bench {name}: {error}");
        ExitCode::FAILURE
    })
}
