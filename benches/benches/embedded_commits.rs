//! Durable commits of the embedded store, concurrent ones sharing a sync, against the engine underneath (fjall) given the
//! same content as one batch by hand: the difference is the store's own thread, queue and answers.

mod settings;

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use futures_util::future::join_all;
use tollgate::proto::{
    AttemptId, Commit, CommitOutcome, ControlRecord, Incarnation, ItemValue, PartitionKey, Store, StoreAlias,
    Version, codec,
};
use tollgate_embedded::EmbeddedStore;

/// Commits at a time: alone, and as many as a window of medium size has.
const GROUPS: [u64; 2] = [1, 64];
const ITEM: &str = "state";
const ITEM_BYTES: usize = 1_024;

fn partition(number: u64) -> PartitionKey {
    PartitionKey::new(format!("partition-{number:08}")).expect("a valid key")
}

fn control(version: Version) -> bytes::Bytes {
    codec::encode_control(&ControlRecord {
        version,
        attempt: AttemptId::new(1, 1),
        pending: Vec::new(),
        registrations: Vec::new(),
        sessions: Vec::new(),
    })
}

fn commit(number: u64, expected: Option<Version>, version: Version) -> Commit {
    let item = ItemValue::Binary(vec![b'x'; ITEM_BYTES].into());
    Commit {
        partition: partition(number),
        expected,
        version,
        control: control(version),
        items: vec![(ITEM.try_into().expect("a valid name"), Some(item))],
        entries: Vec::new(),
        deleted_entries: Vec::new(),
        records: Vec::new(),
        now_ms: 0,
    }
}

/// How long so many groups take, one after the other.
async fn through_the_store(groups: u64, size: u64) -> Duration {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let store = EmbeddedStore::open(directory.path(), StoreAlias::new("main").expect("a valid name"));
    let store: Arc<dyn Store> = Arc::new(store.expect("the store opens"));
    let (mut expected, mut version) = (None, Version::first(Incarnation(1)));
    let started = Instant::now();
    for _ in 0..groups {
        let answers = join_all((0..size).map(|number| store.commit(commit(number, expected, version)))).await;
        assert!(answers.iter().all(|answer| matches!(answer, Ok(CommitOutcome::Committed { .. }))));
        (expected, version) = (Some(version), version.next());
    }
    started.elapsed()
}

/// The same content in the same keyspaces, one batch a group.
fn by_hand(groups: u64, size: u64) -> Duration {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let database = Database::builder(directory.path()).open().expect("the database opens");
    let open = |name| -> Keyspace {
        database.keyspace(name, KeyspaceCreateOptions::default).expect("the keyspace opens")
    };
    let (controls, items) = (open("control"), open("items"));
    let mut version = Version::first(Incarnation(1));
    let started = Instant::now();
    for group in 0..groups {
        let mut batch = database.batch().durability(Some(PersistMode::SyncData));
        for number in 0..size {
            let Commit { partition, control, items: changes, .. } = commit(number, None, version);
            let known = controls.get(partition.as_str()).expect("the database reads");
            assert_eq!(known.is_some(), group > 0, "each partition is written once a group");
            batch.insert(&controls, partition.as_str(), &control[..]);
            for (name, value) in changes {
                let value = value.expect("nothing is deleted");
                batch.insert(&items, format!("{partition}/{name}"), &value.bytes()[..]);
            }
        }
        batch.commit().expect("the database writes");
        version = version.next();
    }
    started.elapsed()
}

fn embedded_commits(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime starts");
    for size in GROUPS {
        let mut group = criterion.benchmark_group(format!("embedded_commits/{size}_at_a_time"));
        group.throughput(Throughput::Elements(size));
        group.bench_function("tollgate", |bencher| {
            bencher.iter_custom(|groups| runtime.block_on(through_the_store(groups, size)));
        });
        group.bench_function("fjall", |bencher| bencher.iter_custom(|groups| by_hand(groups, size)));
        group.finish();
    }
}

criterion_group! { name = benches; config = settings::quick(); targets = embedded_commits }
criterion_main!(benches);
