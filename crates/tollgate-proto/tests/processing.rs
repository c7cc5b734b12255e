//! Stories of the state machine, one rule or one fault each, told step by step against a world of plain maps.
//! The explorer walks all interleavings; these say in words what the rules are for.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod world;

use tollgate_proto::completion::CompletionStep;
use tollgate_proto::processing::{Disposition, Incoming, Processing, Step, Work};
use tollgate_proto::{
    Content, Envelope, LoadedPartition, MessageId, PartitionKey, Placement, SessionMark, StoreError, codec,
};
use world::{Process, World, item, lost_answer, message, partition, small_limits, store, until};

#[test]
fn a_message_is_applied_once_published_consumed_and_leaves_nothing_behind() {
    let (mut world, envelopes) = World::with_messages(&["send"]);
    let mut process = Process::default();
    assert_eq!(world.process(&mut process, vec![message(&envelopes[0])]), [Disposition::Committed]);
    assert_eq!((world.count(), world.sent.len()), (1, 1));
    let token = world.sent[0].token().expect("it goes to a consumer that knows tokens").clone();
    assert!(world.read(&token).is_some(), "the published message's own token is there");
    world.consume(&token);
    world.tidy(&mut process);
    world.assert_quiet();
}

#[test]
fn warm_and_unbatched_it_takes_two_store_calls_before_dispatch_and_one_after() {
    let (mut world, envelopes) = World::with_messages(&["", "send"]);
    let mut process = Process::default();
    world.process(&mut process, vec![message(&envelopes[0])]);
    let work = world.work(&process, vec![message(&envelopes[1])]);
    let mut step = Processing::begin(work);
    let mut calls = Vec::new();
    let settled = loop {
        match &step {
            Step::Load(_) => calls.push("load"),
            Step::ReadTokens(_) => calls.push("read"),
            Step::Commit(_) => calls.push("commit"),
            Step::Recover(_) => calls.push("recover"),
            Step::Handle(_) | Step::WakeUp(_) => {}
            Step::Settled(_) => break world.settle(&mut process, step),
        }
        step = world.advance(&mut process, step);
    };
    assert_eq!(calls, ["read", "commit"]);
    let report = world.complete(&mut process, settled.completion.unwrap());
    assert_eq!(report.failures().count(), 0);
}

#[test]
fn a_redelivery_after_everything_is_dropped_because_its_token_is_gone() {
    let (mut world, envelopes) = World::with_messages(&[""]);
    world.process(&mut Process::default(), vec![message(&envelopes[0])]);
    let mut other = Process::default();
    assert_eq!(world.process(&mut other, vec![message(&envelopes[0])]), [Disposition::Duplicate]);
    assert_eq!(world.count(), 1);
}

#[test]
fn a_redelivery_after_the_commit_publishes_and_does_not_apply_twice() {
    let (mut world, envelopes) = World::with_messages(&["send"]);
    let mut dies = Process::default();
    let work = world.work(&dies, vec![message(&envelopes[0])]);
    let settled = world.settle(&mut dies, Processing::begin(work));
    assert!(settled.completion.is_some(), "and it is never run: the process dies here");
    assert_eq!((world.count(), world.sent.len()), (1, 0));

    let mut next = Process::default();
    assert_eq!(world.process(&mut next, vec![message(&envelopes[0])]), [Disposition::Duplicate]);
    assert_eq!((world.count(), world.sent.len()), (1, 1));
    world.consume(&world.sent[0].token().unwrap().clone());
    world.tidy(&mut next);
    world.assert_quiet();
}

#[test]
fn a_redelivery_while_the_first_is_still_being_finished_finds_the_marker_in_the_cache() {
    let (mut world, envelopes) = World::with_messages(&["send"]);
    let mut process = Process::default();
    let work = world.work(&process, vec![message(&envelopes[0])]);
    let first = world.settle(&mut process, Processing::begin(work));
    let again = world.process(&mut process, vec![message(&envelopes[0])]);
    assert_eq!(again, [Disposition::CommittedBefore]);
    assert_eq!((world.count(), world.sent.len()), (1, 1));
    world.complete(&mut process, first.completion.unwrap());
    assert_eq!(world.count(), 1);
    assert_eq!(
        world.sent[0],
        *world.sent.last().unwrap(),
        "what was published twice is one message with one token"
    );
}

