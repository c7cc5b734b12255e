//! The one place that decides what an error of the SDK means to the engine: what may be repeated as it is, what needs a
//! look first (rule R7), and what needs a person. Requests are made in [`crate::requests`].

use std::time::Duration;

use azure_data_cosmos::CosmosError;
use tollgate_proto::{LimitExceeded, PartitionKey, StoreAlias, StoreError};

use crate::limits::BATCH_BYTES_MAX;

/// HTTP status codes as Cosmos DB uses them.
pub(crate) mod status {
    pub(crate) const NOT_FOUND: u16 = 404;
    pub(crate) const TIMEOUT: u16 = 408;
    pub(crate) const CONFLICT: u16 = 409;
    pub(crate) const GONE: u16 = 410;
    pub(crate) const PRECONDITION_FAILED: u16 = 412;
    pub(crate) const TOO_LARGE: u16 = 413;
    /// The operations of a batch that were not tried because another one failed.
    pub(crate) const FAILED_DEPENDENCY: u16 = 424;
    pub(crate) const THROTTLED: u16 = 429;
    /// Another transaction was at the same documents.
    pub(crate) const RETRY_WITH: u16 = 449;
    pub(crate) const BAD_REQUEST: u16 = 400;
    pub(crate) const UNAUTHORIZED: u16 = 401;
    pub(crate) const FORBIDDEN: u16 = 403;
    pub(crate) const SERVER_ERRORS: std::ops::RangeInclusive<u16> = 500..=599;

    /// Sub-status of a 404: a replica has not seen what the session token speaks of.
    const SESSION_NOT_AVAILABLE: u32 = 1002;
    /// Sub-status of the 503 that the SDK makes of it when no region has.
    const NO_SESSION_ANYWHERE: u32 = 20310;

    /// Whether nobody who was asked has caught up with the session token.
    pub(crate) fn is_session_not_available(code: u16, sub_status: u32) -> bool {
        (code == NOT_FOUND && sub_status == SESSION_NOT_AVAILABLE)
            || (SERVER_ERRORS.contains(&code) && sub_status == NO_SESSION_ANYWHERE)
    }
}

/// Not found because the container or the database is missing (sub-status 1003).
const OWNER_NOT_FOUND: u32 = 1003;
/// Forbidden because the region takes no writes, or is not part of the account any more: a failover (sub-statuses 3, 1008).
const FAILOVER: [u32; 2] = [3, 1008];

/// What an error of the SDK means.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Failure {
    /// There is no such document. The answering replica's session token comes along.
    Missing { session: Option<String> },
    /// A condition was not met. Nothing happened now.
    Condition,
    /// Throttled. Nothing happened now.
    Throttled { retry_after: Option<Duration> },
    /// No replica that was asked has caught up with the session token yet.
    Behind,
    /// Refused for a passing reason. Nothing happened now.
    Unavailable { reason: String },
    /// The answer is lost, or the service is not sure itself.
    Unknown { reason: String },
    /// Too large for the service.
    TooLarge,
    /// Needs a person.
    Misconfigured { reason: String },
}

impl Failure {
    pub(crate) fn of(error: &CosmosError) -> Self {
        let code = u16::from(error.status().status_code());
        let sub_status = error.status().sub_status().map_or(0, |code| u32::from(code.value()));
        #[expect(
            clippy::redundant_closure_for_method_calls,
            reason = "the type that has the method can't be named"
        )]
        let headers = error.response().map(|response| response.headers());
        let retry_after = headers.and_then(|headers| headers.retry_after_ms).map(Duration::from_millis);
        match Self::of_status(code, sub_status, retry_after, || summary(error)) {
            Self::Missing { .. } => {
                let session = headers.and_then(|headers| headers.session_token.as_ref());
                Self::Missing { session: session.map(|token| token.as_str().to_owned()) }
            }
            // Whatever came last: if an earlier try of the SDK's own may have been done, nobody knows.
            Self::Throttled { .. } | Self::Unavailable { .. } if was_ever_in_doubt(error) => {
                Self::Unknown { reason: summary(error) }
            }
            failure => failure,
        }
    }

    /// What a status means, of a whole request or of one operation of a batch.
    pub(crate) fn of_status(
        code: u16,
        sub_status: u32,
        retry_after: Option<Duration>,
        reason: impl FnOnce() -> String,
    ) -> Self {
        match (code, sub_status) {
            (code, sub_status) if status::is_session_not_available(code, sub_status) => Self::Behind,
            (status::NOT_FOUND, OWNER_NOT_FOUND) => Self::Misconfigured {
                reason: "the container or its database does not exist; create it or correct its name"
                    .to_owned(),
            },
            (status::NOT_FOUND, _) => Self::Missing { session: None },
            (status::CONFLICT | status::PRECONDITION_FAILED, _) => Self::Condition,
            (status::THROTTLED, _) => Self::Throttled { retry_after },
            (status::RETRY_WITH | status::GONE, _) => Self::Unavailable { reason: reason() },
            (status::FORBIDDEN, sub_status) if FAILOVER.contains(&sub_status) => {
                Self::Unavailable { reason: reason() }
            }
            (status::TOO_LARGE, _) => Self::TooLarge,
            (status::BAD_REQUEST | status::UNAUTHORIZED | status::FORBIDDEN, _) => {
                Self::Misconfigured { reason: reason() }
            }
            _ => Self::Unknown { reason: reason() },
        }
    }

    /// What it means to a request that may be repeated whatever became of it.
    pub(crate) fn of_repeatable(self, store: &StoreAlias, partition: Option<&PartitionKey>) -> StoreError {
        let unavailable = |reason| StoreError::Unavailable { store: store.clone(), reason };
        match self {
            Self::Throttled { retry_after } => {
                StoreError::Throttled { store: store.clone(), partition: partition.cloned(), retry_after }
            }
            Self::Behind => {
                unavailable("no replica that was asked has caught up with the session token yet".to_owned())
            }
            Self::Unavailable { reason } | Self::Unknown { reason } => unavailable(reason),
            Self::Misconfigured { reason } => StoreError::Misconfigured { store: store.clone(), reason },
            Self::Missing { .. } | Self::Condition | Self::TooLarge => {
                unavailable("the service answered what can't be answered here".to_owned())
            }
        }
    }

    /// What it means to a commit.
    pub(crate) fn of_commit(self, store: &StoreAlias, partition: &PartitionKey, bytes: usize) -> StoreError {
        match self {
            Self::Unknown { reason } => {
                StoreError::OutcomeUnknown { store: store.clone(), partition: partition.clone(), reason }
            }
            Self::TooLarge => StoreError::TooLarge {
                store: store.clone(),
                partition: partition.clone(),
                limit: LimitExceeded::TransactionBytes { bytes, max: BATCH_BYTES_MAX },
            },
            Self::Missing { .. } => StoreError::Misconfigured {
                store: store.clone(),
                reason: "the container does not exist; create it or correct its name".to_owned(),
            },
            other => other.of_repeatable(store, Some(partition)),
        }
    }
}

/// Whether one of the SDK's tries reached the service, or may have, without a definite answer.
fn was_ever_in_doubt(error: &CosmosError) -> bool {
    let Some(diagnostics) = error.diagnostics() else { return false };
    diagnostics.requests().iter().any(|request| {
        let code = u16::from(request.status().status_code());
        let is_doubtful = code == status::TIMEOUT || status::SERVER_ERRORS.contains(&code);
        is_doubtful && !request.request_sent().definitely_not_sent()
    })
}

/// A line for people: the status and the first line of what the SDK says, never a body.
fn summary(error: &CosmosError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
