//! Checks of promise 1 without contention: the condition on the version, and all or nothing.

use std::sync::Arc;

use bytes::Bytes;
use tollgate_proto::codec::decode_control;
use tollgate_proto::{
    Commit, CommitOutcome, EntryKey, Incarnation, ItemValue, LoadedPartition, Store, Version,
};

use super::partition::{FAR_MS, Partition, binary, control_of, entries_of, item_name, record, record_key};

/// How many commits are dropped, each a little later than the one before.
const DROPPED_COMMITS: usize = 32;

/// A store that works says so.
///
/// # Panics
/// If the store breaks this promise.
pub async fn a_usable_store_passes_its_own_verification(store: Arc<dyn Store>) {
    store.verify().await.expect("a store that is about to be tested is usable");
}

/// A partition that was never written is empty and no error.
///
/// # Panics
/// If the store breaks this promise.
pub async fn a_partition_that_was_never_written_is_empty(store: Arc<dyn Store>) {
    let partition = Partition::fresh(&store, "never-written");
    let loaded = partition.load(&["item"], &["record"]).await;
    let empty = LoadedPartition {
        control: None,
        items: vec![(item_name("item"), None)],
        records: vec![(record_key("record"), None)],
        session: loaded.session.clone(),
    };
    assert_eq!(loaded, empty);
    let sequence = Version::first(Incarnation(1)).sequence();
    assert_eq!(partition.entry(EntryKey { sequence, index: 0 }).await, None);
}

/// Items, entries, deduplication records and the control record of a commit are there when it is answered.
///
/// # Panics
/// If the store breaks this promise.
pub async fn everything_of_a_commit_is_there_once_it_is_answered(store: Arc<dyn Store>) {
    let mut partition = Partition::fresh(&store, "everything");
    let mut commit = partition.next_commit();
    commit.items = vec![(item_name("a"), Some(binary(b"1"))), (item_name("b"), Some(binary(b"2")))];
    commit.entries = entries_of(commit.version, &[b"first", b"second"]);
    commit.records = vec![record("request/1", b"answer", FAR_MS)];
    let keys: Vec<EntryKey> = commit.entries.iter().map(|(key, _)| *key).collect();
    partition.commit(commit).await;
    partition.assert_version().await;
    assert_eq!(partition.item("a").await.as_deref(), Some(&b"1"[..]));
    assert_eq!(partition.item("b").await.as_deref(), Some(&b"2"[..]));
    assert_eq!(partition.entry(keys[0]).await.as_deref(), Some(&b"first"[..]));
    assert_eq!(partition.entry(keys[1]).await.as_deref(), Some(&b"second"[..]));
    assert_eq!(partition.response("request/1").await.as_deref(), Some(&b"answer"[..]));
}

/// A commit with a wrong version changes no item, creates no entry and no record, deletes nothing.
///
/// # Panics
/// If the store breaks this promise.
pub async fn a_failed_condition_leaves_nothing_behind(store: Arc<dyn Store>) {
    let mut partition = Partition::fresh(&store, "failed-condition");
    let kept = partition.put(&[("kept", b"old"), ("deleted", b"old")], &[b"entry"]).await;
    let stale = Version::first(Incarnation(fastrand::u64(..)));
    assert_changes_nothing(&partition, partition.commit_of(Some(stale), stale.next()), kept[0]).await;
    assert_changes_nothing(&partition, partition.commit_of(None, stale), kept[0]).await;
}

