//! R5: whoever finds pending entries that nobody is known to have finished completes them first. Also what is done when
//! the control record has no room for one more pending entry.

use super::{Processing, Step};
use crate::completion::{Completion, CompletionReport, CompletionTask};
use crate::control_record::PendingEntry;

/// Pending entries are to be completed before anything else.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecoverStep {
    processing: Box<Processing>,
    completion: Completion,
}

/// The completion has been handed out and is to be reported on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecoveringStep(Box<Processing>);

impl RecoverStep {
    /// The recovery of everything unfinished, or the processing back if there is nothing.
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
        (RecoveringStep(self.processing), self.completion)
    }
}

impl RecoveringStep {
    /// Takes the report of the completion. If any of it failed, all messages are put back and the partition is
    /// forgotten, so that the next visitor tries again.
    pub fn answer(self, report: CompletionReport) -> Step {
        let mut processing = self.0;
        let failure = report.failures().next().map(ToOwned::to_owned);
        processing.marks.add(report.marks);
        if let Some(failure) = failure {
            let reason = format!(
                "partition {} has unfinished work of an earlier commit: {failure}",
                processing.partition
            );
            return processing.give_up(&reason);
        }
        processing.check_markers()
    }
}

impl Processing {
    /// Lets the message of a slot wait for all unfinished entries that may be its own. Messages to several endpoints may have one id,
    /// and an entry does not tell the endpoint. Tells whether there are any.
    pub(super) fn wait_for(&mut self, slot: usize, is_own: impl Fn(&PendingEntry) -> bool) -> bool {
        let tasks: Vec<_> =
            self.unfinished().filter(|entry| is_own(entry)).map(CompletionTask::of_pending).collect();
        let found = !tasks.is_empty();
        for task in tasks {
            match self.completions.iter_mut().find(|known| known.is_of(&task)) {
                Some(known) => known.slots.push(slot),
                None => self.completions.push(task.for_slot(slot)),
            }
        }
        found
    }

    pub(super) fn unfinished(&self) -> impl Iterator<Item = &PendingEntry> {
        self.view
            .control
            .iter()
            .flat_map(|control| &control.pending)
            .filter(|entry| !self.marks.is_finished(entry.id))
    }

    /// The unfinished pending entries that no message of this processing waits for.
    fn recoverable(&self) -> impl Iterator<Item = &PendingEntry> {
        self.unfinished().filter(|entry| self.completions.iter().all(|task| task.id() != entry.id))
    }
}
