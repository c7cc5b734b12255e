//! Steps 7 to 9 of the algorithm, for committed messages: publish, clean up, consume. Everything here is idempotent
//! and may be repeated by anyone; nothing here needs the partition's lock. Like [`crate::processing`] it does no I/O:
//! it says what is to be done and is told what happened.
//!
//! R8: a token is consumed only after everything of step 7 is confirmed. R2: a pending entry is reported as finished
//! only after the token's deletion has been confirmed.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::codec;
use crate::control_record::{PendingEntry, PendingId, Registration};
use crate::ids::{EffectKind, MessageId, PartitionKey, StoreAlias};
use crate::marks::{FinishedMark, Marks, RegistrationId};
use crate::outbox_entry::{Audience, OutboxEntry};
use crate::publication::{DeduplicationId, Publication};
use crate::sequence::{EntryKey, SessionMark, TokenRef};
use crate::side_effect::AttachedEffect;
use crate::store::{EntryRead, StoreError};

/// Committed messages of one partition that are to be finished.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Completion {
    store: StoreAlias,
    partition: PartitionKey,
    tasks: Vec<CompletionTask>,
    clean_ups: Vec<CleanUp>,
    /// What a read must present to see the commits whose outputs are published.
    session: Option<Arc<SessionMark>>,
    cleaned: Vec<RegistrationId>,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CompletionStep {
    /// Read the outbox entries of earlier commits: those that are still there have to be published.
    ReadOutputs(ReadOutputsStep),
    /// Make the side effects happen that outgoing messages carry.
    PublishEffects(PublishEffectsStep),
    /// Send the envelopes of outbox entries to the broker.
    Publish(PublishStep),
    /// Delete side effects of lost attempts.
    CleanUp(CleanUpStep),
    /// Delete the side effects that the committed messages carried: nobody will ask for them again.
    Release(ReleaseStep),
    /// Delete outbox entries: consumed tokens, and entries for consumers that know no tokens or for nobody.
    Consume(ConsumeStep),
    /// That was all.
    Done(CompletionReport),
}

/// One committed message to be finished.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CompletionTask {
    pending: PendingEntry,
    /// The outgoing messages that still exist. `None`: to be read from the store.
    outputs: Option<Vec<(EntryKey, OutboxEntry)>>,
    pub(crate) slots: Vec<usize>,
    state: TaskState,
}

/// How far a task has come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum TaskState {
    Running,
    Finished { session: Option<SessionMark> },
    Failed { reason: String },
}

impl CompletionTask {
    /// To finish a pending entry found in a control record.
    pub(crate) fn of_pending(pending: &PendingEntry) -> Self {
        let outputs = if pending.outputs.count == 0 { Some(Vec::new()) } else { None };
        Self { pending: pending.clone(), outputs, slots: Vec::new(), state: TaskState::Running }
    }

    /// To finish what was just committed.
    pub(crate) fn of_commit(pending: &PendingEntry, outputs: impl Iterator<Item = OutboxEntry>) -> Self {
        let outputs = Some(pending.entry_keys().zip(outputs).collect());
        Self { pending: pending.clone(), outputs, slots: Vec::new(), state: TaskState::Running }
    }

    /// The pending entry that it finishes.
    pub(crate) const fn id(&self) -> PendingId {
        self.pending.id
    }

    /// Whether both are to finish the same entry.
    pub(crate) fn is_of(&self, other: &Self) -> bool {
        self.pending.id == other.pending.id
    }

    pub(crate) fn for_slot(mut self, slot: usize) -> Self {
        self.slots.push(slot);
        self
    }

    fn is_running(&self) -> bool {
        matches!(self.state, TaskState::Running)
    }

    /// The outgoing messages that somebody is to receive.
    fn messages(&self) -> impl Iterator<Item = &(EntryKey, OutboxEntry)> {
        self.outputs.iter().flatten().filter(|(_, entry)| entry.audience != Audience::Nobody)
    }

    fn fail(&mut self, reason: String) {
        if self.is_running() {
            self.state = TaskState::Failed { reason };
        }
    }
}

