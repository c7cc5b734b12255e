//! Checks of promise 1 under contention: of commits that race on one version at most one wins.

use std::sync::Arc;

use tokio::task::JoinSet;
use tollgate_proto::{CommitOutcome, Store};

use super::partition::{Partition, binary, item_name};

/// How many commits race on one version.
const RACERS: usize = 64;

/// How many tasks increment one number, and how often each.
const INCREMENTERS: usize = 8;
const INCREMENTS: usize = 8;

/// Of commits that race on one version exactly one wins, and its items, entry and version are what is there.
///
/// # Panics
/// If the store breaks this promise.
pub async fn of_64_commits_racing_on_one_version_exactly_one_wins(store: Arc<dyn Store>) {
    let mut partition = Partition::fresh(&store, "race");
    partition.put(&[("winner", b"nobody")], &[]).await;
    race(partition).await;
}

/// Of commits that race to create a control record exactly one wins.
///
/// # Panics
/// If the store breaks this promise.
pub async fn of_64_commits_racing_to_create_a_partition_exactly_one_wins(store: Arc<dyn Store>) {
    race(Partition::fresh(&store, "race-to-create")).await;
}

async fn race(partition: Partition) {
    let mut racers = JoinSet::new();
    for racer in 0..RACERS {
        let partition = partition.clone();
        racers.spawn(async move {
            let mut commit = partition.next_commit();
            let name = racer.to_string();
            commit.items = vec![
                (item_name("winner"), Some(binary(name.as_bytes()))),
                (item_name(&format!("racer-{racer}")), Some(binary(b"was here"))),
            ];
            let version = commit.version;
            (racer, version, partition.try_commit(commit).await)
        });
    }
    let mut winners = Vec::new();
    while let Some(finished) = racers.join_next().await {
        let (racer, version, outcome) = finished.expect("a racer does not panic");
        match outcome {
            Ok(CommitOutcome::Committed { .. }) => winners.push((racer, version)),
            Ok(CommitOutcome::Conflict) => {}
            other => panic!("racer {racer} was answered {other:?}, neither committed nor conflict"),
        }
    }
    let [(winner, version)] = winners[..] else {
        panic!("{} of {RACERS} racing commits won: {winners:?}", winners.len());
    };
    let partition = Partition { version: Some(version), ..partition };
    partition.assert_version().await;
    assert_eq!(partition.item("winner").await.as_deref(), Some(winner.to_string().as_bytes()));
    for racer in 0..RACERS {
        let trace = partition.item(&format!("racer-{racer}")).await;
        assert_eq!(trace.is_some(), racer == winner, "racer {racer} left {trace:?}, the winner is {winner}");
    }
}

/// Tasks that load, add one and commit, and start again at a conflict, add up to the right sum.
///
/// # Panics
/// If the store breaks this promise.
pub async fn increments_by_racing_tasks_are_never_lost(store: Arc<dyn Store>) {
    let mut partition = Partition::fresh(&store, "increments");
    partition.put(&[("sum", b"0")], &[]).await;
    let mut tasks = JoinSet::new();
    for _ in 0..INCREMENTERS {
        let partition = partition.clone();
        tasks.spawn(async move {
            for _ in 0..INCREMENTS {
                increment(&partition).await;
            }
        });
    }
    while let Some(finished) = tasks.join_next().await {
        finished.expect("an incrementer does not panic");
    }
    let sum = partition.item("sum").await.expect("the sum is there");
    assert_eq!(sum, (INCREMENTERS * INCREMENTS).to_string(), "every committed increment counts once");
}

async fn increment(partition: &Partition) {
    loop {
        let loaded = partition.load(&["sum"], &[]).await;
        let control = loaded.control.expect("the control record is there");
        let control = tollgate_proto::codec::decode_control(&control).expect("it is what was written");
        let value = loaded.items[0].1.as_ref().expect("the sum is there");
        let sum: usize = std::str::from_utf8(value.bytes())
            .expect("the sum is a text")
            .parse()
            .expect("the sum is a number");
        let mut commit = partition.commit_of(Some(control.version), control.version.next());
        commit.items = vec![(item_name("sum"), Some(binary((sum + 1).to_string().as_bytes())))];
        match partition.try_commit(commit).await {
            Ok(CommitOutcome::Committed { .. }) => return,
            Ok(CommitOutcome::Conflict) => tokio::task::yield_now().await,
            other => panic!("an increment was answered {other:?}, neither committed nor conflict"),
        }
    }
}
