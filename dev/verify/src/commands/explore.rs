//! `tollgate-verify explore`: walks small worlds exhaustively and prints how many states there were, or the shortest story that
//! breaks a guarantee.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tollgate_verify::explorer::{
    Bounds, Explorer, Findings, Liveness, Model, Outcome, Specimen, World, replay, search,
};

/// What to explore, and how far.
#[derive(Args)]
pub struct Options {
    /// Which world; `all` for every one of them.
    #[arg(long, value_name = "NAME", default_value = "all")]
    world: String,
    /// The larger version of each world, and a small one with every pair of kinds of faults: an hour and gigabytes.
    #[arg(long)]
    deep: bool,
    /// Prints the worlds and what they show, and explores none.
    #[arg(long)]
    list: bool,
    /// Breaks a rule, by its name in `tollgate-verify mutants`, in the world that was made for it.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["deep"])]
    mutant: Option<String>,
    /// Walks one way only, as a story printed it, and tells it.
    #[arg(long, value_name = "CHOICES", value_parser = choices)]
    replay: Option<Choices>,
    /// Most distinct states; beyond them the search is not exhaustive and says so.
    #[arg(long, value_name = "N", default_value_t = 100_000_000)]
    states: usize,
    /// Does not check that from every state a good end can be reached: takes less memory.
    #[arg(long)]
    no_liveness: bool,
    #[command(flatten)]
    bounds: WorldBounds,
}

/// What may happen in a world, instead of what it says itself.
#[derive(Args)]
struct WorldBounds {
    /// Copies of each message.
    #[arg(long, value_name = "N")]
    copies: Option<u8>,
    /// Workers of each process, e.g. `2,1`.
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    workers: Option<Vec<usize>>,
    /// Most messages in one commit, 1 or 2.
    #[arg(long, value_name = "N")]
    fold: Option<usize>,
    /// Processes that die and start anew.
    #[arg(long, value_name = "N")]
    crashes: Option<u8>,
    /// Messages that are delivered again while a worker still has them.
    #[arg(long, value_name = "N")]
    time_outs: Option<u8>,
    /// Commits whose answer is lost.
    #[arg(long, value_name = "N")]
    lost_answers: Option<u8>,
    /// Calls that fail, before or after their effect.
    #[arg(long, value_name = "N")]
    failed_calls: Option<u8>,
    /// Preparations of side effects that fail, and take effect later.
    #[arg(long, value_name = "N")]
    late_effects: Option<u8>,
    /// Registrations and preparations whose end the handler does not wait for.
    #[arg(long, value_name = "N")]
    drops: Option<u8>,
    /// Handlers that fail.
    #[arg(long, value_name = "N")]
    handler_failures: Option<u8>,
    /// Views dropped from a cache.
    #[arg(long, value_name = "N")]
    evictions: Option<u8>,
    /// Sweeps while others are at work.
    #[arg(long, value_name = "N")]
    sweeps: Option<u8>,
    /// Reads answered by a replica that lags behind.
    #[arg(long, value_name = "N")]
    stale_reads: Option<u8>,
    /// Clients that go away without an answer.
    #[arg(long, value_name = "N")]
    departures: Option<u8>,
    /// Wake-ups that lose patience early.
    #[arg(long, value_name = "N")]
    fences: Option<u8>,
}

#[derive(Clone)]
struct Choices(Vec<usize>);

fn choices(text: &str) -> Result<Choices, String> {
    text.split('.')
        .map(|choice| choice.parse().map_err(|_| format!("{choice:?} is no number")))
        .collect::<Result<_, _>>()
        .map(Choices)
}

impl WorldBounds {
    fn apply(&self, world: &mut World) {
        let budget = &mut world.budget;
        let numbers = [
            (self.copies, &mut world.copies),
            (self.crashes, &mut budget.crashes),
            (self.time_outs, &mut budget.time_outs),
            (self.lost_answers, &mut budget.lost_answers),
            (self.failed_calls, &mut budget.failed_calls),
            (self.late_effects, &mut budget.late_effects),
            (self.drops, &mut budget.drops),
            (self.handler_failures, &mut budget.handler_failures),
            (self.evictions, &mut budget.evictions),
            (self.sweeps, &mut budget.sweeps),
            (self.stale_reads, &mut budget.stale_reads),
            (self.departures, &mut budget.departures),
            (self.fences, &mut budget.fences),
        ];
        for (asked, number) in numbers {
            *number = asked.unwrap_or(*number);
        }
        if let Some(workers) = &self.workers {
            world.workers.clone_from(workers);
        }
        world.fold_max = self.fold.unwrap_or(world.fold_max);
    }
}

