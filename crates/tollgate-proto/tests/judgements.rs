//! Stories of handlers that refuse or answer for ever: they must have seen the partition as it is, not as a
//! fold that never committed would have made it, nor as a cache remembers it.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod world;

use tollgate_proto::processing::{
    Disposition, Failure, HandleStep, Incoming, Lookup, Lost, Processing, Request, RequestDeduplication,
    Step, Work,
};
use tollgate_proto::unit_of_work::Outgoing;
use tollgate_proto::{
    Audience, Body, Destination, EffectKind, EffectName, ItemName, ItemValue, LoadRequest, MessageId,
    StoreError, StoreLimits,
};
use world::{Process, World, add, item, message, partition, store, until};

fn is_commit(step: &Step) -> bool {
    matches!(step, Step::Commit(_))
}

fn is_handler(step: &Step) -> bool {
    matches!(step, Step::Handle(_))
}

fn request(id: MessageId) -> Incoming {
    Incoming::Request(Request {
        message_id: id,
        endpoint: "counter".try_into().unwrap(),
        deduplication: RequestDeduplication::ByState,
    })
}

#[test]
fn a_refusal_on_changes_that_were_never_committed_is_not_final() {
    let (mut world, envelopes) = World::with_messages(&["", "only before all"]);
    let mut process = Process::default();
    let work = world.work(&process, vec![message(&envelopes[0]), message(&envelopes[1])]);
    let step = until(&mut world, &mut process, Processing::begin(work), is_commit);
    let Step::Commit(commit) = step else { unreachable!() };
    let throttled = StoreError::Throttled { store: store(), partition: Some(partition()), retry_after: None };
    let settled = world.settle(&mut process, commit.answer(Err(throttled)));
    for disposition in &settled.dispositions {
        assert!(matches!(disposition, Disposition::Retry { .. }), "{disposition:?}");
    }
    assert_eq!(world.process(&mut process, vec![message(&envelopes[1])]), [Disposition::Committed]);
}

#[test]
fn a_refusal_on_changes_that_were_committed_is_final() {
    let (mut world, envelopes) = World::with_messages(&["", "only before all"]);
    let mut process = Process::default();
    let dispositions = world.process(&mut process, vec![message(&envelopes[0]), message(&envelopes[1])]);
    assert_eq!(dispositions[0], Disposition::Committed);
    assert!(matches!(dispositions[1], Disposition::DeadLetter { .. }), "{dispositions:?}");
}

#[test]
fn a_refusal_on_a_cached_view_is_judged_again_on_the_partition_itself() {
    let (mut world, envelopes) = World::with_messages(&["poison", "", "only after another"]);
    let (mut late, mut other) = (Process::default(), Process::default());
    world.process(&mut late, vec![message(&envelopes[0])]);
    assert!(late.view.is_some(), "the story needs a cache");
    world.process(&mut other, vec![message(&envelopes[1])]);
    assert_eq!(world.process(&mut late, vec![message(&envelopes[2])]), [Disposition::Committed]);
}

/// Two requests of one id in one burst: the second must see what the first has committed, not what it was
/// about to.
#[test]
fn of_two_requests_of_one_id_the_second_waits_for_the_firsts_commit() {
    let (mut world, _) = World::with_messages(&[]);
    let mut process = Process::default();
    let id = MessageId::from_name("test", "request");
    let dispositions = world.process(&mut process, vec![request(id), request(id)]);
    assert_eq!(dispositions, [Disposition::Committed, Disposition::Postponed]);
    assert_eq!(world.count(), 1);
}

