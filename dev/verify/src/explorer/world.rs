//! What a world is made of: partitions, processes with their workers, messages with copies, what handlers do,
//! and how often something may go wrong. A [`World`] is only a description; [`super::Explorer`] brings it to
//! life.

use tollgate_proto::PartitionKey;
use tollgate_proto::StoreLimits;

use super::mutant::Mutant;
pub use super::scene::Budget;

/// A small world.
#[derive(Clone, Debug)]
pub struct World {
    /// The name on the command line.
    pub name: &'static str,
    /// What it is there to show, in one line.
    pub about: &'static str,
    /// Partitions that handlers change. The senders' partition is one more.
    pub partitions: Vec<PartitionKey>,
    /// For each process, how many workers it has.
    pub workers: Vec<usize>,
    /// What is sent into it at the beginning.
    pub inputs: Vec<Input>,
    /// What the handler of each message does, by the message's number.
    pub scripts: Vec<Script>,
    /// Copies of each message at the beginning. To lose an acknowledgement is the same as to have one copy
    /// more.
    pub copies: u8,
    /// How often things may go wrong.
    pub budget: Budget,
    /// Most messages in one commit.
    pub fold_max: usize,
    /// After how many deliveries a message is dead-lettered. `None`: never.
    pub deliveries_max: Option<u8>,
    /// Whether processes look for what others left when nothing else moves.
    pub sweep: Sweep,
    /// Whether processes remember consumed tokens.
    pub memory: ConsumedTokens,
    /// What the broker remembers of messages that it was sent.
    pub publications: Publications,
    /// What a read may see.
    pub consistency: Consistency,
    /// Until when, in milliseconds, the clock moves while others are at work. It moves in ticks of
    /// [`TICK_MS`], and at rest for as long as something waits for it.
    pub clock_end_ms: u64,
    /// The store's limits.
    pub limits: StoreLimits,
    /// The rule that is broken. `None`: what is shipped.
    pub mutant: Option<Mutant>,
}

/// How far the clock moves at a time; an attempt's deadline is half a tick after its start.
pub const TICK_MS: u64 = 10;

/// How something gets into a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A message with a token in the senders' partition, by its number.
    Token(u8),
    /// A message that is known by its id only.
    Identity(u8),
    /// A message for a handler that is idempotent by its own declaration, and sends anew each time.
    Natural(u8),
    /// A request at the edge, known by its key.
    Request(u8),
}

impl Input {
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Token(number) | Self::Identity(number) | Self::Natural(number) | Self::Request(number) => {
                number
            }
        }
    }
}

/// What the handler of one message does, besides counting it.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// On which partition it runs.
    pub partition: usize,
    /// Messages that it sends, by their numbers.
    pub sends: Vec<u8>,
    /// Messages that it sends to outsiders.
    pub sends_external: u8,
    /// Whether it creates a blob, and names it in the state, or calls another system.
    pub blob: Blob,
    /// Whether it can ever succeed.
    pub poison: Poison,
    /// Whether it reads an item later that must say the same as the one that was loaded, and refuses if it
    /// does not.
    pub reads_later: bool,
    /// The message without which it refuses. It is sent by that one's handler, so a refusal is always wrong.
    pub after: Option<u8>,
}

/// Whether a handler creates something outside the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Blob {
    /// No.
    #[default]
    None,
    /// One, named by the state that it commits.
    Created,
    /// Instead of a blob a call to another system, which the first message that it sends follows up.
    Called,
}

/// Whether a handler can ever succeed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Poison {
    /// It can.
    #[default]
    Healthy,
    /// Never: the message is dead-lettered.
    Poisonous,
}

/// Whether unfinished work is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sweep {
    /// When nothing else moves, and besides as often as the budget says.
    Runs,
    /// Never: the world shows what holds without it.
    Absent,
}

/// Whether processes remember consumed tokens (the negative cache).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsumedTokens {
    /// They do.
    Remembered,
    /// They don't.
    Forgotten,
}

/// What the broker does with a publication whose id it has been given before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publications {
    /// It keeps every copy.
    AllKept,
    /// It confirms the copy and drops it, for ever: as `JetStream` and SQS FIFO do within their windows.
    KnownDropped,
}

/// What a read may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Every write that happened before.
    Strong,
    /// An older state, unless a session mark is presented that is newer than it.
    Session,
}
