//! Session consistency with two regions, of which one takes the writes and the other lags behind: a reader there that shows no marks
//! takes a consumed token for a fresh one, and a fresh one for a consumed one. The store does neither, nor does an engine on it.

use std::sync::Arc;
use std::time::Duration;

use tollgate::{Broker, Gate};
use tollgate_brokers::InProcessBroker;
use tollgate_cosmos::CosmosStore;
use tollgate_cosmos_emulator::{ConsistencyLevel, CosmosEmulator, FaultRules};
use tollgate_proto::{CommitOutcome, EntryRead, SessionMark, Store};
use tollgate_testkit::ChaosBroker;
use tollgate_testkit::ring::{Ring, ring_gate, until_drained};
use tollgate_testkit::store_conformance::Partition;

use crate::accounts::{CONTAINER, DATABASE, account, open, store_with};
use crate::naive_reader::NaiveReader;

const WRITTEN: &str = "East US";
const LAGGING: &str = "West US";

fn two_regions() -> CosmosEmulator {
    account().region(WRITTEN).region(LAGGING).start().unwrap()
}

/// Commits one entry, and returns what a reader must show to see it.
async fn send(partition: &mut Partition, body: &[u8]) -> (tollgate_proto::EntryKey, Option<SessionMark>) {
    let mut commit = partition.next_commit();
    let key = tollgate_proto::EntryKey { sequence: commit.version.sequence(), index: 0 };
    commit.entries = vec![(key, bytes::Bytes::copy_from_slice(body))];
    let version = commit.version;
    let CommitOutcome::Committed { session } = partition.try_commit(commit).await.unwrap() else {
        panic!("nobody else writes there")
    };
    partition.version = Some(version);
    (key, session)
}

async fn found(
    store: &dyn Store,
    partition: &Partition,
    entry: tollgate_proto::EntryKey,
    marks: &[SessionMark],
) -> bool {
    let read = EntryRead { token: partition.token(entry), sessions: marks.to_vec() };
    store.read_entries(vec![read]).await.pop().unwrap().unwrap().is_some()
}

struct Readers {
    ours: Arc<CosmosStore>,
    naive: NaiveReader,
}