/// What the first has created stays, whatever becomes of the second.
#[test]
fn a_failed_handlers_clean_up_spares_what_another_of_the_same_id_has_created() {
    let (mut world, envelopes) = World::with_messages(&[""]);
    let mut process = Process::default();
    let work = world.work(&process, vec![message(&envelopes[0]), request(envelopes[0].message_id)]);
    let mut step = Processing::begin(work);
    for name in ["kept", "dropped"] {
        let at_handler = until(&mut world, &mut process, step, |step| matches!(step, Step::Handle(_)));
        let Step::Handle(mut handle) = at_handler else { unreachable!() };
        create(&mut world, &mut handle, name);
        step = if name == "kept" { add(handle) } else { handle.replayed("answer".into()) };
    }
    let settled = world.settle(&mut process, step);
    assert_eq!(settled.dispositions, [Disposition::Committed, Disposition::Replayed("answer".into())]);
    let listed = |world: &World| world.control().unwrap().registrations.len();
    assert_eq!(listed(&world), 1, "what has to be deleted stays listed until it is");
    world.complete(&mut process, settled.completion.unwrap());
    assert_eq!(world.blobs.iter().map(EffectName::as_str).collect::<Vec<_>>(), ["kept"]);
    world.tidy(&mut process);
    assert_eq!(listed(&world), 0);
}

/// A commit that finds its messages handled before takes the fold apart; what its handlers had created must
/// go.
#[test]
fn what_a_fold_has_created_is_deleted_when_it_is_taken_apart() {
    let (mut world, envelopes) = World::with_messages(&["", ""]);
    let mut process = Process::default();
    let work = world.work(&process, vec![message(&envelopes[0]), message(&envelopes[1])]);
    let mut step = Processing::begin(work);
    for name in ["first", "second"] {
        step = until(&mut world, &mut process, step, |step| matches!(step, Step::Handle(_)));
        let Step::Handle(mut handle) = step else { unreachable!() };
        create(&mut world, &mut handle, name);
        step = add(handle);
    }
    let Step::Commit(commit) = step else { unreachable!("both are folded") };
    let limit = tollgate_proto::LimitExceeded::TransactionItems { items: 3, max: 2 };
    let too_large = StoreError::TooLarge { store: store(), partition: partition(), limit };
    let settled = world.settle(&mut process, commit.answer(Err(too_large)));
    assert_eq!(settled.dispositions[0], Disposition::Committed);
    world.complete(&mut process, settled.completion.unwrap());
    assert_eq!(world.process(&mut process, vec![message(&envelopes[1])]), [Disposition::Committed]);
    world.now_ms = 2_000;
    let mut sweeper = Process::default();
    world.tidy(&mut sweeper);
    world.tidy(&mut sweeper);
    world.tidy(&mut process);
    assert_eq!(world.control().unwrap().registrations, []);
    assert!(world.blobs.is_empty(), "the handlers that counted created nothing: {:?}", world.blobs);
}

/// Without its wake-up the request is not committed, and no commit tells whether the refusal was right.
#[test]
fn a_refusal_beside_a_request_whose_wake_up_could_not_be_sent_is_put_back() {
    let (mut world, envelopes) = World::with_messages(&["poison"]);
    let mut process = Process::default();
    let id = MessageId::from_name("test", "request");
    let work = world.work(&process, vec![request(id), message(&envelopes[0])]);
    let step = until(&mut world, &mut process, Processing::begin(work), is_handler);
    let Step::Handle(mut handle) = step else { unreachable!() };
    handle.unit_of_work().send(Outgoing {
        to: Destination { endpoint: "next".try_into().unwrap(), partition: "Q".try_into().unwrap() },
        message_type: "added".try_into().unwrap(),
        headers: vec![],
        body: Body::Inline("1".into()),
        audience: Audience::Tollgate,
        effects: vec![],
    });
    let step =
        until(&mut world, &mut process, handle.succeeded(), |step: &Step| matches!(step, Step::WakeUp(_)));
    let Step::WakeUp(wake_up) = step else { unreachable!("the request has an output") };
    let settled = world.settle(&mut process, wake_up.answer(Err("the broker is away".to_owned())));
    for disposition in &settled.dispositions {
        assert!(matches!(disposition, Disposition::Retry { .. }), "{disposition:?}");
    }
}

