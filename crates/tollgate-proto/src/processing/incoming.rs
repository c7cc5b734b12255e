//! What comes in: messages, requests, wake-ups; and the place of each in a processing. How it is recognised when it
//! comes again is decided here and nowhere else.

use std::sync::Arc;

use super::{Disposition, HandlerInput};
use crate::envelope::{Content, Envelope};
use crate::ids::{AttemptId, DeduplicationKey, EndpointName, MessageId};
use crate::sequence::Version;

/// Something to be processed exactly once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Incoming {
    /// A message from the broker.
    Message {
        /// What the broker carried.
        envelope: Arc<Envelope>,
        /// What to do if it has no token.
        tokenless: Tokenless,
    },
    /// A request at the edge: no message, no token.
    Request(Request),
    /// A wake-up from an edge that was about to commit.
    WakeUp {
        /// The attempt that was about to commit.
        attempt: AttemptId,
        /// The version that its commit is conditional on.
        expected: Option<Version>,
        /// What to do if it has not committed yet.
        patience: WakeUpPatience,
    },
}

/// How a message without a token is deduplicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tokenless {
    /// It is not: such a message is dead-lettered.
    Refused,
    /// By its id, which is remembered until this time, in milliseconds since the Unix epoch.
    ByIdentity {
        /// When the id may be forgotten.
        expires_at_ms: u64,
    },
    /// The handler is idempotent by its own declaration; messages it sends are sent once for each time it runs.
    Natural,
}

/// A request at the edge.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// What ids of outgoing messages are derived from.
    pub message_id: MessageId,
    /// The endpoint in whose name messages are sent, and whose queue gets the wake-up.
    pub endpoint: EndpointName,
    /// How a repeated request is recognised.
    pub deduplication: RequestDeduplication,
}

/// How a repeated request is recognised.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RequestDeduplication {
    /// By its key; the response is stored in the same commit and replayed until it expires.
    ByKey {
        /// The key.
        key: DeduplicationKey,
        /// When key and response may be forgotten, in milliseconds since the Unix epoch.
        expires_at_ms: u64,
    },
    /// By the partition's state: a source that keeps its position there, and does nothing when run again at a position
    /// it has left.
    ByState,
}

impl Request {
    pub(super) const fn key(&self) -> Option<&DeduplicationKey> {
        match &self.deduplication {
            RequestDeduplication::ByKey { key, .. } => Some(key),
            RequestDeduplication::ByState => None,
        }
    }
}

/// What a visitor does when the attempt that woke him has not committed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WakeUpPatience {
    /// Come again later.
    Wait,
    /// Change the version, so that the attempt can't commit any more: it is told of a conflict, and tries again with a
    /// new wake-up.
    Fence,
}

impl Incoming {
    /// Whether both stand for the same message or request, so that at most one of them may be folded into a commit.
    pub(super) fn is_twin_of(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Message { envelope: a, tokenless: of_a },
                Self::Message { envelope: b, tokenless: of_b },
            ) => match (a.token(), b.token()) {
                (Some(a), Some(b)) => a.is(b),
                (None, None) => are_tokenless_twins((a, *of_a), (b, *of_b)),
                (Some(_), None) | (None, Some(_)) => false,
            },
            (Self::Request(a), Self::Request(b)) => match (a.key(), b.key()) {
                (Some(a), Some(b)) => a == b,
                (None, None) => a.message_id == b.message_id && a.endpoint == b.endpoint,
                (Some(_), None) | (None, Some(_)) => false,
            },
            _ => false,
        }
    }

    pub(super) fn message_id(&self) -> Option<MessageId> {
        match self {
            Self::Message { envelope, .. } => Some(envelope.message_id),
            Self::Request(request) => Some(request.message_id),
            Self::WakeUp { .. } => None,
        }
    }
}

/// Whether two messages without tokens are copies of one. Those known by their identity have one key, which a commit can create
/// only once. Those for an idempotent handler are copies only if they are the same in every part that a handler sees.
fn are_tokenless_twins((a, of_a): (&Envelope, Tokenless), (b, of_b): (&Envelope, Tokenless)) -> bool {
    if a.message_id != b.message_id || a.to.endpoint != b.to.endpoint {
        return false;
    }
    match (of_a, of_b) {
        (Tokenless::ByIdentity { .. }, Tokenless::ByIdentity { .. }) => true,
        (Tokenless::Natural, Tokenless::Natural) => {
            a.message_type == b.message_type && a.content == b.content && a.headers == b.headers
        }
        _ => false,
    }
}

/// One message and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Slot {
    pub(super) incoming: Incoming,
    pub(super) state: SlotState,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum SlotState {
    /// Not looked at since the partition was loaded.
    Waiting,
    /// Its token is there (or it needs none): it may be handled.
    Ready(Arc<HandlerInput>),
    /// Its handler has succeeded; its changes are part of the next commit.
    Folded,
    /// Its handler has refused it for ever, or has answered from what it found, on a state with uncommitted changes or on a
    /// cached one: to be believed when that state turns out to be the partition's.
    Judged(Disposition),
    /// The same message as an earlier one, with which it shares its fate.
    TwinOf(usize),
    /// It is decided.
    Settled(Disposition),
}

impl Slot {
    /// What the handler gets of a message that needs no token.
    pub(super) fn tokenless_input(&self) -> Result<HandlerInput, Disposition> {
        match &self.incoming {
            Incoming::Message { envelope, tokenless } => match (&envelope.content, tokenless) {
                (Content::Body(_), Tokenless::Refused) => Err(Disposition::DeadLetter {
                    reason: format!(
                        "message {} of type {} carries no token, and endpoint {} declares neither identity-based nor \
                         natural deduplication for that type",
                        envelope.message_id, envelope.message_type, envelope.to.endpoint
                    ),
                }),
                (Content::Body(body), Tokenless::ByIdentity { .. } | Tokenless::Natural) => {
                    Ok(HandlerInput::of_body(envelope, body.clone()))
                }
                (Content::Token { .. } | Content::WakeUp { .. }, _) => {
                    unreachable!("tokens are read and wake-ups are visited, neither is handled as tokenless")
                }
            },
            Incoming::Request(request) => Ok(HandlerInput::of_request(request)),
            Incoming::WakeUp { .. } => unreachable!("a wake-up has no handler"),
        }
    }
}
