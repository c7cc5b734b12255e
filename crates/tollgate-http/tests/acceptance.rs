//! The acceptance scenarios of exactly-once HTTP: a person's or a machine's order, paid at another system; and every fault at every
//! step of it, in either process. Whatever happens, the state is changed once, the response is seen once, and nothing is left.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod world;

use std::collections::BTreeMap;

use tollgate_http::RequestId;
use world::life::{Call, Fault, Life};
use world::{At, Run, Size, Way, World};

/// Plays the scene with each fault at each step of one process, and returns how many there were of each kind of call.
async fn every_fault_at_every_step(way: Way, size: Size, at: At) -> usize {
    let Run { shop, bank, .. } = World::play(way, size, &[]).await;
    let steps = if at == At::Shop { shop.steps() } else { bank.steps() };
    let (mut runs, mut strays) = (0, 0);
    let mut by_call: BTreeMap<String, usize> = BTreeMap::new();
    for (number, (call, name)) in steps.iter().enumerate() {
        for fault in call.faults() {
            strays += World::play(way, size, &[(at, number, *fault)]).await.strays;
            runs += 1;
            *by_call.entry(format!("{call:?} {fault:?}")).or_default() += 1;
        }
        assert!(!name.is_empty());
    }
    println!(
        "{way:?}, {size:?}, faults at the {at:?}: {} steps, {runs} (step, fault) pairs, {strays} left for the operator: {by_call:?}",
        steps.len()
    );
    assert!(runs >= steps.len() * 6, "{steps:?}");
    assert_eq!(strays, 0, "one fault leaves nothing behind");
    runs
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_to_a_persons_shop_he_pays_once() {
    every_fault_at_every_step(Way::Person, Size::Small, At::Shop).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_to_a_persons_shop_he_pays_once_for_something_large() {
    every_fault_at_every_step(Way::Person, Size::Large, At::Shop).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_to_the_bank_a_person_pays_once() {
    every_fault_at_every_step(Way::Person, Size::Small, At::Bank).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_to_the_bank_a_person_pays_once_for_something_large() {
    every_fault_at_every_step(Way::Person, Size::Large, At::Bank).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_to_a_machines_shop_it_pays_once() {
    every_fault_at_every_step(Way::Machine, Size::Small, At::Shop).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_to_a_machines_shop_it_pays_once_for_something_large() {
    every_fault_at_every_step(Way::Machine, Size::Large, At::Shop).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_to_the_bank_a_machine_pays_once() {
    every_fault_at_every_step(Way::Machine, Size::Small, At::Bank).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_to_the_bank_a_machine_pays_once_for_something_large() {
    every_fault_at_every_step(Way::Machine, Size::Large, At::Bank).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_on_the_way_a_person_who_makes_the_four_requests_by_hand_pays_once() {
    every_fault_at_every_step(Way::ByHand, Size::Small, At::Shop).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_on_the_way_a_person_who_makes_the_four_requests_by_hand_pays_once_for_something_large()
 {
    every_fault_at_every_step(Way::ByHand, Size::Large, At::Shop).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_to_the_bank_a_person_who_makes_the_four_requests_by_hand_pays_once() {
    every_fault_at_every_step(Way::ByHand, Size::Small, At::Bank).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_to_the_bank_a_person_who_makes_the_four_requests_by_hand_pays_once_for_something_large()
 {
    every_fault_at_every_step(Way::ByHand, Size::Large, At::Bank).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_on_the_way_to_two_processes_each_server_executes_an_id_once() {
    every_fault_at_every_step(Way::Meddled, Size::Small, At::Shop).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_to_one_of_two_processes_each_server_executes_an_id_once() {
    every_fault_at_every_step(Way::Meddled, Size::Small, At::Bank).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_to_one_of_two_processes_each_server_executes_something_large_once() {
    every_fault_at_every_step(Way::Meddled, Size::Large, At::Bank).await;
}

/// Faults at the shop's steps, and with each of them a crash of the bank after one of its own.
async fn both_at_once(
    size: Size,
    at_shop: impl Fn(Call, &str) -> bool,
    at_bank: impl Fn(Call, &str) -> bool,
) -> usize {
    let Run { shop, bank, .. } = World::play(Way::Machine, size, &[]).await;
    let (mut runs, mut strays) = (0, 0);
    for (number, (call, name)) in shop.steps().iter().enumerate() {
        for fault in call.faults().iter().filter(|_| at_shop(*call, name)) {
            for (other, (call, name)) in bank.steps().iter().enumerate() {
                if at_bank(*call, name) {
                    let faults = [(At::Shop, number, *fault), (At::Bank, other, Fault::CrashAfter)];
                    strays += World::play(Way::Machine, size, &faults).await.strays;
                    runs += 1;
                }
            }
        }
    }
    println!(
        "Machine, {size:?}, a fault at the shop and a crash of the bank: {runs} pairs, {strays} left for the operator"
    );
    runs
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_to_a_request_while_the_bank_crashes_after_a_commit_a_machine_pays_once() {
    let runs =
        both_at_once(Size::Large, |call, _| call == Call::Http, |_, name| name.starts_with("commit")).await;
    assert!(runs >= 100);
}

#[tokio::test(start_paused = true)]
#[ignore = "takes five minutes: run it by hand when the exchange changes"]
async fn whatever_happens_to_both_at_once_a_machine_pays_once() {
    assert!(both_at_once(Size::Large, |_, _| true, |_, _| true).await >= 1_000);
}

/// Plays the scene with a fault at every step whose name begins like this. There must be one.
async fn at_each(way: Way, at: At, name: &str, faults: &[Fault]) {
    for size in [Size::Small, Size::Large] {
        let Run { shop, bank, .. } = World::play(way, size, &[]).await;
        let steps = if at == At::Shop { shop.steps() } else { bank.steps() };
        let steps = steps.iter().enumerate();
        let places: Vec<usize> =
            steps.filter(|(_, (_, step))| step.starts_with(name)).map(|(place, _)| place).collect();
        assert!(!places.is_empty(), "there is no {name} in {:?} {:?}", shop.steps(), bank.steps());
        for place in places {
            for fault in faults {
                World::play(way, size, &[(at, place, *fault)]).await;
            }
        }
    }
}

const CRASHES: [Fault; 2] = [Fault::CrashBefore, Fault::CrashAfter];
const FAILURES: [Fault; 4] = [Fault::LostBefore, Fault::LostAfter, Fault::Busy, Fault::BadGateway];

macro_rules! scenarios {
    ($($name:ident: $at:ident $step:literal $faults:expr;)*) => {
        mod from_a_persons_request {
            use super::*;
            $(#[tokio::test(start_paused = true)]
            async fn $name() {
                at_each(Way::Person, At::$at, $step, &$faults).await;
            })*
        }

        mod from_a_machines_request {
            use super::*;
            $(#[tokio::test(start_paused = true)]
            async fn $name() {
                at_each(Way::Machine, At::$at, $step, &$faults).await;
            })*
        }
    };
}

scenarios! {
    a_crash_before_or_after_the_request_is_stored: Shop "PUT" CRASHES;
    a_failure_before_or_after_the_request_is_stored: Shop "PUT" FAILURES;
    a_crash_before_or_after_the_request_is_executed: Shop "POST" CRASHES;
    a_failure_before_or_after_the_request_is_executed: Shop "POST" FAILURES;
    a_crash_of_the_server_before_or_after_the_response_is_stored: Bank "commit account" CRASHES;
    a_failure_of_the_servers_store_before_or_after_the_response_is_stored: Bank "commit account" [Fault::LostBefore, Fault::LostAfter];
    a_crash_before_or_after_the_response_is_read: Shop "GET" CRASHES;
    a_failure_before_or_after_the_response_is_read: Shop "GET" FAILURES;
    a_crash_before_or_after_the_response_is_deleted: Shop "DELETE" CRASHES;
    a_failure_before_or_after_the_response_is_deleted: Shop "DELETE" FAILURES;
    a_message_sent_twice_at_a_hop_of_the_shop: Shop "send" [Fault::Twice];
    a_message_sent_twice_at_a_hop_of_the_bank: Bank "send" [Fault::Twice];
    a_request_sent_twice_or_late_at_each_step_of_the_exchange: Shop "P" [Fault::Twice, Fault::CopySoon, Fault::CopyLate];
    a_crash_before_or_after_a_commit_of_the_shop: Shop "commit order/1" CRASHES;
    a_crash_before_or_after_a_publication: Shop "send to" CRASHES;
    a_crash_before_or_after_a_token_is_deleted: Shop "consume" CRASHES;
}

/// What the audit looks for is what is there in between: or it would find nothing for ever.
#[tokio::test(start_paused = true)]
async fn the_audit_sees_a_request_that_is_stored_and_its_response() {
    let world = World::new();
    let bank = world.open_bank(&Life::new(None)).await.unwrap();
    let path = format!("http://bank/payments/{}", RequestId::random());
    for (method, kept) in [("PUT", 1), ("POST", 2), ("DELETE", 0)] {
        let request = http::Request::builder().method(method).uri(&path).body("A".into()).unwrap();
        assert!(world.wire.exchange(request).await.unwrap().status().is_success());
        assert_eq!(world.bank.kept().await.len(), kept, "after {method}");
    }
    bank.close().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_wrong_and_the_exchange_has_four_requests() {
    for (way, size) in [(Way::Person, Size::Small), (Way::Machine, Size::Small), (Way::Machine, Size::Large)]
    {
        let Run { shop, .. } = World::play(way, size, &[]).await;
        let steps = shop.steps();
        let requests: Vec<&str> =
            steps.iter().filter(|(call, _)| *call == Call::Http).map(|(_, name)| name.as_str()).collect();
        assert_eq!(requests, ["PUT", "POST", "GET", "DELETE"], "{way:?}");
    }
}
