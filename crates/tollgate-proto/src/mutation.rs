//! Switches that break one rule of the machine each, for test builds only (feature `mutations`). Whoever explores the machine
//! shows with them that a broken rule is noticed. Production code must not enable the feature, and nothing here may be on
//! unless a test has switched it on for its own thread.

use std::cell::Cell;

/// A rule of the machine that can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mutation {
    /// R2: pending entries leave the control record with the next commit, finished or not.
    PrunesEarly,
    /// R2: a pending entry counts as finished although the deletion of its token was not confirmed.
    TrustsUnconfirmedDeletions,
    /// R5: what others have left unfinished is not completed by those who load the partition.
    SkipsRecovery,
    /// R5: a pending entry that could not be completed is left out of the next control record.
    DropsFailedMarkers,
    /// R5: a pending entry that could not be completed is taken for finished.
    FinishesFailedMarkers,
    /// R5: a copy of a message whose pending entry could not be completed is acknowledged.
    AcknowledgesUnfinishedCopies,
    /// R5: a wake-up is acknowledged although what it announced could not be completed.
    AcknowledgesUnfinishedWakeUps,
    /// R7: a commit whose answer was lost is taken for one that happened.
    TakesLostAnswerForSuccess,
    /// R7: after a lost answer, whatever commit is found is taken for one's own.
    TakesOthersCommitForOwn,
    /// R7: a registration is committed under the id of the attempt's own commit, and taken for it after a lost answer.
    TakesRegistrationForCommit,
    /// R6: a message whose lost commit is found is acknowledged before its outputs are out.
    SettlesLostCommitsEarly,
    /// R8: a token is consumed although an outgoing message could not be sent.
    ConsumesUnpublished,
    /// Step 2: markers are not looked for.
    IgnoresMarkers,
    /// Two copies of one message in one burst are both folded.
    FoldsTwins,
    /// A failing handler's changes are kept.
    KeepsChangesOfFailedHandlers,
    /// A refusal is believed although the view was not loaded for it.
    BelievesCachedViews,
    /// An item that is read later is taken for one of the version that was loaded.
    MixesVersions,
    /// Section 4: a condemned registration leaves with its first clean-up.
    DropsRegistrationsWithCleanUp,
    /// Section 4: the side effect of an overdue attempt is deleted before the attempt is fenced.
    CleansUpWithoutFencing,
    /// Section 4: the committed attempt's own registration is condemned too.
    CondemnsTheWinner,
    /// Section 4: side effects of failed handlers are not cleaned up, and their registrations leave all the same.
    ForgetsRegistrations,
    /// Section 4: what was not confirmed to be prepared is taken for something that will never be.
    TrustsFailedPreparations,
    /// Section 4: an attempt commits although a side effect of it was not confirmed to be prepared.
    CommitsUnconfirmedEffects,
    /// Section 4: a message is sent although a side effect that it carries has not happened.
    SendsBeforeItsEffects,
    /// Section 4: the side effects that a message carried are not deleted when its token is consumed.
    ForgetsCarriedEffects,
    /// Section 5: a wake-up that comes before the commit it announces is acknowledged.
    AcknowledgesWakeUpsEarly,
    /// Section 5: a wake-up waits for ever for the commit it announces.
    NeverFences,
    /// A duplicate known by its id is acknowledged before the outputs of the first are out.
    AcknowledgesIdentityDuplicatesEarly,
    /// Section 7: whoever prunes a marker leaves no session mark of its token's deletion.
    ForgetsSessionsOfDeletions,
    /// Section 7: the envelope carries no session mark of the commit that made its token.
    DropsReadAfter,
    /// A broker that deduplicates is given the message's id, which may stand for several messages.
    DeduplicatesByMessageId,
    /// Section 7: outbox entries are read without presenting what the load has seen.
    ReadsOutputsWithoutSession,
}

thread_local! {
    static ACTIVE: Cell<Option<Mutation>> = const { Cell::new(None) };
}

/// Keeps a mutation on, for this thread, until it is dropped.
#[derive(Debug)]
#[must_use = "a mutation is on as long as its switch lives"]
pub struct Switch(());

impl Drop for Switch {
    fn drop(&mut self) {
        ACTIVE.set(None);
    }
}

impl Mutation {
    /// Breaks the rule for this thread.
    pub fn switch_on(self) -> Switch {
        ACTIVE.set(Some(self));
        Switch(())
    }

    pub(crate) fn is_on(self) -> bool {
        ACTIVE.get() == Some(self)
    }
}
