//! Every mutant with the world in which it must be found: small, so that the story is short and the search quick.

use tollgate_proto::mutation::Mutation;

use super::mutant::{DriverMutation, Mutant};
use super::world::{Budget, ConsumedTokens, Poison, Publications, Script, Sweep, World};

/// A mutant, what it breaks, and where that shows.
#[derive(Clone, Debug)]
pub struct Specimen {
    /// The broken rule.
    pub mutant: Mutant,
    /// Where the rule is stated: R1 to R8, a step or a section of the design.
    pub rule: &'static str,
    /// What goes wrong without it, in one line.
    pub about: &'static str,
    /// The world in which it shows.
    pub world: World,
}

impl Specimen {
    /// All mutants. Rules R1 to R8 come first.
    pub fn all() -> Vec<Self> {
        let mut all = Self::of_the_numbered_rules();
        all.extend(Self::of_what_is_unfinished());
        all.extend(Self::of_the_receiver());
        all.extend(Self::of_side_effects());
        all.extend(Self::of_the_edge_and_identity());
        all.extend(Self::of_sessions());
        all.extend(Self::of_publications());
        all
    }

    /// What the mutant is called on the command line.
    pub fn name(&self) -> String {
        match self.mutant {
            Mutant::Machine(mutation) => format!("{mutation:?}"),
            Mutant::Driver(mutation) => format!("{mutation:?}"),
        }
    }

    fn new(mutant: Mutant, rule: &'static str, about: &'static str, world: World) -> Self {
        let world = World { mutant: Some(mutant), ..world };
        Self { mutant, rule, about, world }
    }

    fn machine(mutation: Mutation, rule: &'static str, about: &'static str, world: World) -> Self {
        Self::new(Mutant::Machine(mutation), rule, about, world)
    }

    fn driver(mutation: DriverMutation, rule: &'static str, about: &'static str, world: World) -> Self {
        Self::new(Mutant::Driver(mutation), rule, about, world)
    }

    fn of_the_numbered_rules() -> Vec<Self> {
        use DriverMutation as D;
        use Mutation as M;
        vec![
            Self::driver(
                D::ReusesTokenReadAfterReload,
                "R1",
                "the token read before a reload is used after it",
                receiver(),
            ),
            Self::machine(
                M::PrunesEarly,
                "R2",
                "a marker is pruned by the next commit, finished or not",
                with(named("receiver"), Budget::default()),
            ),
            Self::machine(
                M::TrustsUnconfirmedDeletions,
                "R2",
                "a marker is pruned although the deletion of the token failed",
                with(receiver(), Budget { failed_calls: 1, ..Budget::default() }),
            ),
            Self::driver(
                D::ForgetsVersionCondition,
                "R3",
                "a commit is not conditional on the version",
                receiver(),
            ),
            Self::driver(
                D::ReadsTokensAhead,
                "R4",
                "a token read ahead is trusted at the commit",
                receiver(),
            ),
            Self::machine(
                M::SkipsRecovery,
                "R5",
                "what a dead process left is not completed by the next visitor",
                with(receiver(), Budget { crashes: 1, ..Budget::default() }),
            ),
            Self::driver(
                D::AcknowledgesOnReceipt,
                "R6",
                "a message is acknowledged before it is processed",
                World { copies: 1, ..with(receiver(), Budget { crashes: 1, ..Budget::default() }) },
            ),
            Self::driver(
                D::AcknowledgesBeforePublishing,
                "R6",
                "a message is acknowledged after its commit and before its outputs are out, and nobody sweeps",
                World {
                    sweep: Sweep::Absent,
                    ..with(named("chain"), Budget { crashes: 1, ..Budget::default() })
                },
            ),
            Self::driver(
                D::ConsumesDeadLetters,
                "R6",
                "dead-lettering takes the token, so a replay is lost",
                named("poison"),
            ),
            Self::machine(
                M::TakesLostAnswerForSuccess,
                "R7",
                "a commit whose answer was lost is taken for one that happened",
                with(receiver(), Budget { lost_answers: 1, ..Budget::default() }),
            ),
            Self::machine(
                M::TakesOthersCommitForOwn,
                "R7",
                "after a lost answer, whatever commit is found is taken for one's own",
                with(named("identity"), Budget::default()),
            ),
            Self::machine(
                M::TakesRegistrationForCommit,
                "R7",
                "a registration carries its attempt's id, and is taken for the commit of the messages",
                named("blob-by-id"),
            ),
            Self::machine(
                M::SettlesLostCommitsEarly,
                "R7",
                "a message whose lost commit is found is acknowledged before its outputs are out",
                with(named("last-copy"), Budget { lost_answers: 1, failed_calls: 1, ..Budget::default() }),
            ),
            Self::machine(
                M::ConsumesUnpublished,
                "R8",
                "a token is consumed although an output could not be sent",
                with(named("chain"), Budget { failed_calls: 1, ..Budget::default() }),
            ),
        ]
    }

