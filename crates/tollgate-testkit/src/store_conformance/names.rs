//! Checks that names are only names: prefixes of each other, separators of somebody's key layout, odd characters and
//! names at their longest are all told apart.

use std::sync::Arc;

use tollgate_proto::ids::{NAME_BYTES_MAX, PARTITION_KEY_BYTES_MAX};
use tollgate_proto::{CommitOutcome, Store};

use super::partition::{FAR_MS, Partition, item_name, record, record_key};

/// Endings that turn one name into another one that a careless layout takes for it.
const LOOK_ALIKES: [&str; 22] = [
    "",
    "a",
    "aa",
    "a/",
    "/",
    "//",
    "a/b",
    "\0",
    "\0\0",
    "a\0",
    "\u{1}",
    "\u{ff}",
    "\u{10ffff}",
    " ",
    "a ",
    "A",
    "#",
    ":",
    "%",
    "%2F",
    "ü",
    "u\u{308}",
];

fn look_alikes(base: &str, bytes_max: usize) -> Vec<String> {
    let mut names: Vec<String> = LOOK_ALIKES.iter().map(|ending| format!("{base}{ending}")).collect();
    let longest = format!("{base}{}", "x".repeat(bytes_max - base.len()));
    names.push(format!("{}y", &longest[..bytes_max - 1]));
    names.push(longest[..bytes_max - 1].to_owned());
    names.push(longest);
    names
}

/// Partitions whose keys look alike hold their own items, entries and records.
///
/// # Panics
/// If the store breaks this promise.
pub async fn partition_keys_that_look_alike_do_not_mix(store: Arc<dyn Store>) {
    let base = format!("key-{:016x}", fastrand::u64(..));
    let mut written = Vec::new();
    for key in look_alikes(&base, PARTITION_KEY_BYTES_MAX) {
        let mut partition = Partition::of_key(&store, &key);
        assert_eq!(
            partition.load(&["item"], &[]).await.control,
            None,
            "{key:?} was taken for another partition"
        );
        let entry = partition.put(&[("item", key.as_bytes())], &[key.as_bytes()]).await[0];
        let mut commit = partition.next_commit();
        commit.records = vec![record("request/1", key.as_bytes(), FAR_MS)];
        partition.commit(commit).await;
        written.push((key, partition, entry));
    }
    for (key, partition, entry) in &written {
        partition.assert_version().await;
        assert_eq!(partition.item("item").await.as_deref(), Some(key.as_bytes()), "the item of {key:?}");
        assert_eq!(partition.entry(*entry).await.as_deref(), Some(key.as_bytes()), "the entry of {key:?}");
        assert_eq!(
            partition.response("request/1").await.as_deref(),
            Some(key.as_bytes()),
            "the record of {key:?}"
        );
        partition.delete(*entry).await;
    }
}

/// Items whose names look alike hold their own values, and deleting one deletes no other.
///
/// # Panics
/// If the store breaks this promise.
pub async fn item_names_that_look_alike_do_not_mix(store: Arc<dyn Store>) {
    let mut partition = Partition::fresh(&store, "item-names");
    let mut names = look_alikes("item", NAME_BYTES_MAX);
    // Names that a store might use for what is not an item.
    names.extend(["control", "c", "id", "pk", "sk", "version", "_etag", "ttl", "."].map(str::to_owned));
    for name in &names {
        partition.put(&[(name, name.as_bytes())], &[]).await;
    }
    partition.assert_version().await;
    for name in &names {
        assert_eq!(partition.item(name).await.as_deref(), Some(name.as_bytes()), "item {name:?}");
    }
    for (deleted, name) in names.iter().enumerate() {
        let mut commit = partition.next_commit();
        commit.items = vec![(item_name(name), None)];
        partition.commit(commit).await;
        assert_eq!(partition.item(name).await, None, "item {name:?} was deleted");
        if let Some(next) = names.get(deleted + 1) {
            assert!(partition.item(next).await.is_some(), "deleting item {name:?} deleted {next:?}");
        }
    }
}

/// Deduplication records whose keys look alike, or are the name of an item, are told apart.
///
/// # Panics
/// If the store breaks this promise.
pub async fn deduplication_keys_that_look_alike_do_not_mix(store: Arc<dyn Store>) {
    let mut partition = Partition::fresh(&store, "record-keys");
    let keys = look_alikes("request/1", PARTITION_KEY_BYTES_MAX);
    partition.put(&[("request/1", b"an item")], &[]).await;
    for key in &keys {
        let mut commit = partition.next_commit();
        commit.records = vec![record(key, key.as_bytes(), FAR_MS)];
        partition.commit(commit).await;
    }
    for key in &keys {
        assert_eq!(partition.response(key).await.as_deref(), Some(key.as_bytes()), "record {key:?}");
        let mut commit = partition.next_commit();
        commit.records = vec![record(key, b"again", FAR_MS)];
        let outcome = partition.try_commit(commit).await;
        assert!(
            matches!(&outcome, Ok(CommitOutcome::RecordsExist(existing)) if *existing == [record_key(key)]),
            "record {key:?} exists and the commit was answered {outcome:?}"
        );
    }
    assert_eq!(partition.item("request/1").await.as_deref(), Some(&b"an item"[..]));
}
