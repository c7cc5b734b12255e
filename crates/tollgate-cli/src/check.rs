//! `tollgate check`: everything that anybody can run to see for themselves that the algorithm and this implementation of it hold.
//! Each way of checking has a room of its own below this one; what they check is in `tollgate-testkit`.

mod explore;
mod gallery;
mod mutants;
mod simulate;

use std::process::ExitCode;

use clap::{Args, Subcommand};

/// Which way of checking.
#[derive(Args)]
pub struct Options {
    #[command(subcommand)]
    check: Check,
}

#[derive(Subcommand)]
enum Check {
    /// Walk every interleaving of small worlds with the shipped state machine, and check the guarantees in every state.
    Explore(explore::Options),
    /// Break one rule after the other, and see that the exploration notices each.
    Mutants(mutants::Options),
    /// Run the whole engine under seeded chaos on a virtual clock, thousands of times.
    Simulate(simulate::Options),
    /// Show every deduplication technique that people use: what breaks it, or what it costs.
    Gallery(gallery::Options),
}

/// Checks what was asked for. Success means that everything holds.
pub fn run(options: &Options) -> ExitCode {
    match &options.check {
        Check::Explore(options) => explore::run(options),
        Check::Mutants(options) => mutants::run(options),
        Check::Simulate(options) => simulate::run(options),
        Check::Gallery(options) => gallery::run(options),
    }
}