    /// R5: what can't be completed stays pending, and only its own copies wait for it.
    fn of_what_is_unfinished() -> Vec<Self> {
        use Mutation as M;
        let failing = Budget { failed_calls: 1, ..Budget::default() };
        let failing_after_crash = Budget { crashes: 1, ..failing };
        vec![
            Self::machine(
                M::DropsFailedMarkers,
                "R5",
                "the marker of what could not be completed is not carried on, and a copy is processed again",
                with(receiver(), failing),
            ),
            Self::machine(
                M::FinishesFailedMarkers,
                "R5",
                "what could not be completed is taken for finished",
                with(receiver(), failing),
            ),
            Self::machine(
                M::AcknowledgesUnfinishedCopies,
                "R5",
                "a copy is acknowledged although its message could not be finished, and nobody sweeps",
                World { sweep: Sweep::Absent, copies: 1, ..with(named("chain"), failing_after_crash) },
            ),
            Self::machine(
                M::AcknowledgesUnfinishedWakeUps,
                "R5",
                "a wake-up is acknowledged although what it announced could not be finished",
                with(named("edge"), Budget { departures: 1, ..failing_after_crash }),
            ),
        ]
    }

    fn of_the_receiver() -> Vec<Self> {
        use DriverMutation as D;
        use Mutation as M;
        vec![
            Self::machine(
                M::IgnoresMarkers,
                "step 2",
                "a committed message whose token is still there is processed again",
                with(named("receiver"), Budget::default()),
            ),
            Self::machine(
                M::FoldsTwins,
                "folding",
                "two copies of one message in one burst are both applied",
                with(named("fold"), Budget::default()),
            ),
            Self::machine(
                M::KeepsChangesOfFailedHandlers,
                "folding",
                "the changes of a failing handler are committed with the others",
                with(named("fold"), Budget { handler_failures: 1, ..Budget::default() }),
            ),
            Self::machine(
                M::BelievesCachedViews,
                "refusals",
                "a refusal is believed that was made on a cached view",
                with(named("books"), Budget::default()),
            ),
            Self::machine(
                M::MixesVersions,
                "refusals",
                "a handler sees an item of another version than those that were loaded",
                with(named("books"), Budget::default()),
            ),
            Self::driver(
                D::ReceiverChoosesPartition,
                "algorithm",
                "the receiver's mapping decides on the partition, and it has changed between two deliveries",
                two_partitions(),
            ),
            Self::driver(
                D::RecreatesEntries,
                "algorithm",
                "whoever completes a commit puts consumed entries back",
                with(named("chain"), Budget { crashes: 1, ..Budget::default() }),
            ),
            Self::driver(
                D::PublishesBeforeCommit,
                "guarantee 3",
                "outgoing messages are sent before the commit",
                with(named("chain"), Budget::default()),
            ),
            Self::driver(
                D::LosesDeletions,
                "store promises",
                "the store answers a deletion that it has not made",
                with(named("chain"), Budget::default()),
            ),
            Self::driver(
                D::StoresEntriesOfFailedCommits,
                "store promises",
                "a failed commit leaves its outbox entries behind",
                with(named("chain"), Budget::default()),
            ),
            Self::driver(
                D::RemembersTokensTooEarly,
                "negative cache",
                "a token is remembered as consumed before its outputs are out, and nobody sweeps",
                World {
                    memory: ConsumedTokens::Remembered,
                    sweep: Sweep::Absent,
                    ..with(named("chain"), Budget { failed_calls: 1, ..Budget::default() })
                },
            ),
        ]
    }

    fn of_side_effects() -> Vec<Self> {
        use DriverMutation as D;
        use Mutation as M;
        vec![
            Self::machine(
                M::DropsRegistrationsWithCleanUp,
                "side effects",
                "a condemned registration is dropped with the first clean-up, and a zombie creates its blob later",
                with(named("effects"), Budget { conflicts: Some(1), ..Budget::default() }),
            ),
            Self::machine(
                M::CleansUpWithoutFencing,
                "side effects",
                "an overdue attempt's blob is deleted, and then the attempt commits its name",
                with(
                    named("effects"),
                    Budget { crashes: 1, sweeps: 1, conflicts: Some(1), ..Budget::default() },
                ),
            ),
            Self::machine(
                M::CondemnsTheWinner,
                "side effects",
                "the committed attempt's own blob is cleaned up",
                with(named("effects"), Budget { conflicts: Some(1), ..Budget::default() }),
            ),
            Self::machine(
                M::ForgetsRegistrations,
                "side effects",
                "a failed handler's registration is dropped and its blob stays",
                with(
                    named("effects"),
                    Budget { handler_failures: 1, conflicts: Some(1), ..Budget::default() },
                ),
            ),
            Self::machine(
                M::TrustsFailedPreparations,
                "side effects",
                "a blob whose creation failed is taken for one that never comes to be, and comes to be later",
                with(named("effects"), Budget { late_effects: 1, conflicts: Some(1), ..Budget::default() }),
            ),
            Self::machine(
                M::CommitsUnconfirmedEffects,
                "side effects",
                "an attempt commits whose handler has dropped the preparation of a blob, and the blob stays",
                with(named("effects"), Budget { drops: 1, conflicts: Some(1), ..Budget::default() }),
            ),
            Self::machine(
                M::SendsBeforeItsEffects,
                "side effects",
                "a message is sent although the call that it follows up has not been executed",
                with(named("calls"), Budget { failed_calls: 1, ..Budget::default() }),
            ),
            Self::machine(
                M::ForgetsCarriedEffects,
                "side effects",
                "a message is consumed and the call that it followed up is never deleted",
                with(named("calls"), Budget::default()),
            ),
            Self::driver(
                D::CreatesAfterTheDeadline,
                "side effects",
                "a stalled attempt creates its blob after its deadline, when the last clean-up is over",
                with(named("effects"), Budget { conflicts: Some(1), ..Budget::default() }),
            ),
        ]
    }

