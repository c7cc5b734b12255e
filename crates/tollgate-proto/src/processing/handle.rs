//! Step 4: run the handlers, one after the other, each on the state that the one before left. A failing handler's
//! changes are dropped, the others' are kept. Side effects are registered here before they are created.

use std::sync::Arc;

use bytes::Bytes;

use super::commit::{NextControl, register_commit};
use super::fold::Effort;
use super::incoming::{Incoming, Request, Slot, SlotState};
use super::{CommitStep, Disposition, Processing, Remember, Step, WakeUpStep};
use crate::codec;
use crate::completion::{Afterwards, CleanUp};
use crate::control_record::{ControlRecord, PENDING_MAX, REGISTRATIONS_MAX, Registration, RegistrationState};
use crate::envelope::{Envelope, Headers};
use crate::ids::{AttemptId, EffectKind, EffectName, EndpointName, ItemName, MessageId, MessageType};
use crate::limits::StoreLimits;
use crate::outbox_entry::{Body, OutboxEntry};
use crate::sequence::Version;
use crate::side_effect::AttachedEffect;
use crate::store::{Commit, CommitOutcome, ItemValue, StoreError};
use crate::unit_of_work::UnitOfWork;

/// A handler is to be run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HandleStep {
    processing: Box<Processing>,
    slot: usize,
    input: Arc<HandlerInput>,
    work: UnitOfWork,
    /// Boxed because few handlers register anything, and each step is moved several times.
    registering: Option<Box<(ControlRecord, EffectName)>>,
    /// The side effects that this run of the handler has registered.
    registered: Vec<EffectName>,
    /// Those among them whose preparation was not confirmed: each may exist, or come to be later.
    unconfirmed: Vec<EffectName>,
    /// Whether an item was read at another version than that of the view.
    is_overtaken: bool,
}

/// What a handler gets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HandlerInput {
    /// The message, or the id that stands for a request.
    pub message_id: MessageId,
    /// Which endpoint handles it.
    pub endpoint: EndpointName,
    /// Which handler. `None` for a request: its handler came with it.
    pub message_type: Option<MessageType>,
    /// Trace context and the like.
    pub headers: Headers,
    /// What it says. Empty for a request.
    pub body: Body,
    /// The side effects that it carries, published by now.
    pub effects: Vec<AttachedEffect>,
}

impl HandlerInput {
    pub(super) fn of_entry(entry: OutboxEntry) -> Self {
        Self {
            message_id: entry.message_id,
            endpoint: entry.to.endpoint,
            message_type: Some(entry.message_type),
            headers: entry.headers,
            body: entry.body,
            effects: entry.effects,
        }
    }

    pub(super) fn of_body(envelope: &Envelope, body: Bytes) -> Self {
        Self {
            message_id: envelope.message_id,
            endpoint: envelope.to.endpoint.clone(),
            message_type: Some(envelope.message_type.clone()),
            headers: envelope.headers.clone(),
            body: Body::Inline(body),
            effects: Vec::new(),
        }
    }

    pub(super) fn of_request(request: &Request) -> Self {
        Self {
            message_id: request.message_id,
            endpoint: request.endpoint.clone(),
            message_type: None,
            headers: Headers::new(),
            body: Body::Inline(Bytes::new()),
            effects: Vec::new(),
        }
    }
}

/// Why a handler did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// It may succeed later.
    Passing {
        /// Why, for a person.
        reason: String,
    },
    /// It never will.
    Permanent {
        /// Why, for a person.
        reason: String,
    },
}

/// What is known of an item inside a unit of work.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Lookup {
    /// It is there.
    Present(ItemValue),
    /// It is not there.
    Absent,
    /// It is not in view: read it from the store and tell [`HandleStep::provide`].
    Unknown,
}

/// The attempt can't commit any more: another process changed the partition, or may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("the attempt was overtaken: the partition changed while the handler ran; it will be run again")]
pub struct Lost;

impl HandleStep {
    /// Which of [`super::Work::messages`].
    pub fn slot(&self) -> usize {
        self.slot
    }

    /// What to give to the handler.
    pub fn input(&self) -> &Arc<HandlerInput> {
        &self.input
    }

    /// The attempt, for names that must be unique to it.
    pub fn attempt(&self) -> AttemptId {
        self.processing.attempt
    }

    /// What the store takes, so that whoever drives the machine can move large bodies to blob storage.
    pub fn limits(&self) -> &StoreLimits {
        &self.processing.limits
    }