/// R1. With the token read before the load, the second copy would be applied again: the marker is pruned
/// already.
#[test]
fn a_token_is_read_again_after_a_conflict_because_it_may_have_been_consumed_meanwhile() {
    let (mut world, envelopes) = World::with_messages(&["", ""]);
    let (mut slow, mut fast) = (Process::default(), Process::default());
    let work = world.work(&slow, vec![message(&envelopes[0])]);
    let step = until(&mut world, &mut slow, Processing::begin(work), |step| matches!(step, Step::Commit(_)));
    // Meanwhile another process does all of it, and its next commit prunes the marker.
    world.process(&mut fast, vec![message(&envelopes[0])]);
    world.process(&mut fast, vec![message(&envelopes[1])]);
    world.tidy(&mut fast);
    let settled = world.settle(&mut slow, step);
    assert_eq!(settled.dispositions, [Disposition::Duplicate]);
    assert_eq!(world.count(), 2);
}

/// R2 and R8: a marker stays until the token is gone, and the token until the outputs are out.
#[test]
fn a_failed_publication_keeps_the_token_and_the_marker() {
    let (mut world, envelopes) = World::with_messages(&["send", ""]);
    let mut process = Process::default();
    let work = world.work(&process, vec![message(&envelopes[0])]);
    let settled = world.settle(&mut process, Processing::begin(work));
    let tollgate_proto::completion::CompletionStep::Publish(publish) = settled.completion.unwrap().begin()
    else {
        panic!("publishing comes first")
    };
    let tollgate_proto::completion::CompletionStep::Done(report) =
        publish.answer(vec![Err("broker down".into())])
    else {
        panic!("nothing may be consumed when nothing was published")
    };
    assert_eq!(report.failures().count(), 1);
    assert!(report.marks.is_empty());
    assert!(world.read(envelopes[0].token().unwrap()).is_some());
    // The next commit carries the marker on.
    world.process(&mut process, vec![message(&envelopes[1])]);
    assert!(world.control().unwrap().marker(envelopes[0].token().unwrap()).is_some());
    assert_eq!(world.process(&mut process, vec![message(&envelopes[0])]), [Disposition::CommittedBefore]);
    assert_eq!(world.sent.len(), 1);
}

#[test]
fn a_failed_consumption_is_not_taken_for_finished() {
    let (mut world, envelopes) = World::with_messages(&[""]);
    let mut process = Process::default();
    let work = world.work(&process, vec![message(&envelopes[0])]);
    let settled = world.settle(&mut process, Processing::begin(work));
    let tollgate_proto::completion::CompletionStep::Consume(consume) = settled.completion.unwrap().begin()
    else {
        panic!("there is nothing to publish")
    };
    let error = StoreError::Unavailable { store: store(), reason: "gone".into() };
    let tollgate_proto::completion::CompletionStep::Done(report) = consume.answer(vec![Err(error)]) else {
        panic!("that was all")
    };
    assert!(report.marks.is_empty());
    world.tidy(&mut process);
    assert_eq!(world.control().unwrap().pending.len(), 1, "a flush prunes only what is finished");
}

/// R3.
#[test]
fn two_processes_that_race_on_one_message_commit_it_once() {
    let (mut world, envelopes) = World::with_messages(&["send"]);
    let (mut one, mut other) = (Process::default(), Process::default());
    let work = world.work(&one, vec![message(&envelopes[0])]);
    let at_commit =
        until(&mut world, &mut one, Processing::begin(work), |step| matches!(step, Step::Commit(_)));
    assert_eq!(world.process(&mut other, vec![message(&envelopes[0])]), [Disposition::Committed]);
    let settled = world.settle(&mut one, at_commit);
    assert_eq!(settled.dispositions, [Disposition::Duplicate]);
    assert_eq!(world.count(), 1);
}

