//! The comparison on each store: every contender comes through the audit there as in memory, and what the emulators report is counted.
//! Those of clouds are features.

use tollgate_bench::side_by_side::contender::Promise;
use tollgate_bench::side_by_side::contenders;
use tollgate_bench::side_by_side::latency::Latency;
use tollgate_bench::side_by_side::run::{Outcome, run};
use tollgate_bench::side_by_side::scenario::{Scenario, StoreKind};

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

/// Runs all contenders with copies and without, holds them to what they promise, and answers what they have shown without.
async fn all_keep_their_promise_on(store: StoreKind) -> Vec<Outcome> {
    let with_copies = Scenario { duplicates: 0.4, ..small(store) };
    let mut outcomes = Vec::new();
    for contender in contenders::all() {
        let whose = format!("{} on {}", contender.name(), store.name());
        let outcome = run(&*contender, &with_copies).await.expect("everybody is served");
        let promised = contender.promise() == Promise::AtLeastOnce || outcome.audit.is_exact();
        assert!(promised && outcome.audit.lost == 0, "{whose}, with copies: {:?}", outcome.audit);
        let outcome = run(&*contender, &small(store)).await.expect("everybody is served");
        assert!(outcome.audit.is_exact(), "{whose}: {:?}", outcome.audit);
        assert!(outcome.write_units >= 1.0, "{whose} is charged by the published rules");
        outcomes.push(outcome);
    }
    outcomes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_contender_keeps_its_promise_on_the_embedded_store() {
    all_keep_their_promise_on(StoreKind::Embedded).await;
}

#[cfg(feature = "dynamodb")]
fn all_are_charged_in_capacity_units(outcomes: &[Outcome]) {
    for outcome in outcomes {
        let units = outcome.reported.write_units;
        assert!(units.is_some_and(|units| units >= 1.0), "{}: {units:?}", outcome.contender);
    }
}

#[cfg(feature = "dynamodb")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_contender_keeps_its_promise_on_dynamodb_and_is_charged_by_the_emulator() {
    all_are_charged_in_capacity_units(&all_keep_their_promise_on(StoreKind::DynamoDb).await);
}

#[cfg(feature = "dynamodb")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_contender_keeps_its_promise_on_a_server_of_dynamodb_and_is_charged_by_it() {
    use tollgate_dynamodb_emulator::{Endpoint, ServerKind};

    if let Err(error) = Endpoint::start(ServerKind::Dynoxide) {
        eprintln!("!!! SKIPPED: {error}");
        return;
    }
    all_are_charged_in_capacity_units(&all_keep_their_promise_on(StoreKind::DynamoDbServer).await);
}

#[cfg(feature = "cosmos")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_contender_keeps_its_promise_on_cosmos_db_and_is_charged_by_the_emulator() {
    for outcome in all_keep_their_promise_on(StoreKind::Cosmos).await {
        let units = outcome.reported.request_units;
        assert!(units.is_some_and(|units| units >= 1.0), "{}: {units:?}", outcome.contender);
    }
}

#[cfg(not(feature = "cosmos"))]
#[tokio::test]
async fn a_store_that_this_build_does_not_have_is_refused_by_name() {
    let naive = contenders::named(&["naive"]).unwrap().remove(0);
    let refused = run(&*naive, &small(StoreKind::Cosmos)).await.unwrap_err().to_string();
    assert!(refused.contains("cosmos") && refused.contains("`full`"), "{refused}");
}
