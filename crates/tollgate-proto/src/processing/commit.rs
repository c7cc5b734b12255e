//! Step 5: ONE conditional, partition-local transaction with everything in it, and what its answer means.

use std::sync::Arc;

use super::fold::Member;
use super::incoming::{Incoming, RequestDeduplication, SlotState};
use super::{Disposition, LostCommit, Maintenance, Processing, Remember, Step};
use crate::codec;
use crate::completion::{Afterwards, CleanUp, CompletionTask};
use crate::control_record::{ControlRecord, PendingEntry, PendingId, Registration, RegistrationState};
use crate::ids::DeduplicationKey;
use crate::marks::RegistrationId;
use crate::sequence::{Placement, Version};
use crate::store::{Commit, CommitOutcome, StoreError};

/// The fold is to be committed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CommitStep {
    processing: Box<Processing>,
    next: NextControl,
    /// How many pending entries of earlier commits the next control record carries on.
    carried: usize,
    placement: Placement,
}

/// A control record about to be written, and what it leaves out or condemns.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct NextControl {
    pub(super) control: ControlRecord,
    /// Registrations of other attempts at the messages of this fold.
    condemned: Vec<CleanUp>,
}

impl CommitStep {
    pub(super) fn new(processing: Box<Processing>) -> Self {
        let mut next = processing.next_control(&processing.fold.members);
        let carried = next.control.pending.len();
        let sequence = next.control.version.sequence();
        for (place, member) in processing.fold.members.iter().enumerate() {
            // Without a token and without outputs there is nothing to finish later.
            if member.origin.token().is_none() && member.outputs.count == 0 {
                continue;
            }
            next.control.pending.push(PendingEntry {
                origin: member.origin.clone(),
                id: PendingId {
                    sequence,
                    place: u32::try_from(place).expect("a fold has at most PENDING_MAX members"),
                },
                outputs: member.outputs,
                carried: member.carried.clone(),
            });
        }
        Self { processing, next, carried, placement: Placement::Together }
    }

    /// How many messages are folded into this commit.
    pub fn message_count(&self) -> usize {
        self.processing.fold.members.len()
    }

    /// Numbers the outgoing messages as the store wants it ([`crate::Store::placement`]), so that every reference to them
    /// tells where they lie. To be called at most once, before the commit is carried out.
    #[must_use]
    pub fn placed(mut self, placement: Placement) -> Self {
        for entry in &mut self.next.control.pending[self.carried..] {
            entry.outputs.first += placement.first_index() - self.placement.first_index();
        }
        self.placement = placement;
        self
    }

    /// What to ask the store for.
    pub fn request(&self) -> Commit {
        let fold = &self.processing.fold;
        let sequence = self.next.control.version.sequence();
        Commit {
            partition: self.processing.partition.clone(),
            expected: self.processing.version(),
            version: self.next.control.version,
            control: codec::encode_control(&self.next.control),
            items: fold.changes.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            entries: (self.placement.first_index()..)
                .zip(&fold.entries)
                .map(|(index, (_, bytes))| (crate::sequence::EntryKey { sequence, index }, bytes.clone()))
                .collect(),
            deleted_entries: Vec::new(),
            records: fold.members.iter().filter_map(|member| member.record.clone()).collect(),
            now_ms: self.processing.now_ms,
        }
    }

    /// Takes the store's answer.
    pub fn answer(self, answer: Result<CommitOutcome, StoreError>) -> Step {
        match answer {
            Ok(CommitOutcome::Committed { session }) => self.committed(session),
            // R7: a failed condition may be the echo of our own commit, repeated by an SDK after a lost answer.
            Ok(CommitOutcome::Conflict) => self.look_again("the commit conflicted with another process"),
            Err(StoreError::OutcomeUnknown { .. }) if mutated!(TakesLostAnswerForSuccess) => {
                self.committed(None)
            }
            Err(StoreError::OutcomeUnknown { .. }) => self.look_again("the answer to the commit was lost"),
            Ok(CommitOutcome::RecordsExist(keys)) => self.records_exist(&keys),
            Err(StoreError::TooLarge { limit, .. }) => self.too_large(&limit.to_string()),
            Err(error) => {
                let remember = if error.is_retryable() { Remember::View } else { Remember::Nothing };
                let mut processing = self.processing;
                processing.retry_unsettled(&error.to_string());
                processing.fold.clear();
                processing.settle(remember)
            }
        }
    }

