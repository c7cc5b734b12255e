//! What a naive consumer does to the store for each message: it gets an item and puts it. It deduplicates nothing; how it gets its
//! messages is its program's business.

use bytes::Bytes;
use tollgate::proto::{
    AttemptId, Commit, CommitOutcome, ControlRecord, Incarnation, ItemName, ItemValue, LoadRequest,
    PartitionKey, Store, StoreError, Version, codec,
};

use crate::TOTAL;

/// Adds one to the total of a partition. `false`: somebody else was faster; the put is conditional because the store knows no other.
///
/// # Errors
/// If the store fails.
///
/// # Panics
/// If the store holds something that was not put there by this or by Tollgate.
pub async fn get_and_put(store: &dyn Store, partition: &PartitionKey) -> Result<bool, StoreError> {
    let item = ItemName::new(TOTAL).expect("a valid name");
    let request =
        LoadRequest { partition: partition.clone(), items: vec![item.clone()], records: Vec::new() };
    let loaded = store.load(vec![request]).await.pop().expect("one answer to one request")?;
    let total: u64 = match loaded.items.into_iter().next() {
        Some((_, Some(value))) => serde_json::from_slice(value.bytes()).expect("a total is a number"),
        _ => 0,
    };
    let control = loaded.control.map(|bytes| codec::decode_control(&bytes).expect("a control record"));
    let expected = control.map(|control| control.version);
    let version = expected.map_or_else(|| Version::first(Incarnation(1)), Version::next);
    let control = ControlRecord {
        version,
        attempt: AttemptId::new(0, 0),
        pending: Vec::new(),
        registrations: Vec::new(),
        sessions: Vec::new(),
    };
    let commit = Commit {
        partition: partition.clone(),
        expected,
        version,
        control: codec::encode_control(&control),
        items: vec![(item, Some(ItemValue::Json(Bytes::from((total + 1).to_string()))))],
        entries: Vec::new(),
        deleted_entries: Vec::new(),
        records: Vec::new(),
        now_ms: 0,
    };
    Ok(matches!(store.commit(commit).await?, CommitOutcome::Committed { .. }))
}
