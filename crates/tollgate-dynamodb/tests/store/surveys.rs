//! What a sweep's look at the table costs, and that it sees what a scan sees.

use std::collections::BTreeMap;

use tollgate_proto::{PartitionKey, ScannedPartition, Store};

use crate::layouts::Partition;
use crate::tables::in_process_store;

/// More than a call of 1 MB returns: 6,000 partitions of 300 bytes.
const PARTITIONS: usize = 6000;

type Seen = BTreeMap<PartitionKey, ScannedPartition>;

async fn look(store: &impl Store, is_survey: bool) -> Seen {
    let (mut seen, mut cursor) = (Seen::new(), None);
    loop {
        let page = if is_survey { store.survey(cursor, 512).await } else { store.scan(cursor, 512).await };
        let page = page.unwrap();
        for mut scanned in page.partitions {
            scanned.entries.sort();
            let partition = scanned.partition.clone();
            assert!(seen.insert(partition.clone(), scanned).is_none(), "{partition} was listed twice");
        }
        cursor = page.next;
        if cursor.is_none() {
            return seen;
        }
    }
}

#[tokio::test]
async fn a_sweep_pays_for_one_eventually_consistent_scan_and_sees_every_partition() {
    let (dynamodb, store) = in_process_store().await;
    let mut entries = 0;
    for number in 0..PARTITIONS {
        let mut partition = Partition::new();
        partition.key = PartitionKey::new(format!("P{number}")).unwrap();
        let bodies = vec![40; usize::from(number % 100 == 0)];
        let commit = partition.next(&store, &[("a", Some(300))], &bodies);
        entries += partition.commit(&store, commit).await.len();
    }
    let before = dynamodb.counts();
    let scanned = look(&store, false).await;
    let scan = dynamodb.counts().since(&before).read_units().as_f64();
    let before = dynamodb.counts();
    let surveyed = look(&store, true).await;
    let survey = dynamodb.counts().since(&before).read_units().as_f64();
    println!("{PARTITIONS} partitions: {scan} read units consistently, {survey} by a survey");
    assert_eq!((scanned.len(), &scanned), (PARTITIONS, &surveyed));
    assert_eq!(surveyed.values().map(|scanned| scanned.entries.len()).sum::<usize>(), entries);
    // 6,000 items of at most 450 bytes, 4 KB a unit.
    let once = f64::from(6000 * 450) / 4096.0;
    assert!(scan <= once * 1.1, "{scan} read units");
    assert!(survey <= once * 0.55, "{survey} read units");
}
