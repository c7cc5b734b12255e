//! Step 1: load the partition. Right after it pending entries are recovered (R5) and a commit whose answer was lost
//! is looked for (R7).

use std::sync::Arc;

use super::incoming::{Incoming, SlotState};
use super::{Disposition, Processing, RecoverStep, Step};
use crate::codec;
use crate::control_record::Origin;
use crate::partition_view::PartitionView;
use crate::store::{LoadRequest, LoadedPartition, StoreError};

/// The partition is to be loaded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LoadStep(pub(super) Box<Processing>);

impl LoadStep {
    /// What to ask the store for.
    pub fn request(&self) -> LoadRequest {
        self.0.load_request()
    }

    /// Takes the store's answer.
    pub fn answer(self, loaded: Result<LoadedPartition, StoreError>) -> Step {
        let mut processing = self.0;
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(error) => return processing.give_up(&error.to_string()),
        };
        let control = match loaded.control.as_deref().map(codec::decode_control).transpose() {
            Ok(control) => control,
            Err(error) => {
                let reason = format!("the control record of partition {}: {error}", processing.partition);
                return processing.give_up(&reason);
            }
        };
        processing.is_loaded = true;
        processing.base = control.as_ref().map(|control| control.version);
        processing.view = PartitionView {
            control,
            items: loaded.items.into_iter().collect(),
            session: loaded.session.map(Arc::new),
        };
        processing.settle_lost_commit();
        for (key, response) in loaded.records {
            let Some(response) = response else { continue };
            for slot in &mut processing.slots {
                let is_answered = matches!(slot.state, SlotState::Waiting)
                    && matches!(&slot.incoming, Incoming::Request(request) if request.key() == Some(&key));
                if is_answered {
                    slot.state = SlotState::Settled(Disposition::Replayed(response.clone()));
                }
            }
        }
        if mutated!(SkipsRecovery) {
            return processing.check_markers();
        }
        match RecoverStep::of_unfinished(processing) {
            Ok(recover) => Step::Recover(recover),
            Err(processing) => processing.check_markers(),
        }
    }
}

impl Processing {
    /// R7: finds out whether a commit whose answer was lost (or which an SDK's own retry made look like a conflict)
    /// was ours. Messages with a token are found by their marker; the others by the attempt.
    fn settle_lost_commit(&mut self) {
        let Some(lost) = self.uncertain.take() else { return };
        let Some(control) = &self.view.control else { return };
        let mut ours = Vec::new();
        for (place, slot) in self.slots.iter_mut().enumerate() {
            if !matches!(slot.state, SlotState::Waiting) {
                continue;
            }
            let tokenless = match &slot.incoming {
                Incoming::Message { envelope, .. } => envelope.token().is_none(),
                Incoming::Request(_) => true,
                Incoming::WakeUp { .. } => false,
            };
            if !tokenless || !lost.members.contains(&place) {
                continue;
            }
            let is_ours = control.attempt == lost.attempt
                || control.pending.iter().any(|entry| match &entry.origin {
                    Origin::Attempt { attempt, message_id } => {
                        *attempt == lost.attempt && Some(*message_id) == slot.incoming.message_id()
                    }
                    Origin::Token { .. } => false,
                });
            if is_ours || mutated!(TakesOthersCommitForOwn) {
                slot.state = SlotState::Settled(Disposition::Committed);
                ours.push(place);
            }
        }
        for place in ours {
            // A message is acknowledged only when its outputs are out, as if the answer had come.
            let Some(message_id) = self.slots[place].incoming.message_id() else { continue };
            let origin = Origin::Attempt { attempt: lost.attempt, message_id };
            if !mutated!(SettlesLostCommitsEarly)
                && let Some(blocked @ Disposition::Blocked { .. }) =
                    self.wait_for(place, |entry| entry.origin == origin)
            {
                self.slots[place].state = SlotState::Settled(blocked);
            }
        }
    }
}
