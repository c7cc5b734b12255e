//! Stories of R5: a past that can't be completed does not block the present. Entries that fail stay pending,
//! their markers are carried on, and only their own copies wait.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod world;

use tollgate_proto::control_record::{PENDING_MAX, PendingId};
use tollgate_proto::processing::{
    Deferred, Disposition, Incoming, Processing, Request, RequestDeduplication, Step, Tokenless,
    WakeUpPatience, Work,
};
use tollgate_proto::{Content, DeduplicationKey, Envelope, MessageId};
use world::{Process, World, destination, lost_answer, message, until};

/// A world in which a process has committed the first message and died, and the broker is down since.
fn with_stuck_message(bodies: &[&str]) -> (World, Vec<Envelope>) {
    let (mut world, envelopes) = World::with_messages(bodies);
    let mut dies = Process::default();
    let work = world.work(&dies, vec![message(&envelopes[0])]);
    world.settle(&mut dies, Processing::begin(work));
    world.broker_is_down = true;
    (world, envelopes)
}

fn pending(world: &World) -> Vec<PendingId> {
    world.control().unwrap().pending.iter().map(|entry| entry.id).collect()
}

#[test]
fn what_cannot_be_completed_stays_pending_and_the_visit_goes_on() {
    let (mut world, envelopes) = with_stuck_message(&["send", "", ""]);
    let stuck = pending(&world)[0];
    let mut process = Process::default();
    for envelope in &envelopes[1..] {
        assert_eq!(world.process(&mut process, vec![message(envelope)]), [Disposition::Committed]);
        assert!(pending(&world).contains(&stuck), "its marker is carried on");
    }
    assert_eq!(world.count(), 3);
    assert!(world.read(envelopes[0].token().unwrap()).is_some(), "and its token is not consumed");
    world.broker_is_down = false;
    let copy = world.process(&mut process, vec![message(&envelopes[0])]);
    assert_eq!(copy, [Disposition::CommittedBefore], "its own redelivery finishes it");
    world.consume(&world.sent[0].token().unwrap().clone());
    world.tidy(&mut process);
    world.assert_quiet();
    assert_eq!(world.count(), 3);
}

#[test]
fn a_copy_of_a_message_that_cannot_be_finished_waits_and_no_one_is_to_blame() {
    let (mut world, envelopes) = with_stuck_message(&["send", ""]);
    let burst = vec![message(&envelopes[0]), message(&envelopes[1])];
    let dispositions = world.process(&mut Process::default(), burst);
    assert!(
        matches!(&dispositions[0], Disposition::Blocked { reason } if reason.contains("broker down")),
        "{dispositions:?}"
    );
    assert_eq!(dispositions[1], Disposition::Committed);
}

#[test]
fn what_its_own_process_is_completing_is_not_completed_again() {
    let (mut world, envelopes) = World::with_messages(&["send", ""]);
    let mut process = Process::default();
    let work = world.work(&process, vec![message(&envelopes[0])]);
    let first = world.settle(&mut process, Processing::begin(work)).completion.unwrap();
    let deferred = Deferred { under_way: first.pending_ids().collect(), ..Deferred::default() };
    for view in [None, process.view.clone()] {
        process.view = view;
        let messages = vec![message(&envelopes[0]), message(&envelopes[1])];
        let work = Work { deferred: deferred.clone(), ..world.work(&process, messages) };
        let settled = world.settle(&mut process, Processing::begin(work));
        assert!(matches!(settled.dispositions[0], Disposition::Blocked { .. }), "the copy waits");
        assert_eq!(world.sent.len(), 0);
    }
    world.complete(&mut process, first);
    assert_eq!(world.process(&mut process, vec![message(&envelopes[0])]), [Disposition::Duplicate]);
    assert_eq!((world.count(), world.sent.len()), (2, 1));
}

#[test]
fn an_entry_whose_next_try_is_not_due_is_tried_by_its_own_copy_only() {
    let (mut world, envelopes) = with_stuck_message(&["send", ""]);
    world.broker_is_down = false;
    let deferred = Deferred { not_due: pending(&world), ..Deferred::default() };
    let mut process = Process::default();
    let work = Work { deferred: deferred.clone(), ..world.work(&process, vec![message(&envelopes[1])]) };
    assert_eq!(world.settle(&mut process, Processing::begin(work)).dispositions, [Disposition::Committed]);
    assert_eq!(world.sent.len(), 0);
    let work = Work { deferred, ..world.work(&process, vec![message(&envelopes[0])]) };
    let settled = world.settle(&mut process, Processing::begin(work));
    assert_eq!(settled.dispositions, [Disposition::CommittedBefore]);
    world.complete(&mut process, settled.completion.unwrap());
    assert_eq!(world.sent.len(), 1);
}

