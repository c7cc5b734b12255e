//! What affinity is worth through real brokers: four gates with a cache of their own each, on one store. Where a broker brings a
//! partition's messages to the same gate, its cache hits and no two commits race; where it does not, the conditional commit finds out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate::proto::{EndpointName, Store, StoreAlias};
use tollgate::{Gate, Statistics};
use tollgate_bench::slow_store::SlowStore;
use tollgate_bench::{ENDPOINT, adder, seed, send};
use tollgate_embedded::MemoryStore;

use crate::Failure;
use crate::brokers::Kind;

/// Gates.
const CONSUMERS: u16 = 4;
/// Messages, and the partitions that they go to.
const MESSAGES: u64 = 8_000;
const PARTITIONS: u64 = 400;
/// What each store call takes, so that there is time for a race.
const STORE_CALL: Duration = Duration::from_millis(5);
/// Store calls at a time: more than anybody makes.
const CONNECTIONS: usize = 1_024;
/// Messages that a gate works on at a time.
const WINDOW: usize = 64;
/// How long gates wait for each other, where the broker divides partitions among them.
const JOINED_WITHIN: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(5);
const SEED: u64 = 4711;
/// How long it may take.
const RUN_MAX: Duration = Duration::from_secs(60);

/// How messages are divided.
#[derive(Clone, Copy)]
enum Division {
    /// Each consumer takes a part of the partitions.
    ByPartition,
    /// Whoever comes gets the next message.
    None,
}

/// Measures and prints.
///
/// # Errors
/// If a broker or the store fails.
pub async fn compare() -> Result<(), Failure> {
    println!(
        "| broker | affinity | takes | views found in the cache | conflicts | store calls a message | processed |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (kind, division, name) in [
        (Kind::Nats, Division::ByPartition, "each consumer has a slice of its own"),
        (Kind::Nats, Division::None, "none: each takes all slices"),
        (Kind::Kafka, Division::ByPartition, "by key, always"),
        (Kind::RabbitMq, Division::None, "none"),
    ] {
        let Some(server) = kind.start() else { continue };
        let running = run(kind, division, server.address());
        let (elapsed, statistics) = tokio::time::timeout(RUN_MAX, running).await??;
        println!(
            "| {kind} | {name} | {:.2} s | {:.0} % | {} | {:.2} | {} of {MESSAGES} |",
            elapsed.as_secs_f64(),
            statistics.cache_hit_rate() * 100.0,
            statistics.conflicts,
            calls_a_message(&statistics),
            statistics.committed
        );
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn calls_a_message(statistics: &Statistics) -> f64 {
    statistics.store_calls() as f64 / statistics.committed.max(1) as f64
}

async fn run(kind: Kind, division: Division, address: &str) -> Result<(Duration, Statistics), Failure> {
    let endpoint = EndpointName::new(ENDPOINT)?;
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new(StoreAlias::new("main")?));
    let mut messages = seed(&*memory, MESSAGES, PARTITIONS).await;
    // Whoever is dealt every fourth message would otherwise get every fourth partition.
    fastrand::Rng::with_seed(SEED).shuffle(&mut messages);
    let store = Arc::new(SlowStore::new(memory, STORE_CALL, 0.3, CONNECTIONS));
    let mut consumers = Vec::new();
    for consumer in 0..CONSUMERS {
        let own = match division {
            Division::ByPartition => consumer..consumer + 1,
            Division::None => 0..CONSUMERS,
        };
        let opened = kind.open_slices(address, "affinity-", &endpoint, CONSUMERS, own).await?;
        let gate = Gate::builder().store(Arc::clone(&store) as _).broker(opened.broker());
        consumers.push((gate.endpoint(adder(WINDOW)).open().await?, opened));
    }
    let joined = Instant::now();
    while joined.elapsed() < JOINED_WITHIN
        && !consumers.iter().all(|(_, opened)| opened.has_joined(&endpoint))
    {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let began = Instant::now();
    let sender = consumers[0].1.broker();
    send(&sender, &messages).await;
    let committed = |consumers: &[(Gate, _)]| -> u64 {
        consumers.iter().map(|(gate, _)| gate.statistics().committed).sum()
    };
    while committed(&consumers) < MESSAGES {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let elapsed = began.elapsed();
    drop(sender);
    let mut all = Vec::new();
    for (gate, opened) in consumers {
        all.push(gate.close().await);
        opened.close().await;
    }
    Ok((elapsed, all.into_iter().sum()))
}
