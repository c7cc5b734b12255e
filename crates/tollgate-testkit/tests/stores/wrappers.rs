//! The wrappers around a store: what is counted, which faults are injected and what they leave behind.

use std::sync::Arc;

use bytes::Bytes;
use tollgate_proto::{
    Commit, CommitOutcome, EntryKey, EntryRead, Incarnation, LoadRequest, Store, StoreError, TokenRef,
    Version,
};
use tollgate_testkit::{CountingStore, FaultCounts, FaultRates, FaultyStore, Operation, Phase};

use crate::reference_store::{Flaw, ReferenceStore};

fn reference_store() -> Arc<dyn Store> {
    Arc::new(ReferenceStore::new(Flaw::None))
}

/// A commit that creates this partition with one outbox entry.
fn commit(partition: &str) -> Commit {
    let version = Version::first(Incarnation(1));
    Commit {
        partition: partition.parse().unwrap(),
        expected: None,
        version,
        control: Bytes::from_static(b"control"),
        items: vec![],
        entries: vec![(EntryKey { sequence: version.sequence(), index: 0 }, Bytes::from_static(b"entry"))],
        deleted_entries: vec![],
        records: vec![],
        now_ms: 0,
    }
}

fn token(partition: &str) -> TokenRef {
    let sequence = Version::first(Incarnation(1)).sequence();
    let (store, partition) = ("reference".parse().unwrap(), partition.parse().unwrap());
    TokenRef { store, partition, entry: EntryKey { sequence, index: 0 } }
}

fn read(partition: &str) -> EntryRead {
    EntryRead { token: token(partition), sessions: vec![] }
}

fn load(partition: &str) -> LoadRequest {
    LoadRequest { partition: partition.parse().unwrap(), items: vec![], records: vec![] }
}

async fn exists(store: &Arc<dyn Store>, partition: &str) -> bool {
    store.load(vec![load(partition)]).await.remove(0).unwrap().control.is_some()
}

async fn has_entry(store: &Arc<dyn Store>, partition: &str) -> bool {
    store.read_entries(vec![read(partition)]).await.remove(0).unwrap().is_some()
}

#[tokio::test]
async fn calls_and_the_requests_in_them_are_counted_by_operation() {
    let store = CountingStore::new(reference_store());
    store.load(vec![load("a"), load("b"), load("c")]).await;
    let before = store.counts();
    store.read_entries(vec![read("a"), read("b")]).await;
    store.commit(commit("a")).await.unwrap();
    store.delete_entries(vec![token("a")]).await;
    store.delete_entries(vec![token("a"), token("b")]).await;
    store.scan(None, 10).await.unwrap();
    store.expire(0).await.unwrap();

    let counts = store.counts().since(&before);
    let of = |operation| (counts.of(operation).calls, counts.of(operation).requests);
    assert_eq!(Operation::ALL.map(of), [(0, 0), (1, 2), (1, 1), (2, 3), (1, 1), (1, 1)]);
    assert_eq!(counts.calls(), 6);
    assert_eq!(store.counts().of(Operation::Load).requests, 3);
}

#[tokio::test]
async fn without_rates_nothing_is_injected_and_the_suite_passes() {
    tollgate_testkit::store_conformance::run(|| async {
        let faulty = FaultyStore::new(reference_store(), 1, FaultRates::default());
        Arc::new(CountingStore::new(Arc::new(faulty))) as Arc<dyn Store>
    })
    .await;
}

#[tokio::test]
async fn a_fault_before_the_effect_leaves_nothing_behind() {
    let inner = reference_store();
    for rates in [
        FaultRates { unavailable: 1.0, ..FaultRates::default() },
        FaultRates { throttled: 1.0, ..FaultRates::default() },
    ] {
        let store = FaultyStore::new(Arc::clone(&inner), 1, rates);
        let error = store.commit(commit("a")).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. } | StoreError::Throttled { .. }), "{error}");
        assert!(!exists(&inner, "a").await);
        assert_eq!(store.counts().total(), 1);
    }
    let store =
        FaultyStore::new(Arc::clone(&inner), 1, FaultRates { lost_commit: 1.0, ..FaultRates::default() });
    let error = store.commit(commit("a")).await.unwrap_err();
    assert!(matches!(error, StoreError::OutcomeUnknown { .. }), "{error}");
    assert!(!exists(&inner, "a").await);
    assert_eq!(store.counts().lost_commits, 1);
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_has_happened() {
    let inner = reference_store();
    let rates = FaultRates { lost_commit_answer: 1.0, ..FaultRates::default() };
    let store = FaultyStore::new(Arc::clone(&inner), 1, rates);
    let error = store.commit(commit("a")).await.unwrap_err();
    assert!(matches!(error, StoreError::OutcomeUnknown { .. }), "{error}");
    assert!(exists(&inner, "a").await);
    assert_eq!(store.counts().lost_commit_answers, 1);
}

