//! The `tollgate` program. This file only knows the command line; each command has a room of its own.

mod aircraft;
mod airports;
mod audit;
mod consumer;
mod demo;
mod error;
mod flights;
mod report;
mod source;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let Command::Demo(options) = Arguments::parse().command;
    match demo::run(&options) {
        Ok(verdict) => verdict.exit_code(),
        Err(error) => {
            eprintln!("tollgate demo: {error}");
            ExitCode::FAILURE
        }
    }
}
