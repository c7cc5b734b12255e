//! Checks of promise 3: an outbox entry is a token, and a token that was consumed is never seen again by anybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::task::JoinSet;
use tollgate_proto::{EntryKey, Incarnation, Sequence, Store, StoreAlias, StoreError, TokenRef};

use super::partition::Partition;

/// How often the race between readers and deleters of one entry is run.
const ROUNDS: usize = 16;

/// How many tasks read, and how many delete, one entry at the same time.
const READERS: usize = 4;
const DELETERS: usize = 2;

/// How often each reader reads on once it knows of the deletion.
const READS_AFTER: usize = 8;

/// After a confirmed deletion no read returns the entry; the other entries of the same commit stay.
///
/// # Panics
/// If the store breaks this promise.
pub async fn a_deleted_entry_is_never_read_again(store: Arc<dyn Store>) {
    let mut partition = Partition::fresh(&store, "deleted-entry");
    let keys = partition.put(&[], &[b"first", b"second"]).await;
    partition.delete(keys[0]).await;
    assert_eq!(partition.entry(keys[0]).await, None, "a consumed token was found again");
    assert_eq!(partition.entry(keys[1]).await.as_deref(), Some(&b"second"[..]));
    partition.put(&[("item", b"value")], &[b"later"]).await;
    assert_eq!(partition.entry(keys[0]).await, None, "a later commit brought a consumed token back");
}

/// Deletions, reads and commits on the same partition run at once: whoever reads after any deleter was answered does not
/// find the entry.
///
/// # Panics
/// If the store breaks this promise.
pub async fn no_reader_finds_an_entry_after_any_deleter_was_answered(store: Arc<dyn Store>) {
    let mut partition = Partition::fresh(&store, "delete-race");
    for _ in 0..ROUNDS {
        let key = partition.put(&[], &[b"token"]).await[0];
        let deleted = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for _ in 0..READERS {
            tasks.spawn(read_until_deleted(partition.clone(), key, Arc::clone(&deleted)));
        }
        for _ in 0..DELETERS {
            let (partition, deleted) = (partition.clone(), Arc::clone(&deleted));
            tasks.spawn(async move {
                partition.delete(key).await;
                deleted.store(true, Ordering::SeqCst);
            });
        }
        partition.put(&[("item", b"value")], &[b"bystander"]).await;
        while let Some(finished) = tasks.join_next().await {
            finished.expect("no reader finds a token that was consumed before it asked");
        }
    }
}

async fn read_until_deleted(partition: Partition, key: EntryKey, deleted: Arc<AtomicBool>) {
    let mut reads_after = 0;
    while reads_after < READS_AFTER {
        let was_deleted = deleted.load(Ordering::SeqCst);
        let found = partition.entry(key).await;
        if was_deleted {
            assert_eq!(found, None, "a token was read after its deletion had been answered");
            reads_after += 1;
        }
        tokio::task::yield_now().await;
    }
}

/// Deleting what was deleted before, or never existed, succeeds and creates nothing.
///
/// # Panics
/// If the store breaks this promise.
pub async fn deleting_a_missing_entry_succeeds(store: Arc<dyn Store>) {
    let mut partition = Partition::fresh(&store, "missing-entry");
    let sequence = Sequence { incarnation: Incarnation(fastrand::u64(..)), counter: 1 };
    let missing = EntryKey { sequence, index: 0 };
    partition.delete(missing).await;
    assert_eq!(partition.entry(missing).await, None, "a deletion created an entry");
    assert_eq!(partition.load(&[], &[]).await.control, None, "a deletion created a control record");
    let key = partition.put(&[], &[b"entry"]).await[0];
    partition.delete(missing).await;
    partition.delete(key).await;
    partition.delete(key).await;
    assert_eq!(partition.entry(key).await, None);
    partition.assert_version().await;
}

