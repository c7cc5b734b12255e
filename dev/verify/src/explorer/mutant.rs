//! The rules that the proof leans on, each with a switch that breaks it. The explorer must find a violation for every one of
//! them: a rule whose absence nobody notices is not needed, or not checked.

use tollgate_proto::mutation::{Mutation, Switch};

/// A broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mutant {
    /// A rule of the shipped state machine.
    Machine(Mutation),
    /// A rule of whoever drives the machine, or of the store.
    Driver(DriverMutation),
}

impl Mutant {
    /// Breaks the rule for this thread, if it is one of the machine's, as long as the switch lives.
    pub(super) fn switch_on(self) -> Option<Switch> {
        match self {
            Self::Machine(mutation) => Some(mutation.switch_on()),
            Self::Driver(_) => None,
        }
    }
}

/// A broken rule of the machine's surroundings: what the engine and the stores must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DriverMutation {
    /// R1: after a reload, the token read before it is used again.
    ReusesTokenReadAfterReload,
    /// R3: the store forgets the condition on the version.
    ForgetsVersionCondition,
    /// R4: tokens are read when the message arrives, outside the lane, and not again.
    ReadsTokensAhead,
    /// R6: a message is acknowledged when it is taken.
    AcknowledgesOnReceipt,
    /// R6: a message is acknowledged when its commit has been answered, before it is published.
    AcknowledgesBeforePublishing,
    /// Guarantee 3: outgoing messages are published before the commit.
    PublishesBeforeCommit,
    /// R6: dead-lettering consumes the token.
    ConsumesDeadLetters,
    /// Whoever completes what others left puts outbox entries back that are gone.
    RecreatesEntries,
    /// The receiver's own mapping decides on the partition, and it has changed between two deliveries.
    ReceiverChoosesPartition,
    /// The store does not check deduplication records.
    IgnoresDeduplicationRecords,
    /// A store's deletion of an entry fails and is answered as done.
    LosesDeletions,
    /// A commit is applied in part when its condition fails: its entries are stored.
    StoresEntriesOfFailedCommits,
    /// A replica that lags behind answers whatever session mark is presented.
    IgnoresSessionMarks,
    /// A request is committed although its wake-up could not be sent.
    CommitsWithoutWakeUp,
    /// A stalled attempt creates its blob after its deadline.
    CreatesAfterTheDeadline,
    /// A dead letter is sent again under the id of its first publication, to a broker that remembers it.
    ReplaysUnderTheOldId,
    /// Tokens are remembered as consumed when their message has been committed, before they are consumed.
    RemembersTokensTooEarly,
}
