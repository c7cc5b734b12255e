//! Measures what is left on the disk after many messages: each commits a change of state and an outbox entry, and the
//! entry is deleted when it was consumed. Beside it the engine, written directly with nothing but the last state.
//!
//! `cargo run --release -p tollgate-embedded --example footprint [-- DIRECTORY [MESSAGES]]`

#![allow(clippy::cast_precision_loss, reason = "figures for people")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use fjall::{Database, KeyspaceCreateOptions, PersistMode};
use tollgate_embedded::EmbeddedStore;
use tollgate_proto::{
    Commit, CommitOutcome, EntryKey, Incarnation, ItemName, ItemValue, PartitionKey, Sequence, Store,
    StoreAlias, TokenRef, Version,
};

const MESSAGES: u64 = 1_000_000;
const PARTITIONS: u64 = 1000;

/// Partitions at work at the same time.
const TASKS: u64 = 250;
const STATE_BYTES: usize = 1024;
const CONTROL_BYTES: usize = 64;
const ENTRY_BYTES: usize = 300;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let parent = arguments.next().unwrap_or_else(|| std::env::temp_dir().into());
    let messages =
        arguments.next().and_then(|number| number.into_string().ok()?.parse().ok()).unwrap_or(MESSAGES);
    let directory = tempfile::tempdir_in(parent).expect("a place to measure on");
    let path = directory.path().join("store");
    let alias = StoreAlias::new("main").expect("a valid alias");
    let store = Arc::new(EmbeddedStore::open(&path, alias.clone()).expect("the directory is empty and ours"));
    let each = messages / PARTITIONS;
    let begin = Instant::now();
    let mut largest = 0;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let (store, alias) = (Arc::clone(&store), alias.clone());
        tasks.spawn(async move {
            for number in (task..PARTITIONS).step_by(usize::try_from(TASKS).expect("a small number")) {
                process(&store, &alias, &partition(number), each).await;
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.expect("a task that does not panic");
        largest = largest.max(store.disk_usage().expect("the directory can be read"));
    }
    let seconds = begin.elapsed().as_secs_f64();
    let processed = (each * PARTITIONS) as f64;
    println!(
        "{processed} messages in {seconds:.0} s: {:.0} commits and as many deletions a second",
        processed / seconds
    );
    println!("most while at work    {largest:>12} bytes");
    println!("before the compaction {:>12} bytes", store.disk_usage().expect("the directory can be read"));
    let begin = Instant::now();
    store.compact().await.expect("the disk works");
    let compaction = begin.elapsed();
    println!(
        "after the compaction  {:>12} bytes ({compaction:.1?})",
        store.disk_usage().expect("the directory can be read")
    );
    drop(store);
    println!("as files' lengths     {:>12} bytes", lengths(&path));

    let direct = directory.path().join("direct");
    write_directly(&direct, each);
    let empty =
        EmbeddedStore::open(directory.path().join("empty"), alias).expect("the directory is empty and ours");
    println!("an empty store        {:>12} bytes", empty.disk_usage().expect("the directory can be read"));
    println!(
        "content: {} bytes of state, {} of control records",
        PARTITIONS * STATE_BYTES as u64,
        PARTITIONS * CONTROL_BYTES as u64
    );
    println!(
        "written directly      {:>12} bytes on the disk, {} as files' lengths",
        on_disk(&direct),
        lengths(&direct)
    );
}

async fn process(store: &EmbeddedStore, alias: &StoreAlias, partition: &PartitionKey, messages: u64) {
    for counter in 1..=messages {
        let version = |counter| Version::from_sequence(sequence(counter));
        let entry = EntryKey { sequence: sequence(counter), index: 0 };
        let commit = Commit {
            partition: partition.clone(),
            expected: (counter > 1).then(|| version(counter - 1)),
            version: version(counter),
            control: content(CONTROL_BYTES, counter),
            items: vec![(state(), Some(ItemValue::Binary(content(STATE_BYTES, counter))))],
            entries: vec![(entry, content(ENTRY_BYTES, counter))],
            deleted_entries: vec![],
            records: vec![],
            now_ms: 0,
        };
        let outcome = store.commit(commit).await;
        assert!(matches!(outcome, Ok(CommitOutcome::Committed { .. })), "{outcome:?}");
        let token = TokenRef { store: alias.clone(), partition: partition.clone(), entry };
        store.delete_entries(vec![token]).await.remove(0).expect("a deletion succeeds");
    }
}

fn write_directly(directory: &Path, counter: u64) {
    let database = Database::builder(directory).open().expect("the directory is empty and ours");
    let items =
        database.keyspace("items", KeyspaceCreateOptions::default).expect("a new keyspace can be made");
    let mut batch = database.batch().durability(Some(PersistMode::SyncData));
    for number in 0..PARTITIONS {
        let key = format!("{}/state", partition(number));
        batch.insert(&items, key, content(STATE_BYTES, counter).to_vec());
    }
    batch.commit().expect("a write succeeds");
}

fn partition(number: u64) -> PartitionKey {
    PartitionKey::new(format!("partition-{number:08}")).expect("a valid key")
}

fn state() -> ItemName {
    ItemName::new("state").expect("a valid name")
}

fn sequence(counter: u64) -> Sequence {
    Sequence { incarnation: Incarnation(1), counter }
}

/// Bytes that can't be compressed away.
fn content(length: usize, seed: u64) -> Bytes {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(seed ^ fastrand::u64(..)).fill(&mut bytes);
    bytes.into()
}

fn files(folder: &Path) -> Vec<fs::Metadata> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the directory can be read").map_while(Result::ok) {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => found.extend(files(&entry.path())),
            Ok(metadata) => found.push(metadata),
            Err(_) => {}
        }
    }
    found
}

fn lengths(folder: &Path) -> u64 {
    files(folder).iter().map(fs::Metadata::len).sum()
}

#[cfg(unix)]
fn on_disk(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    files(folder).iter().map(|file| file.blocks() * 512).sum()
}

#[cfg(not(unix))]
fn on_disk(folder: &Path) -> u64 {
    lengths(folder)
}
