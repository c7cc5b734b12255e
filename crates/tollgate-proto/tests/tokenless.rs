//! Stories of what comes without a token: messages known by their id, natural ones,
//! requests at the edge and the wake-ups that they send.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod world;

use tollgate_proto::processing::{
    Disposition, Incoming, Processing, Request, RequestDeduplication, Step, Tokenless, WakeUpPatience,
};
use tollgate_proto::{Content, DeduplicationKey, Envelope, MessageId, codec};
use world::{Process, World, add, destination, lost_answer, message, until};

fn tokenless_envelope(body: &'static str) -> Envelope {
    Envelope {
        message_id: MessageId::from_name("legacy", body),
        to: destination(),
        message_type: "add".try_into().unwrap(),
        headers: vec![],
        content: Content::Body(body.into()),
    }
}

#[test]
fn a_message_without_a_token_is_dead_lettered_unless_its_type_says_how_to_deduplicate_it() {
    let (mut world, _) = World::with_messages(&[]);
    let dispositions = world.process(&mut Process::default(), vec![message(&tokenless_envelope(""))]);
    assert!(
        matches!(&dispositions[0], Disposition::DeadLetter { reason } if reason.contains("carries no token"))
    );
}

#[test]
fn a_message_known_by_its_id_is_applied_once_without_a_read() {
    let (mut world, _) = World::with_messages(&[]);
    let envelope = tokenless_envelope("send");
    let incoming = || Incoming::Message {
        envelope: envelope.clone().into(),
        tokenless: Tokenless::ByIdentity { expires_at_ms: 9 },
    };
    let mut process = Process::default();
    assert_eq!(world.process(&mut process, vec![incoming()]), [Disposition::Committed]);
    assert_eq!(world.process(&mut process, vec![incoming()]), [Disposition::Duplicate]);
    assert_eq!(world.count(), 1);
    assert_eq!(world.sent.len(), 1);
    // A process that knows nothing may publish again what nobody has consumed yet: the same message, the same
    // token.
    assert_eq!(world.process(&mut Process::default(), vec![incoming()]), [Disposition::Duplicate]);
    assert_eq!(world.count(), 1);
    assert!(world.sent.iter().all(|sent| *sent == world.sent[0]));
}

#[test]
fn a_duplicate_by_id_waits_for_the_outputs_of_the_first() {
    let (mut world, _) = World::with_messages(&[]);
    let incoming = Incoming::Message {
        envelope: tokenless_envelope("send").into(),
        tokenless: Tokenless::ByIdentity { expires_at_ms: 9 },
    };
    let mut process = Process::default();
    let work = world.work(&process, vec![incoming.clone()]);
    world.settle(&mut process, Processing::begin(work));
    assert_eq!(world.sent.len(), 0, "the first has committed and not published");
    assert_eq!(world.process(&mut process, vec![incoming]), [Disposition::CommittedBefore]);
    assert_eq!((world.count(), world.sent.len()), (1, 1));
}

#[test]
fn a_fold_with_one_known_id_applies_the_others() {
    let (mut world, envelopes) = World::with_messages(&[""]);
    let known = Incoming::Message {
        envelope: tokenless_envelope("").into(),
        tokenless: Tokenless::ByIdentity { expires_at_ms: 9 },
    };
    let mut process = Process::default();
    world.process(&mut process, vec![known.clone()]);
    let dispositions = world.process(&mut process, vec![message(&envelopes[0]), known]);
    assert_eq!(dispositions, [Disposition::Committed, Disposition::Duplicate]);
    assert_eq!(world.count(), 2);
}

fn request() -> Incoming {
    Incoming::Request(Request {
        message_id: MessageId::from_name("web", "order-1"),
        endpoint: "counter".try_into().unwrap(),
        deduplication: RequestDeduplication::ByKey {
            key: DeduplicationKey::of_request(&"orders".try_into().unwrap(), "order-1").unwrap(),
            expires_at_ms: 9,
        },
    })
}

