//! The program `tollgate-demo`. This file holds the command line only; each command has a module of the library.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tollgate_demo::report::Verdict;
use tollgate_demo::{consumer_process, demo, host, processes};

/// Process real flights exactly once, through a broker that duplicates, reorders and loses acknowledgements, with consumers
/// that crash; then audit every total against the input.
#[derive(Parser)]
#[command(name = "tollgate-demo", version, about, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    demo: demo::Options,
}

#[derive(Subcommand)]
enum Command {
    /// Hold the broker, and the store if only one process can open it, for consumers in other processes. The demo starts
    /// it with `--processes`.
    Host(host::Options),
    /// Consume in a process of its own, from the broker of a host. The demo starts it with `--processes`.
    Consumer(consumer_process::Options),
    /// Run a server that ends with the process that started it. The demo starts it with `--server`.
    #[command(hide = true)]
    Guard(processes::guard::Options),
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    let (name, ended) = match arguments.command {
        None => ("", demo::run(&arguments.demo).map(Verdict::exit_code)),
        Some(Command::Host(options)) => (" host", host::run(&options).map(|()| ExitCode::SUCCESS)),
        Some(Command::Consumer(options)) => {
            (" consumer", consumer_process::run(&options).map(|()| ExitCode::SUCCESS))
        }
        Some(Command::Guard(options)) => {
            (" guard", processes::guard::run(&options).map(|()| ExitCode::SUCCESS))
        }
    };
    ended.unwrap_or_else(|error| {
        eprintln!("tollgate-demo{name}: {error}");
        ExitCode::FAILURE
    })
}