/// One side effect of a lost attempt, to be deleted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CleanUp {
    /// What kind of thing: it selects who deletes it.
    pub kind: EffectKind,
    /// Which registration, and so which name.
    pub registration: RegistrationId,
    /// The message whose attempt it was.
    pub message_id: MessageId,
    afterwards: Afterwards,
}

/// What becomes of a registration whose side effect was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Afterwards {
    /// It stays: the attempt may be stalled and still create it.
    Keep,
    /// It may leave the control record.
    Drop,
}

impl CleanUp {
    pub(crate) fn of(registration: &Registration, afterwards: Afterwards) -> Self {
        Self {
            kind: registration.kind.clone(),
            registration: RegistrationId::of(registration),
            message_id: registration.message_id,
            afterwards,
        }
    }
}

impl Completion {
    /// `None` if there is nothing to do.
    pub(crate) fn new(
        store: StoreAlias,
        partition: PartitionKey,
        tasks: Vec<CompletionTask>,
        clean_ups: Vec<CleanUp>,
        session: Option<Arc<SessionMark>>,
    ) -> Option<Self> {
        if tasks.is_empty() && clean_ups.is_empty() {
            return None;
        }
        Some(Self { store, partition, tasks, clean_ups, session, cleaned: Vec::new() })
    }

    /// How many committed messages are to be finished.
    pub fn pending_count(&self) -> usize {
        self.tasks.len()
    }

    /// The places (in [`crate::processing::Work::messages`]) of the messages that wait for this completion.
    pub fn slots(&self) -> impl Iterator<Item = usize> {
        self.tasks.iter().flat_map(|task| task.slots.iter().copied())
    }

    /// The pending entries that are to be finished.
    pub fn pending_ids(&self) -> impl Iterator<Item = PendingId> {
        self.tasks.iter().map(|task| task.pending.id)
    }

    /// Says what is to be done first.
    pub fn begin(self) -> CompletionStep {
        if self.tasks.iter().any(|task| task.outputs.is_none()) {
            return CompletionStep::ReadOutputs(ReadOutputsStep(self));
        }
        self.publish_effects()
    }

    fn publish_effects(self) -> CompletionStep {
        let mut effects = Vec::new();
        for (place, task) in self.running() {
            let carried = task.outputs.iter().flatten().flat_map(|(_, entry)| &entry.effects);
            effects.extend(carried.map(|effect| (place, effect.clone())));
        }
        if effects.is_empty() {
            return self.publish();
        }
        CompletionStep::PublishEffects(PublishEffectsStep { completion: self, effects })
    }

    fn publish(self) -> CompletionStep {
        if self.running().any(|(_, task)| task.messages().next().is_some()) {
            return CompletionStep::Publish(PublishStep(self));
        }
        self.clean_up()
    }

    fn clean_up(self) -> CompletionStep {
        if self.clean_ups.is_empty() { self.release() } else { CompletionStep::CleanUp(CleanUpStep(self)) }
    }

    fn release(self) -> CompletionStep {
        let mut effects = Vec::new();
        for (place, task) in self.running() {
            effects.extend(task.pending.carried.iter().map(|effect| (place, effect.clone())));
        }
        if effects.is_empty() || mutated!(ForgetsCarriedEffects) {
            return self.consume();
        }
        CompletionStep::Release(ReleaseStep { completion: self, effects })
    }

    /// The tasks that nothing has gone wrong with, and their places.
    fn running(&self) -> impl Iterator<Item = (usize, &CompletionTask)> {
        self.tasks.iter().enumerate().filter(|(_, task)| task.is_running())
    }

    fn consume(mut self) -> CompletionStep {
        let mut deletions = Vec::with_capacity(self.tasks.len());
        for (place, task) in self.tasks.iter_mut().enumerate() {
            if !task.is_running() {
                continue;
            }
            let before = deletions.len();
            if let Some(token) = task.pending.origin.token() {
                deletions.push((place, token.clone()));
            }
            for (key, entry) in task.outputs.iter().flatten() {
                if entry.audience != Audience::Tollgate {
                    let token = TokenRef {
                        store: self.store.clone(),
                        partition: self.partition.clone(),
                        entry: *key,
                    };
                    deletions.push((place, token));
                }
            }
            if deletions.len() == before {
                task.state = TaskState::Finished { session: None };
            }
        }
        if deletions.is_empty() {
            return self.done();
        }
        CompletionStep::Consume(ConsumeStep { completion: self, deletions })
    }