/// R5.
#[test]
fn a_visitor_that_loads_a_partition_completes_what_is_pending() {
    let (mut world, envelopes) = World::with_messages(&["send", ""]);
    let mut dies = Process::default();
    let work = world.work(&dies, vec![message(&envelopes[0])]);
    world.settle(&mut dies, Processing::begin(work));

    let mut next = Process::default();
    assert_eq!(world.process(&mut next, vec![message(&envelopes[1])]), [Disposition::Committed]);
    assert_eq!(world.sent.len(), 1, "the dead process's output is out, without a redelivery of its message");
    assert!(world.read(envelopes[0].token().unwrap()).is_none());
}

#[test]
fn a_sweep_finishes_what_a_dead_process_left_in_a_partition_that_nobody_visits() {
    let (mut world, envelopes) = World::with_messages(&["send"]);
    let mut dies = Process::default();
    let work = world.work(&dies, vec![message(&envelopes[0])]);
    world.settle(&mut dies, Processing::begin(work));
    let mut sweeper = Process::default();
    world.tidy(&mut sweeper);
    assert_eq!(world.sent.len(), 1);
    world.consume(&world.sent[0].token().unwrap().clone());
    world.tidy(&mut sweeper);
    world.assert_quiet();
}

/// R7, with a token: the marker tells.
#[test]
fn a_commit_whose_answer_was_lost_is_found_by_its_marker() {
    let (mut world, envelopes) = World::with_messages(&["send"]);
    let mut process = Process::default();
    let work = world.work(&process, vec![message(&envelopes[0])]);
    let step =
        until(&mut world, &mut process, Processing::begin(work), |step| matches!(step, Step::Commit(_)));
    let Step::Commit(commit) = step else { unreachable!() };
    world.commit(commit.request());
    let settled = {
        let step = commit.answer(Err(lost_answer()));
        world.settle(&mut process, step)
    };
    assert_eq!(
        settled.dispositions,
        [Disposition::Duplicate],
        "committed, and finished by the recovery at load"
    );
    assert_eq!((world.count(), world.sent.len()), (1, 1));
}

#[test]
fn a_commit_that_never_happened_and_was_not_answered_is_tried_again() {
    let (mut world, envelopes) = World::with_messages(&[""]);
    let mut process = Process::default();
    let work = world.work(&process, vec![message(&envelopes[0])]);
    let step =
        until(&mut world, &mut process, Processing::begin(work), |step| matches!(step, Step::Commit(_)));
    let Step::Commit(commit) = step else { unreachable!() };
    let step = commit.answer(Err(lost_answer()));
    assert_eq!(world.settle(&mut process, step).dispositions, [Disposition::Committed]);
    assert_eq!(world.count(), 1);
}

#[test]
fn a_burst_for_one_partition_is_one_commit_and_a_failing_handler_spoils_only_its_own() {
    let (mut world, envelopes) = World::with_messages(&["", "fail", "send", "poison", "send"]);
    let mut process = Process::default();
    let dispositions = world.process(&mut process, envelopes.iter().map(message).collect());
    assert_eq!(dispositions[0], Disposition::Committed);
    assert!(matches!(&dispositions[1], Disposition::Retry { reason } if reason == "it fails"));
    assert_eq!(dispositions[2], Disposition::Committed);
    assert!(matches!(&dispositions[3], Disposition::DeadLetter { reason } if reason == "it is poison"));
    assert_eq!(dispositions[4], Disposition::Committed);
    assert_eq!((world.count(), world.sent.len()), (3, 2));
    assert_eq!(world.control().unwrap().version.sequence().counter, 1, "one commit");
    assert!(world.read(envelopes[1].token().unwrap()).is_some(), "a failed message keeps its token");
    assert!(world.read(envelopes[3].token().unwrap()).is_some(), "a poison message keeps its token (R6)");
    assert_ne!(world.sent[0].message_id, world.sent[1].message_id);
}