/// Handles a request: counts, answers with the count, and sends one message.
fn answer_request(world: &mut World, process: &mut Process, mut step: Step) -> Step {
    loop {
        step = match step {
            Step::Handle(mut handle) => {
                let response = format!("{}", world.count() + 1);
                handle.unit_of_work().respond(response.into());
                handle.unit_of_work().send(tollgate_proto::unit_of_work::Outgoing {
                    to: destination(),
                    message_type: "add".try_into().unwrap(),
                    headers: vec![],
                    body: tollgate_proto::Body::Inline("".into()),
                    audience: tollgate_proto::Audience::Tollgate,
                    effects: vec![],
                });
                add(handle)
            }
            Step::WakeUp(_) | Step::Settled(_) => return step,
            other => world.advance(process, other),
        };
    }
}

#[test]
fn a_repeated_request_is_answered_from_the_stored_response_and_changes_nothing() {
    let mut world = World::default();
    let mut process = Process::default();
    let work = world.work(&process, vec![request()]);
    let step = answer_request(&mut world, &mut process, Processing::begin(work));
    assert!(matches!(step, Step::WakeUp(_)), "a wake-up goes out before the commit");
    assert_eq!(world.settle(&mut process, step).dispositions, [Disposition::Committed]);
    let again = world.process(&mut Process::default(), vec![request()]);
    assert_eq!(again, [Disposition::Replayed("1".into())]);
    assert_eq!(world.count(), 1);
}

#[test]
fn a_request_whose_commit_was_not_answered_is_found_by_its_attempt() {
    let mut world = World::default();
    let mut process = Process::default();
    let work = world.work(&process, vec![request()]);
    let step = answer_request(&mut world, &mut process, Processing::begin(work));
    let Step::Commit(commit) = world.advance(&mut process, step) else {
        panic!("the commit follows the wake-up")
    };
    world.commit(commit.request());
    let step = commit.answer(Err(lost_answer()));
    let settled = world.settle(&mut process, step);
    assert_eq!(settled.dispositions, [Disposition::Committed]);
    world.complete(&mut process, settled.completion.expect("its outputs are not out"));
    assert_eq!(world.count(), 1);
    let published = world.sent.iter().filter(|envelope| envelope.token().is_some()).count();
    assert_eq!(published, 1);
}

/// The last copy of a message whose answer was lost must not be acknowledged while the broker is down: nobody
/// else may come.
#[test]
fn a_message_whose_lost_commit_is_found_waits_for_its_outputs() {
    let (mut world, _) = World::with_messages(&[]);
    let incoming = Incoming::Message {
        envelope: tokenless_envelope("send").into(),
        tokenless: Tokenless::ByIdentity { expires_at_ms: 9 },
    };
    let mut process = Process::default();
    let work = world.work(&process, vec![incoming.clone()]);
    let is_commit = |step: &Step| matches!(step, Step::Commit(_));
    let step = until(&mut world, &mut process, Processing::begin(work), is_commit);
    let Step::Commit(commit) = step else { unreachable!("that was waited for") };
    world.commit(commit.request());
    let settled = world.settle(&mut process, commit.answer(Err(lost_answer())));
    assert_eq!(settled.dispositions, [Disposition::Committed]);
    let completion = settled.completion.expect("its outputs are not out");
    assert_eq!(completion.slots().collect::<Vec<_>>(), [0], "the message waits for them");
    world.complete(&mut process, completion);
    assert_eq!((world.count(), world.sent.len()), (1, 1));
}

fn wake_up(envelope: &Envelope, patience: WakeUpPatience) -> Incoming {
    let Content::WakeUp { attempt, expected } = envelope.content else { panic!("not a wake-up") };
    Incoming::WakeUp { attempt, expected, patience }
}

#[test]
fn a_wake_up_publishes_what_a_dead_edge_had_committed() {
    let mut world = World::default();
    let mut dies = Process::default();
    let work = world.work(&dies, vec![request()]);
    let step = answer_request(&mut world, &mut dies, Processing::begin(work));
    world.settle(&mut dies, step);
    let announced = world.sent[0].clone();
    assert_eq!(world.sent.len(), 1, "only the wake-up is out");
    let woken = world.process(&mut Process::default(), vec![wake_up(&announced, WakeUpPatience::Wait)]);
    assert_eq!(woken, [Disposition::Visited]);
    assert_eq!(world.sent.len(), 2);
}