    fn done(self) -> CompletionStep {
        let mut marks = Marks { finished: Vec::with_capacity(self.tasks.len()), cleaned: self.cleaned };
        let mut outcomes = Vec::with_capacity(self.tasks.len());
        for task in self.tasks {
            let result = match task.state {
                TaskState::Finished { session } => {
                    marks.finished.push(FinishedMark { id: task.pending.id, session });
                    Ok(())
                }
                TaskState::Failed { reason } => Err(reason),
                TaskState::Running => unreachable!("the consume step has decided every task"),
            };
            outcomes.push(TaskOutcome { pending: task.pending, slots: task.slots, result });
        }
        wait_for_all(&mut outcomes);
        CompletionStep::Done(CompletionReport { outcomes, marks })
    }
}

/// Leaves each slot at one outcome only: one that failed, if it waited for any such.
fn wait_for_all(outcomes: &mut [TaskOutcome]) {
    let mut decided = Vec::new();
    outcomes.sort_by_key(|outcome| outcome.result.is_ok());
    for outcome in outcomes {
        outcome.slots.retain(|slot| !decided.contains(slot));
        decided.extend_from_slice(&outcome.slots);
    }
}

/// Outbox entries are to be read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReadOutputsStep(Completion);

impl ReadOutputsStep {
    /// What to read, in this order; all of it lies in this partition.
    pub fn requests(&self) -> Vec<EntryRead> {
        let completion = &self.0;
        let unknown = completion.tasks.iter().filter(|task| task.outputs.is_none());
        unknown
            .flat_map(|task| task.pending.entry_keys())
            .map(|entry| EntryRead {
                token: TokenRef {
                    store: completion.store.clone(),
                    partition: completion.partition.clone(),
                    entry,
                },
                // A stale answer that doesn't show an entry yet would be taken for "consumed", and its message lost.
                sessions: completion
                    .session
                    .as_deref()
                    .filter(|_| !mutated!(ReadsOutputsWithoutSession))
                    .into_iter()
                    .cloned()
                    .collect(),
            })
            .collect()
    }

    /// Takes the store's answers, in the order of the requests.
    ///
    /// # Panics
    /// If there are not as many answers as requests.
    pub fn answer(self, answers: Vec<Result<Option<Bytes>, StoreError>>) -> CompletionStep {
        let mut completion = self.0;
        let mut answers = answers.into_iter();
        for task in completion.tasks.iter_mut().filter(|task| task.outputs.is_none()) {
            let mut found = Vec::new();
            let mut failure = None;
            for key in task.pending.entry_keys() {
                match answers.next().expect("every entry read has one answer") {
                    Ok(None) => {}
                    Ok(Some(bytes)) => match codec::decode_entry(&bytes) {
                        Ok(entry) => found.push((key, entry)),
                        Err(error) => failure = Some(format!("outbox entry {key}: {error}")),
                    },
                    Err(error) => failure = Some(error.to_string()),
                }
            }
            task.outputs = Some(found);
            if let Some(reason) = failure {
                task.fail(reason);
            }
        }
        assert!(answers.next().is_none(), "every answer belongs to an entry read");
        completion.publish_effects()
    }
}

/// Side effects that outgoing messages carry are to happen, before the messages are sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PublishEffectsStep {
    completion: Completion,
    effects: Vec<(usize, AttachedEffect)>,
}

impl PublishEffectsStep {
    /// What is to happen; the order does not matter.
    pub fn effects(&self) -> impl Iterator<Item = &AttachedEffect> {
        self.effects.iter().map(|(_, effect)| effect)
    }

