//! What the negative cache saves when nine deliveries in ten are copies and each store call takes a while: the same run with it
//! and without. A copy comes up to LATE deliveries after the one before it, so some meet their original while it is processed.
//! On a clock that stands still while anything is at work: see the program `workers`.
//!
//! `cargo run --release -p tollgate-bench --bin duplicates [WINDOW] [MESSAGES] [COPIES] [LATE]`

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tollgate::proto::{Broker, OutgoingMessage, Store, StoreAlias};
use tollgate::{Gate, Statistics};
use tollgate_bench::slow_store::SlowStore;
use tollgate_bench::{adder, seed, send};
use tollgate_brokers::InProcessBroker;
use tollgate_embedded::MemoryStore;

/// What the clock shows when a millisecond has passed.
const MILLISECOND: Duration = Duration::from_secs(1);
/// Milliseconds that a store call takes, evenly a third less or more.
const LATENCY: u32 = 5;
const SPREAD: f64 = 0.3;
const PARTITIONS: u64 = 1_000;
/// More than there are messages.
const CACHED: usize = 1_000_000;
/// Longer than any run.
const NEVER: Duration = Duration::from_secs(30 * 24 * 3600);
const SEED: u64 = 4711;

fn argument(place: usize, default: u64) -> u64 {
    std::env::args().nth(place).map_or(default, |text| text.parse().expect("arguments are numbers"))
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() {
    let window = usize::try_from(argument(1, 64)).expect("it fits");
    let (messages, copies, late) = (argument(2, 20_000), argument(3, 9), argument(4, 20_000));
    println!(
        "{messages} messages, {copies} copies of each, {PARTITIONS} partitions, window {window}, {LATENCY} ms a store call"
    );
    let mut rates = Vec::new();
    for (name, cached) in [("with the negative cache", CACHED), ("without it", 0)] {
        let (rate, statistics) = run(window, messages, copies, late, cached).await;
        println!(
            "{name:<24} {rate:>8.0} messages/s; of the duplicates {} by cache, {} by store, {} by marker",
            statistics.duplicates_by_cache, statistics.duplicates_by_store, statistics.duplicates_by_marker
        );
        rates.push(rate);
    }
    println!("ratio {:.2}", rates[0] / rates[1]);
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
async fn run(window: usize, messages: u64, copies: u64, late: u64, cached: usize) -> (f64, Statistics) {
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new(StoreAlias::new("main").expect("a valid name")));
    // The warm-up first: one message to each partition.
    let mut warm_up = seed(&*memory, PARTITIONS + messages, PARTITIONS).await;
    let announced = warm_up.split_off(usize::try_from(PARTITIONS).expect("it fits"));
    let store: Arc<dyn Store> =
        Arc::new(SlowStore::new(memory, LATENCY * MILLISECOND, SPREAD, usize::MAX >> 4));
    let broker: Arc<dyn Broker> =
        Arc::new(InProcessBroker::builder().visibility_timeout(NEVER).capacity(10_000_000).build());
    let gate = Gate::builder().store(store).broker(Arc::clone(&broker)).endpoint(adder(window));
    let gate = gate.consumed_tokens(cached).flush_after(NEVER).sweep_every(None).open().await;
    let gate = gate.expect("the gate opens");
    send(&broker, &warm_up).await;
    until(&gate, |statistics| statistics.committed == PARTITIONS).await;
    let deliveries = with_copies(announced, copies, late);
    let started = Instant::now();
    send(&broker, &deliveries).await;
    until(&gate, |statistics| {
        statistics.committed == PARTITIONS + messages
            && statistics.deliveries == PARTITIONS + messages * (1 + copies)
    })
    .await;
    let elapsed = started.elapsed().as_secs_f64() / MILLISECOND.as_secs_f64() / 1_000.0;
    let statistics = gate.close().await;
    assert_eq!(statistics.committed, PARTITIONS + messages, "each message once");
    (messages as f64 / elapsed, statistics)
}

/// The messages in a random order, each followed by its copies.
fn with_copies(messages: Vec<OutgoingMessage>, copies: u64, late: u64) -> Vec<OutgoingMessage> {
    let mut random = fastrand::Rng::with_seed(SEED);
    let end = messages.len() as u64 * (1 + copies);
    let mut deliveries: Vec<(u64, OutgoingMessage)> = Vec::new();
    for message in messages {
        let mut place = random.u64(0..end);
        for _ in 0..copies {
            deliveries.push((place, message.clone()));
            place += random.u64(0..late);
        }
        deliveries.push((place, message));
    }
    deliveries.sort_by_key(|(place, _)| *place);
    deliveries.into_iter().map(|(_, message)| message).collect()
}

async fn until(gate: &Gate, done: impl Fn(&Statistics) -> bool) {
    while !done(&gate.statistics()) {
        tokio::time::sleep(MILLISECOND / 10).await;
    }
}
