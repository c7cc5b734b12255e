//! The worlds that are explored: small ones that `cargo test` exhausts, and larger ones by command.

use tollgate_proto::{PartitionKey, StoreLimits};

use super::world::{
    Blob, Budget, Consistency, ConsumedTokens, Input, Poison, Publications, Script, Sweep, TICK_MS, World,
};

impl World {
    /// The name of every world, in order.
    pub const NAMES: [&'static str; 15] = [
        "receiver",
        "chain",
        "effects",
        "edge",
        "identity",
        "sessions",
        "calls",
        "natural",
        "poison",
        "fold",
        "tight",
        "blob-by-id",
        "last-copy",
        "books",
        "dropped",
    ];

    /// A world by its name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "receiver" => Self::receiver(),
            "chain" => Self::chain(),
            "effects" => Self::effects(),
            "edge" => Self::edge(),
            "identity" => Self::identity(),
            "sessions" => Self::sessions(),
            "calls" => Self::calls(),
            "natural" => Self::natural(),
            "poison" => Self::poison(),
            "fold" => Self::fold(),
            "tight" => Self::tight(),
            "blob-by-id" => Self::blob_by_id(),
            "last-copy" => Self::last_copy(),
            "books" => Self::books(),
            "dropped" => Self::dropped(),
            _ => return None,
        })
    }

    /// The same world with more that may go wrong: minutes instead of seconds. `None` if there is no such
    /// world.
    pub fn deep(name: &str) -> Option<Self> {
        let world = Self::named(name)?;
        let budget = match name {
            "receiver" => Budget { crashes: 1, time_outs: 1, lost_answers: 1, ..Budget::default() },
            "chain" => Budget { crashes: 2, failed_calls: 2, evictions: 1, sweeps: 1, ..Budget::default() },
            "effects" => {
                Budget { crashes: 1, failed_calls: 1, drops: 1, conflicts: Some(2), ..Budget::default() }
            }
            "blob-by-id" => {
                Budget { crashes: 1, lost_answers: 1, time_outs: 1, conflicts: Some(1), ..Budget::default() }
            }
            "edge" => Budget { crashes: 2, failed_calls: 1, departures: 1, fences: 2, ..Budget::default() },
            "identity" => Budget { crashes: 1, lost_answers: 1, ..Budget::default() },
            "calls" => {
                Budget { crashes: 1, failed_calls: 1, time_outs: 1, conflicts: Some(1), ..Budget::default() }
            }
            "sessions" => Budget { stale_reads: 3, crashes: 1, ..Budget::default() },
            "natural" => Budget { failed_calls: 1, ..Budget::default() },
            "poison" => Budget { failed_calls: 3, crashes: 1, sweeps: 1, ..Budget::default() },
            "fold" | "tight" => {
                Budget { crashes: 1, handler_failures: 1, lost_answers: 1, ..Budget::default() }
            }
            "last-copy" => Budget { crashes: 1, lost_answers: 1, failed_calls: 2, ..Budget::default() },
            "books" => {
                Budget { crashes: 1, failed_calls: 1, evictions: 1, time_outs: 1, ..Budget::default() }
            }
            "dropped" => {
                Budget { drops: 2, lost_answers: 1, crashes: 1, conflicts: Some(1), ..Budget::default() }
            }
            _ => world.budget,
        };
        Some(Self { budget, ..world })
    }

    fn of(name: &'static str, about: &'static str, partitions: &[&str]) -> Self {
        Self {
            name,
            about,
            partitions: partitions
                .iter()
                .map(|key| PartitionKey::new(*key).expect("the constants are valid keys"))
                .collect(),
            workers: vec![1, 1],
            inputs: Vec::new(),
            scripts: Vec::new(),
            copies: 1,
            budget: Budget::default(),
            fold_max: 1,
            deliveries_max: None,
            sweep: Sweep::Runs,
            memory: ConsumedTokens::Forgotten,
            publications: Publications::AllKept,
            consistency: Consistency::Strong,
            clock_end_ms: 0,
            limits: StoreLimits::UNLIMITED,
            mutant: None,
        }
    }

    /// Two messages with copies for one partition, three workers in two processes.
    fn receiver() -> Self {
        Self {
            workers: vec![2, 1],
            inputs: vec![Input::Token(0), Input::Token(1)],
            scripts: vec![Script { sends_external: 1, ..Script::default() }, Script::default()],
            copies: 2,
            budget: Budget { crashes: 1, lost_answers: 1, ..Budget::default() },
            ..Self::of("receiver", "2 messages with copies, one partition, 3 workers in 2 processes", &["P"])
        }
    }

    /// A message whose handler sends one that is handled in another partition.
    fn chain() -> Self {
        Self {
            inputs: vec![Input::Token(0)],
            scripts: vec![
                Script { sends: vec![1], ..Script::default() },
                Script { partition: 1, ..Script::default() },
            ],
            copies: 2,
            budget: Budget { crashes: 1, failed_calls: 1, ..Budget::default() },
            ..Self::of("chain", "a chain: message -> partition A -> message -> partition B", &["A", "B"])
        }
    }

    /// A handler that creates a blob, and attempts that are overtaken.
    fn effects() -> Self {
        Self {
            inputs: vec![Input::Token(0)],
            scripts: vec![Script { blob: Blob::Created, ..Script::default() }],
            copies: 2,
            budget: Budget { drops: 1, conflicts: Some(1), ..Budget::default() },
            clock_end_ms: TICK_MS,
            ..Self::of(
                "effects",
                "a blob as side effect, and zombies that create theirs after the winner cleaned up",
                &["P"],
            )
        }
    }

    /// Requests at the edge, with a wake-up before the commit, and no sweep.
    fn edge() -> Self {
        Self {
            inputs: vec![Input::Request(0)],
            scripts: vec![
                Script { sends: vec![1], ..Script::default() },
                Script { partition: 1, ..Script::default() },
            ],
            copies: 1,
            budget: Budget { crashes: 1, departures: 1, fences: 1, ..Budget::default() },
            sweep: Sweep::Absent,
            ..Self::of("edge", "a request at the edge, its wake-up, and a client that goes away", &["A", "B"])
        }
    }

    /// Messages that are known by their ids only.
    fn identity() -> Self {
        Self {
            inputs: vec![Input::Identity(0), Input::Identity(1)],
            scripts: vec![
                Script { sends: vec![2], ..Script::default() },
                Script::default(),
                Script { partition: 1, ..Script::default() },
            ],
            copies: 2,
            budget: Budget { crashes: 1, ..Budget::default() },
            sweep: Sweep::Absent,
            ..Self::of(
                "identity",
                "messages known by their ids, one of which sends a message with a token",
                &["A", "B"],
            )
        }
    }

    /// Replicas that lag behind.
    fn sessions() -> Self {
        Self {
            inputs: vec![Input::Token(0)],
            scripts: vec![
                Script { sends: vec![1], ..Script::default() },
                Script { partition: 1, ..Script::default() },
            ],
            copies: 2,
            budget: Budget { stale_reads: 1, crashes: 1, ..Budget::default() },
            consistency: Consistency::Session,
            ..Self::of(
                "sessions",
                "replicas that lag behind, unless a session mark is presented",
                &["A", "B"],
            )
        }
    }

    /// A handler that calls another system and sends a message that follows the call up.
    fn calls() -> Self {
        Self {
            inputs: vec![Input::Token(0)],
            scripts: vec![
                Script { blob: Blob::Called, sends: vec![1], ..Script::default() },
                Script { partition: 1, ..Script::default() },
            ],
            copies: 1,
            budget: Budget { time_outs: 1, conflicts: Some(1), ..Budget::default() },
            ..Self::of(
                "calls",
                "a call to another system: prepared, executed after the commit, followed up, deleted",
                &["A", "B"],
            )
        }
    }

    /// A handler that sends anew each time it runs, and a broker that deduplicates.
    fn natural() -> Self {
        Self {
            inputs: vec![Input::Natural(0)],
            scripts: vec![
                Script { sends: vec![1], ..Script::default() },
                Script { partition: 1, ..Script::default() },
            ],
            copies: 2,
            publications: Publications::KnownDropped,
            ..Self::of(
                "natural",
                "a handler that sends anew each time it runs, and a broker that drops what it knows",
                &["A", "B"],
            )
        }
    }

    /// A limit of deliveries, so that messages are dead-lettered after their commit, and replayed.
    fn poison() -> Self {
        Self {
            inputs: vec![Input::Token(0), Input::Token(1)],
            scripts: vec![
                Script { sends: vec![2], ..Script::default() },
                Script { poison: Poison::Poisonous, ..Script::default() },
                Script { partition: 1, ..Script::default() },
            ],
            copies: 1,
            budget: Budget { failed_calls: 2, crashes: 1, ..Budget::default() },
            deliveries_max: Some(1),
            ..Self::of(
                "poison",
                "a limit of deliveries: messages are dead-lettered, before and after their commit",
                &["A", "B"],
            )
        }
    }

    /// Bursts of messages that are folded into one commit.
    fn fold() -> Self {
        Self {
            workers: vec![1, 1],
            inputs: vec![Input::Token(0), Input::Token(1)],
            scripts: vec![
                Script { sends_external: 1, ..Script::default() },
                Script { sends_external: 1, ..Script::default() },
            ],
            copies: 2,
            fold_max: 2,
            memory: ConsumedTokens::Remembered,
            budget: Budget { crashes: 1, handler_failures: 1, ..Budget::default() },
            ..Self::of("fold", "two messages and their copies, folded into one commit", &["P"])
        }
    }

    /// A side effect of a message without a token: only the control record tells whose commit it was.
    fn blob_by_id() -> Self {
        Self {
            inputs: vec![Input::Identity(0)],
            // A second copy would hide that the first was taken for done.
            copies: 1,
            budget: Budget { lost_answers: 1, time_outs: 1, conflicts: Some(1), ..Budget::default() },
            name: "blob-by-id",
            about: "a blob as side effect of a message known by its id, and commits whose answer is lost",
            ..Self::effects()
        }
    }

    /// A message of which there is one copy, and nobody else who comes: what is forgotten of it stays
    /// forgotten.
    fn last_copy() -> Self {
        Self {
            inputs: vec![Input::Identity(0)],
            copies: 1,
            budget: Budget { lost_answers: 1, failed_calls: 2, ..Budget::default() },
            name: "last-copy",
            about: "one copy of a message known by its id, lost answers and calls that fail, and nobody sweeps",
            ..Self::identity()
        }
    }

    /// Handlers that refuse a state that can't be: they must never see one.
    fn books() -> Self {
        Self {
            inputs: vec![Input::Token(0), Input::Token(2)],
            scripts: vec![
                Script { sends: vec![1], reads_later: true, ..Script::default() },
                Script { after: Some(0), ..Script::default() },
                Script::default(),
            ],
            budget: Budget { crashes: 1, failed_calls: 1, ..Budget::default() },
            ..Self::of(
                "books",
                "handlers that refuse what can't be: items of two versions, a cause without its effect",
                &["P"],
            )
        }
    }

    /// A handler that does not wait for its side effect, in one fold with a message that has none.
    fn dropped() -> Self {
        Self {
            inputs: vec![Input::Identity(0), Input::Identity(1)],
            scripts: vec![Script { blob: Blob::Created, ..Script::default() }, Script::default()],
            copies: 1,
            fold_max: 2,
            budget: Budget { drops: 1, lost_answers: 1, conflicts: Some(1), ..Budget::default() },
            ..Self::of(
                "dropped",
                "two messages known by their ids in one fold; the handler of one drops the preparation of its blob",
                &["P"],
            )
        }
    }

    /// Bursts that do not fit into one commit.
    fn tight() -> Self {
        Self {
            // The control record, one item and one outbox entry.
            limits: StoreLimits { transaction_items_max: 3, ..StoreLimits::UNLIMITED },
            name: "tight",
            about: "two messages and their copies, of which the store's limits let one into a commit",
            ..Self::fold()
        }
    }
}