#[tokio::test]
async fn a_deletion_whose_answer_is_lost_has_happened() {
    let inner = reference_store();
    inner.commit(commit("a")).await.unwrap();
    let rates = FaultRates { lost_deletion_answer: 1.0, ..FaultRates::default() };
    let store = FaultyStore::new(Arc::clone(&inner), 1, rates);
    let error = store.delete_entries(vec![token("a")]).await.remove(0).unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert!(!has_entry(&inner, "a").await);
    assert_eq!(store.counts().lost_deletion_answers, 1);
}

/// What a store with these faults answers to a hundred partitions.
async fn answers(seed: u64) -> (Vec<bool>, FaultCounts) {
    let rates = FaultRates { unavailable: 0.2, throttled: 0.2, ..FaultRates::default() };
    let store = FaultyStore::new(reference_store(), seed, rates);
    let answers = store.load((0..100).map(|number| load(&number.to_string())).collect()).await;
    (answers.iter().map(Result::is_ok).collect(), store.counts())
}

#[tokio::test]
async fn the_same_seed_gives_the_same_faults() {
    let (first, counts) = answers(7).await;
    assert_eq!((first.clone(), counts), answers(7).await);
    assert_ne!(first, answers(8).await.0);
    let failed = first.iter().filter(|is_ok| !**is_ok).count() as u64;
    assert_eq!(counts.total(), failed);
    assert!(counts.unavailable > 0 && counts.throttled > 0 && failed < 100, "{counts:?}");
}

#[tokio::test]
async fn the_answers_of_a_batch_with_faults_stay_in_order() {
    let inner = reference_store();
    let partitions: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    for partition in partitions.iter().step_by(2) {
        inner.commit(commit(partition)).await.unwrap();
    }
    let rates = FaultRates { unavailable: 0.5, ..FaultRates::default() };
    let store = FaultyStore::new(inner, 3, rates);
    let answers = store.read_entries(partitions.iter().map(|partition| read(partition)).collect()).await;
    assert_eq!(answers.len(), 100);
    for (number, answer) in answers.into_iter().enumerate() {
        if let Ok(found) = answer {
            assert_eq!(found.is_some(), number % 2 == 0, "entry {number}");
        }
    }
}

#[tokio::test]
async fn a_gate_holds_a_call_back_on_the_chosen_side_of_its_effect() {
    let inner = reference_store();
    let store = Arc::new(FaultyStore::new(Arc::clone(&inner), 1, FaultRates::default()));
    for (partition, phase, has_happened) in [("a", Phase::Before, false), ("b", Phase::After, true)] {
        let gate = store.pause_next(Operation::Commit, phase);
        let paused = Arc::clone(&store);
        let task = tokio::spawn(async move { paused.commit(commit(partition)).await });
        gate.reached().await;
        assert_eq!(exists(&inner, partition).await, has_happened);
        assert!(!task.is_finished());
        // Only the one call is held back: others go on.
        store.commit(commit("c").clone()).await.unwrap();
        gate.open();
        assert!(matches!(task.await.unwrap(), Ok(CommitOutcome::Committed { .. })));
        assert!(exists(&inner, partition).await);
    }
}

#[tokio::test]
async fn a_dropped_gate_holds_nobody_back() {
    let store = FaultyStore::new(reference_store(), 1, FaultRates::default());
    drop(store.pause_next(Operation::Scan, Phase::Before));
    store.scan(None, 1).await.unwrap();
}