#[test]
fn two_copies_of_one_message_in_one_burst_are_applied_once() {
    let (mut world, envelopes) = World::with_messages(&["send"]);
    let mut process = Process::default();
    let copies = vec![message(&envelopes[0]), message(&envelopes[0])];
    assert_eq!(world.process(&mut process, copies), [Disposition::Committed, Disposition::Committed]);
    assert_eq!((world.count(), world.sent.len()), (1, 1));
}

#[test]
fn a_burst_that_exceeds_a_limit_is_committed_in_parts() {
    let (mut world, envelopes) = World::with_messages(&["send", "send", "send", "send"]);
    let mut process = Process::default();
    let mut left: Vec<Incoming> = envelopes.iter().map(message).collect();
    let mut commits = 0;
    while !left.is_empty() {
        // The control record, the item, and two outbox entries.
        let work = Work { limits: small_limits(4), ..world.work(&process, left.clone()) };
        let settled = world.settle(&mut process, Processing::begin(work));
        world.complete(&mut process, settled.completion.unwrap());
        let mut dispositions = settled.dispositions.into_iter();
        left.retain(|_| dispositions.next() == Some(Disposition::Postponed));
        commits += 1;
    }
    assert_eq!((commits, world.count(), world.sent.len()), (2, 4, 4));
}

#[test]
fn a_message_that_alone_exceeds_a_limit_is_dead_lettered_with_the_limits_name() {
    let (mut world, envelopes) = World::with_messages(&["send"]);
    let mut process = Process::default();
    let work = Work { limits: small_limits(2), ..world.work(&process, vec![message(&envelopes[0])]) };
    let settled = world.settle(&mut process, Processing::begin(work));
    let Disposition::DeadLetter { reason } = &settled.dispositions[0] else {
        panic!("it can never be committed")
    };
    assert!(reason.contains("writes 3 items and the store takes 2"), "{reason}");
    assert!(world.read(envelopes[0].token().unwrap()).is_some());
}

#[test]
fn a_fold_that_the_store_refuses_as_too_large_is_committed_one_by_one() {
    let (mut world, envelopes) = World::with_messages(&["", ""]);
    let mut process = Process::default();
    let work = world.work(&process, envelopes.iter().map(message).collect());
    let step =
        until(&mut world, &mut process, Processing::begin(work), |step| matches!(step, Step::Commit(_)));
    let Step::Commit(commit) = step else { unreachable!() };
    assert_eq!(commit.message_count(), 2);
    let limit = tollgate_proto::LimitExceeded::TransactionBytes { bytes: 2, max: 1 };
    let step = commit.answer(Err(StoreError::TooLarge { store: store(), partition: partition(), limit }));
    let settled = world.settle(&mut process, step);
    assert_eq!(settled.dispositions, [Disposition::Committed, Disposition::Postponed]);
}

#[test]
fn an_envelope_that_does_not_match_its_outbox_entry_is_dead_lettered_and_consumes_nothing() {
    let (mut world, envelopes) = World::with_messages(&[""]);
    let mut wrong_id = envelopes[0].clone();
    wrong_id.message_id = MessageId::from_bytes([9; 16]);
    let mut wrong_endpoint = envelopes[0].clone();
    wrong_endpoint.to.endpoint = "other".try_into().unwrap();
    for forged in [wrong_id, wrong_endpoint] {
        let dispositions = world.process(&mut Process::default(), vec![message(&forged)]);
        let Disposition::DeadLetter { reason } = &dispositions[0] else { panic!("{dispositions:?}") };
        assert!(reason.contains("nothing was consumed"), "{reason}");
        assert!(world.read(envelopes[0].token().unwrap()).is_some());
    }
    assert_eq!(world.count(), 0);
}

