//! Everything that `docs/benchmarks.md` shows, measured by one command: which scenarios, which contenders in each, how many rounds. The
//! report and the demands read what is collected here; nothing is judged here.

use serde::{Deserialize, Serialize};

use super::BenchError;
use super::contender::Contender;
use super::contenders;
use super::latency::Latency;
use super::rounds::{Comparison, compare};
use super::run::{Outcome, run};
use super::scenario::{Arrival, Deletions, Scenario, Skew, StoreKind};

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effort {
    /// Within two minutes on two quiet cores: for the gate.
    Quick,
    /// Within twenty minutes: for the page.
    Full,
}

impl Effort {
    const fn rounds(self) -> usize {
        match self {
            Self::Quick => 2,
            Self::Full => 5,
        }
    }

    /// Messages, where the full effort would take so many.
    const fn messages(self, full: u64) -> u64 {
        match self {
            Self::Quick => full / 4,
            Self::Full => full,
        }
    }
}

/// Everything that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// How much was measured.
    pub effort: Effort,
    /// On what.
    pub machine: String,
    /// Of which version.
    pub version: String,
    /// When, in seconds since the Unix epoch.
    pub at: u64,
    /// 5 ms, 64 connections, 1,000 partitions, 256 messages in flight.
    pub headline: Comparison,
    /// The same with 64 messages in flight.
    pub same_window: Comparison,
    /// The headline's scenario, with each deletion of a token a call of its own.
    pub single_deletions: Comparison,
    /// One message at a time.
    pub solo: Comparison,
    /// Messages that come when they come, at a rate that everybody can bear.
    pub open_loop: Comparison,
    /// One hot partition.
    pub hot: Comparison,
    /// Nine of ten deliveries are copies.
    pub duplicates: Comparison,
    /// Without latency: what the processor says.
    pub in_memory: Comparison,
    /// On an emulated `DynamoDB`, with the units that it reports. `None`: this build has none.
    pub dynamodb: Option<Comparison>,
    /// Figures against a parameter.
    pub sweeps: Vec<Sweep>,
    /// What is left after so many messages.
    pub growth: Sweep,
}

/// Figures of some contenders against one parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    /// What is varied.
    pub parameter: String,
    /// The scenario but for it.
    pub scenario: Scenario,
    /// By contender: the parameter's values, and what a run with each has shown.
    pub lines: Vec<(String, Vec<(f64, Outcome)>)>,
}

/// What is told while measuring goes on.
pub type Tell<'a> = &'a mut dyn FnMut(&str);

/// Contenders of the scenarios in which not all take part.
const CHOSEN: [&str; 5] = ["naive", "outbox", "published-token", "tollgate-identity", "tollgate"];

fn chosen(names: &[&str]) -> Vec<Box<dyn Contender>> {
    contenders::named(names).expect("constants that are names of contenders")
}

