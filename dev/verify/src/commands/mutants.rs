//! `tollgate-verify mutants`: breaks each rule that the proof leans on and prints the shortest story by which that shows. A rule
//! whose absence nobody notices would be an error.

use std::process::ExitCode;

use clap::Args;
use tollgate_verify::explorer::{Bounds, Explorer, Outcome, Specimen, World, search};

use super::explore::grouped;

/// What to print.
#[derive(Args)]
pub struct Options {
    /// Only the mutant of this name.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Only one line for each, without its story.
    #[arg(long)]
    brief: bool,
}

/// More states than any mutant's world has.
const STATES_MAX: usize = 10_000_000;

/// Breaks the rules.
pub fn run(options: &Options) -> ExitCode {
    let mut found = 0;
    let mut survivors = 0;
    for specimen in Specimen::all() {
        let name = specimen.name();
        if options.only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        let with_the_rule = World { mutant: None, ..specimen.world.clone() };
        let bounds = Bounds { states_max: STATES_MAX, ..Bounds::default() };
        let whole = search(&Explorer::new(with_the_rule), bounds, |_| ());
        let broken = search(&Explorer::new(specimen.world), bounds, |_| ());
        match (&whole.outcome, &broken.outcome) {
            (Outcome::Exhausted, Outcome::Violated(story)) => {
                found += 1;
                println!("{:<14} {name}: {} steps to: {}", specimen.rule, story.steps.len(), story.violation);
                if !options.brief {
                    println!(
                        "  {}; with the rule kept, the same world holds in all of its {} states",
                        specimen.about,
                        grouped(whole.states)
                    );
                    println!("{story}\n");
                }
            }
            (Outcome::Exhausted, _) => {
                survivors += 1;
                println!("{:<14} {name} SURVIVES: nobody notices that {}", specimen.rule, specimen.about);
            }
            (other, _) => {
                survivors += 1;
                println!(
                    "{:<14} {name}: its world does not hold with the rule either: {other:?}",
                    specimen.rule
                );
            }
        }
    }
    println!("{found} mutants found, {survivors} not");
    if survivors == 0 && found > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