    fn of_the_edge_and_identity() -> Vec<Self> {
        use DriverMutation as D;
        use Mutation as M;
        vec![
            Self::machine(
                M::AcknowledgesWakeUpsEarly,
                "wake-ups",
                "a wake-up that comes before the commit it announces is acknowledged",
                with(named("edge"), Budget { crashes: 1, ..Budget::default() }),
            ),
            Self::machine(
                M::NeverFences,
                "wake-ups",
                "a wake-up waits for ever for an attempt that has died",
                with(named("edge"), Budget { crashes: 1, departures: 1, ..Budget::default() }),
            ),
            Self::driver(
                D::CommitsWithoutWakeUp,
                "wake-ups",
                "a request is committed although its wake-up could not be sent",
                with(
                    named("edge"),
                    Budget { crashes: 1, failed_calls: 1, departures: 1, ..Budget::default() },
                ),
            ),
            Self::driver(
                D::IgnoresDeduplicationRecords,
                "identity",
                "the store does not check the records of known ids",
                with(named("identity"), Budget::default()),
            ),
            Self::machine(
                M::AcknowledgesIdentityDuplicatesEarly,
                "identity",
                "a duplicate known by its id is acknowledged while the outputs of the first are not out",
                World {
                    inputs: named("identity").inputs[..1].to_vec(),
                    workers: vec![2],
                    ..with(named("identity"), Budget { failed_calls: 1, ..Budget::default() })
                },
            ),
        ]
    }

    fn of_publications() -> Vec<Self> {
        vec![
            Self::machine(
                Mutation::DeduplicatesByMessageId,
                "broker ids",
                "a broker that deduplicates is given the message's id, and swallows what a second run sends",
                with(named("natural"), Budget::default()),
            ),
            Self::driver(
                DriverMutation::ReplaysUnderTheOldId,
                "broker ids",
                "a dead letter is sent again under its first id, and the broker swallows it",
                World {
                    publications: Publications::KnownDropped,
                    ..with(named("poison"), Budget { failed_calls: 1, ..Budget::default() })
                },
            ),
        ]
    }

    fn of_sessions() -> Vec<Self> {
        use DriverMutation as D;
        use Mutation as M;
        let stale = Budget { stale_reads: 1, ..Budget::default() };
        vec![
            Self::driver(
                D::IgnoresSessionMarks,
                "store promises",
                "a replica that lags behind answers whatever mark is presented",
                with(named("sessions"), stale),
            ),
            Self::machine(
                M::ForgetsSessionsOfDeletions,
                "store promises",
                "whoever prunes a marker leaves no mark of the deletion: a stale read finds the token again",
                with(named("sessions"), stale),
            ),
            Self::machine(
                M::DropsReadAfter,
                "store promises",
                "the envelope carries no mark of the commit: a stale read does not find the new token",
                with(named("sessions"), stale),
            ),
            Self::machine(
                M::ReadsOutputsWithoutSession,
                "store promises",
                "whoever recovers reads outbox entries stale, and takes new ones for consumed",
                with(named("sessions"), Budget { crashes: 1, ..stale }),
            ),
        ]
    }
}

fn named(name: &str) -> World {
    World::named(name).expect("the constants name worlds")
}

fn with(world: World, budget: Budget) -> World {
    World { budget, ..world }
}

fn receiver() -> World {
    World { workers: vec![1, 1], ..with(named("receiver"), Budget::default()) }
}

fn two_partitions() -> World {
    World {
        scripts: vec![Script { poison: Poison::Healthy, ..Script::default() }],
        inputs: named("chain").inputs,
        ..with(named("chain"), Budget { crashes: 1, ..Budget::default() })
    }
}
