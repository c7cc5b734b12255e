//! What a failure of RabbitMQ or of the way to it means: will it pass, or does somebody have to do something?

use lapin::{Error, ErrorKind};
use tollgate_proto::{BrokerError, EndpointName};

/// AMQP's reply codes for what does not get better by itself: ACCESS-REFUSED, NOT-FOUND, PRECONDITION-FAILED
/// (a queue is declared with other arguments), NOT-ALLOWED (no such virtual host).
const STANDING_CODES: [u16; 4] = [403, 404, 406, 530];

/// The code with which RabbitMQ closes a channel that holds a delivery for longer than its
/// `consumer_timeout`.
const PRECONDITION_FAILED: u16 = 406;

fn is_timeout(error: &Error) -> bool {
    error.to_string().contains("timed out")
}

/// Why something did not work, not yet said of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// It will pass: the connection is lost, the broker restarts.
    Passing(String),
    /// It needs a person.
    Standing(String),
}

impl Problem {
    pub(super) fn of(error: &Error) -> Self {
        match error.kind() {
            // The same code as for a queue that is declared with other arguments, but it passes.
            ErrorKind::ProtocolError(said) if said.get_id() == PRECONDITION_FAILED && is_timeout(error) => {
                Self::Passing(format!("{error}: raise consumer_timeout, or lower visibility_timeout"))
            }
            ErrorKind::ProtocolError(said) if STANDING_CODES.contains(&said.get_id()) => {
                Self::Standing(error.to_string())
            }
            _ => Self::Passing(error.to_string()),
        }
    }

    pub(super) fn passing(what: impl Into<String>) -> Self {
        Self::Passing(what.into())
    }

    /// The same, said of an endpoint.
    pub(super) fn at(self, endpoint: &EndpointName) -> BrokerError {
        let endpoint = endpoint.clone();
        match self {
            Self::Passing(reason) => BrokerError::Unavailable { endpoint, reason },
            Self::Standing(reason) => BrokerError::Misconfigured {
                endpoint,
                reason: format!("{reason}; `verify` tells what is wrong, `provision` makes what is missing"),
            },
        }
    }
}