    /// Takes the answers, in the order of the effects. A message one of whose outputs could not be published is sent later,
    /// and keeps its token (R8).
    ///
    /// # Panics
    /// If there are not as many answers as effects.
    pub fn answer(self, answers: Vec<Result<(), String>>) -> CompletionStep {
        let Self { mut completion, effects } = self;
        assert_eq!(answers.len(), effects.len(), "every side effect has one answer");
        for ((place, effect), answer) in effects.into_iter().zip(answers) {
            if let Err(reason) = answer
                && !mutated!(SendsBeforeItsEffects)
            {
                completion.tasks[place].fail(format!("{} could not be published: {reason}", effect.name));
            }
        }
        completion.publish()
    }
}

/// Envelopes are to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PublishStep(Completion);

impl PublishStep {
    /// What to send, in this order.
    pub fn publications(&self) -> Vec<Publication> {
        let completion = &self.0;
        completion
            .running()
            .flat_map(|(_, task)| task.messages())
            .map(|(key, entry)| {
                let token = TokenRef {
                    store: completion.store.clone(),
                    partition: completion.partition.clone(),
                    entry: *key,
                };
                let session = completion.session.as_deref().filter(|_| !mutated!(DropsReadAfter));
                // Whether it is sent now or once more by a recovery: the first copy is in the queue or was delivered.
                let deduplication_id = if mutated!(DeduplicatesByMessageId) {
                    DeduplicationId::of_message(entry.message_id)
                } else {
                    DeduplicationId::of_token(&token)
                };
                Publication { envelope: entry.envelope(token, session.cloned()), deduplication_id }
            })
            .collect()
    }

    /// Takes the broker's answers, in the order of the envelopes. A message one of whose outputs could not be sent
    /// keeps its token (R8).
    ///
    /// # Panics
    /// If there are not as many answers as envelopes.
    pub fn answer(self, answers: Vec<Result<(), String>>) -> CompletionStep {
        let mut completion = self.0;
        let count: usize = completion.running().map(|(_, task)| task.messages().count()).sum();
        assert_eq!(answers.len(), count, "every envelope has one answer");
        let mut answers = answers.into_iter();
        for task in completion.tasks.iter_mut().filter(|task| task.is_running()) {
            let count = task.messages().count();
            let failure = answers.by_ref().take(count).filter_map(Result::err).last();
            if let Some(reason) = failure
                && !mutated!(ConsumesUnpublished)
            {
                task.fail(format!("an outgoing message could not be sent: {reason}"));
            }
        }
        completion.clean_up()
    }
}

/// Side effects of lost attempts are to be deleted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CleanUpStep(Completion);

impl CleanUpStep {
    /// What to delete, in this order.
    pub fn clean_ups(&self) -> &[CleanUp] {
        &self.0.clean_ups
    }

    /// Takes the answers, in order. What could not be deleted stays registered and is tried again by a later visit.
    ///
    /// # Panics
    /// If there are not as many answers as clean-ups.
    pub fn answer(self, answers: Vec<Result<(), String>>) -> CompletionStep {
        let mut completion = self.0;
        assert_eq!(answers.len(), completion.clean_ups.len(), "every clean-up has one answer");
        for (clean_up, answer) in completion.clean_ups.iter().zip(answers) {
            match answer {
                Ok(()) if clean_up.afterwards == Afterwards::Drop => {
                    completion.cleaned.push(clean_up.registration.clone());
                }
                Ok(()) => {}
                Err(reason) => {
                    // R8: clean-up is part of step 7, so the message that won must wait for it.
                    let winner = completion
                        .tasks
                        .iter_mut()
                        .find(|task| task.pending.origin.message_id() == clean_up.message_id);
                    if let Some(task) = winner {
                        task.fail(format!(
                            "{} could not be cleaned up: {reason}",
                            clean_up.registration.name
                        ));
                    }
                }
            }
        }
        completion.release()
    }
}

/// Side effects that committed messages carried are to be deleted. Whoever still handles a copy of such a message has loaded
/// its partition before the commit, and can't commit any more (R3).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReleaseStep {
    completion: Completion,
    effects: Vec<(usize, AttachedEffect)>,
}

