//! The program behind `cargo xtask`: the developers' commands. This file holds the command line only.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{commands, figures};

/// Developer commands of Tollgate.
#[derive(Parser)]
#[command(name = "cargo xtask", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Subcommand)]
enum Command {
    /// Format, lints, tidy, and the tests of the state machine and the engine: run it before each commit.
    Check,
    /// Everything that must hold before a merge, as `.ci/run` does it.
    Gate,
    /// Build the documentation of the published crates, with warnings as errors.
    Doc,
    /// Package the published crates, as `cargo publish` would.
    Package,
    /// Print the figures of the prose: lengths, openers, banned words, README words.
    Figures,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Check => commands::check(),
        Command::Gate => commands::gate(),
        Command::Doc => commands::doc(),
        Command::Package => commands::package(),
        Command::Figures => figures::print(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
