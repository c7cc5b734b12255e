//! One mapping from what NATS reports to what it means for a message: try again, back off, or call a person.

use std::error::Error;
use std::fmt::Display;

use async_nats::StatusCode;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use tollgate_proto::{BrokerError, EndpointName};

/// What the server says when a stream that refuses new messages is full.
const FULL: [&str; 2] = ["maximum messages exceeded", "maximum bytes exceeded"];

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
        PublishErrorKind::StreamNotFound => misconfigured(
            endpoint,
            "no stream takes its subject: make it with `provision`, or start the server with JetStream",
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
        status => Pulled::Refused(format!("{status:?} {}", description.unwrap_or_default())),
    }
}

/// How a pull ended that brought no message.
pub(super) enum Pulled {
    /// There was none.
    Nothing,
    /// The server would not.
    Refused(String),
}