async fn assert_changes_nothing(partition: &Partition, mut commit: Commit, kept: EntryKey) {
    commit.items = vec![
        (item_name("kept"), Some(binary(b"new"))),
        (item_name("created"), Some(binary(b"new"))),
        (item_name("deleted"), None),
    ];
    commit.entries = entries_of(commit.version, &[b"ghost"]);
    commit.deleted_entries = vec![kept];
    commit.records = vec![record("request/1", b"answer", FAR_MS)];
    let ghost = commit.entries[0].0;
    assert_conflict(partition, commit).await;
    partition.assert_version().await;
    assert_eq!(partition.item("kept").await.as_deref(), Some(&b"old"[..]));
    assert_eq!(partition.item("created").await, None, "an item of a failed commit is there");
    assert_eq!(partition.item("deleted").await.as_deref(), Some(&b"old"[..]));
    assert_eq!(partition.entry(ghost).await, None, "an entry of a failed commit is there: a ghost message");
    assert_eq!(partition.entry(kept).await.as_deref(), Some(&b"entry"[..]));
    assert_eq!(partition.response("request/1").await, None, "a record of a failed commit is there");
}

async fn assert_conflict(partition: &Partition, commit: Commit) {
    let (expected, known) = (commit.expected, partition.version);
    let outcome = partition.try_commit(commit).await;
    assert!(
        matches!(outcome, Ok(CommitOutcome::Conflict)),
        "a commit that expects version {expected:?} where {known:?} is was answered {outcome:?}"
    );
}

/// The same counter of another life of the partition is another version.
///
/// # Panics
/// If the store breaks this promise.
pub async fn a_version_of_another_incarnation_conflicts(store: Arc<dyn Store>) {
    let mut partition = Partition::fresh(&store, "incarnation");
    partition.put(&[], &[]).await;
    let known = partition.version.expect("it was just committed").sequence().incarnation;
    let other = Version::first(Incarnation(known.0 ^ 1));
    assert_conflict(&partition, partition.commit_of(Some(other), other.next())).await;
    partition.assert_version().await;
}

/// A version that the partition once had is not the version it has.
///
/// # Panics
/// If the store breaks this promise.
pub async fn an_older_version_conflicts(store: Arc<dyn Store>) {
    let mut partition = Partition::fresh(&store, "older");
    partition.put(&[], &[]).await;
    let older = partition.version.expect("it was just committed");
    partition.put(&[], &[]).await;
    assert_conflict(&partition, partition.commit_of(Some(older), older.next().next())).await;
    partition.assert_version().await;
}

/// Whoever creates a partition that exists conflicts.
///
/// # Panics
/// If the store breaks this promise.
pub async fn a_commit_that_expects_no_control_record_conflicts_with_one(store: Arc<dyn Store>) {
    let mut partition = Partition::fresh(&store, "exists");
    partition.put(&[], &[]).await;
    let first = Version::first(Incarnation(fastrand::u64(..)));
    assert_conflict(&partition, partition.commit_of(None, first)).await;
    partition.assert_version().await;
}

/// Whoever goes on with a partition that does not exist conflicts, and does not create it.
///
/// # Panics
/// If the store breaks this promise.
pub async fn a_commit_that_expects_a_control_record_conflicts_where_there_is_none(store: Arc<dyn Store>) {
    let partition = Partition::fresh(&store, "absent");
    let version = Version::first(Incarnation(fastrand::u64(..)));
    let mut commit = partition.commit_of(Some(version), version.next());
    commit.items = vec![(item_name("created"), Some(binary(b"new")))];
    assert_conflict(&partition, commit).await;
    let loaded = partition.load(&["created"], &[]).await;
    assert_eq!(loaded.control, None);
    assert_eq!(loaded.items, [(item_name("created"), None)]);
}

/// Whoever stops waiting for a commit may find all of it or nothing, but no part, and can go on from there.
///
/// # Panics
/// If the store breaks this promise.
pub async fn a_dropped_commit_happens_entirely_or_not_at_all(store: Arc<dyn Store>) {
    let mut partition = Partition::fresh(&store, "dropped");
    partition.put(&[], &[]).await;
    for round in 0..DROPPED_COMMITS {
        let value = round.to_be_bytes();
        let mut commit = partition.next_commit();
        commit.items = ["left", "right"].map(|name| (item_name(name), Some(binary(&value)))).into();
        commit.entries = entries_of(commit.version, &[&value]);
        let entry = commit.entries[0].0;
        // It is dropped a little later in each round, so that it is hit at different places where it waits.
        tokio::select! {
            biased;
            _ = partition.try_commit(commit) => {}
            () = yield_often(round) => {}
        }
        // A commit that was dropped may still be under way; after another one with its version it can't happen any more.
        fence(&mut partition).await;
        let left = partition.item("left").await.as_deref() == Some(&value);
        let right = partition.item("right").await.as_deref() == Some(&value);
        let sent = partition.entry(entry).await.is_some();
        assert!(
            left == right && left == sent,
            "half a dropped commit: left {left}, right {right}, entry {sent}"
        );
    }
}