/// Measures everything.
///
/// # Errors
/// As [`run`].
pub async fn measure(effort: Effort, tell: Tell<'_>) -> Result<Results, BenchError> {
    let headline = Comparison::empty(&headline(effort));
    let mut results = Results {
        effort,
        machine: super::machine::describe(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        at: super::machine::now(),
        same_window: headline.clone(),
        single_deletions: headline.clone(),
        solo: headline.clone(),
        open_loop: headline.clone(),
        hot: headline.clone(),
        duplicates: headline.clone(),
        in_memory: headline.clone(),
        headline,
        dynamodb: None,
        sweeps: Vec::new(),
        growth: growth(growth_max(effort), tell).await?,
    };
    measure_ratios(effort, &mut results, tell).await?;
    results.sweeps = sweeps(effort, tell).await?;
    Ok(results)
}

/// Measures what the demands are about: everything but the sweeps and, with it, the growth if it is not there yet.
///
/// # Errors
/// As [`run`].
pub async fn measure_ratios(effort: Effort, results: &mut Results, tell: Tell<'_>) -> Result<(), BenchError> {
    let rounds = effort.rounds();
    let all = contenders::all();
    results.headline = turns(&headline(effort), &all, rounds, tell).await?;
    let core = ["naive", "outbox", "published-token", "tollgate"];
    results.same_window = turns(&same_window(effort), &chosen(&core), rounds, tell).await?;
    results.single_deletions = turns(&single_deletions(effort), &chosen(&core), rounds, tell).await?;
    results.solo = turns(&solo(effort), &all, rounds, tell).await?;
    results.open_loop = turns(&open_loop(effort), &chosen(&CHOSEN), rounds.min(3), tell).await?;
    let on_hot = chosen(&["naive", "tollgate-unfolded", "tollgate"]);
    results.hot = turns(&hot(effort), &on_hot, rounds.min(3), tell).await?;
    let with_copies = chosen(&["naive", "outbox", "published-token", "tollgate-forgetful", "tollgate"]);
    results.duplicates = turns(&duplicates(effort), &with_copies, rounds, tell).await?;
    results.in_memory = turns(&in_memory(effort), &all, rounds, tell).await?;
    if super::backing::HAS_DYNAMODB {
        let measured = turns(&on_dynamodb(effort), &all, rounds.min(3), tell).await?;
        results.dynamodb = Some(measured);
    }
    Ok(())
}

async fn turns(
    scenario: &Scenario,
    contenders: &[Box<dyn Contender>],
    rounds: usize,
    tell: Tell<'_>,
) -> Result<Comparison, BenchError> {
    tell(&format!("{}: {} contenders, {rounds} rounds", scenario.name, contenders.len()));
    compare(scenario, contenders, rounds, |scenario, outcome| {
        tell(&format!("{}: {} {:.0}/s", scenario.name, outcome.contender, outcome.rate));
    })
    .await
}

/// The headline's scenario.
pub fn headline(effort: Effort) -> Scenario {
    Scenario { messages: effort.messages(8_000), chain: 8, ..Scenario::headline() }
}

/// The same with as many messages in flight as connections.
pub fn same_window(effort: Effort) -> Scenario {
    Scenario { name: "same-window".into(), in_flight: 64, ..headline(effort) }
}

/// The same with each deletion a call of its own.
pub fn single_deletions(effort: Effort) -> Scenario {
    Scenario { name: "single-deletions".into(), deletions: Deletions::OneByOne, ..headline(effort) }
}

/// One message at a time.
pub fn solo(effort: Effort) -> Scenario {
    Scenario {
        name: "solo".into(),
        messages: effort.messages(96),
        partitions: 10,
        chain: 12,
        in_flight: 1,
        ..Scenario::headline()
    }
}

/// Messages that come at a rate that every contender bears on a quiet machine: half of what the slowest reaches.
pub fn open_loop(effort: Effort) -> Scenario {
    Scenario {
        name: "open-loop".into(),
        messages: effort.messages(1_200),
        chain: 4,
        arrival: Arrival::Open(ARRIVALS),
        ..Scenario::headline()
    }
}

/// Messages a second that are due in the open loop.
const ARRIVALS: f64 = 400.0;

/// One hot partition.
pub fn hot(effort: Effort) -> Scenario {
    Scenario {
        name: "hot".into(),
        messages: effort.messages(1_024),
        partitions: 1,
        skew: Skew::OneHot,
        chain: 8,
        in_flight: 64,
        ..Scenario::headline()
    }
}

/// Nine of ten deliveries are copies that come when their original has been processed.
pub fn duplicates(effort: Effort) -> Scenario {
    Scenario {
        name: "duplicates".into(),
        messages: effort.messages(4_000),
        // They send nothing: whoever processes copies would send ten outputs for one, each of them ten times.
        outputs: 0,
        duplicates: 0.9,
        late_copies: 1.0,
        ..Scenario::headline()
    }
}

/// Without latency: what the processor says.
pub fn in_memory(effort: Effort) -> Scenario {
    Scenario {
        name: "in-memory".into(),
        messages: effort.messages(32_000),
        latency: Latency::None,
        connections: 0,
        ..Scenario::headline()
    }
}

/// On an emulated `DynamoDB`.
pub fn on_dynamodb(effort: Effort) -> Scenario {
    Scenario {
        name: "dynamodb".into(),
        messages: effort.messages(800),
        partitions: 50,
        chain: 20,
        latency: Latency::None,
        in_flight: 16,
        connections: 16,
        store: StoreKind::DynamoDb,
        ..Scenario::headline()
    }
}

/// A point of a sweep: the parameter's value, and the scenario with it.
type Point = (f64, Scenario);

async fn line_up(
    parameter: &str,
    points: Vec<Point>,
    names: &[&str],
    tell: Tell<'_>,
) -> Result<Sweep, BenchError> {
    let scenario = points.first().map_or_else(Scenario::headline, |(_, scenario)| scenario.clone());
    let mut lines: Vec<(String, Vec<(f64, Outcome)>)> =
        names.iter().map(|name| ((*name).to_owned(), Vec::new())).collect();
    for (value, scenario) in points {
        for (contender, (_, line)) in chosen(names).iter().zip(&mut lines) {
            let outcome = run(&**contender, &scenario).await?;
            tell(&format!("{parameter} {value}: {} {:.0}/s", outcome.contender, outcome.rate));
            line.push((value, outcome));
        }
    }
    Ok(Sweep { parameter: parameter.to_owned(), scenario, lines })
}

#[expect(clippy::cast_precision_loss, reason = "parameters are small")]
async fn sweeps(effort: Effort, tell: Tell<'_>) -> Result<Vec<Sweep>, BenchError> {
    let base = Scenario { messages: effort.messages(2_400), chain: 8, ..Scenario::headline() };
    let workers = [1_usize, 4, 16, 64, 256].map(|workers| {
        let messages = (workers as u64 * effort.messages(80)).min(2 * base.messages);
        let scenario = Scenario {
            name: "workers".into(),
            messages,
            in_flight: workers,
            connections: workers,
            ..base.clone()
        };
        (workers as f64, scenario)
    });
    let partitions = [1_u64, 10, 100, 1_000, 10_000, 100_000].map(|partitions| {
        // Rivals take turns on few partitions: fewer messages tell as much there.
        let messages = if partitions < 100 { effort.messages(320) } else { base.messages };
        let scenario =
            Scenario { name: "partitions".into(), partitions, messages, in_flight: 64, ..base.clone() };
        (partitions as f64, scenario)
    });
    let duplicates = [0.0, 0.5, 0.8, 0.9].map(|duplicates| {
        let messages = base.messages / 2;
        // They send nothing, as in the comparison above.
        (duplicates, Scenario { name: "duplicates".into(), messages, duplicates, outputs: 0, ..base.clone() })
    });
    let bodies = [100_usize, 1_000, 10_000, 100_000, 1_000_000].map(|body_bytes| {
        let messages = if body_bytes < 100_000 { base.messages } else { effort.messages(640) };
        let scenario = Scenario {
            name: "body".into(),
            body_bytes,
            messages: if body_bytes < 1_000_000 { messages } else { effort.messages(160) },
            in_flight: 64,
            ..base.clone()
        };
        (body_bytes as f64, scenario)
    });
    let mut sweeps = Vec::new();
    for (parameter, points) in [
        ("workers", workers.to_vec()),
        ("partitions", partitions.to_vec()),
        ("duplicates", duplicates.to_vec()),
        ("body bytes", bodies.to_vec()),
    ] {
        sweeps.push(line_up(parameter, points, &CHOSEN, tell).await?);
    }
    Ok(sweeps)
}

/// Messages after which it is looked at what is left.
const GROWTH: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// How far the growth is followed.
const fn growth_max(effort: Effort) -> u64 {
    match effort {
        Effort::Quick => GROWTH[1],
        Effort::Full => GROWTH[3],
    }
}

/// What is left after more and more messages, up to `most` of them.
///
/// # Errors
/// As [`run`].
#[expect(clippy::cast_precision_loss, reason = "parameters are small")]
pub async fn growth(most: u64, tell: Tell<'_>) -> Result<Sweep, BenchError> {
    let scenario = |messages: u64| Scenario {
        name: "growth".into(),
        messages,
        body_bytes: 100,
        state_bytes: 100,
        latency: Latency::None,
        connections: 0,
        ..Scenario::headline()
    };
    let points = GROWTH.iter().filter(|messages| **messages <= most);
    let points = points.map(|messages| (*messages as f64, scenario(*messages))).collect();
    let names = ["outbox", "tollgate-identity", "published-token", "tollgate"];
    line_up("messages", points, &names, tell).await
}