impl ReleaseStep {
    /// What to delete; the order does not matter.
    pub fn effects(&self) -> impl Iterator<Item = &AttachedEffect> {
        self.effects.iter().map(|(_, effect)| effect)
    }

    /// Takes the answers, in the order of the effects. A message keeps its token until everything that it carried is deleted:
    /// afterwards nobody would know of it.
    ///
    /// # Panics
    /// If there are not as many answers as effects.
    pub fn answer(self, answers: Vec<Result<(), String>>) -> CompletionStep {
        let Self { mut completion, effects } = self;
        assert_eq!(answers.len(), effects.len(), "every side effect has one answer");
        for ((place, effect), answer) in effects.into_iter().zip(answers) {
            if let Err(reason) = answer {
                completion.tasks[place].fail(format!("{} could not be deleted: {reason}", effect.name));
            }
        }
        completion.consume()
    }
}

/// Outbox entries are to be deleted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConsumeStep {
    completion: Completion,
    deletions: Vec<(usize, TokenRef)>,
}

impl ConsumeStep {
    /// What to delete, in this order. A token whose store the process doesn't know is to be answered with
    /// [`StoreError::ForeignToken`].
    pub fn tokens(&self) -> Vec<TokenRef> {
        self.deletions.iter().map(|(_, token)| token.clone()).collect()
    }

    /// Takes the stores' answers, in the order of the tokens.
    ///
    /// # Panics
    /// If there are not as many answers as tokens.
    pub fn answer(self, answers: Vec<Result<Option<SessionMark>, StoreError>>) -> CompletionStep {
        let Self { mut completion, deletions } = self;
        assert_eq!(answers.len(), deletions.len(), "every deletion has one answer");
        for ((place, _), answer) in deletions.into_iter().zip(answers) {
            let task = &mut completion.tasks[place];
            match (answer, &task.state) {
                (Ok(session), TaskState::Running) => task.state = TaskState::Finished { session },
                (Ok(None), TaskState::Finished { .. }) | (Ok(_), TaskState::Failed { .. }) => {}
                (Ok(Some(session)), TaskState::Finished { session: known }) => {
                    // A second deletion of one task is an external entry of this partition: its mark is not needed, the
                    // token's own is the first.
                    let session = known.clone().or(Some(session));
                    task.state = TaskState::Finished { session };
                }
                (Err(_), TaskState::Running) if mutated!(TrustsUnconfirmedDeletions) => {
                    task.state = TaskState::Finished { session: None };
                }
                (Err(error), _) => task.state = TaskState::Failed { reason: error.to_string() },
            }
        }
        completion.done()
    }
}

/// What became of a completion.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CompletionReport {
    /// One outcome for each committed message.
    pub outcomes: Vec<TaskOutcome>,
    /// What the next commit on the partition may remove from the control record.
    pub marks: Marks,
}

/// What became of one committed message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TaskOutcome {
    /// The pending entry.
    pub pending: PendingEntry,
    /// The messages that waited for it, by their place in [`crate::processing::Work::messages`]: acknowledge them if it
    /// is finished, put them back otherwise.
    pub slots: Vec<usize>,
    /// Whether it is finished; if not, why.
    pub result: Result<(), String>,
}

impl CompletionReport {
    /// Why messages are not finished.
    pub fn failures(&self) -> impl Iterator<Item = &str> {
        self.outcomes.iter().filter_map(|outcome| outcome.result.as_ref().err()).map(String::as_str)
    }

    /// The places of the messages that waited, and whether everything that each waited for is finished; if
    /// not, why.
    pub fn waiting(&self) -> BTreeMap<usize, Result<(), &str>> {
        let mut waiting = BTreeMap::new();
        for outcome in &self.outcomes {
            for slot in &outcome.slots {
                let result = waiting.entry(*slot).or_insert(Ok(()));
                *result = result.and(outcome.result.as_ref().copied().map_err(String::as_str));
            }
        }
        waiting
    }

    /// The pending entries that are finished.
    pub fn finished(&self) -> impl Iterator<Item = PendingId> {
        self.marks.finished.iter().map(|mark| mark.id)
    }
}