    /// Where the handler writes its changes.
    pub fn unit_of_work(&mut self) -> &mut UnitOfWork {
        &mut self.work
    }

    /// Drops everything that the handler has written or sent so far.
    pub fn discard(&mut self) {
        self.work.begin_anew();
    }

    /// An item as the handler sees it: its own changes, over those of the messages folded before, over the view.
    pub fn get(&self, name: &ItemName) -> Lookup {
        let known = self
            .work
            .changes
            .get(name)
            .or_else(|| self.processing.fold.changes.get(name))
            .or_else(|| self.processing.view.items.get(name));
        match known {
            Some(Some(value)) => Lookup::Present(value.clone()),
            Some(None) => Lookup::Absent,
            None => Lookup::Unknown,
        }
    }

    /// Takes an item that was read after the partition was loaded, and the control record that was read with it.
    ///
    /// # Errors
    /// [`Lost`] if the partition has changed in between: the handler would see a state that never was. End it; however it
    /// ends, it is run again.
    pub fn provide(
        &mut self,
        name: ItemName,
        value: Option<ItemValue>,
        control: Option<&Bytes>,
    ) -> Result<(), Lost> {
        let control = control.map(|bytes| codec::decode_control(bytes)).transpose();
        let is_of_the_view = control.is_ok_and(|control| self.is_of_the_view(control.map(|c| c.version)));
        if !is_of_the_view && !mutated!(MixesVersions) {
            self.is_overtaken = true;
            return Err(Lost);
        }
        self.processing.view.items.set(name, value);
        Ok(())
    }

    /// Whether the items of a version are those of the view: from the version that was loaded, only registrations of this
    /// processing lead to the view's, and perhaps to one that is not answered yet.
    fn is_of_the_view(&self, seen: Option<Version>) -> bool {
        let registering = self.registering.as_ref().map(|registering| registering.0.version);
        let newest = registering.or(self.processing.version());
        let of_one_life = match (seen, newest) {
            (Some(seen), Some(newest)) => seen.sequence().incarnation == newest.sequence().incarnation,
            (Some(_), None) => false,
            (None, _) => true,
        };
        let counter = |version: Option<Version>| version.map_or(0, |version| version.sequence().counter);
        of_one_life && (counter(self.processing.base)..=counter(newest)).contains(&counter(seen))
    }

    /// The commit that registers a side effect, to be carried out before it is created. An attempt that registers something
    /// commits only after [`HandleStep::registered`] and [`HandleStep::prepared`]: a driver whose preparation is dropped need
    /// not say so.
    ///
    /// `deadline_ms`: when nothing of this attempt can come to be any more, in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// A [`Failure`] if the partition has too many registrations already, or if the last one was not answered.
    pub fn register(
        &mut self,
        kind: EffectKind,
        name: EffectName,
        deadline_ms: u64,
    ) -> Result<Commit, Failure> {
        if let Some(dropped) = &self.registering {
            return Err(Failure::Passing { reason: interrupted(&dropped.1) });
        }
        let NextControl { mut control, .. } = self.processing.next_control(&[]);
        if !mutated!(TakesRegistrationForCommit) {
            control.attempt = self.processing.attempt.registering();
        }
        if control.registrations.len() >= REGISTRATIONS_MAX {
            return Err(Failure::Passing {
                reason: format!(
                    "partition {} has {REGISTRATIONS_MAX} registered side effects: wait until some are cleaned up",
                    self.processing.partition
                ),
            });
        }
        control.registrations.push(Registration {
            message_id: self.input.message_id,
            attempt: self.processing.attempt,
            kind,
            name: name.clone(),
            deadline_ms,
            state: RegistrationState::Open,
        });
        let commit = register_commit(&self.processing, &control);
        self.registering = Some(Box::new((control, name)));
        Ok(commit)
    }

    /// Whether a registration was dropped before its answer came: the attempt can't commit any more.
    pub fn is_interrupted(&self) -> bool {
        self.registering.is_some()
    }

    /// Takes the store's answer to [`HandleStep::register`].
    ///
    /// # Errors
    /// [`Lost`] if the registration did not happen, or may not have: create nothing, end the handler and call
    /// [`HandleStep::lost`].
    pub fn registered(&mut self, answer: &Result<CommitOutcome, StoreError>) -> Result<(), Lost> {
        match (self.registering.take(), answer) {
            (Some(registering), Ok(CommitOutcome::Committed { session })) => {
                let (control, name) = *registering;
                self.unconfirmed.push(name.clone());
                self.registered.push(name);
                self.processing.view.control = Some(control);
                self.processing.view.session = session.clone().map(Arc::new);
                Ok(())
            }
            (_, _) => Err(Lost),
        }
    }

