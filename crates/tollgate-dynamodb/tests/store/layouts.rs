//! Partitions that change their layout while messages are on their way, both ways: items move, outputs stay where they were
//! created, and everything is found. And what lies apart in one commit is there or not there as a whole.

use std::sync::Arc;

use bytes::Bytes;
use tollgate_dynamodb::DynamoDbStore;
use tollgate_dynamodb_emulator::{InProcessDynamoDb, Operation};
use tollgate_proto::codec::encode_control;
use tollgate_proto::{
    AttemptId, Commit, CommitOutcome, ControlRecord, EntryKey, EntryRead, Incarnation, ItemName, ItemValue,
    LoadRequest, PartitionKey, Placement, Store, StoreAlias, TokenRef, Version,
};

use crate::tables::{in_process_store, two_stores_on_one_table};
use tollgate_testkit::ring::left_over;

const KILOBYTE: usize = 1024;

/// A partition that is written commit by commit, by any of its stores.
pub struct Partition {
    pub key: PartitionKey,
    pub version: Option<Version>,
}

impl Partition {
    pub fn new() -> Self {
        Self { key: PartitionKey::new("P").unwrap(), version: None }
    }

    /// A commit that puts items of these sizes (none: deletes) and sends messages of these sizes, with the places that the
    /// store wants for them.
    pub fn next(&self, store: &DynamoDbStore, items: &[(&str, Option<usize>)], entries: &[usize]) -> Commit {
        let version = self.version.map_or(Version::first(Incarnation(7)), Version::next);
        let record = ControlRecord {
            version,
            attempt: AttemptId::new(1, version.sequence().counter),
            pending: vec![],
            registrations: vec![],
            sessions: vec![],
        };
        let mut commit = Commit {
            partition: self.key.clone(),
            expected: self.version,
            version,
            control: encode_control(&record),
            items: items.iter().map(|(name, size)| (ItemName::new(name).unwrap(), size.map(value))).collect(),
            entries: vec![],
            deleted_entries: vec![],
            records: vec![],
            now_ms: 1_780_000_000_000,
        };
        let numbered = |placement: Placement| {
            entries.iter().zip(placement.first_index()..).map(move |(size, index)| {
                let key = EntryKey { sequence: version.sequence(), index };
                (key, Bytes::from(vec![b'e'; *size]))
            })
        };
        commit.entries = numbered(Placement::Together).collect();
        commit.entries = numbered(store.placement(&commit)).collect();
        commit
    }

    /// Commits what must go through.
    pub async fn commit(&mut self, store: &DynamoDbStore, commit: Commit) -> Vec<EntryKey> {
        let (version, keys) = (commit.version, commit.entries.iter().map(|(key, _)| *key).collect());
        let outcome = store.commit(commit).await.unwrap();
        assert!(matches!(outcome, CommitOutcome::Committed { .. }), "{outcome:?}");
        self.version = Some(version);
        keys
    }

    pub fn token(&self, entry: EntryKey) -> TokenRef {
        TokenRef { store: StoreAlias::new("main").unwrap(), partition: self.key.clone(), entry }
    }

    /// The sizes of these items.
    pub async fn sizes(&self, store: &DynamoDbStore, items: &[&str]) -> Vec<Option<usize>> {
        let request = LoadRequest {
            partition: self.key.clone(),
            items: items.iter().map(|name| ItemName::new(name).unwrap()).collect(),
            records: vec![],
        };
        let loaded = store.load(vec![request]).await.pop().unwrap().unwrap();
        loaded.items.into_iter().map(|(_, value)| value.map(|value| value.bytes().len())).collect()
    }

    /// The size of an entry, if it is there.
    pub async fn entry(&self, store: &DynamoDbStore, entry: EntryKey) -> Option<usize> {
        let read = EntryRead { token: self.token(entry), sessions: vec![] };
        store.read_entries(vec![read]).await.pop().unwrap().unwrap().map(|entry| entry.len())
    }

    pub async fn consume(&self, store: &DynamoDbStore, entries: &[EntryKey]) {
        let tokens = entries.iter().map(|entry| self.token(*entry)).collect();
        for answer in store.delete_entries(tokens).await {
            answer.unwrap();
        }
    }
}

fn value(size: usize) -> ItemValue {
    ItemValue::Binary(Bytes::from(vec![b'v'; size]))
}

