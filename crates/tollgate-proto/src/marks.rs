//! What a process knows to be over although the control record still lists it: finished pending entries and cleaned
//! up registrations. The next commit on the partition removes them (step 9 of the algorithm); an idle flush does
//! otherwise. Marks are permanent facts, so they survive a reload; to lose them costs only repeated work.

use crate::control_record::{ControlRecord, PendingId, Registration};
use crate::ids::{AttemptId, EffectName};
use crate::sequence::SessionMark;

/// Marks of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Marks {
    /// Pending entries whose outputs are out and whose token is gone (R2, R8).
    pub finished: Vec<FinishedMark>,
    /// Registrations of lost attempts whose side effects are deleted and can't come back.
    pub cleaned: Vec<RegistrationId>,
}

/// One finished pending entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FinishedMark {
    /// Which one.
    pub id: PendingId,
    /// The session mark of its token's deletion, where the store hands one out.
    pub session: Option<SessionMark>,
}

/// What names a registration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RegistrationId {
    /// The attempt that registered it.
    pub attempt: AttemptId,
    /// Its attempt-unique name.
    pub name: EffectName,
}

impl RegistrationId {
    /// The name of `registration`.
    pub fn of(registration: &Registration) -> Self {
        Self { attempt: registration.attempt, name: registration.name.clone() }
    }
}

impl Marks {
    /// Whether there is nothing to be removed from the control record.
    pub fn is_empty(&self) -> bool {
        self.finished.is_empty() && self.cleaned.is_empty()
    }

    /// Whether a pending entry is finished.
    pub fn is_finished(&self, id: PendingId) -> bool {
        self.finished.iter().any(|mark| mark.id == id)
    }

    /// Adds what another task has learned.
    pub fn add(&mut self, news: Self) {
        if self.is_empty() {
            *self = news;
            return;
        }
        for mark in news.finished {
            if !self.is_finished(mark.id) {
                self.finished.push(mark);
            }
        }
        for id in news.cleaned {
            if !self.cleaned.contains(&id) {
                self.cleaned.push(id);
            }
        }
    }

    /// Forgets what a control record does not list any more.
    pub fn keep_listed(&mut self, control: Option<&ControlRecord>) {
        let Some(control) = control else { return *self = Self::default() };
        self.finished.retain(|mark| control.pending.iter().any(|entry| entry.id == mark.id));
        self.cleaned.retain(|id| control.registrations.iter().any(|known| RegistrationId::of(known) == *id));
    }
}
