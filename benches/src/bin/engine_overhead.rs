//! What the engine itself costs: a trivial handler, the in-memory store, the in-process broker, all on one thread.
//! Prints messages a second for messages that are processed and for duplicates that the cache drops, and what a processed message
//! takes of the processor. With the feature `count-allocations` it counts allocations instead: then the allocator is the
//! system's, and times mean less.
//!
//! `cargo run --release -p tollgate-bench --bin engine_overhead [MESSAGES] [PARTITIONS] [CONCURRENCY]`

use std::sync::Arc;
use std::time::Instant;

use tollgate::proto::{Broker, Store, StoreAlias};
use tollgate::{Gate, Statistics};
use tollgate_bench::side_by_side::resources::{Taken, Watch};
use tollgate_bench::{ENDPOINT, adder, seed, send};
use tollgate_brokers::InProcessBroker;
use tollgate_embedded::MemoryStore;

/// What a program with this load would choose; with the system's allocator it is about a quarter slower.
#[cfg(not(feature = "count-allocations"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(feature = "count-allocations")]
#[global_allocator]
static ALLOCATOR: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

const ROUNDS: usize = 5;

fn argument(place: usize, default: u64) -> u64 {
    std::env::args().nth(place).map_or(default, |text| text.parse().expect("arguments are numbers"))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let messages = argument(1, 200_000);
    let partitions = argument(2, 1_000);
    let concurrency = usize::try_from(argument(3, 256)).expect("it fits");
    println!("{messages} messages, {partitions} partitions, concurrency {concurrency}, one thread");
    let (mut processed, mut dropped) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (one, other, statistics, taken) = round(messages, partitions, concurrency).await;
        println!(
            "  processed {one:>10.0}/s   duplicates {other:>10.0}/s   {:.3} store calls and {:.3} commits a message",
            ratio(statistics.store_calls(), messages),
            ratio(statistics.commits, messages)
        );
        let microseconds = u64::try_from(taken.processor.as_micros()).expect("a run takes less than an age");
        print!("  a processed message: {:.2} µs of the processor", ratio(microseconds, messages));
        match taken.allocations {
            Some(allocations) => println!(", {:.1} allocations", ratio(allocations, messages)),
            None => println!(),
        }
        processed.push(one);
        dropped.push(other);
    }
    println!("median: processed {:.0}/s, duplicates dropped {:.0}/s", median(processed), median(dropped));
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn ratio(count: u64, of: u64) -> f64 {
    count as f64 / of as f64
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

async fn round(messages: u64, partitions: u64, concurrency: usize) -> (f64, f64, Statistics, Taken) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(StoreAlias::new("main").expect("a valid name")));
    let broker: Arc<dyn Broker> = Arc::new(InProcessBroker::builder().build());
    let announced = seed(&*store, messages, partitions).await;
    let gate = Gate::builder()
        .store(store)
        .broker(Arc::clone(&broker))
        .endpoint(adder(concurrency))
        .consumed_tokens(usize::try_from(messages * 2 + 2).expect("it fits"))
        .open()
        .await
        .expect("the gate opens");
    send(&broker, &announced).await;
    let (watch, started) = (Watch::begin(), Instant::now());
    wait_until(&gate, |statistics| statistics.committed == messages).await;
    let processed = ratio(messages, 1) / started.elapsed().as_secs_f64();
    let so_far = gate.statistics();
    // The last completions mark their tokens as consumed.
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    let taken = watch.end();
    send(&broker, &announced).await;
    let started = Instant::now();
    wait_until(&gate, |statistics| statistics.duplicates() == messages).await;
    let dropped = ratio(messages, 1) / started.elapsed().as_secs_f64();
    let statistics = gate.close().await;
    assert_eq!(statistics.duplicates_by_cache, messages, "endpoint {ENDPOINT} knew every token");
    (processed, dropped, so_far, taken)
}

async fn wait_until(gate: &Gate, done: impl Fn(&Statistics) -> bool) {
    while !done(&gate.statistics()) {
        tokio::task::yield_now().await;
    }
}
