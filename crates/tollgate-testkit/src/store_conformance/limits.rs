//! Checks of promise 4: what fits the declared limits works, what exceeds them is refused with the limit's name and
//! leaves nothing behind. How many bytes a store adds to an item for its keys is the store's own business, so the exact
//! border is searched for between what must be accepted and what must be refused.

use std::sync::Arc;

use bytes::Bytes;
use tollgate_proto::{
    Commit, CommitOutcome, EntryKey, ItemValue, LimitExceeded, RecordWrite, Store, StoreError,
};

use super::partition::{FAR_MS, Partition, item_name, record_key};

/// Most bytes that a store may count for an item beyond its value: keys, names of attributes.
const ITEM_OVERHEAD_MAX: usize = 2048;

/// Limits beyond these can't be tried out on a machine that runs tests.
const TRIED_ITEMS_MAX: usize = 20_000;
const TRIED_BYTES_MAX: usize = 64 << 20;

/// Beyond this size only the two sides of the border are tried: a dozen commits to find it exactly take too long.
const SEARCHED_BYTES_MAX: usize = 16 << 20;

/// Items, entries, records and deletions count alike: as many as are declared work, one more is refused.
///
/// # Panics
/// If the store breaks this promise.
pub async fn a_transaction_at_its_limit_of_items_works_and_one_beyond_is_refused(store: Arc<dyn Store>) {
    let max = store.limits().transaction_items_max;
    if max > TRIED_ITEMS_MAX {
        return;
    }
    let mut partition = Partition::fresh(&store, "items-limit");
    let first = partition.put(&[], &[b"to be deleted"]).await;
    let with_items = |partition: &Partition, items: usize| {
        let mut commit = partition.next_commit();
        // The control record is one of the items; then one entry, one record and one deletion as far as there is room.
        let mut room = items - 1;
        let mut takes_one = || {
            let takes = room > 0;
            room = room.saturating_sub(1);
            takes
        };
        if takes_one() {
            let key = EntryKey { sequence: commit.version.sequence(), index: 0 };
            commit.entries = vec![(key, Bytes::from_static(b"entry"))];
        }
        if takes_one() {
            commit.records = vec![response(&commit.version.to_string(), 0)];
        }
        if takes_one() {
            commit.deleted_entries.clone_from(&first);
        }
        commit.items = (0..room).map(|item| (item_name(&format!("item-{item}")), value(1))).collect();
        commit
    };
    let refused = with_items(&partition, max + 1);
    assert_refused(&partition, refused, |limit| matches!(limit, LimitExceeded::TransactionItems { .. }))
        .await;
    assert_eq!(partition.entry(first[0]).await.as_deref(), Some(&b"to be deleted"[..]));
    let accepted = with_items(&partition, max);
    partition.commit(accepted).await;
    assert_eq!(partition.entry(first[0]).await, None);
}

/// An item as large as the store declares works, and one byte more is refused.
///
/// # Panics
/// If the store breaks this promise.
pub async fn an_item_at_its_limit_of_bytes_works_and_one_beyond_is_refused(store: Arc<dyn Store>) {
    find_border_of_one(&store, "item-limit", |partition, bytes| {
        let mut commit = partition.next_commit();
        commit.items = vec![(item_name("large"), value(bytes))];
        commit
    })
    .await;
}

/// An outbox entry as large as an item may be works, and one byte more is refused.
///
/// # Panics
/// If the store breaks this promise.
pub async fn an_entry_at_its_limit_of_bytes_works_and_one_beyond_is_refused(store: Arc<dyn Store>) {
    find_border_of_one(&store, "entry-limit", |partition, bytes| {
        let mut commit = partition.next_commit();
        let key = EntryKey { sequence: commit.version.sequence(), index: 0 };
        commit.entries = vec![(key, vec![7; bytes].into())];
        commit
    })
    .await;
}

/// A stored response as large as an item may be works, and one byte more is refused.
///
/// # Panics
/// If the store breaks this promise.
pub async fn a_response_at_its_limit_of_bytes_works_and_one_beyond_is_refused(store: Arc<dyn Store>) {
    find_border_of_one(&store, "response-limit", |partition, bytes| {
        let mut commit = partition.next_commit();
        commit.records = vec![response(&commit.version.to_string(), bytes)];
        commit
    })
    .await;
}

