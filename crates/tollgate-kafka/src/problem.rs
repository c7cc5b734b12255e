//! What a failure of Kafka means: will it pass, or does somebody have to do something?

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tollgate_proto::{BrokerError, EndpointName};

/// What does not get better by itself.
const STANDING: [RDKafkaErrorCode; 10] = [
    RDKafkaErrorCode::UnknownTopic,
    RDKafkaErrorCode::UnknownTopicOrPartition,
    RDKafkaErrorCode::TopicAuthorizationFailed,
    RDKafkaErrorCode::GroupAuthorizationFailed,
    RDKafkaErrorCode::ClusterAuthorizationFailed,
    RDKafkaErrorCode::MessageSizeTooLarge,
    RDKafkaErrorCode::InvalidTopic,
    RDKafkaErrorCode::PolicyViolation,
    // Another process has the same `group.instance.id`; or a client has failed for good.
    RDKafkaErrorCode::FencedInstanceId,
    RDKafkaErrorCode::Fatal,
];

/// A failure, said of an endpoint.
pub(super) fn at(error: &KafkaError, endpoint: &EndpointName) -> BrokerError {
    match error.rdkafka_error_code() {
        Some(code) if STANDING.contains(&code) => misconfigured(endpoint, &error.to_string()),
        _ => unavailable(endpoint, &error.to_string()),
    }
}

pub(super) fn unavailable(endpoint: &EndpointName, reason: &str) -> BrokerError {
    BrokerError::Unavailable { endpoint: endpoint.clone(), reason: reason.to_owned() }
}

pub(super) fn misconfigured(endpoint: &EndpointName, reason: &str) -> BrokerError {
    let reason = format!("{reason}; `verify` tells what is wrong, `provision` makes what is missing");
    BrokerError::Misconfigured { endpoint: endpoint.clone(), reason }
}
