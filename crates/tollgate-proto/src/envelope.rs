//! What the broker carries: the envelope. It tells who is to process which message and where the right to do so lies.
//! With a token it holds no body: the token read brings it. The bytes of an envelope are made in [`crate::codec`].

use bytes::Bytes;

use crate::ids::{AttemptId, EndpointName, MessageId, MessageType, PartitionKey};
use crate::sequence::{SessionMark, TokenRef, Version};

/// The destination of a message, chosen by the sender: a receiver never computes it again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// The endpoint whose queue gets the message.
    pub endpoint: EndpointName,
    /// The partition that the endpoint's handler will see and change.
    pub partition: PartitionKey,
}

/// Headers of a message, in the order they were set: trace context and the like. Never payload.
pub type Headers = Vec<(String, String)>;

/// The headers that carry trace context from one process to the next (W3C Trace Context).
pub const TRACE_HEADERS: [&str; 2] = ["traceparent", "tracestate"];

/// What a broker message says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Envelope {
    /// The deterministic id.
    pub message_id: MessageId,
    /// Where to.
    pub to: Destination,
    /// Which handler.
    pub message_type: MessageType,
    /// Trace context and the like.
    pub headers: Headers,
    /// What gives the right to process it, and where its body is.
    pub content: Content,
}

/// The part of an envelope that decides how its message is deduplicated.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// From a producer that knows tokens: the body lies in the outbox entry that the token refers to.
    Token {
        /// Where the outbox entry lies.
        token: TokenRef,
        /// The session token of the commit that made the entry, where the store hands one out.
        read_after: Option<SessionMark>,
    },
    /// From a producer that knows none, or for a consumer that knows none: the body travels along.
    Body(Bytes),
    /// From an edge that is about to commit: whoever gets it visits the partition and completes what is pending.
    WakeUp {
        /// The attempt that was about to commit.
        attempt: AttemptId,
        /// The version that its commit is conditional on. `None`: the partition had no control record.
        expected: Option<Version>,
    },
}

impl Envelope {
    /// The headers that hold trace context, for whoever passes the message on without looking into it.
    pub fn trace_headers(&self) -> Headers {
        let is_trace = |name: &str| TRACE_HEADERS.iter().any(|known| known.eq_ignore_ascii_case(name));
        self.headers.iter().filter(|(name, _)| is_trace(name)).cloned().collect()
    }

    /// The token, where the content has one.
    pub fn token(&self) -> Option<&TokenRef> {
        match &self.content {
            Content::Token { token, .. } => Some(token),
            Content::Body(_) | Content::WakeUp { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trace_context_is_shown_to_other_systems() {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let envelope = Envelope {
            message_id: MessageId::from_bytes([1; 16]),
            to: Destination {
                endpoint: "orders".try_into().unwrap(),
                partition: "order/1".try_into().unwrap(),
            },
            message_type: "shop.place-order".try_into().unwrap(),
            headers: vec![
                header("Traceparent", "00-1-2-01"),
                header("tenant", "ada"),
                header("tracestate", "a=b"),
            ],
            content: Content::Body(Bytes::new()),
        };
        assert_eq!(
            envelope.trace_headers(),
            [header("Traceparent", "00-1-2-01"), header("tracestate", "a=b")]
        );
    }
}
