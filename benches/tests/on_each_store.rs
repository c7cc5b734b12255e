//! The comparison on each store: every contender comes through the audit there as in memory, and what the emulators report is counted.
//! Those of clouds are features.

use tollgate_benches::side_by_side::contender::Promise;
use tollgate_benches::side_by_side::contenders;
use tollgate_benches::side_by_side::latency::Latency;
use tollgate_benches::side_by_side::rounds::{Comparison, compare};
use tollgate_benches::side_by_side::scenario::{Scenario, StoreKind};
use tollgate_benches::side_by_side::tables::TextTable;

fn small(store: StoreKind) -> Scenario {
    Scenario {
        name: store.name().into(),
        messages: 80,
        partitions: 10,
        chain: 8,
        latency: Latency::None,
        in_flight: 8,
        connections: 8,
        store,
        ..Scenario::headline()
    }
}

/// Runs all contenders without copies and with them, and holds them to what they promise.
async fn all_keep_their_promise_on(store: StoreKind) -> Comparison {
    let with_copies = Scenario { duplicates: 0.4, ..small(store) };
    let compared =
        compare(&with_copies, &contenders::all(), 1, |_, _| ()).await.expect("everybody is served");
    for (record, contender) in compared.contenders.iter().zip(contenders::all()) {
        let audit = record.runs[0].audit;
        assert_eq!(audit.lost, 0, "{} on {}: {audit:?}", record.name, store.name());
        assert!(
            record.is_exact() || contender.promise() == Promise::AtLeastOnce,
            "{} on {}: {audit:?}",
            record.name,
            store.name()
        );
    }
    let compared =
        compare(&small(store), &contenders::all(), 1, |_, _| ()).await.expect("everybody is served");
    println!("{}", TextTable::of(&compared).to_text());
    for record in &compared.contenders {
        assert!(record.is_exact(), "{} on {}: {:?}", record.name, store.name(), record.runs[0].audit);
        assert!(record.runs[0].write_units >= 1.0, "{}: the published rules charge it", record.name);
    }
    compared
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_contender_keeps_its_promise_on_the_embedded_store() {
    all_keep_their_promise_on(StoreKind::Embedded).await;
}

#[cfg(feature = "dynamodb")]
fn is_charged_in_capacity_units(compared: &Comparison) {
    for record in &compared.contenders {
        let reported = record.runs[0].reported;
        assert!(reported.write_units.is_some_and(|units| units >= 1.0), "{}: {reported:?}", record.name);
    }
}

#[cfg(feature = "dynamodb")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_contender_keeps_its_promise_on_dynamodb_and_is_charged_by_the_emulator() {
    is_charged_in_capacity_units(&all_keep_their_promise_on(StoreKind::DynamoDb).await);
}

#[cfg(feature = "dynamodb")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_contender_keeps_its_promise_on_a_server_of_dynamodb_and_is_charged_by_it() {
    use tollgate_dynamodb_emulator::{Endpoint, ServerKind};

    if let Err(error) = Endpoint::start(ServerKind::Dynoxide) {
        eprintln!("!!! SKIPPED: {error}");
        return;
    }
    is_charged_in_capacity_units(&all_keep_their_promise_on(StoreKind::DynamoDbServer).await);
}

#[cfg(feature = "cosmos")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_contender_keeps_its_promise_on_cosmos_db_and_is_charged_by_the_emulator() {
    let compared = all_keep_their_promise_on(StoreKind::Cosmos).await;
    for record in &compared.contenders {
        let reported = record.runs[0].reported;
        assert!(reported.request_units.is_some_and(|units| units >= 1.0), "{}: {reported:?}", record.name);
    }
}

#[cfg(not(feature = "cosmos"))]
#[tokio::test]
async fn a_store_that_this_build_does_not_have_is_refused_by_name() {
    let refused = compare(&small(StoreKind::Cosmos), &contenders::all(), 1, |_, _| ()).await;
    let refused = refused.expect_err("it is a feature").to_string();
    assert!(refused.contains("cosmos") && refused.contains("bench-full"), "{refused}");
}
