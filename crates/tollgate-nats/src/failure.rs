//! One mapping from what NATS reports to what it means for a message: try again, back off, or call a person.

use std::error::Error;
use std::fmt::Display;

use async_nats::StatusCode;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use tollgate_proto::{BrokerError, EndpointName};

/// What the server says when a stream that refuses new messages is full.
const FULL: [&str; 2] = ["maximum messages exceeded", "maximum bytes exceeded"];

/// What the server says to those that wait when their consumer is deleted, by itself or with its stream.
const GONE: [&str; 2] = ["Consumer Deleted", "Stream Deleted"];

pub(super) fn unavailable(endpoint: &EndpointName, reason: &impl Display) -> BrokerError {
    BrokerError::Unavailable { endpoint: endpoint.clone(), reason: reason.to_string() }
}

pub(super) fn misconfigured(endpoint: &EndpointName, reason: impl Into<String>) -> BrokerError {
    BrokerError::Misconfigured { endpoint: endpoint.clone(), reason: reason.into() }
}

/// Why a message was not confirmed.
pub(super) fn of_publish(
    endpoint: &EndpointName,
    error: &PublishError,
    capacity: Option<i64>,
) -> BrokerError {
    match error.kind() {
        // Nobody answers for the subject: so it is during an election, and when there is no such stream.
        // `verify` tells which.
        PublishErrorKind::StreamNotFound => unavailable(
            endpoint,
            &"no stream has answered for its subject: its leader is being elected, or it is missing, which `verify` tells",
        ),
        PublishErrorKind::MaxPayloadExceeded => misconfigured(
            endpoint,
            format!("{error}: raise the server's max_payload, or send large bodies as blobs"),
        ),
        _ => {
            let said = error.source().map(ToString::to_string).unwrap_or_default();
            if FULL.iter().any(|full| said.contains(full)) {
                let capacity = capacity.and_then(|capacity| usize::try_from(capacity).ok());
                return BrokerError::Full {
                    endpoint: endpoint.clone(),
                    capacity: capacity.unwrap_or(usize::MAX),
                };
            }
            unavailable(endpoint, &format!("{error}: {said}"))
        }
    }
}

/// What a status instead of a message means to whoever has asked for messages.
pub(super) fn of_status(status: StatusCode, description: Option<&str>) -> Pulled {
    match status {
        StatusCode::TIMEOUT | StatusCode::NOT_FOUND => Pulled::Nothing,
        status
            if description.is_some_and(|description| GONE.iter().any(|gone| description.contains(gone))) =>
        {
            Pulled::Gone(format!("{status:?} {}", description.unwrap_or_default()))
        }
        status => Pulled::Refused(format!("{status:?} {}", description.unwrap_or_default())),
    }
}

/// How a pull ended that brought no message.
pub(super) enum Pulled {
    /// There was none.
    Nothing,
    /// The consumer, or its stream, was deleted.
    Gone(String),
    /// The server would not.
    Refused(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_election_passes_and_needs_nobody() {
        let endpoint = EndpointName::new("orders").unwrap();
        let error = of_publish(&endpoint, &PublishError::new(PublishErrorKind::StreamNotFound), None);
        assert!(error.is_retryable(), "{error}");
        let error = of_publish(&endpoint, &PublishError::new(PublishErrorKind::MaxPayloadExceeded), None);
        assert!(!error.is_retryable(), "{error}");
    }

    #[test]
    fn a_consumer_that_is_gone_is_told_from_one_that_refuses() {
        assert!(matches!(
            of_status(StatusCode::REQUEST_TERMINATED, Some("Consumer Deleted")),
            Pulled::Gone(_)
        ));
        let refused = of_status(StatusCode::REQUEST_TERMINATED, Some("Exceeded MaxWaiting"));
        assert!(matches!(refused, Pulled::Refused(_)));
    }
}
