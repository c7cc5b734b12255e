//! Steps 2 and 3: look for markers, then read the tokens. The order matters: a token is read after the partition was
//! loaded, and again after every reload (R1), because a marker may be pruned as soon as its token is gone.

use std::sync::Arc;

use bytes::Bytes;

use super::incoming::{Incoming, SlotState, WakeUpPatience};
use super::{Disposition, HandlerInput, Processing, RecoverStep, Step};
use crate::codec;
use crate::control_record::{Origin, PENDING_MAX};
use crate::envelope::{Content, Envelope};
use crate::ids::AttemptId;
use crate::store::{EntryRead, StoreError};

/// Tokens are to be read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReadTokensStep {
    processing: Box<Processing>,
    /// The slots whose tokens are read, in the order of the requests.
    reading: Vec<usize>,
}

impl Processing {
    /// Step 2, and what else can be decided without I/O.
    pub(super) fn check_markers(mut self: Box<Self>) -> Step {
        self.room = PENDING_MAX - self.unfinished().count().min(PENDING_MAX);
        let has_waiting = self.slots.iter().any(|slot| matches!(slot.state, SlotState::Waiting));
        if has_waiting && self.room == 0 && self.recoverable().next().is_some() {
            match RecoverStep::of_unfinished(self) {
                Ok(recover) => return Step::Recover(recover),
                Err(_) => unreachable!("there is an entry to be recovered"),
            }
        }
        let mut reading = Vec::new();
        for place in 0..self.slots.len() {
            if !matches!(self.slots[place].state, SlotState::Waiting) {
                continue;
            }
            match &self.slots[place].incoming {
                Incoming::Message { envelope, .. } => match &envelope.content {
                    Content::Token { token, .. } => {
                        let marker = self.view.control.as_ref().and_then(|control| control.marker(token));
                        let marker = marker.filter(|_| !mutated!(IgnoresMarkers));
                        match marker {
                            None => reading.push(place),
                            Some(entry) if self.marks.is_finished(entry.id) => {
                                self.slots[place].state = SlotState::Settled(Disposition::Duplicate);
                            }
                            Some(entry) => {
                                let id = entry.id;
                                let disposition = self.wait_for(place, |entry| entry.id == id);
                                let disposition = disposition.unwrap_or(Disposition::Duplicate);
                                self.slots[place].state = SlotState::Settled(disposition);
                            }
                        }
                    }
                    Content::Body(_) => self.admit_tokenless(place),
                    Content::WakeUp { .. } => {
                        let reason = "a wake-up was given to the machine as a message".to_owned();
                        self.slots[place].state = SlotState::Settled(Disposition::DeadLetter { reason });
                    }
                },
                Incoming::Request(_) => self.admit_tokenless(place),
                Incoming::WakeUp { attempt, expected, patience } => {
                    let version = self.view.control.as_ref().map(|control| control.version);
                    let (attempt, is_early, patience) = (*attempt, version == *expected, *patience);
                    self.slots[place].state = match (is_early, patience) {
                        (false, _) => SlotState::Settled(self.visit_of_wake_up(attempt, place)),
                        (true, WakeUpPatience::Wait) if mutated!(AcknowledgesWakeUpsEarly) => {
                            SlotState::Settled(Disposition::Visited)
                        }
                        (true, WakeUpPatience::Fence) if !mutated!(NeverFences) => {
                            self.fold.fencing.push(place);
                            SlotState::Folded
                        }
                        (true, _) => SlotState::Settled(Disposition::Retry {
                            reason: format!(
                                "the attempt that woke partition {} has not committed yet",
                                self.partition
                            ),
                        }),
                    };
                }
            }
        }
        if reading.is_empty() {
            self.handle_next()
        } else {
            Step::ReadTokens(ReadTokensStep { processing: self, reading })
        }
    }

