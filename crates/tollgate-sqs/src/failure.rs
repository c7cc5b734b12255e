//! One mapping from what SQS reports to what it means for a message: try again, back off, or call a person.

use aws_sdk_sqs::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::BatchResultErrorEntry;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use tollgate_proto::{BrokerError, EndpointName};

pub(super) fn unavailable(endpoint: &EndpointName, reason: impl Into<String>) -> BrokerError {
    BrokerError::Unavailable { endpoint: endpoint.clone(), reason: reason.into() }
}

pub(super) fn misconfigured(endpoint: &EndpointName, reason: impl Into<String>) -> BrokerError {
    BrokerError::Misconfigured { endpoint: endpoint.clone(), reason: reason.into() }
}

/// What a call means that failed as a whole.
pub(super) fn of_call<E>(endpoint: &EndpointName, error: &SdkError<E, HttpResponse>) -> BrokerError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match error {
        SdkError::ConstructionFailure(_) => {
            let said = DisplayErrorContext(error).to_string();
            misconfigured(
                endpoint,
                format!("the request could not be built: {said}; look at region and credentials"),
            )
        }
        SdkError::ServiceError(service) => {
            let code = service.err().code().unwrap_or_default();
            let message = service.err().message().unwrap_or_default();
            of_code(endpoint, code, message)
        }
        _ => unavailable(endpoint, DisplayErrorContext(error).to_string()),
    }
}

/// What an entry of a batch means that failed while others did not.
pub(super) fn of_entry(endpoint: &EndpointName, failed: &BatchResultErrorEntry) -> BrokerError {
    of_code(endpoint, failed.code(), failed.message().unwrap_or_default())
}

fn of_code(endpoint: &EndpointName, code: &str, message: &str) -> BrokerError {
    let reason = format!("{code}: {message}");
    let plain = code.rsplit('.').next().unwrap_or(code);
    match plain {
        "NonExistentQueue" | "QueueDoesNotExist" => misconfigured(
            endpoint,
            format!("{reason}: make the queue (`provision`), or look at prefix, region and account"),
        ),
        "AccessDenied" | "AccessDeniedException" => {
            misconfigured(endpoint, format!("{reason}: grant the actions that docs/brokers/sqs.md lists"))
        }
        "ExpiredToken"
        | "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "InvalidSecurity"
        | "SignatureDoesNotMatch"
        | "MissingAuthenticationToken" => {
            misconfigured(endpoint, format!("{reason}: renew or correct the credentials"))
        }
        "InvalidMessageContents"
        | "InvalidParameterValue"
        | "BatchRequestTooLong"
        | "MissingParameter"
        | "UnsupportedOperation"
        | "InvalidAttributeValue" => misconfigured(endpoint, reason),
        // Throttling, faults of the service, and receipts whose time is over: the message comes again.
        _ => unavailable(endpoint, reason),
    }
}
