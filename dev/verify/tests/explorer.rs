//! The explorer at work: small versions of every world are exhausted, and every mutant is found. Larger
//! worlds are explored by `tollgate-verify explore`.

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
    assert_holds(World { workers: vec![1, 1], budget, ..named("receiver") });
    assert_holds(World { budget: Budget::default(), ..named("receiver") });
}

#[test]
fn a_chain_of_partitions_applies_each_message_once() {
    assert_holds(named("chain"));
}

#[test]
fn no_blob_is_left_and_none_that_is_named_is_gone() {
    assert_holds(named("effects"));
    assert_holds(named("blob-by-id"));
}

#[test]
fn a_call_is_executed_once_before_it_is_followed_up_and_is_deleted_afterwards() {
    assert_holds(named("calls"));
    let budget = Budget { failed_calls: 2, ..Budget::default() };
    assert_holds(World { budget, ..named("calls") });
}

#[test]
fn a_request_whose_client_and_process_are_gone_is_published_all_the_same() {
    assert_holds(named("edge"));
}

#[test]
fn messages_known_by_their_ids_are_applied_once() {
    assert_holds(World { inputs: vec![Input::Identity(0)], ..named("identity") });
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
    assert_holds(World { budget, ..named("sessions") });
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
fn the_last_copy_of_a_message_is_enough() {
    assert_holds(named("last-copy"));
}

#[test]
fn no_handler_sees_a_state_that_never_was_or_is_refused_for_one_that_is_over() {
    let budget = Budget { failed_calls: 1, ..Budget::default() };
    assert_holds(World { budget, ..named("books") });
}

#[test]
fn a_handler_that_drops_a_preparation_spoils_only_its_own_message() {
    assert_holds(named("dropped"));
}

#[test]
fn every_pair_of_faults_is_explored_in_the_deep_worlds() {
    for name in World::NAMES {
        let pairs = World::pairs(name).unwrap();
        assert!(pairs.len() >= 28, "{name} has only {} pairs", pairs.len());
    }
    let pairs = World::pairs("last-copy").unwrap();
    for (faults, world) in pairs {
        if faults.contains("lost answer") || faults.contains("failed call") {
            println!("{faults}");
            assert_holds(world);
        }
    }
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