#[test]
fn a_recovery_that_takes_long_is_left_under_way_and_the_visit_goes_on() {
    let (mut world, envelopes) = with_stuck_message(&["send", ""]);
    let mut process = Process::default();
    let work = world.work(&process, vec![message(&envelopes[0]), message(&envelopes[1])]);
    let step =
        until(&mut world, &mut process, Processing::begin(work), |step| matches!(step, Step::Recover(_)));
    let Step::Recover(recover) = step else { unreachable!() };
    let (recovering, completion) = recover.start();
    let settled = world.settle(&mut process, recovering.leave_under_way());
    assert!(matches!(settled.dispositions[0], Disposition::Blocked { .. }));
    assert_eq!(settled.dispositions[1], Disposition::Committed);
    world.broker_is_down = false;
    world.complete(&mut process, completion);
    assert_eq!(world.process(&mut process, vec![message(&envelopes[0])]), [Disposition::Duplicate]);
}

#[test]
fn a_full_list_of_unfinished_entries_puts_new_messages_back_without_blame() {
    let bodies = vec!["send"; PENDING_MAX + 1];
    let (mut world, envelopes) = World::with_messages(&bodies);
    world.broker_is_down = true;
    let mut process = Process::default();
    for envelope in &envelopes[..PENDING_MAX] {
        let work = world.work(&process, vec![message(envelope)]);
        assert_eq!(
            world.settle(&mut process, Processing::begin(work)).dispositions,
            [Disposition::Committed]
        );
    }
    for view in [process.view.clone(), None] {
        process.view = view;
        let last = world.process(&mut process, vec![message(&envelopes[PENDING_MAX])]);
        assert!(
            matches!(&last[0], Disposition::Blocked { reason } if reason.contains("broker down")),
            "{last:?}"
        );
    }
    assert_eq!(world.count(), PENDING_MAX as u64);
    world.broker_is_down = false;
    let last = world.process(&mut process, vec![message(&envelopes[PENDING_MAX])]);
    assert_eq!(last, [Disposition::Committed]);
}

#[test]
fn a_message_without_a_token_whose_lost_commit_is_found_waits_for_its_outputs() {
    let (mut world, _) = World::with_messages(&[]);
    let envelope = Envelope {
        message_id: MessageId::from_name("legacy", "1"),
        to: destination(),
        message_type: "add".try_into().unwrap(),
        headers: vec![],
        content: Content::Body("send".into()),
    };
    let by_identity = Tokenless::ByIdentity { expires_at_ms: 9 };
    let incoming = Incoming::Message { envelope: envelope.into(), tokenless: by_identity };
    let mut process = Process::default();
    let work = world.work(&process, vec![incoming]);
    let step =
        until(&mut world, &mut process, Processing::begin(work), |step| matches!(step, Step::Commit(_)));
    let Step::Commit(commit) = step else { unreachable!() };
    world.commit(commit.request());
    world.broker_is_down = true;
    let step = commit.answer(Err(lost_answer()));
    let settled = world.settle(&mut process, step);
    assert_eq!(settled.dispositions, [Disposition::Committed]);
    let completion = settled.completion.expect("there is something to be sent before the acknowledgement");
    let report = world.complete(&mut process, completion);
    assert!(report.waiting()[&0].is_err(), "it is put back, and recognised when it returns");
}

#[test]
fn a_wake_up_waits_for_everything_that_its_attempt_has_committed() {
    let mut world = World::default();
    let mut dies = Process::default();
    let request = |number: u8| {
        Incoming::Request(Request {
            message_id: MessageId::from_name("edge", &number.to_string()),
            endpoint: destination().endpoint,
            deduplication: RequestDeduplication::ByKey {
                key: DeduplicationKey::of_request(&destination().endpoint, &number.to_string()).unwrap(),
                expires_at_ms: 9,
            },
        })
    };
    let mut step = Processing::begin(world.work(&dies, vec![request(0), request(1)]));
    while !matches!(step, Step::Settled(_)) {
        step = match step {
            Step::Handle(mut handle) => {
                handle.unit_of_work().send(tollgate_proto::unit_of_work::Outgoing {
                    to: destination(),
                    message_type: "added".try_into().unwrap(),
                    headers: vec![],
                    body: tollgate_proto::Body::Inline("1".into()),
                    audience: tollgate_proto::Audience::Tollgate,
                    effects: vec![],
                });
                handle.succeeded()
            }
            other => world.advance(&mut dies, other),
        };
    }
    let Content::WakeUp { attempt, expected } = world.sent[0].content else { panic!("it is sent first") };
    let wake_up = || Incoming::WakeUp { attempt, expected, patience: WakeUpPatience::Wait };
    world.broker_is_down = true;
    let woken = world.process(&mut Process::default(), vec![wake_up()]);
    assert!(
        matches!(woken[0], Disposition::Blocked { .. }),
        "it is all that stands for the request's outputs"
    );
    world.broker_is_down = false;
    // One of the two is tried by nobody else just now.
    let deferred = Deferred { not_due: vec![pending(&world)[1]], ..Deferred::default() };
    let mut process = Process::default();
    let work = Work { deferred, ..world.work(&process, vec![wake_up()]) };
    let settled = world.settle(&mut process, Processing::begin(work));
    assert_eq!(settled.dispositions, [Disposition::CommittedBefore]);
    let report = world.complete(&mut process, settled.completion.unwrap());
    assert_eq!(report.waiting().into_values().collect::<Vec<_>>(), [Ok(())]);
    assert_eq!(world.sent.len(), 3);
}