    fn committed(self, session: Option<crate::sequence::SessionMark>) -> Step {
        let Self { mut processing, next, carried, .. } = self;
        let members = std::mem::take(&mut processing.fold.members);
        let mut entries = std::mem::take(&mut processing.fold.entries).into_iter().map(|(entry, _)| entry);
        let mut added = next.control.pending[carried..].iter();
        processing.completions.reserve_exact(members.len());
        for member in members {
            let outputs = entries.by_ref().take(member.outputs.count as usize);
            processing.slots[member.slot].state = SlotState::Settled(Disposition::Committed);
            if member.origin.token().is_some() || member.outputs.count > 0 {
                let pending =
                    added.next().expect("such a member was given a pending entry when the commit was built");
                processing
                    .completions
                    .push(CompletionTask::of_commit(pending, outputs).for_slot(member.slot));
            }
        }
        processing.confirm_judgements();
        for place in std::mem::take(&mut processing.fold.fencing) {
            processing.slots[place].state = SlotState::Settled(Disposition::Visited);
        }
        processing.view.session = session.map(Arc::new);
        processing.fold.clean_ups.extend(next.condemned);
        let changes = std::mem::take(&mut processing.fold.changes);
        processing.view.items.apply(changes);
        processing.view.control = Some(next.control);
        processing.settle(Remember::View)
    }

    fn look_again(self, why: &str) -> Step {
        let mut processing = self.processing;
        let members = processing.fold.members.iter().map(|member| member.slot).collect();
        processing.uncertain = Some(LostCommit { attempt: processing.attempt, members });
        processing.reload(why)
    }

    /// Some messages of the fold were handled before, without tokens. Nothing was committed.
    fn records_exist(self, keys: &[DeduplicationKey]) -> Step {
        let mut processing = self.processing;
        let mut found = Found::Nothing;
        for place in 0..processing.slots.len() {
            let slot = &processing.slots[place];
            if !matches!(slot.state, SlotState::Folded) {
                continue;
            }
            match &slot.incoming {
                Incoming::Message { envelope, .. }
                    if envelope.token().is_none()
                        && keys.contains(&DeduplicationKey::of_message(
                            &envelope.to.endpoint,
                            envelope.message_id,
                        )) =>
                {
                    let message_id = envelope.message_id;
                    // Its outputs must be out before any copy of it is acknowledged: the copy may be the last one.
                    let disposition = if mutated!(AcknowledgesIdentityDuplicatesEarly) {
                        None
                    } else {
                        processing.wait_for(place, |entry| {
                            entry.origin.token().is_none() && entry.origin.message_id() == message_id
                        })
                    };
                    let disposition = disposition.unwrap_or(Disposition::Duplicate);
                    processing.slots[place].state = SlotState::Settled(disposition);
                    found = found.max(Found::Message);
                }
                Incoming::Request(request) => {
                    if let RequestDeduplication::ByKey { key, .. } = &request.deduplication
                        && keys.contains(key)
                    {
                        found = Found::Request;
                    }
                }
                Incoming::Message { .. } | Incoming::WakeUp { .. } => {}
            }
        }
        match found {
            // The stored response comes with the reload.
            Found::Request => processing.reload("a repeated request was found by the commit"),
            Found::Message => {
                processing.unfold();
                processing.check_markers()
            }
            Found::Nothing => {
                processing.give_up("the store reports deduplication records that the commit did not have")
            }
        }
    }

    fn too_large(self, limit: &str) -> Step {
        let mut processing = self.processing;
        if processing.fold.members.len() > 1 {
            processing.fold_max = 1;
            processing.unfold();
            return processing.check_markers();
        }
        if !processing.is_view_believed() {
            // The store may have looked at the size before it looked at the version.
            return processing.reload("a commit was too large on a cached view");
        }
        for member in std::mem::take(&mut processing.fold.members) {
            let reason = format!("message {}: {limit}", member.origin.message_id());
            processing.slots[member.slot].state = SlotState::Settled(Disposition::DeadLetter { reason });
        }
        processing.retry_unsettled(limit);
        processing.fold.clear();
        processing.settle(Remember::View)
    }
}

/// What a commit stumbled over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    Nothing,
    Message,
    Request,
}

impl Processing {
    pub(super) fn version(&self) -> Option<Version> {
        self.view.control.as_ref().map(|control| control.version)
    }

    /// Takes the fold apart; its messages are handled again, by a new attempt: what the handlers have registered so far is
    /// a lost attempt's. The partition has not changed.
    fn unfold(&mut self) {
        self.fold.clear();
        self.handle_again();
        self.attempt = self.attempt.next_round();
    }

