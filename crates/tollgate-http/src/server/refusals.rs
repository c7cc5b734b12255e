//! Refusals of the server, and what a caller is told of an error inside: what the caller can act on, and not
//! more.

use std::time::{SystemTime, UNIX_EPOCH};

use tollgate::TollgateError;

use crate::problem::{Problem, ProblemKind};
use crate::request_id::RequestId;

/// The answer for what is not there or not the caller's: the same, so that nobody learns what is there.
pub(super) fn unknown(id: RequestId) -> Problem {
    Problem::new(ProblemKind::UnknownId, format!("no request {id} is stored for this caller"))
}

pub(super) fn id_in_use(id: RequestId) -> Problem {
    Problem::new(ProblemKind::IdInUse, format!("another request is stored under {id}: draw a new id"))
}

pub(super) fn deleted(id: RequestId) -> Problem {
    Problem::new(ProblemKind::Deleted, format!("request {id} was deleted"))
}

pub(super) fn other_incarnation(id: RequestId) -> Problem {
    Problem::new(ProblemKind::OtherIncarnation, format!("request {id} is not the one with this ETag"))
}

/// What a caller is told of an error inside. The log has the rest.
pub(super) fn failed(id: RequestId, error: &TollgateError) -> Problem {
    if error.is_retryable() || matches!(error, TollgateError::Closed) {
        tracing::warn!(request = %id, %error, "request not served; the client may repeat it");
        return Problem::new(ProblemKind::Unavailable, "nothing was lost: repeat the same request");
    }
    damaged(id, error)
}

pub(super) fn damaged(id: RequestId, error: &dyn std::fmt::Display) -> Problem {
    tracing::error!(request = %id, %error, "request can't be served before an operator has acted");
    Problem::new(ProblemKind::Broken, "the server can't serve this request; its log says why")
}

pub(super) fn decoded<T, E: std::error::Error>(id: RequestId, decoded: Result<T, E>) -> Result<T, Problem> {
    decoded.map_err(|error| damaged(id, &error))
}

/// Compares in a time that says nothing about where both differ.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    blake3::hash(one.as_bytes()) == blake3::hash(other.as_bytes())
}

pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