/// A consumer that deletes an entry does not make the sender's next commit fail.
///
/// # Panics
/// If the store breaks this promise.
pub async fn deleting_entries_does_not_disturb_the_version_check_of_their_sender(store: Arc<dyn Store>) {
    let mut partition = Partition::fresh(&store, "undisturbed");
    let keys = partition.put(&[("item", b"value")], &[b"first", b"second"]).await;
    partition.delete(keys[0]).await;
    partition.assert_version().await;
    partition.put(&[], &[]).await;
    partition.delete(keys[1]).await;
    partition.put(&[], &[]).await;
    assert_eq!(partition.item("item").await.as_deref(), Some(&b"value"[..]));
}

/// Neighbours in any part of the key are other entries.
///
/// # Panics
/// If the store breaks this promise.
pub async fn entries_are_told_apart_by_incarnation_counter_and_index(store: Arc<dyn Store>) {
    let mut partition = Partition::fresh(&store, "told-apart");
    let mut keys = partition.put(&[], &[b"1.0", b"1.1"]).await;
    keys.extend(partition.put(&[], &[b"2.0"]).await);
    let Sequence { incarnation, counter } = keys[0].sequence;
    let never = [
        EntryKey { sequence: Sequence { incarnation: Incarnation(incarnation.0 ^ 1), counter }, index: 0 },
        EntryKey { sequence: Sequence { incarnation, counter: counter + 10 }, index: 0 },
        EntryKey { sequence: keys[0].sequence, index: 10 },
    ];
    for key in never {
        assert_eq!(partition.entry(key).await, None, "entry {key} was never written");
        partition.delete(key).await;
    }
    let elsewhere = Partition::fresh(&store, "told-apart-elsewhere");
    for (key, body) in keys.iter().zip(["1.0", "1.1", "2.0"]) {
        assert_eq!(partition.entry(*key).await, Some(Bytes::from(body)));
        assert_eq!(elsewhere.entry(*key).await, None, "another partition shows entry {key}");
    }
}

/// A token that names another store is an error of its own: its partition here is somebody else's. The others of the same
/// call are answered.
///
/// # Panics
/// If the store breaks this promise.
pub async fn a_token_of_another_store_is_refused_and_its_companions_are_answered(store: Arc<dyn Store>) {
    let mut partition = Partition::fresh(&store, "foreign");
    let key = partition.put(&[], &[b"entry"]).await[0];
    let alias = format!("{}-other", store.alias());
    let other = StoreAlias::new(alias).expect("an alias of a store under test is short");
    let foreign = TokenRef { store: other, ..partition.token(key) };
    let mut foreign_read = partition.read_of(key);
    foreign_read.token = foreign.clone();

    let answers =
        store.read_entries(vec![partition.read_of(key), foreign_read, partition.read_of(key)]).await;
    assert_eq!(answers.len(), 3, "three reads have three answers");
    assert_eq!(answers[0].as_ref().ok(), Some(&Some(Bytes::from_static(b"entry"))));
    assert!(is_foreign(&answers[1], &foreign), "a read of a foreign token was answered {:?}", answers[1]);
    assert_eq!(answers[2].as_ref().ok(), Some(&Some(Bytes::from_static(b"entry"))));

    let answers = store.delete_entries(vec![foreign.clone()]).await;
    assert_eq!(answers.len(), 1, "one deletion has one answer");
    assert!(is_foreign(&answers[0], &foreign), "a foreign deletion was answered {:?}", answers[0]);
    assert_eq!(
        partition.entry(key).await.as_deref(),
        Some(&b"entry"[..]),
        "a foreign token deleted an entry"
    );
    let answers = store.delete_entries(vec![foreign.clone(), partition.token(key)]).await;
    assert!(is_foreign(&answers[0], &foreign) && answers[1].is_ok(), "mixed deletions: {answers:?}");
    assert_eq!(partition.entry(key).await, None);
}

fn is_foreign<T>(answer: &Result<T, StoreError>, foreign: &TokenRef) -> bool {
    matches!(answer, Err(StoreError::ForeignToken { token, .. }) if token == foreign)
}
