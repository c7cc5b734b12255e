//! kill -9: a child process commits and says what was confirmed; it is killed at a random moment, again and again on one
//! directory, and each time the store must open with everything that was confirmed and nothing by halves.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer, in its helpers as well")]

mod story;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use story::{alias, commit, delete, must_commit, numbers, partition, read, token};
use tollgate_embedded::EmbeddedStore;

const KILLS: usize = 20;
const PARTITIONS: usize = 16;

/// Most confirmations that are waited for before the kill.
const CONFIRMATIONS_MAX: usize = 2000;

/// Every partition's items are so large that a group is many pages.
const ITEM_BYTES: usize = 3000;

const CHILD_DIRECTORY: &str = "TOLLGATE_TEST_CHILD_DIRECTORY";
const CHILD_SEED: &str = "TOLLGATE_TEST_CHILD_SEED";

/// What the child was told is durable, of one partition.
#[derive(Clone, Default)]
struct Confirmed {
    commit: u64,
    /// Not every commit has one: a kill may come between the two.
    deletions: Vec<u64>,
}

fn name(number: usize) -> tollgate_proto::PartitionKey {
    partition(&format!("partition-{number}"))
}

#[tokio::test]
async fn every_confirmed_commit_and_deletion_survives_twenty_kills_and_none_by_halves() {
    let seed =
        std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("replay with SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let directory = tempfile::tempdir().unwrap();
    let mut confirmed = HashMap::new();
    for kill in 0..KILLS {
        let before: u64 = confirmed.values().map(|one: &Confirmed| one.commit).sum();
        run_and_kill(directory.path(), &mut random, &mut confirmed);
        let after: u64 = confirmed.values().map(|one| one.commit).sum();
        assert!(after > before, "kill {kill}: the child confirmed nothing");
        let store = EmbeddedStore::open(directory.path(), alias()).unwrap();
        for number in 0..PARTITIONS {
            let here = name(number);
            let one = confirmed.get(&number).cloned().unwrap_or_default();
            let [control, a, b] = numbers(&store, &here).await;
            let context = format!("kill {kill}, partition {number}, SEED={seed}");
            assert!(control >= one.commit, "{context}: commit {} is lost, {control} is there", one.commit);
            assert!(control == a && control == b, "{context}: half a commit: {control} {a} {b}");
            for counter in one.deletions {
                assert_eq!(
                    read(&store, token(&here, counter)).await,
                    None,
                    "{context}: a deletion was undone"
                );
            }
            // Deletions follow their commit, so the newest entry may be gone, but none from after the newest commit is there.
            assert_eq!(read(&store, token(&here, control + 1)).await, None, "{context}: a ghost");
        }
    }
}

fn run_and_kill(directory: &Path, random: &mut fastrand::Rng, confirmed: &mut HashMap<usize, Confirmed>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_child_that_is_killed", "--ignored", "--nocapture"])
        .env(CHILD_DIRECTORY, directory)
        .env(CHILD_SEED, random.u64(..).to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut confirmations = random.usize(1..=CONFIRMATIONS_MAX);
    let mut is_killed = false;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let [kind @ ("committed" | "deleted"), number, counter, "."] = words[..] else { continue };
        let one = confirmed.entry(number.parse().unwrap()).or_default();
        let counter: u64 = counter.parse().unwrap();
        match kind {
            "committed" => one.commit = one.commit.max(counter),
            _ => one.deletions.push(counter),
        }
        confirmations = confirmations.saturating_sub(1);
        if confirmations == 0 && !is_killed {
            // SIGKILL. What it had said by then is still read.
            child.kill().unwrap();
            is_killed = true;
        }
    }
    assert!(is_killed, "the child ended by itself: {:?}", child.wait());
    child.wait().unwrap();
}

/// One write for a line, so that a kill can't leave half of one that looks whole.
fn say(kind: &str, number: usize, counter: u64) {
    let line = format!("{kind} {number} {counter} .\n");
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the child process of every_confirmed_commit_and_deletion_survives_twenty_kills_and_none_by_halves"]
async fn the_child_that_is_killed() {
    let directory = std::env::var_os(CHILD_DIRECTORY).unwrap();
    let mut random = fastrand::Rng::with_seed(std::env::var(CHILD_SEED).unwrap().parse().unwrap());
    println!();
    let store = Arc::new(EmbeddedStore::open(directory, alias()).unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..PARTITIONS {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let here = name(number);
            let [mut counter, ..] = numbers(&*store, &here).await;
            loop {
                counter += 1;
                must_commit(&*store, commit(&here, counter, ITEM_BYTES)).await;
                say("committed", number, counter);
                delete(&*store, token(&here, counter)).await.unwrap();
                say("deleted", number, counter);
            }
        });
    }
    // In some lives journals are emptied and tables merged all the time.
    while random.bool() {
        store.compact().await.unwrap();
    }
    tasks.join_all().await;
}
