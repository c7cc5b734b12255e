//! Each broker of the network, beside a consumer of its own client: what a consumer that only acknowledges achieves, what one achieves that
//! gets and puts an item and acknowledges (and deduplicates nothing), and what Tollgate achieves on the same store. Servers are
//! started by the scripts in `infra` and end with the program; all messages wait in the queue when a consumer starts;
//! consumers take turns; every run is counted up. Prints Markdown; judges nothing but the counts.
//!
//! `cargo run --release -p tollgate-bench --features brokers --bin broker_throughput [BROKERS] [MESSAGES] [ROUNDS]`
//!
//! With `affinity` instead of brokers: what it is worth to four consumers that a partition's messages come to the same one.

mod affinity;
mod arms;
mod bare;
mod brokers;
mod meter;

use std::time::Duration;

use arms::{Arm, Figures};
use brokers::Kind;
use tollgate_bench::side_by_side::machine;
use tollgate_bench::side_by_side::statistics::Spread;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Messages of a run, after those that warm it up. The emulator of SQS is slow and gets a part of them.
const MESSAGES: u64 = 6_000;

/// Which part the emulator of SQS gets.
const EMULATOR_PART: u64 = 6;

/// How often each consumer runs.
const ROUNDS: usize = 3;

/// How long a run may take before it is given up.
const RUN_MAX: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let kinds = match arguments.next().as_deref() {
        Some("affinity") => return affinity::compare().await,
        None | Some("all") => Kind::ALL.to_vec(),
        Some(names) => names.split(',').map(Kind::named).collect::<Result<_, _>>()?,
    };
    let messages: u64 = arguments.next().map_or(Ok(MESSAGES), |text| text.parse())?;
    let rounds: usize = arguments.next().map_or(Ok(ROUNDS), |text| text.parse())?;
    println!("{}; {rounds} rounds in turns, medians (from least to most)\n", machine::describe());
    println!(
        "| broker | consumer | messages/s | of the bare one | of the naive one | p50 | p99, delivery to acknowledgement | processed |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let mut is_right = true;
    for kind in kinds {
        let messages = if kind == Kind::Sqs { messages / EMULATOR_PART } else { messages };
        let Some(server) = kind.start() else { continue };
        let mut figures: [Vec<Figures>; Arm::ALL.len()] = Default::default();
        for round in 0..rounds {
            for (place, arm) in Arm::ALL.into_iter().enumerate() {
                let prefix = format!("throughput-{round}-{place}-");
                let running = arms::run(arm, kind, server.address(), &prefix, messages);
                let one = tokio::time::timeout(RUN_MAX, running).await;
                figures[place].push(one.map_err(|_| format!("{kind}, {arm}: not done in {RUN_MAX:?}"))??);
            }
        }
        is_right &= print(kind, &figures);
    }
    if is_right { Ok(()) } else { Err("Tollgate did not process each message once".into()) }
}

/// The rows of one broker, and whether Tollgate did what it is there for.
fn print(kind: Kind, figures: &[Vec<Figures>; Arm::ALL.len()]) -> bool {
    let rates = figures.each_ref().map(|runs| runs.iter().map(|run| run.rate).collect::<Vec<_>>());
    let mut is_right = true;
    for (place, arm) in Arm::ALL.into_iter().enumerate() {
        let rate = Spread::of(rates[place].iter().copied());
        let against = |other: usize| {
            if other >= place {
                return String::new();
            }
            format!("{:.2}", Spread::of_ratios(&rates[place], &rates[other]).median)
        };
        let of = |figure: fn(&Figures) -> f64| Spread::of(figures[place].iter().map(figure)).median;
        let (processed, sent) = figures[place]
            .iter()
            .fold((0, 0), |(processed, sent), run| (processed + run.processed, sent + run.sent));
        is_right &= arm != Arm::Tollgate || processed == sent;
        println!(
            "| {kind} | {arm} | {:.0} ({:.0} to {:.0}) | {} | {} | {:.2} ms | {:.2} ms | {processed} of {sent} |",
            rate.median,
            rate.min,
            rate.max,
            against(0),
            against(1),
            of(|run| run.p50),
            of(|run| run.p99),
        );
    }
    is_right
}