/// A wake-up that is acknowledged before the commit it announces would guarantee nothing. It waits, and in
/// the end makes that commit impossible.
#[test]
fn a_wake_up_that_comes_before_the_commit_waits_and_then_fences_it() {
    let mut world = World::default();
    let (mut stalled, mut visitor) = (Process::default(), Process::default());
    let work = world.work(&stalled, vec![request()]);
    let step = answer_request(&mut world, &mut stalled, Processing::begin(work));
    let at_commit = world.advance(&mut stalled, step);
    let announced = world.sent[0].clone();
    let early = world.process(&mut visitor, vec![wake_up(&announced, WakeUpPatience::Wait)]);
    assert!(matches!(early[0], Disposition::Retry { .. }));
    visitor.view = None;
    let last = world.process(&mut visitor, vec![wake_up(&announced, WakeUpPatience::Fence)]);
    assert_eq!(last, [Disposition::Visited]);
    // The stalled edge goes on: its commit conflicts, and it sends a new wake-up before it tries again.
    let step = world.advance(&mut stalled, at_commit);
    let step = answer_request(&mut world, &mut stalled, step);
    assert!(matches!(step, Step::WakeUp(_)));
    assert_eq!(world.settle(&mut stalled, step).dispositions, [Disposition::Committed]);
    assert_eq!(world.count(), 1);
}

/// R7, for SDKs that repeat a commit by themselves: the echo of our own commit looks like a conflict.
#[test]
fn a_conflict_with_our_own_commit_does_not_apply_a_tokenless_message_twice() {
    let (mut world, _) = World::with_messages(&[]);
    let envelope = tokenless_envelope("send");
    let mut process = Process::default();
    let incoming = Incoming::Message { envelope: envelope.into(), tokenless: Tokenless::Natural };
    let work = world.work(&process, vec![incoming]);
    let step =
        until(&mut world, &mut process, Processing::begin(work), |step| matches!(step, Step::Commit(_)));
    let Step::Commit(commit) = step else { unreachable!() };
    world.commit(commit.request());
    let outcome = world.commit(commit.request());
    assert_eq!(outcome, tollgate_proto::CommitOutcome::Conflict);
    let step = commit.answer(Ok(outcome));
    let settled = world.settle(&mut process, step);
    assert_eq!(settled.dispositions, [Disposition::Committed]);
    let completion = settled.completion.expect("it is acknowledged when its outputs are out");
    assert_eq!(completion.slots().collect::<Vec<_>>(), [0]);
    world.complete(&mut process, completion);
    assert_eq!((world.count(), world.sent.len()), (1, 1));
}

#[test]
fn two_endpoints_on_one_partition_do_not_eat_each_others_messages() {
    let to = |endpoint: &str| {
        let mut envelope = tokenless_envelope("send");
        envelope.to.endpoint = endpoint.try_into().unwrap();
        Incoming::Message { envelope: envelope.into(), tokenless: Tokenless::ByIdentity { expires_at_ms: 9 } }
    };
    // One after the other, and in one burst.
    for bursts in [vec![vec!["billing"], vec!["shipping"]], vec![vec!["billing", "shipping"]]] {
        let (mut world, mut process) = (World::default(), Process::default());
        for burst in bursts {
            for disposition in world.process(&mut process, burst.iter().map(|name| to(name)).collect()) {
                assert_eq!(disposition, Disposition::Committed);
            }
        }
        assert_eq!((world.count(), world.sent.len()), (2, 2));
        let again = world.process(&mut process, vec![to("shipping"), to("billing"), to("shipping")]);
        assert_eq!(again, [const { Disposition::Duplicate }; 3]);
        assert_eq!(world.count(), 2);
    }
}