    /// The commit that a wake-up announced has happened, or failed. It is the delivery of what that commit
    /// has sent, so it waits until that is out.
    fn visit_of_wake_up(&mut self, announced: AttemptId, place: usize) -> Disposition {
        if mutated!(AcknowledgesUnfinishedWakeUps) {
            return Disposition::Visited;
        }
        let waits = self.wait_for(place, |entry| match &entry.origin {
            Origin::Attempt { attempt, .. } => *attempt == announced,
            Origin::Token { .. } => false,
        });
        waits.unwrap_or(Disposition::Visited)
    }

    fn admit_tokenless(&mut self, place: usize) {
        let slot = &mut self.slots[place];
        slot.state = match slot.tokenless_input() {
            Ok(input) => SlotState::Ready(Arc::new(input)),
            Err(disposition) => SlotState::Settled(disposition),
        };
    }
}

impl ReadTokensStep {
    /// What to read, in this order. A token whose store the process doesn't know is to be answered with
    /// [`StoreError::ForeignToken`].
    pub fn requests(&self) -> Vec<EntryRead> {
        let sessions = self.processing.view.control.as_ref().map(|control| control.sessions.as_slice());
        self.reading
            .iter()
            .map(|place| {
                let Incoming::Message { envelope, .. } = &self.processing.slots[*place].incoming else {
                    unreachable!("only messages have tokens")
                };
                let Content::Token { token, read_after } = &envelope.content else {
                    unreachable!("only messages with a token are read")
                };
                let mut presented: Vec<_> = sessions
                    .unwrap_or_default()
                    .iter()
                    .filter(|mark| mark.store == token.store)
                    .cloned()
                    .collect();
                if let Some(mark) = read_after {
                    mark.clone().merge_into(&mut presented);
                }
                EntryRead { token: token.clone(), sessions: presented }
            })
            .collect()
    }

    /// Takes the store's answers, in the order of the requests.
    ///
    /// # Panics
    /// If there are not as many answers as requests.
    pub fn answer(self, answers: Vec<Result<Option<Bytes>, StoreError>>) -> Step {
        let Self { mut processing, reading } = self;
        assert_eq!(answers.len(), reading.len(), "every token read has one answer");
        for (place, answer) in reading.into_iter().zip(answers) {
            let Incoming::Message { envelope, .. } = &processing.slots[place].incoming else {
                unreachable!("only messages have tokens")
            };
            processing.slots[place].state = match answer {
                // A missing token is not "not yet": its outbox entry was committed before the envelope was sent, so it
                // has been consumed, and its outputs are out (R8).
                Ok(None) => SlotState::Settled(Disposition::Duplicate),
                Ok(Some(bytes)) => match input_of_entry(envelope, &bytes) {
                    Ok(input) => SlotState::Ready(Arc::new(input)),
                    Err(reason) => SlotState::Settled(Disposition::DeadLetter { reason }),
                },
                Err(error) => SlotState::Settled(Disposition::Retry { reason: error.to_string() }),
            };
        }
        processing.handle_next()
    }
}

/// Step 3's second half: the entry must be the one that the envelope announces.
fn input_of_entry(envelope: &Envelope, bytes: &Bytes) -> Result<HandlerInput, String> {
    let entry = codec::decode_entry(bytes)
        .map_err(|error| format!("the outbox entry of message {}: {error}", envelope.message_id))?;
    if entry.message_id != envelope.message_id {
        return Err(format!(
            "the envelope announces message {} but its token stands for message {}: nothing was consumed",
            envelope.message_id, entry.message_id
        ));
    }
    if entry.message_type != envelope.message_type {
        return Err(format!(
            "the envelope of message {} is of type {} but its outbox entry of type {}: nothing was consumed",
            envelope.message_id, envelope.message_type, entry.message_type
        ));
    }
    if entry.to != envelope.to {
        return Err(format!(
            "the envelope of message {} is addressed to partition {} of endpoint {} but its outbox entry to partition {} \
             of endpoint {}: nothing was consumed",
            envelope.message_id,
            envelope.to.partition,
            envelope.to.endpoint,
            entry.to.partition,
            entry.to.endpoint
        ));
    }
    Ok(HandlerInput::of_entry(entry))
}