    /// Whether a commit is worth making merely to tidy the control record.
    pub(super) fn needs_tidying(&self) -> bool {
        let (Maintenance::Tidy, Some(control)) = (self.maintenance, &self.view.control) else { return false };
        control.pending.iter().any(|entry| self.marks.is_finished(entry.id))
            || control.registrations.iter().any(|registration| {
                self.marks.cleaned.contains(&RegistrationId::of(registration))
                    || self.is_overdue(registration)
            })
    }

    /// The control record of the next commit, without its own pending entries. `members` are those of the fold that it commits.
    pub(super) fn next_control(&self, members: &[Member]) -> NextControl {
        let mut condemned = Vec::new();
        let Some(current) = &self.view.control else {
            let control = ControlRecord {
                version: Version::first(self.incarnation),
                attempt: self.attempt,
                pending: Vec::new(),
                registrations: Vec::new(),
                sessions: Vec::new(),
            };
            return NextControl { control, condemned };
        };
        let is_kept = |entry: &&PendingEntry| {
            let is_dropped =
                mutated!(DropsFailedMarkers) && self.failed.iter().any(|(id, _)| *id == entry.id);
            !self.marks.is_finished(entry.id) && !mutated!(PrunesEarly) && !is_dropped
        };
        let mut pending = Vec::with_capacity(current.pending.len() + members.len());
        pending.extend(current.pending.iter().filter(is_kept).cloned());
        let mut sessions = current.sessions.clone();
        for mark in &self.marks.finished {
            // Whoever prunes a marker leaves what the deletion of its token returned, for those who read stale.
            if let Some(session) = &mark.session
                && !mutated!(ForgetsSessionsOfDeletions)
            {
                session.clone().merge_into(&mut sessions);
            }
        }
        let mut registrations = Vec::with_capacity(current.registrations.len());
        for registration in &current.registrations {
            if self.marks.cleaned.contains(&RegistrationId::of(registration)) {
                continue;
            }
            let is_decided =
                members.iter().any(|member| member.origin.message_id() == registration.message_id);
            if is_decided && registration.attempt == self.attempt && !mutated!(CondemnsTheWinner) {
                // The committed handler's side effects stay, and nobody may clean them up. Another's, for the same message
                // id, are on the list of what is to be cleaned up, and registered until they are.
                if members.iter().all(|member| !member.registered.contains(&registration.name)) {
                    registrations.push(registration.clone());
                }
                continue;
            }
            let mut registration = registration.clone();
            if registration.state == RegistrationState::Open && (is_decided || self.is_overdue(&registration))
            {
                registration.state = RegistrationState::Condemned;
                condemned.push(CleanUp::of(&registration, self.after_clean_up(&registration)));
            }
            registrations.push(registration);
        }
        let control = ControlRecord {
            version: current.version.next(),
            attempt: self.attempt,
            pending,
            registrations,
            sessions,
        };
        NextControl { control, condemned }
    }

    /// Condemned side effects whose attempt's deadline has passed: to be cleaned up for the last time.
    pub(super) fn due_clean_ups(&self) -> Vec<CleanUp> {
        let registrations = self.view.control.iter().flat_map(|control| &control.registrations);
        registrations
            .filter(|registration| {
                (registration.state == RegistrationState::Condemned || mutated!(CleansUpWithoutFencing))
                    && registration.deadline_ms < self.now_ms
                    && !self.marks.cleaned.contains(&RegistrationId::of(registration))
            })
            .map(|registration| CleanUp::of(registration, Afterwards::Drop))
            .collect()
    }

    /// An attempt that is past its deadline and has not committed. It must be condemned by a commit, which fences it,
    /// before anything of it may be deleted.
    fn is_overdue(&self, registration: &Registration) -> bool {
        self.maintenance == Maintenance::Tidy
            && registration.state == RegistrationState::Open
            && registration.deadline_ms < self.now_ms
            && registration.attempt != self.attempt
    }

    fn after_clean_up(&self, registration: &Registration) -> Afterwards {
        let is_over = registration.deadline_ms < self.now_ms || mutated!(DropsRegistrationsWithCleanUp);
        if is_over { Afterwards::Drop } else { Afterwards::Keep }
    }
}

/// A commit that registers a side effect, and changes nothing but the control record.
pub(super) fn register_commit(processing: &Processing, control: &ControlRecord) -> Commit {
    Commit {
        partition: processing.partition.clone(),
        expected: processing.version(),
        version: control.version,
        control: codec::encode_control(control),
        items: Vec::new(),
        entries: Vec::new(),
        deleted_entries: Vec::new(),
        records: Vec::new(),
        now_ms: processing.now_ms,
    }
}
