//! The explorer at work: small versions of every world are exhausted, and every mutant is found. Larger worlds are explored by
//! `tollgate-verify explore`.

use tollgate_verify::explorer::{
    Bounds, Budget, Explorer, Findings, Input, Outcome, Publications, Specimen, World, replay, search,
};

/// More than any world of these tests has: a search that meets it has grown beyond what a test should take.
const STATES_MAX: usize = 2_000_000;

fn explore(world: World) -> Findings {
    search(&Explorer::new(world), Bounds { states_max: STATES_MAX, ..Bounds::default() }, |_| ())
}

fn assert_holds(world: World) -> Findings {
    let name = world.name;
    let findings = explore(world);
    match &findings.outcome {
        Outcome::Exhausted => {}
        Outcome::BoundReached => panic!("world {name} has more than {STATES_MAX} states"),
        Outcome::Violated(story) => panic!("world {name}:\n{story}"),
    }
    println!("{name}: {} states, depth {}, {:?}", findings.states, findings.depth, findings.elapsed);
    findings
}

fn named(name: &str) -> World {
    World::named(name).unwrap_or_else(|| panic!("there is no world {name}"))
}

#[test]
fn two_messages_with_copies_are_applied_once_whatever_three_workers_do() {
    let budget = Budget { crashes: 1, ..Budget::default() };
    assert_holds(World { workers: vec![1, 1], budget, ..named("a") });
    assert_holds(World { budget: Budget::default(), ..named("a") });
}

#[test]
fn a_chain_of_partitions_applies_each_message_once() {
    assert_holds(named("b"));
}

#[test]
fn no_blob_is_left_and_none_that_is_named_is_gone() {
    assert_holds(named("c"));
    assert_holds(named("blob-by-id"));
}

#[test]
fn a_call_is_executed_once_before_it_is_followed_up_and_is_deleted_afterwards() {
    assert_holds(named("h"));
    let budget = Budget { failed_calls: 2, ..Budget::default() };
    assert_holds(World { budget, ..named("h") });
}

#[test]
fn a_request_whose_client_and_process_are_gone_is_published_all_the_same() {
    assert_holds(named("d"));
}

#[test]
fn messages_known_by_their_ids_are_applied_once() {
    assert_holds(World { inputs: vec![Input::Identity(0)], ..named("e") });
}

#[test]
fn a_broker_that_drops_what_it_knows_swallows_nothing() {
    assert_holds(named("natural"));
    let poison = World { publications: Publications::KnownDropped, ..named("poison") };
    let budget = Budget { failed_calls: 1, crashes: 1, ..Budget::default() };
    assert_holds(World { budget, ..poison });
}

#[test]
fn replicas_that_lag_behind_do_no_harm() {
    let budget = Budget { stale_reads: 1, ..Budget::default() };
    assert_holds(World { budget, ..named("f") });
}

#[test]
fn dead_letters_are_replayed_and_applied_once() {
    let budget = Budget { failed_calls: 1, crashes: 1, ..Budget::default() };
    assert_holds(World { budget, ..named("poison") });
}

#[test]
fn folded_messages_are_applied_once_each() {
    let budget = Budget { handler_failures: 1, ..Budget::default() };
    assert_holds(World { budget, ..named("fold") });
    assert_holds(World { budget, ..named("tight") });
}

#[test]
fn every_broken_rule_is_noticed_and_the_rule_is_why() {
    let mut rules = std::collections::BTreeSet::new();
    for specimen in Specimen::all() {
        let name = specimen.name();
        let explorer = Explorer::new(specimen.world.clone());
        let bounds = Bounds { states_max: STATES_MAX, ..Bounds::default() };
        let Outcome::Violated(story) = search(&explorer, bounds, |_| ()).outcome else {
            panic!("{}: {name} survives: {}", specimen.rule, specimen.about)
        };
        println!("{}: {name} ({}), {} steps\n{story}\n", specimen.rule, specimen.about, story.steps.len());
        let is_a_trap = story.violation.contains("never comes to rest");
        let again = replay(&explorer, &story.choices);
        assert!(is_a_trap || again == Some(story), "{name}: the story is not replayed");
        // The same world holds when the rule is kept: so it is the rule that makes the difference.
        assert_holds(World { mutant: None, ..specimen.world });
        rules.insert(specimen.rule);
    }
    for rule in 1..=8 {
        assert!(rules.contains(format!("R{rule}").as_str()), "no mutant breaks R{rule}");
    }
}
