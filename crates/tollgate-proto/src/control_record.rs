//! The control record: one small item per partition that holds the algorithm's own state. What may be added or
//! removed, and when, is decided in [`crate::processing`]; this file only says what there is and keeps its bounds.

use crate::ids::{AttemptId, EffectKind, EffectName, MessageId};
use crate::sequence::{EntryKey, Sequence, SessionMark, TokenRef, Version};
use crate::side_effect::AttachedEffect;

/// Most pending entries that a control record holds. At the bound, unfinished ones are completed before new ones are
/// added.
pub const PENDING_MAX: usize = 64;

/// Most side effects that may be registered in one partition at a time.
pub const REGISTRATIONS_MAX: usize = 256;

/// The algorithm's state of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ControlRecord {
    /// The sequence of the commit that wrote this record.
    pub version: Version,
    /// The attempt that made that commit (R7).
    pub attempt: AttemptId,
    /// Committed messages whose outputs may not be out yet or whose token may not be consumed yet.
    pub pending: Vec<PendingEntry>,
    /// Side effects that attempts have registered before they created them.
    pub registrations: Vec<Registration>,
    /// Session tokens of the token deletions whose markers were pruned, newest per store and physical partition.
    pub sessions: Vec<SessionMark>,
}

/// One committed message that is not known to be finished: the marker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PendingEntry {
    /// Whose commit it was.
    pub origin: Origin,
    /// Which commit, and which message of a folded one.
    pub id: PendingId,
    /// The outgoing messages it produced.
    pub outputs: OutputRange,
    /// The side effects that the message carried: to be cleaned up before its token is consumed.
    pub carried: Vec<AttachedEffect>,
}

/// What names a pending entry for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PendingId {
    /// The commit.
    pub sequence: Sequence,
    /// The place of the message among those folded into the commit, counted from 0.
    pub place: u32,
}

/// By which right a commit was made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// By a token: it is consumed once everything is published.
    Token {
        /// Which token.
        token: TokenRef,
        /// The message it stands for.
        message_id: MessageId,
    },
    /// Without one (edge, identity-based, natural): the attempt tells whose it was.
    Attempt {
        /// Which attempt.
        attempt: AttemptId,
        /// The message or request that was handled.
        message_id: MessageId,
    },
}

impl Origin {
    /// The message that was handled.
    pub const fn message_id(&self) -> MessageId {
        match self {
            Self::Token { message_id, .. } | Self::Attempt { message_id, .. } => *message_id,
        }
    }

    /// The token to be consumed, where there is one.
    pub const fn token(&self) -> Option<&TokenRef> {
        match self {
            Self::Token { token, .. } => Some(token),
            Self::Attempt { .. } => None,
        }
    }
}

/// Which of the outbox entries of a commit belong to one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OutputRange {
    /// Index of the first.
    pub first: u32,
    /// How many.
    pub count: u32,
}

impl PendingEntry {
    /// Where the outgoing messages lie in this partition, those included that have been consumed since.
    pub fn entry_keys(&self) -> impl Iterator<Item = EntryKey> + use<> {
        let sequence = self.id.sequence;
        (self.outputs.first..self.outputs.first + self.outputs.count)
            .map(move |index| EntryKey { sequence, index })
    }
}

/// The intent of one attempt to create one side effect, written before it is created.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Registration {
    /// The message that was being handled.
    pub message_id: MessageId,
    /// The attempt that handled it.
    pub attempt: AttemptId,
    /// What kind of thing, e.g. `blob`.
    pub kind: EffectKind,
    /// Its attempt-unique name.
    pub name: EffectName,
    /// When nothing of the attempt can come to be any more, in milliseconds since the Unix epoch: its deadline, and the time
    /// that what it sent off may be under way. Decides only when garbage is collected for the last time.
    pub deadline_ms: u64,
    /// What has become of the attempt.
    pub state: RegistrationState,
}

/// What is known of an attempt that registered a side effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RegistrationState {
    /// It may still commit.
    Open,
    /// It has lost: what it created is deleted at once and once more when its deadline has passed.
    Condemned,
}

impl ControlRecord {
    /// The marker of a token, if its message has been committed and the marker was not pruned yet.
    pub fn marker(&self, token: &TokenRef) -> Option<&PendingEntry> {
        self.pending.iter().find(|entry| entry.origin.token().is_some_and(|known| known.is(token)))
    }
}
