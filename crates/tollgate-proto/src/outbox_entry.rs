//! The outbox entry: outgoing message, claim check and token in one item of the sender's partition.
//! It is written by the commit that produced it and deleted by whoever has processed its message.

use bytes::Bytes;

use crate::envelope::{Content, Destination, Envelope, Headers};
use crate::ids::{EffectName, MessageId, MessageType};
use crate::sequence::{SessionMark, TokenRef};
use crate::side_effect::AttachedEffect;

/// One outgoing message, as it lies in the sender's partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OutboxEntry {
    /// The deterministic id.
    pub message_id: MessageId,
    /// Where to: chosen by the sender, once.
    pub to: Destination,
    /// Which handler.
    pub message_type: MessageType,
    /// Trace context and the like.
    pub headers: Headers,
    /// What the message says.
    pub body: Body,
    /// Whether the consumer knows tokens.
    pub audience: Audience,
    /// Prepared side effects that it carries: published before it is sent, cleaned up before it is consumed. A body in blob
    /// storage is one of them.
    pub effects: Vec<AttachedEffect>,
}

/// The body of a message or a reference to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// In the entry itself.
    Inline(Bytes),
    /// In blob storage, because it was too large for an item.
    Blob(EffectName),
}

/// Who consumes a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Audience {
    /// A consumer that reads and consumes the token.
    Tollgate,
    /// A consumer that knows no tokens: the body travels through the broker, and the sender deletes the entry once
    /// the broker has confirmed it.
    External,
    /// Nobody: the entry only makes its side effects happen, and the sender deletes it once they have.
    Nobody,
}

impl OutboxEntry {
    /// The envelope that announces this entry, which lies at `token`, to the broker.
    ///
    /// `read_after` is the session token of the commit that stored the entry.
    pub fn envelope(&self, token: TokenRef, read_after: Option<SessionMark>) -> Envelope {
        let content = match (&self.audience, &self.body) {
            (Audience::External, Body::Inline(body)) => Content::Body(body.clone()),
            (Audience::Tollgate | Audience::Nobody, _) | (Audience::External, Body::Blob(_)) => {
                Content::Token { token, read_after }
            }
        };
        Envelope {
            message_id: self.message_id,
            to: self.to.clone(),
            message_type: self.message_type.clone(),
            headers: self.headers.clone(),
            content,
        }
    }
}
