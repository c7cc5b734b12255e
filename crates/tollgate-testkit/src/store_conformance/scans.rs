//! Checks of the scan, by which the sweep and the audit see everything.

use std::collections::HashMap;
use std::sync::Arc;

use tollgate_proto::{ItemName, PartitionKey, ScannedPartition, Store};

use super::partition::{FAR_MS, Partition, control_of, item_name, record};

/// How many partitions are written and looked for.
const PARTITIONS: usize = 23;

/// How many the scan may return at a time: fewer than there are, and no divisor.
const PAGE: usize = 5;

/// Every partition comes once with its outbox entries by name, and no page is longer than asked for; a survey
/// finds the same.
///
/// Partitions of others may come in between.
///
/// # Panics
/// If the store breaks this promise.
pub async fn a_scan_lists_every_partition_once_over_several_pages(store: Arc<dyn Store>) {
    let mut expected = HashMap::new();
    for number in 0..PARTITIONS {
        let (partition, scanned) = write(&store, number).await;
        expected.insert(partition.key, scanned);
    }
    let mut seen = HashMap::new();
    let mut pages = 0;
    let mut cursor = None;
    loop {
        let page = store.scan(cursor, PAGE).await.expect("a scan of a healthy store succeeds");
        assert!(page.partitions.len() <= PAGE, "{} partitions on a page of {PAGE}", page.partitions.len());
        pages += 1;
        for mut scanned in page.partitions {
            scanned.items.sort();
            scanned.entries.sort();
            let key: PartitionKey = scanned.partition.clone();
            assert!(seen.insert(key.clone(), scanned).is_none(), "partition {key:?} was listed twice");
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert!(pages >= PARTITIONS.div_ceil(PAGE), "{pages} pages of {PAGE} can't hold {PARTITIONS} partitions");
    for (key, scanned) in &expected {
        assert_eq!(seen.get(key), Some(scanned), "what the scan tells of partition {key:?}");
    }
    let mut surveyed = HashMap::new();
    loop {
        let page = store.survey(cursor, PAGE).await.expect("a survey of a healthy store succeeds");
        for mut scanned in page.partitions {
            scanned.items.sort();
            scanned.entries.sort();
            let key: PartitionKey = scanned.partition.clone();
            assert!(surveyed.insert(key.clone(), scanned).is_none(), "partition {key:?} was surveyed twice");
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    // It may be a moment late, and nothing has been written for one.
    for (key, scanned) in &expected {
        assert_eq!(surveyed.get(key), Some(scanned), "what the survey tells of partition {key:?}");
    }
}

async fn write(store: &Arc<dyn Store>, number: usize) -> (Partition, ScannedPartition) {
    let mut partition = Partition::fresh(store, "scan");
    let names: Vec<String> = (0..number % 4).map(|item| format!("item-{item}")).collect();
    let items: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"value"[..])).collect();
    let entries = vec![&b"entry"[..]; number % 3 + 1];
    let keys = partition.put(&items, &entries).await;
    // One entry is gone when the scan comes by.
    partition.delete(keys[0]).await;
    let records = number % 2;
    let mut commit = partition.next_commit();
    commit.records = (0..records).map(|key| record(&format!("request/{key}"), b"", FAR_MS)).collect();
    partition.commit(commit).await;
    let mut items: Vec<ItemName> = names.iter().map(|name| item_name(name)).collect();
    items.sort();
    let scanned = ScannedPartition {
        partition: partition.key.clone(),
        control: partition.version.map(control_of),
        entries: keys[1..].to_vec(),
        records: records as u64,
        items,
    };
    (partition, scanned)
}
