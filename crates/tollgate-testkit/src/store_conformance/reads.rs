//! Checks of promise 2: reads observe every write that happened before, a load is one moment of one partition, and
//! values come back as they went in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::task::JoinSet;
use tollgate_proto::{ItemValue, Store};

use super::partition::{Partition, binary, control_of, item_name};

/// How many writes are each read back at once.
const WRITES: u32 = 64;

/// How many commits are made while others load, and how many tasks load.
const COMMITS: usize = 100;
const LOADERS: usize = 4;

/// Whatever was answered is seen by the next load and the next token read, whoever asks.
///
/// # Panics
/// If the store breaks this promise.
pub async fn a_read_observes_every_answered_write(store: Arc<dyn Store>) {
    let mut partition = Partition::fresh(&store, "observed");
    let mut previous = None;
    for write in 0..WRITES {
        let value = write.to_be_bytes();
        let key = partition.put(&[("item", &value)], &[&value]).await[0];
        let reader = partition.clone();
        let seen = tokio::spawn(async move {
            reader.assert_version().await;
            (reader.item("item").await, reader.entry(key).await)
        });
        let (item, entry) = seen.await.expect("the reader sees the version that was just committed");
        assert_eq!(item.as_deref(), Some(&value[..]), "a load missed an answered write");
        assert_eq!(entry.as_deref(), Some(&value[..]), "a token read missed an answered write");
        if let Some(previous) = previous.replace(key) {
            partition.delete(previous).await;
            assert_eq!(partition.entry(previous).await, None, "a token read missed an answered deletion");
        }
    }
}

/// Two items and the control record always change together: no load sees one without the others.
///
/// # Panics
/// If the store breaks this promise.
pub async fn a_load_is_a_consistent_snapshot(store: Arc<dyn Store>) {
    let mut partition = Partition::fresh(&store, "snapshot");
    write_in_step(&mut partition).await;
    let done = Arc::new(AtomicBool::new(false));
    let mut loaders = JoinSet::new();
    for _ in 0..LOADERS {
        let (partition, done) = (partition.clone(), Arc::clone(&done));
        loaders.spawn(async move {
            while !done.load(Ordering::SeqCst) {
                assert_in_step(&partition).await;
                tokio::task::yield_now().await;
            }
        });
    }
    for _ in 0..COMMITS {
        write_in_step(&mut partition).await;
        tokio::task::yield_now().await;
    }
    done.store(true, Ordering::SeqCst);
    while let Some(finished) = loaders.join_next().await {
        finished.expect("no load sees half a commit");
    }
}

async fn write_in_step(partition: &mut Partition) {
    let mut commit = partition.next_commit();
    let value = Some(ItemValue::Binary(commit.control.clone()));
    commit.items = vec![(item_name("left"), value.clone()), (item_name("right"), value)];
    partition.commit(commit).await;
}

async fn assert_in_step(partition: &Partition) {
    let loaded = partition.load(&["left", "right"], &[]).await;
    for (name, value) in &loaded.items {
        let value = value.as_ref().map(ItemValue::bytes);
        assert_eq!(
            value,
            loaded.control.as_ref(),
            "a load saw item {name} of one commit and the control record of another"
        );
    }
}

/// Binary values come back byte by byte. JSON comes back as JSON that says the same: a store of documents may write it
/// down in its own way.
///
/// # Panics
/// If the store breaks this promise.
pub async fn values_come_back_as_they_went_in(store: Arc<dyn Store>) {
    let mut partition = Partition::fresh(&store, "values");
    let json = r#"{"text":"größe \"東京\" \\ ","numbers":[0,-1,1.5,9007199254740991],"none":null,"deep":{"a":[{}]}}"#;
    let every_byte: Vec<u8> = (0..=255).collect();
    let values = [
        ("json", ItemValue::Json(Bytes::from_static(json.as_bytes()))),
        ("json that is not an object", ItemValue::Json(Bytes::from_static(b"[1,2]"))),
        ("json that is a number", ItemValue::Json(Bytes::from_static(b"42"))),
        ("every byte", ItemValue::Binary(every_byte.into())),
        ("json as binary", ItemValue::Binary(Bytes::from_static(b"{\"a\":1}"))),
    ];
    let mut commit = partition.next_commit();
    commit.items = values.iter().map(|(name, value)| (item_name(name), Some(value.clone()))).collect();
    partition.commit(commit).await;
    let names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
    let loaded = partition.load(&names, &[]).await;
    assert_eq!(loaded.items.len(), values.len(), "as many items as were asked for");
    for ((name, value), (loaded_name, loaded)) in values.iter().zip(&loaded.items) {
        assert_eq!(&item_name(name), loaded_name);
        match (value, loaded) {
            (ItemValue::Json(value), Some(ItemValue::Json(loaded))) => {
                assert_eq!(parsed(value), parsed(loaded), "item {name:?}");
            }
            (value, loaded) => assert_eq!(Some(value), loaded.as_ref(), "item {name:?}"),
        }
    }
}

fn parsed(json: &Bytes) -> serde_json::Value {
    serde_json::from_slice(json).expect("what was put as JSON is JSON")
}

/// An empty value, an empty entry and an empty response exist.
///
/// # Panics
/// If the store breaks this promise.
pub async fn empty_values_come_back_empty_and_not_absent(store: Arc<dyn Store>) {
    let mut partition = Partition::fresh(&store, "empty");
    let mut commit = partition.next_commit();
    commit.items = vec![(item_name("empty"), Some(binary(b"")))];
    commit.entries = super::partition::entries_of(commit.version, &[b""]);
    commit.records = vec![super::partition::record("request/empty", b"", super::partition::FAR_MS)];
    let key = commit.entries[0].0;
    partition.commit(commit).await;
    let loaded = partition.load(&["empty"], &["request/empty"]).await;
    assert_eq!(loaded.control, partition.version.map(control_of));
    assert_eq!(loaded.items[0].1, Some(binary(b"")), "an empty item");
    assert_eq!(loaded.records[0].1, Some(Bytes::new()), "an empty response");
    assert_eq!(partition.entry(key).await, Some(Bytes::new()), "an empty entry");
}