async fn readers_in_the_lagging_region(emulator: &CosmosEmulator) -> Readers {
    let client = emulator.client_with(Some(LAGGING), &FaultRules::none()).await.unwrap();
    let ours = Arc::new(open(&client).await);
    Readers { naive: NaiveReader::new(&client, Arc::clone(&ours)).await, ours }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumed_token_is_still_found_by_a_naive_reader_and_never_by_this_store() {
    let emulator = two_regions();
    let writer: Arc<dyn Store> = Arc::new(store_with(&emulator, Some(WRITTEN), &FaultRules::none()).await);
    let readers = readers_in_the_lagging_region(&emulator).await;
    let mut partition = Partition::fresh(&writer, "consumed");
    let (entry, created) = send(&mut partition, b"once").await;
    emulator.resume_replication(LAGGING).await;
    emulator.pause_replication(LAGGING);
    let deleted = writer.delete_entries(vec![partition.token(entry)]).await.pop().unwrap().unwrap();

    assert!(found(&readers.naive, &partition, entry, &[]).await, "the naive reader would process it twice");
    let deleted = deleted.expect("a deletion answers a mark");
    assert!(!found(&*readers.ours, &partition, entry, std::slice::from_ref(&deleted)).await);
    let created = created.expect("a commit answers a mark");
    assert!(
        !found(&*readers.ours, &partition, entry, &[created, deleted]).await,
        "of two marks the newer counts"
    );
    assert!(
        !found(&*readers.ours, &partition, entry, &[]).await,
        "without marks it asks where writes are executed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_token_is_not_found_by_a_naive_reader_and_always_by_this_store() {
    let emulator = two_regions();
    let writer: Arc<dyn Store> = Arc::new(store_with(&emulator, Some(WRITTEN), &FaultRules::none()).await);
    let readers = readers_in_the_lagging_region(&emulator).await;
    let mut partition = Partition::fresh(&writer, "new");
    send(&mut partition, b"there before").await;
    emulator.resume_replication(LAGGING).await;
    emulator.pause_replication(LAGGING);
    let (entry, created) = send(&mut partition, b"new").await;

    assert!(!found(&readers.naive, &partition, entry, &[]).await, "the naive reader would lose it");
    assert!(found(&*readers.ours, &partition, entry, &[created.unwrap()]).await);
    assert!(found(&*readers.ours, &partition, entry, &[]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_from_before_a_split_protect_after_it() {
    let emulator = two_regions();
    let writer: Arc<dyn Store> = Arc::new(store_with(&emulator, Some(WRITTEN), &FaultRules::none()).await);
    let readers = readers_in_the_lagging_region(&emulator).await;
    let mut partitions = Vec::new();
    for number in 0..40 {
        let mut partition = Partition::fresh(&writer, &format!("split-{number}"));
        let (consumed, _) = send(&mut partition, b"consumed").await;
        partitions.push((partition, consumed));
    }
    emulator.resume_replication(LAGGING).await;
    emulator.pause_replication(LAGGING);
    let mut marked = Vec::new();
    for (mut partition, consumed) in partitions {
        let deletion = writer.delete_entries(vec![partition.token(consumed)]).await.pop().unwrap().unwrap();
        let (new, creation) = send(&mut partition, b"new").await;
        let marks: Vec<SessionMark> = deletion.into_iter().chain(creation).collect();
        marked.push((partition, consumed, new, marks));
    }
    for physical_partition in 0..4 {
        emulator.split(DATABASE, CONTAINER, physical_partition, Duration::from_millis(1)).await;
    }
    for (partition, consumed, new, marks) in &marked {
        assert!(!found(&*readers.ours, partition, *consumed, marks).await, "{}", partition.key);
        assert!(found(&*readers.ours, partition, *new, marks).await, "{}", partition.key);
    }
}

/// A gate in each region, a broker that sends everything several times, and a region that has seen the messages' start and nothing since.
async fn run_in_two_regions(emulator: &CosmosEmulator, stores: [Arc<dyn Store>; 2], ring: Ring) -> u64 {
    let queues = Arc::new(InProcessBroker::builder().visibility_timeout(Duration::from_secs(5)).build());
    let chaos =
        ChaosBroker::builder(queues.clone() as Arc<dyn Broker>).seed(7).duplicates(0.7).reorder(16).build();
    let broker: Arc<dyn Broker> = Arc::new(chaos);
    let open = async |store: &Arc<dyn Store>, workers: usize| -> Gate {
        // Markers are pruned at once, and nothing is remembered: what protects is the token alone.
        let gate =
            ring_gate(Arc::clone(store), broker.clone(), workers).flush_after(Duration::from_millis(2));
        gate.consumed_tokens(1).open().await.unwrap()
    };
    let writing = open(&stores[0], 1).await;
    let lagging = open(&stores[1], 8).await;
    ring.start(&writing).await;
    emulator.pause_replication(LAGGING);
    for physical_partition in 0..4 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        emulator.split(DATABASE, CONTAINER, physical_partition, Duration::from_millis(5)).await;
    }
    tokio::time::timeout(Duration::from_secs(60), until_drained(&queues))
        .await
        .expect("every message is settled");
    emulator.resume_replication(LAGGING).await;
    for gate in [writing, lagging] {
        gate.close().await;
    }
    let reader = store_with(emulator, Some(WRITTEN), &FaultRules::none()).await;
    ring.counted(&reader).await
}

const RING: Ring = Ring { messages: 40, hops: 12, partitions: 20 };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_in_each_region_counts_every_message_once_while_one_lags_behind_and_partitions_split() {
    let emulator = two_regions();
    let mut stores: Vec<Arc<dyn Store>> = Vec::new();
    for region in [WRITTEN, LAGGING] {
        stores.push(Arc::new(store_with(&emulator, Some(region), &FaultRules::none()).await));
    }
    let counted = run_in_two_regions(&emulator, stores.try_into().ok().unwrap(), RING).await;
    assert_eq!(counted, RING.handled());
    RING.audit(&store_with(&emulator, Some(WRITTEN), &FaultRules::none()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_engines_on_naive_readers_lose_messages_or_count_them_twice() {
    let emulator = two_regions();
    let mut stores: Vec<Arc<dyn Store>> = Vec::new();
    for region in [WRITTEN, LAGGING] {
        let client = emulator.client_with(Some(region), &FaultRules::none()).await.unwrap();
        let inner = Arc::new(open(&client).await);
        // A client shows the marks of what it did itself. Another one, as another process has it, doesn't.
        let reading = emulator.client_with(Some(region), &FaultRules::none()).await.unwrap();
        stores.push(Arc::new(NaiveReader::new(&reading, inner).await));
    }
    let counted = run_in_two_regions(&emulator, stores.try_into().ok().unwrap(), RING).await;
    println!("{counted} instead of {}", RING.handled());
    assert_ne!(counted, RING.handled(), "the test of the store's own reads would notice nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strong_consistency_works_too() {
    let emulator = account().consistency(ConsistencyLevel::Strong).start().unwrap();
    let store: Arc<dyn Store> = Arc::new(store_with(&emulator, None, &FaultRules::none()).await);
    store.verify().await.unwrap();
    let mut partition = Partition::fresh(&store, "strong");
    let keys = partition.put(&[("item", b"1")], &[b"entry"]).await;
    assert!(partition.entry(keys[0]).await.is_some());
    partition.delete(keys[0]).await;
    assert_eq!(partition.entry(keys[0]).await, None);
}
