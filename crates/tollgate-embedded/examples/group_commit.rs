//! Measures what the store adds to its engine: durable commits of 64 concurrent tasks through the `Store` trait, and the
//! same groups written to the engine directly, with the same checks of versions, in turns.
//!
//! `cargo run --release -p tollgate-embedded --example group_commit [-- DIRECTORY [ROUNDS]]`

#![allow(clippy::cast_precision_loss, reason = "figures for people")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use tollgate_embedded::EmbeddedStore;
use tollgate_proto::{
    Commit, CommitOutcome, EntryKey, Incarnation, ItemName, ItemValue, PartitionKey, Sequence, Store,
    StoreAlias, Version,
};

/// Partitions, each with a task that commits to it; and the commits of a direct group.
const TASKS: u32 = 64;
const ITEM_BYTES: usize = 1024;
const CONTROL_BYTES: usize = 128;
const ENTRY_BYTES: usize = 256;

/// How many items a partition has; each commit writes one of them, in turn.
const ITEMS: u64 = 16;

/// How long each side runs in a round.
const ROUND: Duration = Duration::from_secs(2);
const ROUNDS: usize = 5;

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let parent = arguments.next().unwrap_or_else(|| std::env::temp_dir().into());
    let rounds =
        arguments.next().and_then(|rounds| rounds.into_string().ok()?.parse().ok()).unwrap_or(ROUNDS);
    let directory = tempfile::tempdir_in(parent).expect("a place to measure on");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    let alias = StoreAlias::new("main").expect("a valid alias");
    let store = Arc::new(
        EmbeddedStore::open(directory.path().join("store"), alias).expect("the directory is empty and ours"),
    );
    let mut direct = Direct::open(&directory.path().join("direct"));
    let mut counters = vec![0; TASKS as usize];
    let mut figures = Vec::new();
    println!(
        "durable commits/s: {TASKS} tasks, a control record, an item of {ITEM_BYTES} bytes and an entry each"
    );
    for round in 0..rounds {
        // The one that begins changes, in case that one leaves the disk with work to do.
        let mut through_store = || {
            let before = store.statistics();
            let begin = Instant::now();
            counters = runtime.block_on(commit_for(&store, &counters, ROUND));
            let seconds = begin.elapsed().as_secs_f64();
            let after = store.statistics();
            let commits = (after.commits - before.commits) as f64;
            (commits / seconds, commits / (after.syncs - before.syncs) as f64)
        };
        let ((through, together), directly) = if round % 2 == 0 {
            (through_store(), direct.commit_for(ROUND))
        } else {
            let directly = direct.commit_for(ROUND);
            (through_store(), directly)
        };
        println!(
            "store {through:>7.0} ({together:>4.1} a sync)   direct {directly:>7.0}   ratio {:.2}",
            through / directly
        );
        figures.push((through, directly));
    }
    let median = |pick: fn(&(f64, f64)) -> f64| {
        let mut sorted: Vec<f64> = figures.iter().map(pick).collect();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    let (through, directly) = (median(|figure| figure.0), median(|figure| figure.1));
    let ratio = median(|figure| figure.0 / figure.1);
    println!("median: store {through:.0}, direct {directly:.0}, ratio {ratio:.2}");
}

async fn commit_for(store: &Arc<EmbeddedStore>, counters: &[u64], time: Duration) -> Vec<u64> {
    let is_over = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..TASKS)
        .zip(counters)
        .map(|(number, counter)| {
            let (store, is_over, mut counter) = (Arc::clone(store), Arc::clone(&is_over), *counter);
            tokio::spawn(async move {
                let partition = PartitionKey::new(partition(number)).expect("a valid key");
                while !is_over.load(Ordering::Relaxed) {
                    counter += 1;
                    let outcome = store.commit(commit(&partition, counter)).await;
                    assert!(matches!(outcome, Ok(CommitOutcome::Committed { .. })), "{outcome:?}");
                }
                counter
            })
        })
        .collect();
    let timer = {
        let is_over = Arc::clone(&is_over);
        std::thread::spawn(move || {
            std::thread::sleep(time);
            is_over.store(true, Ordering::Relaxed);
        })
    };
    let mut counters = Vec::new();
    for task in tasks {
        counters.push(task.await.expect("a task that does not panic"));
    }
    timer.join().expect("a timer that does not panic");
    counters
}

fn partition(number: u32) -> String {
    format!("partition-{number:08}")
}

fn sequence(counter: u64) -> Sequence {
    Sequence { incarnation: Incarnation(1), counter }
}

fn content(length: usize, counter: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(counter).fill(&mut bytes);
    bytes
}

fn commit(partition: &PartitionKey, counter: u64) -> Commit {
    let version = Version::from_sequence(sequence(counter));
    let name = ItemName::new(format!("item-{}", counter % ITEMS)).expect("a valid name");
    Commit {
        partition: partition.clone(),
        expected: (counter > 1).then(|| Version::from_sequence(sequence(counter - 1))),
        version,
        control: content(CONTROL_BYTES, counter).into(),
        items: vec![(name, Some(ItemValue::Binary(content(ITEM_BYTES, counter).into())))],
        entries: vec![(
            EntryKey { sequence: sequence(counter), index: 0 },
            Bytes::from(content(ENTRY_BYTES, counter)),
        )],
        deleted_entries: (counter > 1)
            .then(|| EntryKey { sequence: sequence(counter - 1), index: 0 })
            .into_iter()
            .collect(),
        records: vec![],
        now_ms: 0,
    }
}

/// The engine alone, with the same keys and values, as one would write them without the store.
struct Direct {
    database: Database,
    control: Keyspace,
    items: Keyspace,
    entries: Keyspace,
    counter: u64,
}

impl Direct {
    fn open(directory: &Path) -> Self {
        let database = Database::builder(directory).open().expect("the directory is empty and ours");
        let open = |name: &str| {
            database.keyspace(name, KeyspaceCreateOptions::default).expect("a new keyspace can be made")
        };
        let (control, items, entries) = (open("control"), open("items"), open("entries"));
        Self { database, control, items, entries, counter: 0 }
    }

    fn commit_for(&mut self, time: Duration) -> f64 {
        let (begin, first) = (Instant::now(), self.counter);
        while begin.elapsed() < time {
            self.commit_group();
        }
        let commits = (self.counter - first) * u64::from(TASKS);
        commits as f64 / begin.elapsed().as_secs_f64()
    }

    fn commit_group(&mut self) {
        self.counter += 1;
        let counter = self.counter;
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for number in 0..TASKS {
            let partition = partition(number);
            let stored = self.control.get(&partition).expect("a read succeeds");
            let version =
                stored.map_or(0, |record| u64::from_be_bytes(record[..8].try_into().expect("8 bytes")));
            assert_eq!(version, counter - 1, "nobody else writes");
            let mut record = counter.to_be_bytes().to_vec();
            record.extend(content(CONTROL_BYTES, counter));
            let item = format!("{partition}/item-{}", counter % ITEMS);
            let entry = |counter: u64| format!("{partition}/{counter:016x}");
            batch.insert(&self.items, item, content(ITEM_BYTES, counter));
            batch.insert(&self.entries, entry(counter), content(ENTRY_BYTES, counter));
            batch.remove(&self.entries, entry(counter - 1));
            batch.insert(&self.control, partition, record);
        }
        batch.commit().expect("a write succeeds");
    }
}