    /// The preparation of a registered side effect was confirmed: it exists. One that has failed, was given up or was dropped may
    /// take effect all the same, later. Without this confirmation the attempt does not commit, and what is deleted of the side
    /// effect then is deleted once more when nothing of the attempt can come to be any more.
    pub fn prepared(&mut self, name: &EffectName) {
        self.unconfirmed.retain(|unconfirmed| unconfirmed != name);
    }

    /// The handler has succeeded: its changes are folded into the commit.
    pub fn succeeded(self) -> Step {
        let handle = match self.checked() {
            Ok(handle) => handle,
            Err(step) => return *step,
        };
        if let Some(name) = handle.unconfirmed.first()
            && !mutated!(CommitsUnconfirmedEffects)
        {
            let reason = interrupted(name);
            return handle.failed(Failure::Passing { reason });
        }
        let Self { mut processing, slot, input, work, registered, .. } = handle;
        if processing.fold.members.is_empty() {
            let members_max = processing.slots.len().min(processing.fold_max);
            processing.fold.members.reserve_exact(members_max);
        }
        match processing.fold.try_add(
            slot,
            &processing.slots[slot].incoming,
            &input,
            Effort { work, registered: &registered },
            processing.attempt,
            &processing.limits,
        ) {
            Ok(()) => processing.slots[slot].state = SlotState::Folded,
            Err(limit) if processing.fold.members.is_empty() => {
                // Of the view's own items it may be too large too, and another process may have emptied them.
                let reason = format!("message {}: {limit}", input.message_id);
                processing.slots[slot].state = SlotState::Judged(Disposition::DeadLetter { reason });
                processing.abandon_effects(&registered, &[]);
            }
            Err(_) => {
                // Full: commit what there is; this message's handler will run again, in the next processing.
                processing.slots[slot].state = SlotState::Settled(Disposition::Postponed);
                processing.abandon_effects(&registered, &[]);
                processing.fold_max = processing.fold.members.len();
            }
        }
        processing.handle_next()
    }

    /// The handler has found, by what it keeps in the partition, that the request was executed before: it is answered again, and
    /// nothing is committed.
    pub fn replayed(self, response: Bytes) -> Step {
        let handle = match self.checked() {
            Ok(handle) => handle,
            Err(step) => return *step,
        };
        let Self { mut processing, slot, registered, unconfirmed, .. } = handle;
        let disposition = Disposition::Replayed(response);
        // What a message folded before has left behind is not there before the fold is committed.
        let is_certain = processing.fold.members.is_empty();
        processing.slots[slot].state =
            if is_certain { SlotState::Settled(disposition) } else { SlotState::Judged(disposition) };
        processing.abandon_effects(&registered, &unconfirmed);
        processing.handle_next()
    }

    /// The handler has failed: its changes are dropped.
    pub fn failed(self, failure: Failure) -> Step {
        let handle = match self.checked() {
            Ok(handle) => handle,
            Err(step) => return *step,
        };
        let Self { mut processing, slot, work, registered, unconfirmed, .. } = handle;
        if mutated!(KeepsChangesOfFailedHandlers) {
            processing.fold.changes.apply(work.changes);
        }
        processing.has_failed = true;
        processing.slots[slot].state = match failure {
            Failure::Passing { reason } => SlotState::Settled(Disposition::Retry { reason }),
            Failure::Permanent { reason } => SlotState::Judged(Disposition::DeadLetter { reason }),
        };
        processing.abandon_effects(&registered, &unconfirmed);
        processing.handle_next()
    }

    /// However a handler ends, nothing of it counts if what it has seen is not of one version, or if it has dropped a registration
    /// before that was answered.
    fn checked(mut self) -> Result<Self, Box<Step>> {
        if self.is_overtaken {
            return Err(Box::new(self.lost()));
        }
        let Some(registering) = self.registering.take() else { return Ok(self) };
        // It may have happened, and then a commit on this view would conflict: those folded so far are handled again, on the
        // partition as it is.
        let Self { mut processing, slot, registered, unconfirmed, .. } = self;
        let reason = interrupted(&registering.1);
        processing.slots[slot].state = SlotState::Settled(Disposition::Retry { reason });
        processing.abandon_effects(&registered, &unconfirmed);
        Err(Box::new(processing.start_again()))
    }

    /// The attempt was overtaken while the handler ran: everything of this fold starts again.
    pub fn lost(self) -> Step {
        // No member was committed, but a registration may have been: the reload will show it as another attempt's.
        self.processing.reload("the attempt was overtaken while a handler ran")
    }
}