async fn yield_often(times: usize) {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}

/// Commits on whatever version there is.
async fn fence(partition: &mut Partition) {
    loop {
        let control = partition.load(&[], &[]).await.control.expect("it was created before");
        let version = decode_control(&control).expect("it is what was written").version;
        match partition.try_commit(partition.commit_of(Some(version), version.next().next())).await {
            Ok(CommitOutcome::Committed { .. }) => {
                partition.version = Some(version.next().next());
                return;
            }
            Ok(CommitOutcome::Conflict) => tokio::task::yield_now().await,
            other => panic!("a commit after a dropped one was answered {other:?}"),
        }
    }
}

/// Deletions of items and entries happen with the commit that names them; what is missing already is no error.
///
/// # Panics
/// If the store breaks this promise.
pub async fn a_commit_deletes_the_items_and_entries_that_it_names(store: Arc<dyn Store>) {
    let mut partition = Partition::fresh(&store, "deletes");
    let keys = partition.put(&[("a", b"1"), ("b", b"2")], &[b"first", b"second", b"third"]).await;
    partition.delete(keys[2]).await;
    let mut commit = partition.next_commit();
    commit.items = vec![(item_name("a"), None), (item_name("never-there"), None)];
    commit.deleted_entries = vec![keys[0], keys[2]];
    partition.commit(commit).await;
    assert_eq!(partition.item("a").await, None, "a deleted item is there");
    assert_eq!(partition.item("b").await.as_deref(), Some(&b"2"[..]));
    assert_eq!(partition.entry(keys[0]).await, None, "an entry that a commit deleted is there");
    assert_eq!(partition.entry(keys[1]).await.as_deref(), Some(&b"second"[..]));
    assert_eq!(partition.entry(keys[2]).await, None, "a commit brought a deleted entry back");
}

/// Items, entries and records of earlier commits stay, and other partitions see nothing.
///
/// # Panics
/// If the store breaks this promise.
pub async fn a_commit_touches_nothing_that_it_does_not_name(store: Arc<dyn Store>) {
    let mut partition = Partition::fresh(&store, "untouched");
    let mut neighbour = Partition::fresh(&store, "untouched-neighbour");
    neighbour.put(&[("a", b"neighbour")], &[]).await;
    let keys = partition.put(&[("a", b"1")], &[b"entry"]).await;
    let mut commit = partition.next_commit();
    commit.records = vec![record("request/1", b"answer", FAR_MS)];
    commit.items = vec![(item_name("b"), Some(ItemValue::Binary(Bytes::from_static(b"2"))))];
    partition.commit(commit).await;
    partition.put(&[("c", b"3")], &[b"another"]).await;
    assert_eq!(partition.item("a").await.as_deref(), Some(&b"1"[..]));
    assert_eq!(partition.item("b").await.as_deref(), Some(&b"2"[..]));
    assert_eq!(partition.entry(keys[0]).await.as_deref(), Some(&b"entry"[..]));
    assert_eq!(partition.response("request/1").await.as_deref(), Some(&b"answer"[..]));
    let loaded = neighbour.load(&["a", "b", "c"], &["request/1"]).await;
    assert_eq!(loaded.control, neighbour.version.map(control_of));
    assert_eq!(loaded.items[0].1, Some(binary(b"neighbour")));
    assert_eq!((&loaded.items[1].1, &loaded.items[2].1, &loaded.records[0].1), (&None, &None, &None));
}