/// A request whose answer was lost is on its way still: whoever deletes what it makes too early deletes
/// nothing.
#[test]
fn what_was_not_confirmed_and_comes_to_be_after_its_clean_up_is_deleted_once_more() {
    for unconfirmed in [true, false] {
        let (mut world, envelopes) = World::with_messages(&[""]);
        let mut process = Process::default();
        let work = world.work(&process, vec![message(&envelopes[0])]);
        let step = until(&mut world, &mut process, Processing::begin(work), is_handler);
        let Step::Handle(mut handle) = step else { unreachable!() };
        register(&mut world, &mut handle, "late");
        world.blobs.insert(EffectName::new("late").unwrap());
        if !unconfirmed {
            handle.prepared(&EffectName::new("late").unwrap());
        }
        let failure = Failure::Passing { reason: "the connection broke".into() };
        let settled = world.settle(&mut process, handle.failed(failure));
        world.complete(&mut process, settled.completion.unwrap());
        assert!(world.blobs.is_empty(), "it is deleted at once");
        world.blobs.insert(EffectName::new("late").unwrap());
        assert_eq!(world.process(&mut process, vec![message(&envelopes[0])]), [Disposition::Committed]);
        world.now_ms = 2_000;
        let mut sweeper = Process::default();
        world.tidy(&mut sweeper);
        world.tidy(&mut sweeper);
        assert_eq!(world.control().unwrap().registrations, []);
        assert_eq!(world.blobs.is_empty(), unconfirmed, "what is confirmed does not come once more");
    }
}

fn register(world: &mut World, handle: &mut HandleStep, name: &str) {
    let name = EffectName::new(name).unwrap();
    let commit = handle.register(EffectKind::new("blob").unwrap(), name, 1_000).unwrap();
    let answer = Ok(world.commit(commit));
    handle.registered(&answer).unwrap();
}

fn create(world: &mut World, handle: &mut HandleStep, name: &str) {
    register(world, handle, name);
    let name = EffectName::new(name).unwrap();
    handle.prepared(&name);
    world.blobs.insert(name);
}

/// Reads the item that no story preloads, as a driver does.
fn read_later(world: &World, handle: &mut HandleStep) -> Result<(), Lost> {
    let other = ItemName::new("other").unwrap();
    let request = LoadRequest { partition: partition(), items: vec![other.clone()], records: Vec::new() };
    let loaded = world.load(&request);
    let value = loaded.items.into_iter().next().and_then(|(_, value)| value);
    handle.provide(other, value, loaded.control.as_ref())
}

/// The item and one that is read later are of two versions: what the handler says of them it says of a state
/// that never was.
#[test]
fn a_refusal_of_items_of_two_versions_is_judged_again_on_those_of_one() {
    let (mut world, envelopes) = World::with_messages(&["", "only before all"]);
    let (mut slow, mut other) = (Process::default(), Process::default());
    let work = world.work(&slow, vec![message(&envelopes[1])]);
    let step = until(&mut world, &mut slow, Processing::begin(work), is_handler);
    let Step::Handle(mut handle) = step else { unreachable!() };
    assert_eq!(read_later(&world, &mut handle), Ok(()), "so far nothing has changed");
    world.process(&mut other, vec![message(&envelopes[0])]);
    assert_eq!(read_later(&world, &mut handle), Err(Lost));
    let refusal = handle.failed(Failure::Permanent { reason: "the books do not balance".into() });
    assert!(matches!(refusal, Step::Load(_)), "it is not believed");
    let settled = world.settle(&mut slow, refusal);
    assert!(
        matches!(&settled.dispositions[0], Disposition::DeadLetter { reason } if reason == "late"),
        "{:?}",
        settled.dispositions
    );
}