/// The handler is chosen by the envelope's type and gets the entry's body: they must belong together.
#[test]
fn an_envelope_of_another_type_than_its_outbox_entry_is_dead_lettered_and_consumes_nothing() {
    let (mut world, envelopes) = World::with_messages(&[""]);
    let forged = Envelope { message_type: "refund".try_into().unwrap(), ..envelopes[0].clone() };
    let dispositions = world.process(&mut Process::default(), vec![message(&forged)]);
    assert!(
        matches!(&dispositions[0], Disposition::DeadLetter { reason } if reason.contains("of type refund")),
        "{dispositions:?}"
    );
    assert_eq!((world.count(), world.entry_count()), (0, 1));
    assert_eq!(
        world.process(&mut Process::default(), vec![message(&envelopes[0])]),
        [Disposition::Committed]
    );
}

/// An answer that is missing confirms nothing, and one too many belongs to something else.
#[test]
fn answers_that_are_not_as_many_as_envelopes_confirm_nothing() {
    for count in [0, 2] {
        let (mut world, envelopes) = World::with_messages(&["send"]);
        let mut process = Process::default();
        let work = world.work(&process, vec![message(&envelopes[0])]);
        let settled = world.settle(&mut process, Processing::begin(work));
        let CompletionStep::Publish(publish) = settled.completion.unwrap().begin() else {
            panic!("publishing comes first")
        };
        let answered = std::panic::catch_unwind(|| publish.answer(vec![Ok(()); count]));
        assert!(answered.is_err(), "{count} answers were taken for one");
    }
}

#[test]
fn a_token_of_an_unknown_store_is_put_back_and_not_dropped() {
    let (mut world, envelopes) = World::with_messages(&[""]);
    let mut process = Process::default();
    let work = world.work(&process, vec![message(&envelopes[0])]);
    let step =
        until(&mut world, &mut process, Processing::begin(work), |step| matches!(step, Step::ReadTokens(_)));
    let Step::ReadTokens(read) = step else { unreachable!() };
    let token = read.requests()[0].token.clone();
    let step = read.answer(vec![Err(StoreError::ForeignToken { store: store(), token })]);
    let settled = world.settle(&mut process, step);
    assert!(matches!(settled.dispositions[0], Disposition::Retry { .. }));
}

#[test]
fn a_message_for_outsiders_carries_its_body_and_its_entry_goes_once_the_broker_has_it() {
    let (mut world, envelopes) = World::with_messages(&["send external"]);
    let mut process = Process::default();
    world.process(&mut process, vec![message(&envelopes[0])]);
    assert_eq!(world.sent[0].content, Content::Body("1".into()));
    world.tidy(&mut process);
    world.assert_quiet();
}

#[test]
fn a_full_list_of_pending_entries_is_completed_before_it_grows() {
    let bodies = vec!["send"; 70];
    let (mut world, envelopes) = World::with_messages(&bodies);
    let mut process = Process::default();
    for envelope in &envelopes {
        let work = world.work(&process, vec![message(envelope)]);
        // The completions are never run: as if the broker were down just then.
        let settled = world.settle(&mut process, Processing::begin(work));
        assert_eq!(settled.dispositions, [Disposition::Committed]);
        assert!(world.control().unwrap().pending.len() <= tollgate_proto::control_record::PENDING_MAX);
    }
    assert_eq!(world.count(), 70);
    assert!(world.sent.len() >= 64);
}

#[test]
fn a_damaged_control_record_puts_the_message_back_and_writes_nothing() {
    let (mut world, envelopes) = World::with_messages(&[""]);
    world.partitions.entry(partition()).or_default().control = Some("\u{7f}nonsense".into());
    let before = world.partitions[&partition()].control.clone();
    let dispositions = world.process(&mut Process::default(), vec![message(&envelopes[0])]);
    assert!(matches!(&dispositions[0], Disposition::Retry { reason } if reason.contains("control record")));
    assert_eq!(world.partitions[&partition()].control, before);
}

#[test]
fn a_partition_created_again_is_not_mistaken_for_its_former_self() {
    let (mut world, envelopes) = World::with_messages(&["", ""]);
    let mut process = Process::default();
    world.process(&mut process, vec![message(&envelopes[0])]);
    // Somebody deletes the whole partition; a process that still remembers it tries to commit.
    world.partitions.remove(&partition());
    world.process(&mut Process::default(), vec![]);
    let mut other = Process::default();
    world.tidy(&mut other);
    assert_eq!(world.process(&mut process, vec![message(&envelopes[1])]), [Disposition::Committed]);
    let control = world.control().unwrap();
    assert_eq!(control.version.sequence().counter, 1, "a new life begins at one, under another incarnation");
    assert_eq!(world.partitions[&partition()].items[&item()].bytes().as_ref(), b"1");
}