async fn find_border_of_one(
    store: &Arc<dyn Store>,
    name: &str,
    commit_with: impl Fn(&Partition, usize) -> Commit,
) {
    let limits = store.limits();
    let max = limits.item_bytes_max;
    // A transaction that holds less than one full item and a control record is checked by its own limit.
    if max > TRIED_BYTES_MAX || max > limits.transaction_bytes_max.saturating_sub(2 * ITEM_OVERHEAD_MAX) {
        return;
    }
    let partition = Partition::fresh(store, name);
    let border = Border { accepted: max.saturating_sub(ITEM_OVERHEAD_MAX), refused: max + 1 };
    border.find(partition, commit_with, |limit| matches!(limit, LimitExceeded::ItemBytes { .. })).await;
}

/// A transaction with as many bytes as the store declares works, and one byte more is refused.
///
/// # Panics
/// If the store breaks this promise.
pub async fn a_transaction_at_its_limit_of_bytes_works_and_one_beyond_is_refused(store: Arc<dyn Store>) {
    let limits = store.limits();
    let max = limits.transaction_bytes_max;
    if max > TRIED_BYTES_MAX {
        return;
    }
    // Evenly spread over items of half the size that an item may have, so that no item hits its own limit.
    let items = max / (limits.item_bytes_max / 2).max(1) + 1;
    if items >= limits.transaction_items_max {
        return;
    }
    let partition = Partition::fresh(&store, "transaction-limit");
    let commit_with = |partition: &Partition, bytes: usize| {
        let mut commit = partition.next_commit();
        let part = |item| bytes / items + usize::from(item < bytes % items);
        commit.items =
            (0..items).map(|item| (item_name(&format!("part-{item}")), value(part(item)))).collect();
        commit
    };
    let overhead_max = (items + 1) * ITEM_OVERHEAD_MAX;
    let border = Border { accepted: max.saturating_sub(overhead_max), refused: max + 1 };
    border
        .find(partition, commit_with, |limit| matches!(limit, LimitExceeded::TransactionBytes { .. }))
        .await;
}

/// Two sizes between which the store's exact border lies.
struct Border {
    accepted: usize,
    refused: usize,
}

impl Border {
    /// Tries both sizes and halves the distance until they are one byte apart: on both sides of the exact border the store
    /// did as it must.
    async fn find(
        mut self,
        mut partition: Partition,
        commit_with: impl Fn(&Partition, usize) -> Commit,
        is_expected: impl Fn(&LimitExceeded) -> bool,
    ) {
        let commit = commit_with(&partition, self.accepted);
        partition.commit(commit).await;
        let commit = commit_with(&partition, self.refused);
        assert_refused(&partition, commit, &is_expected).await;
        while self.refused <= SEARCHED_BYTES_MAX + 1 && self.refused - self.accepted > 1 {
            let middle = self.accepted.midpoint(self.refused);
            let commit = commit_with(&partition, middle);
            let version = commit.version;
            match partition.try_commit(commit.clone()).await {
                Ok(CommitOutcome::Committed { .. }) => {
                    partition.version = Some(version);
                    self.accepted = middle;
                }
                Err(StoreError::TooLarge { .. }) => {
                    assert_refused(&partition, commit, &is_expected).await;
                    self.refused = middle;
                }
                other => panic!("a commit with {middle} bytes was answered {other:?}"),
            }
        }
        partition.assert_version().await;
    }
}

async fn assert_refused(partition: &Partition, commit: Commit, is_expected: impl Fn(&LimitExceeded) -> bool) {
    let items: Vec<String> = commit.items.iter().map(|(name, _)| name.to_string()).collect();
    let items: Vec<&str> = items.iter().map(String::as_str).collect();
    let records: Vec<String> = commit.records.iter().map(|record| record.key.to_string()).collect();
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    let entries: Vec<EntryKey> = commit.entries.iter().map(|(key, _)| *key).collect();
    let before = partition.load(&items, &records).await;
    match partition.try_commit(commit).await {
        Err(StoreError::TooLarge { partition: key, limit, .. }) => {
            assert_eq!(key, partition.key, "the error names the partition");
            assert!(is_expected(&limit), "the wrong limit is named: {limit}");
        }
        other => panic!("a commit beyond the declared limits was answered {other:?}"),
    }
    assert_eq!(partition.load(&items, &records).await, before, "a refused commit left something behind");
    for entry in entries {
        assert_eq!(partition.entry(entry).await, None, "a refused commit left an entry behind");
    }
    partition.assert_version().await;
}

#[expect(clippy::unnecessary_wraps, reason = "an item of a commit is a value or its deletion")]
fn value(bytes: usize) -> Option<ItemValue> {
    Some(ItemValue::Binary(vec![7; bytes].into()))
}

fn response(key: &str, bytes: usize) -> RecordWrite {
    RecordWrite { key: record_key(key), response: vec![7; bytes].into(), expires_at_ms: FAR_MS }
}
