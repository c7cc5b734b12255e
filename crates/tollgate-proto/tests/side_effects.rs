//! Stories of side effects that can't join the transaction: registered, created, and
//! cleaned up when their attempt has lost, zombies included.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod world;

use tollgate_proto::processing::{
    Disposition, HandleStep, Incoming, Maintenance, Processing, Step, Tokenless, Work,
};
use tollgate_proto::{Content, EffectKind, EffectName, Envelope, MessageId};
use world::{Process, World, add, lost_answer, message, until};

/// Runs to the handler, registers a blob and creates it; gives the step back before the handler ends.
fn with_blob(world: &mut World, process: &mut Process, work: Work, name: &str) -> HandleStep {
    let step = until(world, process, Processing::begin(work), |step| matches!(step, Step::Handle(_)));
    let Step::Handle(mut handle) = step else { unreachable!() };
    let name = EffectName::new(name).unwrap();
    let commit = handle.register(EffectKind::new("blob").unwrap(), name.clone(), 1_000).unwrap();
    let answer = Ok(world.commit(commit));
    handle.registered(&answer).unwrap();
    handle.prepared(&name);
    world.blobs.insert(name);
    handle
}

#[test]
fn the_committed_attempts_blob_stays_and_its_registration_goes() {
    let (mut world, envelopes) = World::with_messages(&[""]);
    let mut process = Process::default();
    let work = world.work(&process, vec![message(&envelopes[0])]);
    let handle = with_blob(&mut world, &mut process, work, "a");
    let settled = world.settle(&mut process, add(handle));
    assert_eq!(settled.dispositions, [Disposition::Committed]);
    world.complete(&mut process, settled.completion.unwrap());
    world.tidy(&mut process);
    assert_eq!(world.control().unwrap().registrations, []);
    assert_eq!(world.blobs.len(), 1);
}

#[test]
fn a_failed_handlers_blob_is_deleted_at_once() {
    let (mut world, envelopes) = World::with_messages(&["fail"]);
    let mut process = Process::default();
    let work = world.work(&process, vec![message(&envelopes[0])]);
    let handle = with_blob(&mut world, &mut process, work, "a");
    let settled = world.settle(&mut process, add(handle));
    world.complete(&mut process, settled.completion.unwrap());
    assert!(world.blobs.is_empty());
    world.tidy(&mut process);
    assert_eq!(world.control().unwrap().registrations, []);
}

/// Section 4: the zombie creates its blob after the winner has cleaned up.
#[test]
fn a_zombies_blob_is_cleaned_up_once_its_deadline_has_passed() {
    let (mut world, envelopes) = World::with_messages(&[""]);
    let (mut zombie, mut winner) = (Process::default(), Process::default());
    let work = world.work(&zombie, vec![message(&envelopes[0])]);
    let stalled = with_blob(&mut world, &mut zombie, work, "zombie");
    let work = world.work(&winner, vec![message(&envelopes[0])]);
    let handle = with_blob(&mut world, &mut winner, work, "winner");
    let settled = world.settle(&mut winner, add(handle));
    assert_eq!(settled.dispositions, [Disposition::Committed]);
    world.complete(&mut winner, settled.completion.unwrap());
    assert_eq!(world.blobs.len(), 1, "the zombie's first blob is gone");

    // The zombie wakes up, creates the blob again, and its commit fails.
    world.blobs.insert(EffectName::new("zombie").unwrap());
    assert_eq!(world.settle(&mut zombie, add(stalled)).dispositions, [Disposition::Duplicate]);
    world.tidy(&mut winner);
    assert_eq!(world.control().unwrap().registrations.len(), 1, "before its deadline it stays condemned");

    world.now_ms = 2_000;
    let mut sweeper = Process::default();
    world.tidy(&mut sweeper);
    world.tidy(&mut sweeper);
    assert_eq!(world.blobs.iter().map(EffectName::as_str).collect::<Vec<_>>(), ["winner"]);
    assert_eq!(world.control().unwrap().registrations, []);
}

/// A blob may only be deleted when its attempt can't commit any more; past its deadline it still can.
#[test]
fn an_overdue_attempt_is_fenced_before_its_blob_is_deleted() {
    let (mut world, envelopes) = World::with_messages(&[""]);
    let mut slow = Process::default();
    let work = world.work(&slow, vec![message(&envelopes[0])]);
    let handle = with_blob(&mut world, &mut slow, work, "slow");
    world.now_ms = 2_000;
    let mut sweeper = Process::default();
    let work = Work { maintenance: Maintenance::Tidy, ..world.work(&sweeper, vec![]) };
    let settled = world.settle(&mut sweeper, Processing::begin(work));
    assert_eq!(world.blobs.len(), 1, "first it is condemned, by a commit");
    // The slow attempt commits just now, and is told of a conflict: it starts again, without its blob.
    let at_commit = add(handle);
    let step = world.advance(&mut slow, at_commit);
    assert!(matches!(step, Step::Load(_)));
    world.complete(&mut sweeper, settled.completion.unwrap());
    assert!(world.blobs.is_empty());
    assert_eq!(world.settle(&mut slow, step).dispositions, [Disposition::Committed]);
    world.tidy(&mut sweeper);
    world.tidy(&mut slow);
}