#[test]
fn a_message_refused_by_one_endpoint_is_not_taken_for_the_one_that_another_has_committed() {
    let (mut world, mut process) = (World::default(), Process::default());
    let to = |endpoint: &str, body: &'static str| {
        let mut envelope =
            Envelope { message_id: MessageId::from_bytes([7; 16]), ..tokenless_envelope(body) };
        envelope.to.endpoint = endpoint.try_into().unwrap();
        Incoming::Message { envelope: envelope.into(), tokenless: Tokenless::ByIdentity { expires_at_ms: 9 } }
    };
    let work = world.work(&process, vec![to("billing", "send"), to("shipping", "poison")]);
    let step =
        until(&mut world, &mut process, Processing::begin(work), |step| matches!(step, Step::Commit(_)));
    let Step::Commit(commit) = step else { unreachable!("that is what was waited for") };
    world.commit(commit.request());
    let step = commit.answer(Err(lost_answer()));
    let dispositions = world.settle(&mut process, step).dispositions;
    assert_eq!(dispositions[0], Disposition::Committed);
    assert!(matches!(dispositions[1], Disposition::DeadLetter { .. }), "{dispositions:?}");
}

#[test]
fn natural_messages_with_one_id_are_copies_only_if_they_are_alike() {
    let reading = |body: &'static str| {
        let envelope = Envelope { message_id: MessageId::from_bytes([7; 16]), ..tokenless_envelope(body) };
        Incoming::Message { envelope: envelope.into(), tokenless: Tokenless::Natural }
    };
    let (mut world, mut process) = (World::default(), Process::default());
    let burst = ["20", "21", "21", "25"].map(reading).into();
    assert_eq!(world.process(&mut process, burst), [const { Disposition::Committed }; 4]);
    assert_eq!(world.count(), 3, "of the two that are alike one is enough");
}

/// One step of a source, which gives all its steps one name.
fn poll() -> Incoming {
    Incoming::Request(Request {
        message_id: MessageId::from_name("source/feed", "poll"),
        endpoint: "source".try_into().unwrap(),
        deduplication: RequestDeduplication::ByState,
    })
}

#[test]
fn steps_of_a_source_with_one_name_send_messages_with_different_ids() {
    let (mut world, mut process) = (World::default(), Process::default());
    // The second of two that come together is given to the next processing.
    for burst in [vec![poll()], vec![poll(), poll()], vec![poll()]] {
        let work = world.work(&process, burst);
        let mut step = Processing::begin(work);
        let settled = loop {
            step = match answer_request(&mut world, &mut process, step) {
                Step::Settled(settled) => break world.settle(&mut process, Step::Settled(settled)),
                wake_up => world.advance(&mut process, wake_up),
            };
        };
        assert_eq!(settled.dispositions[0], Disposition::Committed);
        assert!(settled.dispositions[1..].iter().all(|second| *second == Disposition::Postponed));
        world.complete(&mut process, settled.completion.unwrap());
    }
    let messages = world.sent.iter().filter(|envelope| envelope.token().is_some());
    let ids: std::collections::HashSet<_> = messages.map(|envelope| envelope.message_id).collect();
    assert_eq!((world.count(), ids.len()), (3, 3));
}

#[test]
fn a_step_that_is_run_again_on_the_same_state_sends_the_same_ids() {
    let (mut world, mut process) = (World::default(), Process::default());
    let mut sent = Vec::new();
    world.process(&mut process, vec![poll()]);
    for _ in 0..2 {
        let work = world.work(&process, vec![poll()]);
        let Step::WakeUp(wake_up) = answer_request(&mut world, &mut process, Processing::begin(work)) else {
            panic!("it sends a message, so there is a wake-up")
        };
        let Step::Commit(commit) = wake_up.answer(Ok(())) else { panic!("the commit follows the wake-up") };
        // It is not carried out: the process dies.
        let entries = commit.request().entries.into_iter();
        sent.push(
            entries.map(|(_, bytes)| codec::decode_entry(&bytes).unwrap().message_id).collect::<Vec<_>>(),
        );
    }
    assert_eq!((sent[0].len(), &sent[0]), (1, &sent[1]));
}
