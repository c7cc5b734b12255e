//! The program `tollgate-verify`: checks of the algorithm and of its implementation that anyone can run. Each command has a file
//! under `commands`; the checks themselves are in the library.

mod commands;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::{explore, gallery, mutants, simulate};

/// Checks that the algorithm, and this implementation of it, keep their guarantees.
#[derive(Parser)]
#[command(name = "tollgate-verify", version, about)]
struct Arguments {
    #[command(subcommand)]
    check: Check,
}

#[derive(Subcommand)]
enum Check {
    /// Walk every interleaving of small worlds with the shipped state machine, and check the guarantees in every state.
    Explore(explore::Options),
    /// Break one rule after the other, and check that the exploration notices each.
    Mutants(mutants::Options),
    /// Run the whole engine under seeded chaos on a virtual clock, thousands of times.
    Simulate(simulate::Options),
    /// Show every deduplication technique in use: the shortest story that breaks it, or its cost.
    Gallery(gallery::Options),
}

fn main() -> ExitCode {
    match Arguments::parse().check {
        Check::Explore(options) => explore::run(&options),
        Check::Mutants(options) => mutants::run(&options),
        Check::Simulate(options) => simulate::run(&options),
        Check::Gallery(options) => gallery::run(&options),
    }
}