#[test]
fn a_process_that_keeps_conflicting_puts_its_message_back() {
    let (mut world, envelopes) = World::with_messages(&[""]);
    let mut process = Process::default();
    let work = world.work(&process, vec![message(&envelopes[0])]);
    let mut step = Processing::begin(work);
    let settled = loop {
        step = match step {
            Step::Commit(commit) => commit.answer(Ok(tollgate_proto::CommitOutcome::Conflict)),
            Step::Settled(settled) => break settled,
            other => world.advance(&mut process, other),
        };
    };
    assert!(matches!(&settled.dispositions[0], Disposition::Retry { reason } if reason.contains("in a row")));
    assert!(settled.view.is_none());
}

#[test]
fn the_sender_chooses_the_partition_and_the_receiver_does_not_compute_it_again() {
    let (world, envelopes) = World::with_messages(&[""]);
    let entry = world.read(envelopes[0].token().unwrap()).unwrap();
    let entry = codec::decode_entry(&entry).unwrap();
    assert_eq!(entry.to.partition, PartitionKey::new("P").unwrap());
    assert_eq!(envelopes[0].to, entry.to);
}

#[test]
fn every_reference_to_an_output_says_where_the_store_has_put_it() {
    let (mut world, envelopes) = World::with_messages(&["send"]);
    let mut process = Process::default();
    let work = world.work(&process, vec![message(&envelopes[0])]);
    let is_commit = |step: &Step| matches!(step, Step::Commit(_));
    let Step::Commit(commit) = until(&mut world, &mut process, Processing::begin(work), is_commit) else {
        unreachable!("that was waited for")
    };
    let commit = commit.placed(Placement::Apart);
    let outcome = world.commit(commit.request());
    // The process dies before it publishes; the next one finds the entry by the control record alone.
    drop(commit.answer(Ok(outcome)));
    world.tidy(&mut Process::default());
    let token = world.sent[0].token().expect("it goes to a consumer that knows tokens").clone();
    assert_eq!(token.entry.placement(), Placement::Apart);
    assert!(world.read(&token).is_some(), "the reference leads to the entry");
    world.consume(&token);
    world.tidy(&mut process);
    world.assert_quiet();
}

#[test]
fn what_a_load_has_seen_is_presented_by_the_recovery_that_follows_and_by_its_readers() {
    let (mut world, envelopes) = World::with_messages(&["send"]);
    let mut process = Process::default();
    let work = world.work(&process, vec![message(&envelopes[0])]);
    // The process dies right after its commit.
    drop(world.settle(&mut process, Processing::begin(work)));
    let mark = SessionMark { store: store(), scope: "0".into(), position: 7, token: "0:7".into() };
    let work = world.work(&Process::default(), vec![]);
    let Step::Load(load) = Processing::begin(work) else { unreachable!("nothing is cached") };
    let loaded = LoadedPartition { session: Some(mark.clone()), ..world.load(&load.request()) };
    let Step::Recover(recover) = load.answer(Ok(loaded)) else { unreachable!("an entry is pending") };
    let (_, completion) = recover.start();
    let CompletionStep::ReadOutputs(read) = completion.begin() else { unreachable!("it has an output") };
    assert_eq!(read.requests()[0].sessions, std::slice::from_ref(&mark));
    let entry = world.read(&read.requests()[0].token);
    let CompletionStep::Publish(publish) = read.answer(vec![Ok(entry)]) else { unreachable!("it is there") };
    let Content::Token { read_after, .. } = publish.publications().remove(0).envelope.content else {
        unreachable!("it goes to a consumer that knows tokens")
    };
    assert_eq!(read_after, Some(mark));
}