/// Found by simulation: the registration is a commit of the same attempt, so the attempt alone does not tell
/// whether the message was committed.
#[test]
fn an_attempt_that_has_only_registered_a_side_effect_is_not_taken_for_one_that_has_committed() {
    let (mut world, envelopes) = World::with_messages(&[""]);
    let known_by_its_id = Envelope { content: Content::Body("".into()), ..envelopes[0].clone() };
    let incoming = Incoming::Message {
        envelope: known_by_its_id.into(),
        tokenless: Tokenless::ByIdentity { expires_at_ms: u64::MAX },
    };
    let mut process = Process::default();
    let work = world.work(&process, vec![incoming]);
    let handle = with_blob(&mut world, &mut process, work, "a");
    let is_commit = |step: &Step| matches!(step, Step::Commit(_));
    let Step::Commit(commit) = until(&mut world, &mut process, add(handle), is_commit) else {
        unreachable!("that was waited for")
    };
    // The commit does not happen, and nobody hears of that.
    let settled = world.settle(&mut process, commit.answer(Err(lost_answer())));
    assert_eq!(settled.dispositions, [Disposition::Committed]);
    assert_eq!(world.count(), 1, "the handler was run again");
}

/// The handler's `timeout` struck while the registration was under way, and the handler went on without its
/// side effect.
#[test]
fn a_registration_that_nobody_waited_for_is_not_taken_for_the_commit() {
    let (mut world, envelopes) = World::with_messages(&[""]);
    let known_by_its_id = Envelope { content: Content::Body("".into()), ..envelopes[0].clone() };
    let neighbour = Envelope { message_id: MessageId::from_bytes([9; 16]), ..known_by_its_id.clone() };
    let incoming = |envelope: Envelope| Incoming::Message {
        envelope: envelope.into(),
        tokenless: Tokenless::ByIdentity { expires_at_ms: u64::MAX },
    };
    let mut process = Process::default();
    let work = world.work(&process, vec![incoming(known_by_its_id), incoming(neighbour)]);
    let is_handler = |step: &Step| matches!(step, Step::Handle(_));
    let step = until(&mut world, &mut process, Processing::begin(work), is_handler);
    let Step::Handle(mut handle) = step else { unreachable!() };
    let registration =
        handle.register(EffectKind::new("blob").unwrap(), EffectName::new("a").unwrap(), 1_000).unwrap();
    world.commit(registration);
    let settled = world.settle(&mut process, add(handle));
    assert!(matches!(settled.dispositions[0], Disposition::Retry { .. }), "{:?}", settled.dispositions);
    assert_eq!(settled.dispositions[1..], [Disposition::Committed], "its neighbour starts again at once");
    assert_eq!(world.count(), 1, "the neighbour is applied, and not only said to be");
}

#[test]
fn a_registration_commits_under_an_id_that_is_not_its_attempts() {
    let (mut world, envelopes) = World::with_messages(&[""]);
    let mut process = Process::default();
    let work = world.work(&process, vec![message(&envelopes[0])]);
    let handle = with_blob(&mut world, &mut process, work, "a");
    let registered = world.control().unwrap();
    assert_ne!(registered.attempt, handle.attempt());
    assert_eq!(registered.registrations[0].attempt, handle.attempt(), "the side effect is the attempt's");
    world.settle(&mut process, add(handle));
    assert_ne!(world.control().unwrap().attempt, registered.attempt);
}

/// The handler's `timeout` struck while the blob was uploaded, and the handler went on without it.
#[test]
fn an_attempt_whose_preparation_was_dropped_commits_nothing_and_leaves_nothing() {
    let (mut world, envelopes) = World::with_messages(&[""]);
    let mut process = Process::default();
    let work = world.work(&process, vec![message(&envelopes[0])]);
    let is_handler = |step: &Step| matches!(step, Step::Handle(_));
    let step = until(&mut world, &mut process, Processing::begin(work), is_handler);
    let Step::Handle(mut handle) = step else { unreachable!() };
    let name = EffectName::new("dropped").unwrap();
    let commit = handle.register(EffectKind::new("blob").unwrap(), name.clone(), 1_000).unwrap();
    let answer = Ok(world.commit(commit));
    handle.registered(&answer).unwrap();
    world.blobs.insert(name.clone());
    let settled = world.settle(&mut process, add(handle));
    assert!(matches!(settled.dispositions[0], Disposition::Retry { .. }), "{:?}", settled.dispositions);
    assert_eq!(world.count(), 0);
    world.complete(&mut process, settled.completion.unwrap());
    assert!(world.blobs.is_empty());
    // The upload was still under way.
    world.blobs.insert(name);
    assert_eq!(world.process(&mut process, vec![message(&envelopes[0])]), [Disposition::Committed]);
    assert_eq!((world.count(), world.blobs.len()), (1, 0), "the attempt that commits cleans up after it");
    world.blobs.insert(EffectName::new("dropped").unwrap());
    world.now_ms = 2_000;
    let mut sweeper = Process::default();
    world.tidy(&mut sweeper);
    world.tidy(&mut sweeper);
    assert!(world.blobs.is_empty(), "and once more when nothing of the first can come any more");
    assert_eq!(world.control().unwrap().registrations, []);
}
