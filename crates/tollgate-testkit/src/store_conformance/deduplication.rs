//! Checks of deduplication records: conditional creation inside the commit, expiry, and the response they keep.

use std::sync::Arc;

use tollgate_proto::{CommitOutcome, Incarnation, Store, Version};

use super::partition::{FAR_MS, NOW_MS, Partition, binary, entries_of, item_name, record, record_key};

/// A time that has passed by any clock: a second after the Unix epoch.
const PAST_MS: u64 = 1_000;

/// A commit whose record exists changes nothing and says exactly which records exist.
///
/// # Panics
/// If the store breaks this promise.
pub async fn an_existing_record_refuses_the_commit_and_is_named(store: Arc<dyn Store>) {
    let mut partition = Partition::fresh(&store, "record-exists");
    let mut commit = partition.next_commit();
    commit.records = vec![record("message/1", b"", FAR_MS), record("message/3", b"", FAR_MS)];
    partition.commit(commit).await;

    let mut commit = partition.next_commit();
    commit.items = vec![(item_name("item"), Some(binary(b"ghost")))];
    commit.entries = entries_of(commit.version, &[b"ghost"]);
    commit.records =
        ["message/0", "message/1", "message/2", "message/3"].map(|key| record(key, b"new", FAR_MS)).into();
    let ghost = commit.entries[0].0;
    match partition.try_commit(commit).await {
        Ok(CommitOutcome::RecordsExist(mut keys)) => {
            keys.sort();
            assert_eq!(
                keys,
                [record_key("message/1"), record_key("message/3")],
                "exactly the existing records"
            );
        }
        other => panic!("a commit with records that exist was answered {other:?}"),
    }
    partition.assert_version().await;
    assert_eq!(partition.item("item").await, None, "a refused commit left an item behind");
    assert_eq!(partition.entry(ghost).await, None, "a refused commit left an entry behind");
    assert_eq!(partition.response("message/0").await, None, "a refused commit left a record behind");
    assert_eq!(
        partition.response("message/1").await.as_deref(),
        Some(&b""[..]),
        "a refused commit replaced a record"
    );

    let mut commit = partition.next_commit();
    commit.records = vec![record("message/0", b"", FAR_MS)];
    partition.commit(commit).await;
}

/// The version is looked at first: with a wrong one nothing is said about records.
///
/// # Panics
/// If the store breaks this promise.
pub async fn a_wrong_version_is_a_conflict_whatever_records_exist(store: Arc<dyn Store>) {
    let mut partition = Partition::fresh(&store, "version-first");
    let mut commit = partition.next_commit();
    commit.records = vec![record("message/1", b"", FAR_MS)];
    partition.commit(commit).await;
    let stale = Version::first(Incarnation(fastrand::u64(..)));
    let mut commit = partition.commit_of(Some(stale), stale.next());
    commit.records = vec![record("message/1", b"", FAR_MS)];
    let outcome = partition.try_commit(commit).await;
    assert!(matches!(outcome, Ok(CommitOutcome::Conflict)), "wrong version and existing record: {outcome:?}");
}

/// A record that expired before the commit's own time is no obstacle, and the new one takes its place.
///
/// # Panics
/// If the store breaks this promise.
pub async fn an_expired_record_counts_as_absent(store: Arc<dyn Store>) {
    let mut partition = Partition::fresh(&store, "expired");
    let expires_at_ms = NOW_MS + 1_000;
    let mut commit = partition.next_commit();
    commit.records = vec![record("message/1", b"old", expires_at_ms)];
    partition.commit(commit).await;

    let mut commit = partition.next_commit();
    commit.now_ms = expires_at_ms - 1;
    commit.records = vec![record("message/1", b"early", FAR_MS)];
    let outcome = partition.try_commit(commit).await;
    assert!(
        matches!(&outcome, Ok(CommitOutcome::RecordsExist(keys)) if *keys == [record_key("message/1")]),
        "a record was forgotten a millisecond before its time: {outcome:?}"
    );

    let mut commit = partition.next_commit();
    commit.now_ms = expires_at_ms + 1;
    commit.records = vec![record("message/1", b"new", FAR_MS)];
    partition.commit(commit).await;
    assert_eq!(partition.response("message/1").await.as_deref(), Some(&b"new"[..]));
}

/// What is answered to a repeated request is what was stored with the first.
///
/// # Panics
/// If the store breaks this promise.
pub async fn a_record_keeps_its_response(store: Arc<dyn Store>) {
    let mut partition = Partition::fresh(&store, "response");
    let response: Vec<u8> = (0..=255).collect();
    let mut commit = partition.next_commit();
    commit.records = vec![record("request/1", &response, FAR_MS), record("request/2", b"two", FAR_MS)];
    partition.commit(commit).await;
    partition.put(&[("item", b"value")], &[]).await;
    let loaded = partition.load(&[], &["request/2", "request/none", "request/1"]).await;
    let responses: Vec<_> = loaded.records.iter().map(|(_, response)| response.as_deref()).collect();
    assert_eq!(responses, [Some(&b"two"[..]), None, Some(&response[..])]);
}

/// Expired records go, all others and everything else stays. Stores that expire records by themselves may leave the
/// expired ones to their own clock.
///
/// # Panics
/// If the store breaks this promise.
pub async fn expiry_deletes_expired_records_and_no_others(store: Arc<dyn Store>) {
    let mut partition = Partition::fresh(&store, "expiry");
    let mut commit = partition.next_commit();
    commit.now_ms = 0;
    commit.items = vec![(item_name("item"), Some(binary(b"value")))];
    commit.entries = entries_of(commit.version, &[b"entry"]);
    commit.records = vec![
        record("request/past", b"past", PAST_MS),
        record("request/later", b"later", PAST_MS * 3),
        record("request/far", b"far", FAR_MS),
    ];
    let entry = commit.entries[0].0;
    partition.commit(commit).await;
    let expired = store.expire(PAST_MS * 2).await.expect("expiry of a healthy store succeeds");
    let loaded = partition.load(&[], &["request/past", "request/later", "request/far"]).await;
    if expired > 0 {
        assert_eq!(loaded.records[0].1, None, "an expired record is still there");
        assert_eq!(
            loaded.records[1].1.as_deref(),
            Some(&b"later"[..]),
            "a record was expired before its time"
        );
        let again = partition.next_commit();
        partition.commit(again).await;
    }
    assert_eq!(
        loaded.records[2].1.as_deref(),
        Some(&b"far"[..]),
        "a record was expired a year before its time"
    );
    assert_eq!(partition.item("item").await.as_deref(), Some(&b"value"[..]), "expiry deleted an item");
    assert_eq!(partition.entry(entry).await.as_deref(), Some(&b"entry"[..]), "expiry deleted an entry");
    partition.assert_version().await;
}