/// What is said of an attempt that does not know whether a side effect of it exists.
fn interrupted(name: &EffectName) -> String {
    format!("the handler dropped the preparation of a side effect before it had its result: {name}")
}

impl Processing {
    /// The next handler, or the commit.
    pub(super) fn handle_next(mut self: Box<Self>) -> Step {
        let fold_max = self.fold_max.min(self.room);
        let next = self.slots.iter().position(|slot| matches!(slot.state, SlotState::Ready(_)));
        let Some(slot) = next else { return self.finish_fold() };
        if self.fold.members.len() >= fold_max {
            let disposition = match self.room {
                0 => Disposition::Blocked { reason: self.no_room() },
                _ => Disposition::Postponed,
            };
            for slot in &mut self.slots {
                if matches!(slot.state, SlotState::Ready(_)) {
                    slot.state = SlotState::Settled(disposition.clone());
                }
            }
            return self.finish_fold();
        }
        let SlotState::Ready(input) = &self.slots[slot].state else {
            unreachable!("the slot was found ready")
        };
        let input = Arc::clone(input);
        let work = UnitOfWork::new(self.cause_of(slot, &input), input.endpoint.clone());
        Step::Handle(HandleStep {
            processing: self,
            slot,
            input,
            work,
            registering: None,
            registered: Vec::new(),
            unconfirmed: Vec::new(),
            is_overtaken: false,
        })
    }

    /// The id from which the ids of what a handler sends are derived. The name of a source's step may stand for many steps; the commit
    /// that it is part of stands for one, since steps of one name are twins.
    fn cause_of(&self, slot: usize, input: &HandlerInput) -> MessageId {
        match &self.slots[slot].incoming {
            Incoming::Request(request) if request.key().is_none() => {
                let next = self.version().map_or_else(|| Version::first(self.incarnation), Version::next);
                MessageId::of_step(input.message_id, next.sequence())
            }
            _ => input.message_id,
        }
    }

    fn no_room(&self) -> String {
        let example = self.failed.first().map(|(_, reason)| format!(", one of them because {reason}"));
        format!(
            "partition {} has {PENDING_MAX} messages that are committed and can't be finished{}",
            self.partition,
            example.unwrap_or_default()
        )
    }

    fn finish_fold(mut self: Box<Self>) -> Step {
        if self.fold.members.is_empty() && self.fold.fencing.is_empty() && !self.needs_tidying() {
            let is_judged = |slot: &Slot| matches!(slot.state, SlotState::Judged(_));
            if !self.is_view_believed() && self.slots.iter().any(is_judged) {
                // No commit will tell whether the view was still right, and a refusal is for ever.
                return self.reload("a handler refused a message on a cached view");
            }
            self.confirm_judgements();
            // A handler that fails for what it saw must not see the same next time if that is long over.
            let is_suspect = self.has_failed && !self.is_view_believed();
            return self.settle(if is_suspect { Remember::Nothing } else { Remember::View });
        }
        match WakeUpStep::of_requests(self) {
            Ok(wake_up) => Step::WakeUp(wake_up),
            Err(processing) => Step::Commit(CommitStep::new(processing)),
        }
    }

    /// Whether the view was loaded by this processing: what handlers have judged on it is believed without a commit.
    pub(super) fn is_view_believed(&self) -> bool {
        self.is_loaded || mutated!(BelievesCachedViews)
    }

    /// Side effects that a handler registered whose changes are dropped: they are deleted outside the lock, and their
    /// registrations leave with the next commit, but for those of what may still come to be. By name, because another message
    /// of the fold may have the same id.
    fn abandon_effects(&mut self, names: &[EffectName], unconfirmed: &[EffectName]) {
        if mutated!(ForgetsRegistrations) {
            if let Some(control) = &mut self.view.control {
                control.registrations.retain(|registration| !names.contains(&registration.name));
            }
            return;
        }
        let Some(control) = &self.view.control else { return };
        let own = control.registrations.iter().filter(|registration| {
            registration.attempt == self.attempt && names.contains(&registration.name)
        });
        let afterwards = |registration: &Registration| {
            let may_come = unconfirmed.contains(&registration.name) && !mutated!(TrustsFailedPreparations);
            if may_come { Afterwards::Keep } else { Afterwards::Drop }
        };
        let own = own.map(|registration| CleanUp::of(registration, afterwards(registration)));
        self.fold.clean_ups.extend(own);
    }
}
