//! Measures the in-memory store, whose price is in every measurement that uses it: a commit as a message makes it, and
//! entry reads in full batches.
//!
//! `cargo run --release -p tollgate-embedded --example memory_store`

#![allow(clippy::cast_precision_loss, reason = "figures for people")]

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use tollgate_embedded::MemoryStore;
use tollgate_proto::{
    Commit, CommitOutcome, EntryKey, EntryRead, Incarnation, ItemName, ItemValue, PartitionKey, Sequence,
    Store, StoreAlias, TokenRef, Version,
};

const PARTITIONS: usize = 1000;
const COMMITS: u64 = 500;
const READ_BATCH: usize = 100;
const ROUNDS: usize = 5;

/// The store's futures are ready at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => unreachable!("the in-memory store answers at once"),
    }
}

fn entry(counter: u64) -> EntryKey {
    EntryKey { sequence: Sequence { incarnation: Incarnation(1), counter }, index: 0 }
}

fn commit(partition: &PartitionKey, name: &ItemName, value: &Bytes, counter: u64) -> Commit {
    let version = |counter| Version::from_sequence(entry(counter).sequence);
    Commit {
        partition: partition.clone(),
        expected: (counter > 1).then(|| version(counter - 1)),
        version: version(counter),
        control: value.clone(),
        items: vec![(name.clone(), Some(ItemValue::Binary(value.clone())))],
        entries: vec![(entry(counter), value.clone())],
        deleted_entries: (counter > 1).then(|| entry(counter - 1)).into_iter().collect(),
        records: vec![],
        now_ms: 0,
    }
}

fn main() {
    let alias = StoreAlias::new("main").expect("a valid alias");
    let name = ItemName::new("item").expect("a valid name");
    let value = Bytes::from_static(&[7; 200]);
    let partitions: Vec<PartitionKey> = (0..PARTITIONS)
        .map(|number| PartitionKey::new(format!("p-{number}")).expect("a valid key"))
        .collect();
    for _ in 0..ROUNDS {
        let store = MemoryStore::new(alias.clone());
        let mut committing = std::time::Duration::ZERO;
        for counter in 1..=COMMITS {
            // Made beforehand: making a commit is the engine's work.
            let commits: Vec<Commit> =
                partitions.iter().map(|partition| commit(partition, &name, &value, counter)).collect();
            let begin = Instant::now();
            for commit in commits {
                let outcome = now(store.commit(commit));
                assert!(matches!(outcome, Ok(CommitOutcome::Committed { .. })));
            }
            committing += begin.elapsed();
        }
        let mut reading = std::time::Duration::ZERO;
        for _ in 0..COMMITS {
            for batch in partitions.chunks(READ_BATCH) {
                let reads = batch
                    .iter()
                    .map(|partition| EntryRead {
                        token: TokenRef {
                            store: alias.clone(),
                            partition: partition.clone(),
                            entry: entry(COMMITS),
                        },
                        sessions: vec![],
                    })
                    .collect();
                let begin = Instant::now();
                let answers = now(store.read_entries(reads));
                reading += begin.elapsed();
                assert!(answers.iter().all(|answer| matches!(answer, Ok(Some(_)))));
            }
        }
        let each = PARTITIONS as f64 * COMMITS as f64;
        println!(
            "a commit {:.0} ns   an entry read {:.0} ns ({READ_BATCH} a call)",
            committing.as_secs_f64() * 1e9 / each,
            reading.as_secs_f64() * 1e9 / each,
        );
    }
}