/// How many transactions and single updates were made since `before`.
fn writes(dynamodb: &InProcessDynamoDb, before: &mut tollgate_dynamodb_emulator::WireCounts) -> (u64, u64) {
    let counts = dynamodb.counts();
    let since = counts.since(before);
    *before = counts;
    (since.of(Operation::TransactWriteItems).calls, since.of(Operation::UpdateItem).calls)
}

#[tokio::test]
async fn a_partition_that_grows_becomes_wide_and_back_again_while_its_messages_are_on_their_way() {
    let (dynamodb, store) = in_process_store().await;
    let mut before = dynamodb.counts();
    let mut partition = Partition::new();

    let small = partition.next(&store, &[("a", Some(100)), ("b", Some(200))], &[300]);
    let first = partition.commit(&store, small).await;
    assert_eq!(writes(&dynamodb, &mut before), (0, 1), "a small partition is one item");
    assert_eq!(first[0].placement(), Placement::Together);

    let grown = partition.next(&store, &[("b", Some(40 * KILOBYTE))], &[]);
    partition.commit(&store, grown).await;
    assert_eq!(
        writes(&dynamodb, &mut before),
        (0, 1),
        "a large item that is the only one that changes is cheaper alone"
    );
    let touched = partition.next(&store, &[("a", Some(110))], &[400; 3]);
    let second = partition.commit(&store, touched).await;
    assert_eq!(writes(&dynamodb, &mut before), (1, 0), "to write 40 KB because of 110 bytes is not");

    assert_eq!(partition.sizes(&store, &["a", "b", "c"]).await, [Some(110), Some(40 * KILOBYTE), None]);
    for entry in first.iter().chain(&second) {
        assert!(partition.entry(&store, *entry).await.is_some(), "{entry} is on its way");
    }

    let shrunk = partition.next(&store, &[("a", Some(90)), ("b", Some(90))], &[500]);
    let third = partition.commit(&store, shrunk).await;
    assert_eq!(writes(&dynamodb, &mut before), (1, 0), "what has changed once stays where it is");
    let again = partition.next(&store, &[("a", Some(85)), ("b", Some(85))], &[]);
    partition.commit(&store, again).await;
    assert_eq!(writes(&dynamodb, &mut before), (1, 0), "what changes again comes back, in one transaction");
    let compact = partition.next(&store, &[("a", Some(80)), ("b", Some(80))], &[]);
    partition.commit(&store, compact).await;
    assert_eq!(writes(&dynamodb, &mut before), (0, 1), "and the partition is one item again");

    assert_eq!(partition.sizes(&store, &["a", "b"]).await, [Some(80), Some(80)]);
    for entries in [first, second, third] {
        for entry in &entries {
            assert!(partition.entry(&store, *entry).await.is_some(), "{entry} stays where it was created");
        }
        partition.consume(&store, &entries).await;
        for entry in &entries {
            assert_eq!(partition.entry(&store, *entry).await, None);
        }
    }
    assert_eq!(left_over(&store).await, 0);
}

#[tokio::test]
async fn another_process_that_has_not_seen_the_change_conflicts_and_then_finds_everything() {
    let dynamodb = InProcessDynamoDb::new();
    let [one, other] = two_stores_on_one_table(&dynamodb).await;
    let mut partition = Partition::new();
    let first = partition.next(&one, &[("a", Some(100)), ("b", Some(40 * KILOBYTE))], &[]);
    partition.commit(&one, first).await;
    assert_eq!(partition.sizes(&other, &["a", "b"]).await, [Some(100), Some(40 * KILOBYTE)]);
    let stale = partition.next(&other, &[("a", Some(1))], &[]);
    // It becomes wide behind the other's back.
    let wide = partition.next(&one, &[("a", Some(120))], &[50]);
    partition.commit(&one, wide).await;

    assert_eq!(other.commit(stale).await.unwrap(), CommitOutcome::Conflict);
    assert_eq!(partition.sizes(&other, &["a", "b"]).await, [Some(120), Some(40 * KILOBYTE)]);
    let fresh = partition.next(&other, &[("a", Some(130))], &[60]);
    partition.commit(&other, fresh).await;
    assert_eq!(partition.sizes(&one, &["a", "b"]).await, [Some(130), Some(40 * KILOBYTE)]);
    let deleted = partition.next(&one, &[("a", None), ("b", None)], &[]);
    assert_eq!(one.commit(deleted.clone()).await.unwrap(), CommitOutcome::Committed { session: None });
    partition.version = Some(deleted.version);
    assert_eq!(partition.sizes(&other, &["a", "b"]).await, [None, None]);
}

