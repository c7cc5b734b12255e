//! What the tests of this crate tell their stories with: one partition that is written commit by commit, and how to wait.
//! No test and no check lives here.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer, in its helpers as well")]
#![allow(dead_code, reason = "each test binary uses its own part")]

use bytes::Bytes;
use tollgate_proto::{
    Commit, CommitOutcome, EntryKey, EntryRead, Incarnation, ItemName, ItemValue, LoadRequest,
    LoadedPartition, PartitionKey, Sequence, Store, StoreAlias, StoreError, TokenRef, Version,
};

pub fn alias() -> StoreAlias {
    StoreAlias::new("main").unwrap()
}

pub fn partition(name: &str) -> PartitionKey {
    PartitionKey::new(name).unwrap()
}

pub fn item(name: &str) -> ItemName {
    ItemName::new(name).unwrap()
}

pub fn version(counter: u64) -> Version {
    Version::from_sequence(Sequence { incarnation: Incarnation(7), counter })
}

/// Expects nothing if `counter` is 1.
pub fn expected(counter: u64) -> Option<Version> {
    (counter > 1).then(|| version(counter - 1))
}

pub fn entry(counter: u64) -> EntryKey {
    EntryKey { sequence: version(counter).sequence(), index: 0 }
}

pub fn token(partition: &PartitionKey, counter: u64) -> TokenRef {
    TokenRef { store: alias(), partition: partition.clone(), entry: entry(counter) }
}

/// The commit number `counter` (from 1) of a partition: its control record and the items `a` and `b` say the number, and
/// there is one outbox entry of it.
pub fn commit(partition: &PartitionKey, counter: u64, item_bytes: usize) -> Commit {
    let value = |letter: u8| {
        let mut bytes = counter.to_le_bytes().to_vec();
        bytes.resize(item_bytes.max(8), letter);
        Some(ItemValue::Binary(bytes.into()))
    };
    Commit {
        partition: partition.clone(),
        expected: expected(counter),
        version: version(counter),
        control: Bytes::copy_from_slice(&counter.to_le_bytes()),
        items: vec![(item("a"), value(b'a')), (item("b"), value(b'b'))],
        entries: vec![(entry(counter), Bytes::copy_from_slice(&counter.to_le_bytes()))],
        deleted_entries: vec![],
        records: vec![],
        now_ms: 0,
    }
}

pub async fn must_commit(store: &impl Store, commit: Commit) {
    let outcome = store.commit(commit).await.unwrap();
    assert_eq!(outcome, CommitOutcome::Committed { session: None });
}

pub async fn load(store: &impl Store, partition: &PartitionKey) -> LoadedPartition {
    let items = vec![item("a"), item("b")];
    let request = LoadRequest { partition: partition.clone(), items, records: vec![] };
    store.load(vec![request]).await.remove(0).unwrap()
}

/// The numbers that the control record, `a` and `b` say; 0 where there is none.
pub async fn numbers(store: &impl Store, partition: &PartitionKey) -> [u64; 3] {
    let loaded = load(store, partition).await;
    let number = |bytes: &Bytes| u64::from_le_bytes(bytes[..8].try_into().unwrap());
    let of_item = |place: usize| loaded.items[place].1.as_ref().map_or(0, |value| number(value.bytes()));
    [loaded.control.as_ref().map_or(0, number), of_item(0), of_item(1)]
}

pub async fn read(store: &impl Store, token: TokenRef) -> Option<Bytes> {
    store.read_entries(vec![EntryRead { token, sessions: vec![] }]).await.remove(0).unwrap()
}

pub async fn delete(store: &impl Store, token: TokenRef) -> Result<(), StoreError> {
    store.delete_entries(vec![token]).await.remove(0).map(|_| ())
}
