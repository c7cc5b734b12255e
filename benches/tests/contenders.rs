//! Every contender in small scenarios, with the audit that is to hold or to fail: the harness must be able to tell.

use tollgate_bench::side_by_side::contender::{Contender, Promise};
use tollgate_bench::side_by_side::contenders;
use tollgate_bench::side_by_side::latency::Latency;
use tollgate_bench::side_by_side::run::{Outcome, run};
use tollgate_bench::side_by_side::scenario::{Arrival, Deletions, Scenario, Skew};

fn small() -> Scenario {
    Scenario {
        name: "small".into(),
        messages: 600,
        partitions: 20,
        chain: 6,
        body_bytes: 100,
        state_bytes: 100,
        in_flight: 16,
        connections: 8,
        latency: Latency::None,
        ..Scenario::headline()
    }
}

async fn outcomes(scenario: &Scenario) -> Vec<(Box<dyn Contender>, Outcome)> {
    let mut outcomes = Vec::new();
    for contender in contenders::all() {
        let outcome = run(&*contender, scenario).await.expect("a small scenario runs");
        outcomes.push((contender, outcome));
    }
    outcomes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_copies_every_contender_handles_each_message_once() {
    for (contender, outcome) in outcomes(&small()).await {
        assert!(outcome.audit.is_exact(), "{}: {:?}", contender.name(), outcome.audit);
        assert_eq!(outcome.audit.handled, outcome.audit.expected);
        assert!(outcome.calls > 0.0 && outcome.write_units > 0.0 && outcome.request_units > 0.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_copies_the_naive_one_doubles_and_those_that_promise_it_are_exact() {
    let scenario = Scenario { duplicates: 0.5, chain: 3, ..small() };
    for (contender, outcome) in outcomes(&scenario).await {
        assert!(outcome.deliveries > outcome.messages, "{}: copies are delivered", contender.name());
        match contender.promise() {
            Promise::ExactlyOnce => {
                assert!(outcome.audit.is_exact(), "{}: {:?}", contender.name(), outcome.audit);
            }
            Promise::AtLeastOnce => {
                assert!(outcome.audit.doubled > 0, "{}: {:?}", contender.name(), outcome.audit);
                assert_eq!(outcome.audit.lost, 0, "{}: {:?}", contender.name(), outcome.audit);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_one_hot_partition_and_with_several_outputs_every_contender_is_exact() {
    let scenario =
        Scenario { skew: Skew::OneHot, messages: 120, outputs: 3, chain: 4, in_flight: 8, ..small() };
    for (contender, outcome) in outcomes(&scenario).await {
        assert!(outcome.audit.is_exact(), "{}: {:?}", contender.name(), outcome.audit);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_leave_nothing_behind_and_ids_do() {
    for (contender, outcome) in outcomes(&small()).await {
        let left = outcome.left_deduplication_bytes;
        match contender.name() {
            "tollgate" | "tollgate-cold" | "tollgate-unfolded" | "tollgate-forgetful" | "published-token"
            | "registered" | "naive" => assert_eq!(left, 0, "{}", contender.name()),
            _ => assert!(left > 20 * outcome.messages, "{}: {left} bytes", contender.name()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_message_at_a_time_shows_the_calls_that_follow_each_other() {
    let scenario =
        Scenario { messages: 60, chain: 30, in_flight: 1, deletions: Deletions::OneByOne, ..small() };
    let mut calls = Vec::new();
    for (contender, outcome) in outcomes(&scenario).await {
        let trips = outcome.calls_in_sequence.unwrap();
        calls.push((contender.name(), trips.round()));
    }
    let of = |name: &str| calls.iter().find(|(known, _)| *known == name).unwrap().1;
    assert_eq!((of("naive"), of("lease")), (2.0, 4.0));
    assert_eq!((of("published-token"), of("registered")), (7.0, 8.0));
    assert_eq!((of("tollgate"), of("tollgate-cold")), (3.0, 4.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_an_open_loop_a_message_that_waits_for_its_turn_is_late() {
    // Two calls of 5 ms for each message and one connection: a hundred a second at most, and four hundred are due.
    let scenario = Scenario {
        messages: 100,
        outputs: 0,
        connections: 1,
        latency: Latency::Fixed { ms: 5.0 },
        ..small()
    };
    let naive = contenders::named(&["naive"]).unwrap().remove(0);
    let open = Scenario { arrival: Arrival::Open(400.0), in_flight: 1, ..scenario.clone() };
    let late = run(&*naive, &open).await.unwrap();
    let closed = run(&*naive, &Scenario { in_flight: 1, ..scenario }).await.unwrap();
    assert!(closed.latency.p99 < late.latency.p50, "{:?} {:?}", closed.latency, late.latency);
    assert!(late.latency.max > 500.0, "the last one waited for all others: {:?}", late.latency);
}

#[tokio::test]
async fn a_scenario_that_makes_no_sense_is_refused() {
    let naive = contenders::named(&["naive"]).unwrap().remove(0);
    for scenario in [
        Scenario { messages: 0, ..small() },
        Scenario { duplicates: 1.0, ..small() },
        Scenario { arrival: Arrival::Open(0.0), ..small() },
    ] {
        assert!(run(&*naive, &scenario).await.is_err());
    }
    assert!(contenders::named(&["nobody"]).is_err());
}
