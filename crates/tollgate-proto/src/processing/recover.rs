//! R5: a visitor that loads a partition tries to complete the pending entries that nobody is known to have
//! finished. What fails stays pending: its marker is carried into the next control record, and the visit goes
//! on. Only the entry's own copies wait for it, and new messages when the control record has no place left.

use super::{Disposition, Processing, Step};
use crate::completion::{Completion, CompletionReport, CompletionTask};
use crate::control_record::{PendingEntry, PendingId};
use crate::marks::FinishedMark;

/// Pending entries are to be completed, as far as they can be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecoverStep {
    processing: Box<Processing>,
    completion: Completion,
}

/// The completion has been handed out and is to be reported on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecoveringStep {
    processing: Box<Processing>,
    trying: Vec<PendingId>,
}

/// Pending entries that a processing does not try to complete, because its process sees to them otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Deferred {
    /// The process is completing them now.
    pub under_way: Vec<PendingId>,
    /// The process has failed to complete them, and the next try is not due. A copy of their message is a try
    /// of its own.
    pub not_due: Vec<PendingId>,
}

impl RecoverStep {
    /// The recovery of everything unfinished, or the processing back if there is nothing to try.
    pub(super) fn of_unfinished(processing: Box<Processing>) -> Result<Self, Box<Processing>> {
        let tasks: Vec<CompletionTask> = processing.recoverable().map(CompletionTask::of_pending).collect();
        let clean_ups = processing.due_clean_ups();
        let completion = Completion::new(
            processing.store.clone(),
            processing.partition.clone(),
            tasks,
            clean_ups,
            processing.view.session.clone(),
        );
        match completion {
            Some(completion) => Ok(Self { processing, completion }),
            None => Err(processing),
        }
    }

    /// How many pending entries are to be completed.
    pub fn pending_count(&self) -> usize {
        self.completion.pending_count()
    }

    /// Hands out the completion, to be run to its end and reported with [`RecoveringStep::answer`].
    pub fn start(self) -> (RecoveringStep, Completion) {
        let trying = self.completion.pending_ids().collect();
        (RecoveringStep { processing: self.processing, trying }, self.completion)
    }
}

impl RecoveringStep {
    /// Takes the report of the completion. What failed stays pending, and the visit goes on.
    pub fn answer(self, report: CompletionReport) -> Step {
        let mut processing = self.processing;
        processing.marks.add(report.marks);
        for outcome in report.outcomes {
            if let Err(reason) = outcome.result {
                if mutated!(FinishesFailedMarkers) {
                    processing.marks.finished.push(FinishedMark { id: outcome.pending.id, session: None });
                }
                processing.failed.push((outcome.pending.id, reason));
            }
        }
        processing.check_markers()
    }

    /// Goes on without the report: the completion takes long, and the process runs it to its end beside this
    /// visit.
    pub fn leave_under_way(self) -> Step {
        let mut processing = self.processing;
        processing.deferred.under_way.extend(self.trying);
        processing.check_markers()
    }
}

impl Processing {
    /// The pending entries that are not known to be finished.
    pub(super) fn unfinished(&self) -> impl Iterator<Item = &PendingEntry> {
        self.view
            .control
            .iter()
            .flat_map(|control| &control.pending)
            .filter(|entry| !self.marks.is_finished(entry.id))
    }

    /// The unfinished entries that this processing has not tried and may try.
    pub(super) fn recoverable(&self) -> impl Iterator<Item = &PendingEntry> {
        self.unfinished().filter(|entry| {
            self.in_the_way(entry.id).is_none()
                && !self.deferred.not_due.contains(&entry.id)
                && self.completions.iter().all(|task| task.id() != entry.id)
        })
    }

    /// Why an unfinished entry can't be completed by this processing, if it can't.
    fn in_the_way(&self, id: PendingId) -> Option<&str> {
        if self.deferred.under_way.contains(&id) {
            return Some("it is being finished");
        }
        self.failed.iter().find(|(failed, _)| *failed == id).map(|(_, reason)| reason.as_str())
    }

    /// Lets the message of a slot wait for all unfinished entries that may be its own.
    ///
    /// Messages to several endpoints may have one id, and an entry does not name the endpoint. The message is
    /// settled when all of them are finished; if one can't be completed by this processing, it comes again.
    /// `None`: there is no such entry.
    pub(super) fn wait_for(
        &mut self,
        slot: usize,
        is_own: impl Fn(&PendingEntry) -> bool,
    ) -> Option<Disposition> {
        let own: Vec<PendingEntry> = self.unfinished().filter(|entry| is_own(entry)).cloned().collect();
        if own.is_empty() {
            return None;
        }
        let blocked = own.iter().find_map(|entry| self.in_the_way(entry.id).map(|reason| (entry, reason)));
        if let Some((entry, reason)) = blocked {
            if mutated!(AcknowledgesUnfinishedCopies) {
                return Some(Disposition::Duplicate);
            }
            let reason = format!(
                "message {} is committed on partition {} and not finished: {reason}",
                entry.origin.message_id(),
                self.partition
            );
            return Some(Disposition::Blocked { reason });
        }
        for task in own.iter().map(CompletionTask::of_pending) {
            match self.completions.iter_mut().find(|known| known.is_of(&task)) {
                Some(known) => known.slots.push(slot),
                None => self.completions.push(task.for_slot(slot)),
            }
        }
        Some(Disposition::CommittedBefore)
    }
}