/// A registration of the attempt itself changes no item: what is read beside it is of the same state.
#[test]
fn an_item_that_is_read_while_a_side_effect_is_registered_is_of_the_view() {
    let (mut world, envelopes) = World::with_messages(&[""]);
    let mut process = Process::default();
    let work = world.work(&process, vec![message(&envelopes[0])]);
    let step = until(&mut world, &mut process, Processing::begin(work), is_handler);
    let Step::Handle(mut handle) = step else { unreachable!() };
    let (name, kind) = (EffectName::new("a").unwrap(), EffectKind::new("blob").unwrap());
    let before = world.clone();
    let commit = handle.register(kind, name.clone(), 1_000).unwrap();
    let answer = Ok(world.commit(commit));
    assert_eq!(read_later(&world, &mut handle), Ok(()), "it has happened, and is not answered yet");
    handle.registered(&answer).unwrap();
    assert_eq!(read_later(&before, &mut handle), Ok(()), "this read came late");
    handle.prepared(&name);
    assert_eq!(world.settle(&mut process, add(handle)).dispositions, [Disposition::Committed]);
}

#[test]
fn a_limit_that_a_cached_view_exceeds_is_judged_again_on_the_partition_itself() {
    let (mut world, envelopes) = World::with_messages(&["", "grow", "shrink", "grow"]);
    let (mut late, mut other) = (Process::default(), Process::default());
    let limits = StoreLimits { item_bytes_max: 1_000, ..StoreLimits::UNLIMITED };
    let mut run = |process: &mut Process, place: usize| {
        let work = Work { limits, ..world.work(process, vec![message(&envelopes[place])]) };
        let mut step = Processing::begin(work);
        loop {
            step = match step {
                Step::Handle(handle) => resize(handle),
                Step::Settled(settled) => {
                    process.view = settled.view;
                    return settled.dispositions;
                }
                step => world.advance(process, step),
            }
        }
    };
    run(&mut late, 1);
    run(&mut other, 2);
    assert_eq!(
        run(&mut late, 3),
        [Disposition::Committed],
        "the cache remembers 600 bytes, the store has none"
    );
}

/// Makes the item longer by 600 bytes, or empties it.
fn resize(mut handle: HandleStep) -> Step {
    let length = match handle.get(&item()) {
        Lookup::Present(value) => value.bytes().len(),
        Lookup::Absent | Lookup::Unknown => 0,
    };
    let shrinks = matches!(&handle.input().body, Body::Inline(body) if body.as_ref() == b"shrink");
    let length = if shrinks { 0 } else { length + 600 };
    handle.unit_of_work().put(item(), ItemValue::Binary(vec![b'1'; length].into()));
    handle.succeeded()
}

#[test]
fn a_store_that_refuses_a_commit_on_a_cached_view_as_too_large_is_asked_again_after_a_load() {
    let (mut world, envelopes) = World::with_messages(&["", ""]);
    let mut process = Process::default();
    world.process(&mut process, vec![message(&envelopes[0])]);
    let work = world.work(&process, vec![message(&envelopes[1])]);
    let mut step = until(&mut world, &mut process, Processing::begin(work), is_commit);
    for is_loaded in [false, true] {
        let Step::Commit(commit) = step else { unreachable!() };
        let limit = tollgate_proto::LimitExceeded::TransactionBytes { bytes: 3, max: 2 };
        let too_large = StoreError::TooLarge { store: store(), partition: partition(), limit };
        step = commit.answer(Err(too_large));
        if !is_loaded {
            assert!(matches!(step, Step::Load(_)), "the view may be old");
            step = until(&mut world, &mut process, step, is_commit);
        }
    }
    let Step::Settled(settled) = step else { panic!("the partition itself is too large") };
    assert!(matches!(settled.dispositions[0], Disposition::DeadLetter { .. }));
}

/// It may have failed for what it saw, and what it saw may be long over.
#[test]
fn a_view_on_which_a_handler_failed_is_loaded_again_unless_it_was_loaded_for_it() {
    let (mut world, envelopes) = World::with_messages(&["", "fail"]);
    let mut process = Process::default();
    world.process(&mut process, vec![message(&envelopes[0])]);
    let dispositions = world.process(&mut process, vec![message(&envelopes[1])]);
    assert!(matches!(dispositions[0], Disposition::Retry { .. }));
    assert!(process.view.is_none(), "the next try sees the partition as it is");
    world.process(&mut process, vec![message(&envelopes[1])]);
    assert!(process.view.is_some(), "this one has");
}