/// Explores.
pub fn run(options: &Options) -> ExitCode {
    let worlds = match worlds(options) {
        Ok(worlds) => worlds,
        Err(problem) => {
            eprintln!("tollgate-verify explore: {problem}");
            return ExitCode::FAILURE;
        }
    };
    if options.list {
        for world in worlds {
            println!("{:<10} {}", world.name, world.about);
        }
        return ExitCode::SUCCESS;
    }
    if let Some(Choices(choices)) = &options.replay {
        return tell(worlds, choices);
    }
    let mut states = 0;
    let mut elapsed = Duration::ZERO;
    let mut holds = true;
    let count = worlds.len();
    for world in worlds {
        let (name, about) = (world.name, world.about);
        let findings = explore(world, options);
        states += findings.states;
        elapsed += findings.elapsed;
        holds &= report(name, about, &findings);
        if options.deep {
            let (pairs_hold, pairs) = explore_pairs(name, options);
            holds &= pairs_hold;
            states += pairs;
        }
    }
    if count > 1 {
        println!("{} distinct states in all, in {:.1} s", grouped(states), elapsed.as_secs_f64());
    }
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Every pair of kinds of faults in a small version of a world; whether all hold, and their states.
fn explore_pairs(name: &str, options: &Options) -> (bool, usize) {
    let pairs = World::pairs(name).unwrap_or_default();
    let (mut holds, mut states, count) = (true, 0, pairs.len());
    for (faults, world) in pairs {
        let findings = explore(world, options);
        states += findings.states;
        if findings.outcome != Outcome::Exhausted {
            println!("  with {faults}:");
            holds &= report(name, &faults, &findings);
        }
    }
    let verdict = if holds { "all exhausted, all hold" } else { "NOT all hold" };
    println!("  {count} pairs of faults in a small version, {} distinct states: {verdict}", grouped(states));
    (holds, states)
}

fn worlds(options: &Options) -> Result<Vec<World>, String> {
    let mut worlds = Vec::new();
    if let Some(mutant) = &options.mutant {
        let specimen = Specimen::all().into_iter().find(|specimen| specimen.name() == *mutant);
        let specimen = specimen.ok_or(format!("there is no mutant {mutant}; see tollgate-verify mutants"))?;
        worlds.push(specimen.world);
    } else {
        let names = World::NAMES.into_iter().filter(|name| options.world == "all" || options.world == *name);
        for name in names {
            worlds.extend(if options.deep { World::deep(name) } else { World::named(name) });
        }
    }
    if worlds.is_empty() {
        return Err(format!("there is no world {}; there are {}", options.world, World::NAMES.join(", ")));
    }
    for world in &mut worlds {
        options.bounds.apply(world);
    }
    Ok(worlds)
}

pub(super) fn explore(world: World, options: &Options) -> Findings {
    let liveness = if options.no_liveness { Liveness::Ignored } else { Liveness::Checked };
    let bounds = Bounds { states_max: options.states, liveness };
    watched(&Explorer::new(world), bounds)
}

/// Searches with the number of states on the screen.
fn watched<M: Model>(model: &M, bounds: Bounds) -> Findings {
    let style = ProgressStyle::with_template("{spinner} {human_pos} states, {per_sec}")
        .expect("the template is a constant and well formed");
    let progress = ProgressBar::no_length().with_style(style);
    let findings = search(model, bounds, |states| progress.set_position(states as u64));
    progress.finish_and_clear();
    findings
}

fn report(name: &str, about: &str, findings: &Findings) -> bool {
    let seconds = findings.elapsed.as_secs_f64();
    println!("world {name}: {about}");
    println!(
        "  {} distinct states, {} steps between them, depth {}, {} at rest; {seconds:.1} s, {} states/s",
        grouped(findings.states),
        grouped(usize::try_from(findings.transitions).unwrap_or(usize::MAX)),
        findings.depth,
        grouped(findings.quiet_states),
        // A figure for people: cutting off the fraction is fine.
        grouped(rate(findings.states, findings.elapsed)),
    );
    match &findings.outcome {
        Outcome::Exhausted => {
            println!("  exhausted: every guarantee holds in every state, and every state can come to rest");
            true
        }
        Outcome::BoundReached => {
            println!(
                "  NOT exhausted: nothing is wrong with the states visited, but there are more (--states)"
            );
            false
        }
        Outcome::Violated(story) => {
            println!("  VIOLATED after {} steps:\n{story}", story.steps.len());
            false
        }
    }
}

fn rate(states: usize, elapsed: Duration) -> usize {
    let millis = usize::try_from(elapsed.as_millis()).unwrap_or(usize::MAX).max(1);
    states.saturating_mul(1000) / millis
}

/// A number with its thousands apart.
pub(super) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn tell(worlds: Vec<World>, choices: &[usize]) -> ExitCode {
    let [world] = <[World; 1]>::try_from(worlds).unwrap_or_else(|mut worlds| [worlds.swap_remove(0)]);
    match replay(&Explorer::new(world), choices) {
        Some(story) if story.violation.is_empty() => {
            println!("{story}");
            println!("nothing is wrong at the end of this way");
            ExitCode::SUCCESS
        }
        Some(story) => {
            println!("{story}");
            ExitCode::FAILURE
        }
        None => {
            eprintln!(
                "tollgate-verify explore: the world has no such way: it, or the machine, has changed since"
            );
            ExitCode::FAILURE
        }
    }
}
