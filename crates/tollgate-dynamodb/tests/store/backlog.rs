//! Consumers that lag: their messages wait in the senders' partitions, and must not make the senders' next
//! commits dearer.

use tollgate_proto::EntryKey;

use crate::layouts::Partition;
use crate::tables::in_process_store;

const KILOBYTE: usize = 1024;
const COMMITS: usize = 400;

/// Units that the last of many commits takes at most, each of 1 KB of state and a message of 1 KB: the main
/// item with what may wait in it, and the message, in a transaction.
const COMMIT_UNITS_MAX: f64 = 12.0;

#[tokio::test]
async fn a_backlog_of_400_messages_makes_no_commit_dearer_than_the_first_ones() {
    let (dynamodb, store) = in_process_store().await;
    let mut partition = Partition::new();
    let mut entries: Vec<EntryKey> = Vec::new();
    let start = dynamodb.counts();
    for number in 0..COMMITS {
        let before = dynamodb.counts();
        let commit = partition.next(&store, &[("state", Some(KILOBYTE))], &[KILOBYTE]);
        entries.extend(partition.commit(&store, commit).await);
        let units = dynamodb.counts().since(&before).write_units().as_f64();
        assert!(units <= COMMIT_UNITS_MAX, "commit {number} took {units} write units");
    }
    let before = dynamodb.counts();
    assert_eq!(partition.entry(&store, entries[COMMITS / 2]).await, Some(KILOBYTE));
    assert!(dynamodb.counts().since(&before).read_units().as_f64() <= 1.0, "a token read");
    let sent = dynamodb.counts().since(&start).write_units();
    for entry in &entries {
        partition.consume(&store, &[*entry]).await;
    }
    let all = dynamodb.counts().since(&start).write_units();
    println!("{COMMITS} commits {sent} write units, with their consumption {all}");
    assert!(all.as_f64() <= 6000.0, "{all} write units");

    // And it is as cheap as ever when the consumers have caught up.
    for entries in [2, 1] {
        let commit = partition.next(&store, &[("state", Some(KILOBYTE))], &vec![KILOBYTE; entries]);
        let entries = partition.commit(&store, commit).await;
        partition.consume(&store, &entries).await;
    }
    let before = dynamodb.counts();
    let commit = partition.next(&store, &[("state", Some(KILOBYTE))], &[KILOBYTE]);
    let entries = partition.commit(&store, commit).await;
    partition.consume(&store, &entries).await;
    assert!(dynamodb.counts().since(&before).write_units().as_f64() <= 6.0);
}

#[tokio::test]
async fn a_backlog_beside_items_of_their_own_makes_no_commit_dearer_either() {
    let (dynamodb, store) = in_process_store().await;
    let mut partition = Partition::new();
    let wide = partition.next(&store, &[("large", Some(40 * KILOBYTE)), ("state", Some(10))], &[]);
    partition.commit(&store, wide).await;
    let start = dynamodb.counts();
    for number in 0..100 {
        let before = dynamodb.counts();
        let commit = partition.next(&store, &[("state", Some(KILOBYTE - number))], &[KILOBYTE]);
        partition.commit(&store, commit).await;
        let units = dynamodb.counts().since(&before).write_units().as_f64();
        // The first ones move items; then the state is an item of its own.
        let state = 2.0 * 1.0;
        assert!(number < 3 || units <= COMMIT_UNITS_MAX + state, "commit {number} took {units} write units");
    }
    println!(
        "100 commits beside an item of 40 KB: {} write units",
        dynamodb.counts().since(&start).write_units()
    );
}
