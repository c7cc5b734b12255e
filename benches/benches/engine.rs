//! The engine on the in-memory store and the in-process broker, on one thread, for each message; against the three store
//! calls alone that each message needs, made by hand one after the other.

mod settings;

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tollgate::Gate;
use tollgate::proto::{
    AttemptId, Broker, Commit, CommitOutcome, ControlRecord, EntryRead, Envelope, Incarnation, ItemValue,
    Sequence, Store, StoreAlias, Version, codec,
};
use tollgate_bench::{TOTAL, adder, seed, send};
use tollgate_brokers::InProcessBroker;
use tollgate_embedded::MemoryStore;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const IN_FLIGHT: usize = 256;

/// With so many partitions messages rarely meet, and with so few they always do and are folded.
const PARTITIONS: [u64; 2] = [1_000, 10];

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new(StoreAlias::new("main").expect("a valid name")))
}

/// How long a gate takes for so many messages, seeding not counted.
async fn through_the_gate(messages: u64, partitions: u64) -> Duration {
    let (store, broker) = (memory(), Arc::new(InProcessBroker::builder().build()) as Arc<dyn Broker>);
    let announced = seed(&*store, messages, partitions).await;
    let gate = Gate::builder().store(store).broker(Arc::clone(&broker)).endpoint(adder(IN_FLIGHT));
    let gate = gate.open().await.expect("the gate opens");
    let started = Instant::now();
    send(&broker, &announced).await;
    while gate.statistics().committed < messages {
        tokio::task::yield_now().await;
    }
    let elapsed = started.elapsed();
    gate.close().await;
    elapsed
}

/// The version that the n-th commit on a partition writes.
fn version(counter: u64) -> Version {
    Version::from_sequence(Sequence { incarnation: Incarnation(1), counter })
}

/// How long the store calls of so many messages take, their requests made before.
async fn by_hand(messages: u64, partitions: u64) -> Duration {
    let store = memory();
    let announced = seed(&*store, messages, partitions).await;
    let mut requests = Vec::new();
    for (message, n) in announced.into_iter().zip(0..) {
        let envelope: Envelope = codec::decode_envelope(&message.envelope).expect("an envelope");
        let token = envelope.token().expect("it has a token").clone();
        let number = n / partitions + 1;
        let control = ControlRecord {
            version: version(number),
            attempt: AttemptId::new(1, n),
            pending: Vec::new(),
            registrations: Vec::new(),
            sessions: Vec::new(),
        };
        let commit = Commit {
            expected: (number > 1).then(|| version(number - 1)),
            version: version(number),
            partition: message.partition,
            control: codec::encode_control(&control),
            items: vec![(TOTAL.try_into().expect("a valid name"), Some(ItemValue::Json("815".into())))],
            entries: Vec::new(),
            deleted_entries: Vec::new(),
            records: Vec::new(),
            now_ms: 0,
        };
        requests.push((EntryRead { token: token.clone(), sessions: Vec::new() }, commit, token));
    }
    let started = Instant::now();
    for (read, commit, token) in requests {
        assert!(matches!(store.read_entries(vec![read]).await[..], [Ok(Some(_))]));
        assert!(matches!(store.commit(commit).await, Ok(CommitOutcome::Committed { .. })));
        assert!(matches!(store.delete_entries(vec![token]).await[..], [Ok(None)]));
    }
    started.elapsed()
}

fn engine(criterion: &mut Criterion) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime starts");
    for partitions in PARTITIONS {
        let mut group = criterion.benchmark_group(format!("engine/{partitions}_partitions"));
        group.throughput(Throughput::Elements(1));
        group.bench_function("tollgate", |bencher| {
            bencher.iter_custom(|messages| runtime.block_on(through_the_gate(messages, partitions)));
        });
        group.bench_function("store_calls_by_hand", |bencher| {
            bencher.iter_custom(|messages| runtime.block_on(by_hand(messages, partitions)));
        });
        group.finish();
    }
}

criterion_group! { name = benches; config = settings::quick(); targets = engine }
criterion_main!(benches);