#[tokio::test]
async fn a_store_that_remembers_nothing_looks_before_it_commits() {
    let dynamodb = InProcessDynamoDb::new();
    let [one, other] = two_stores_on_one_table(&dynamodb).await;
    let mut partition = Partition::new();
    let first = partition.next(&one, &[("a", Some(100)), ("b", Some(40 * KILOBYTE))], &[]);
    partition.commit(&one, first).await;
    let wide = partition.next(&one, &[("a", Some(120))], &[]);
    partition.commit(&one, wide).await;
    // The other one has never seen the partition, as after a restart, and is told the version by its engine.
    let blind = partition.next(&other, &[("a", Some(7)), ("c", Some(8))], &[]);
    partition.commit(&other, blind).await;
    assert_eq!(partition.sizes(&one, &["a", "b", "c"]).await, [Some(7), Some(40 * KILOBYTE), Some(8)]);
}

#[tokio::test]
async fn entries_for_which_the_main_item_has_no_room_lie_apart_and_are_found_and_deleted_there() {
    let (_dynamodb, store) = in_process_store().await;
    let mut partition = Partition::new();
    let mut entries = Vec::new();
    for _ in 0..6 {
        let mut commit = partition.next(&store, &[], &[90 * KILOBYTE]);
        // Whoever numbered them did not know how full the main item is.
        for (index, (key, _)) in commit.entries.iter_mut().enumerate() {
            key.index = u32::try_from(index).unwrap();
        }
        entries.extend(partition.commit(&store, commit).await);
    }
    let (kept, consumed) = entries.split_at(3);
    for entry in &entries {
        assert_eq!(entry.placement(), Placement::Together);
        assert_eq!(partition.entry(&store, *entry).await, Some(90 * KILOBYTE));
    }
    partition.consume(&store, consumed).await;
    for entry in consumed {
        assert_eq!(partition.entry(&store, *entry).await, None);
    }
    let mut last = partition.next(&store, &[("a", Some(10))], &[]);
    last.deleted_entries = kept.to_vec();
    partition.commit(&store, last).await;
    assert_eq!(left_over(&store).await, 0);
}

#[tokio::test]
async fn more_items_than_a_main_item_can_name_are_found_changed_and_deleted() {
    let (_dynamodb, store) = in_process_store().await;
    let mut partition = Partition::new();
    let names: Vec<String> = (0..150).map(|number| format!("item-{number}")).collect();
    for some in names.chunks(75) {
        let items: Vec<_> = some.iter().map(|name| (name.as_str(), Some(700))).collect();
        let commit = partition.next(&store, &items, &[]);
        partition.commit(&store, commit).await;
    }
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(partition.sizes(&store, &all).await, vec![Some(700); 150]);
    let commit = partition.next(&store, &[("item-3", None), ("item-149", Some(1)), ("new", Some(2))], &[]);
    partition.commit(&store, commit).await;
    assert_eq!(
        partition.sizes(&store, &["item-3", "item-149", "new", "item-4"]).await,
        [None, Some(1), Some(2), Some(700)]
    );
}

#[tokio::test]
async fn readers_see_a_partition_as_it_was_at_one_moment_while_it_changes_its_layout() {
    let dynamodb = InProcessDynamoDb::new();
    let [writer, reader] = two_stores_on_one_table(&dynamodb).await.map(Arc::new);
    let mut partition = Partition::new();
    let first = partition.next(&writer, &[("a", Some(1)), ("b", Some(1))], &[]);
    partition.commit(&writer, first).await;
    let key = partition.key.clone();
    let writing = tokio::spawn(async move {
        for round in 2..200 {
            // Both items have the same size in every version; every tenth version is large.
            let size = if round % 10 == 0 { 20 * KILOBYTE + round } else { round };
            let commit = partition.next(&writer, &[("a", Some(size)), ("b", Some(size))], &[]);
            partition.commit(&writer, commit).await;
            if round % 10 == 0 {
                let commit = partition.next(&writer, &[("c", Some(round))], &[]);
                partition.commit(&writer, commit).await;
            }
            tokio::task::yield_now().await;
        }
    });
    let view = Partition { key, version: None };
    while !writing.is_finished() {
        let sizes = view.sizes(&reader, &["a", "b"]).await;
        assert_eq!(sizes[0], sizes[1]);
        tokio::task::yield_now().await;
    }
    writing.await.unwrap();
}
