//! The `tollgate` program. This file only knows the command line; each command has a room of its own.

mod aircraft;
mod airports;
mod audit;
#[cfg(feature = "bench")]
mod bench;
mod broker_choice;
mod check;
mod consumer;
mod consumer_process;
mod demo;
mod error;
mod flights;
mod host;
mod lifeline;
mod processes;
mod queues;
mod remote;
mod report;
#[cfg(feature = "bench")]
mod soak;
mod source;
mod store_choice;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::report::Verdict;

/// Counts allocations for `bench`.
#[cfg(feature = "bench-full")]
#[global_allocator]
static ALLOCATOR: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

/// Exactly-once message processing: try it, and check it.
#[derive(Parser)]
#[command(name = "tollgate", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Process real flights exactly once, through a broker that duplicates, reorders and loses acknowledgements, with
    /// consumers that crash; then audit every total against the input.
    Demo(demo::Options),
    /// Hold the broker, and the store if only one process can open it, for consumers in other processes. The demo starts
    /// it with `--processes`.
    Host(host::Options),
    /// Consume in a process of its own, from the broker of a host. The demo starts it with `--processes`.
    Consumer(consumer_process::Options),
    /// Run a server that ends with whoever started it. The demo starts it with `--server`.
    #[command(hide = true)]
    Guard(processes::guard::Options),
    /// Compare Tollgate with what one would do instead: the same messages, store and latency, in turns, each audited.
    #[cfg(feature = "bench")]
    Bench(bench::Options),
    /// Send messages through one broker for an hour, or ten million of them, and see that nothing grows and nothing slows down.
    #[cfg(feature = "bench")]
    Soak(soak::Options),
    /// See for yourself that the algorithm and this implementation of it hold.
    Check(check::Options),
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let (name, ended) = match Arguments::parse().command {
        Command::Check(options) => return check::run(&options),
        #[cfg(feature = "bench")]
        Command::Bench(options) => ("bench", bench::run(&options)),
        #[cfg(feature = "bench")]
        Command::Soak(options) => ("soak", soak::run(&options)),
        Command::Demo(options) => ("demo", demo::run(&options).map(Verdict::exit_code)),
        Command::Host(options) => ("host", host::run(&options).map(|()| ExitCode::SUCCESS)),
        Command::Consumer(options) => {
            ("consumer", consumer_process::run(&options).map(|()| ExitCode::SUCCESS))
        }
        Command::Guard(options) => ("guard", processes::guard::run(&options).map(|()| ExitCode::SUCCESS)),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("tollgate {name}: {error}");
        ExitCode::FAILURE
    })
}
