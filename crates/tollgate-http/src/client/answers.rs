//! The meaning of an answer: only the exactly-once server's own word counts, and only its handler's response
//! is a response.
//!
//! Load balancers, gateways and captive pages answer in a server's place with any status. Their answers are
//! passing faults, so that none of them becomes the response to a payment.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{Method, StatusCode};
use serde::Deserialize;

use crate::TOLLGATE_RESPONSE;
use crate::problem::{NAMESPACE, PROBLEM_JSON};

/// What an answer is to a step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The server's own word, for good.
    Final,
    /// The server is not able to answer now, or asks to be asked later.
    Busy,
    /// The credentials are refused. That passes when an operator has corrected them.
    Credentials,
    /// Something else than the server has answered.
    Foreign,
}

/// The meaning of an answer to a request with the method.
pub(super) fn meaning(method: &Method, response: &http::Response<Bytes>) -> Meaning {
    let status = response.status();
    if is_stored(response) {
        return Meaning::Final;
    }
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            return Meaning::Credentials;
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            return Meaning::Busy;
        }
        status if status.is_server_error() => return Meaning::Busy,
        _ => {}
    }
    let is_done = match *method {
        // The step checks that it has an ETag.
        Method::PUT => status.is_success(),
        // A page has a body.
        Method::DELETE => status.is_success() && response.body().is_empty(),
        _ => false,
    };
    if is_done || problem(response).is_some() { Meaning::Final } else { Meaning::Foreign }
}

/// Whether it is the stored response, with any status.
pub(super) fn is_stored(response: &http::Response<Bytes>) -> bool {
    response.headers().contains_key(TOLLGATE_RESPONSE)
}

/// The kind of the problem that an exactly-once server tells of, without its namespace. `None`: it is no such
/// problem.
pub(super) fn problem(response: &http::Response<Bytes>) -> Option<String> {
    #[derive(Deserialize)]
    struct Kind {
        r#type: String,
    }
    if response.headers().get(CONTENT_TYPE).is_none_or(|value| value != PROBLEM_JSON) {
        return None;
    }
    let Kind { r#type } = serde_json::from_slice(response.body()).ok()?;
    r#type.strip_prefix(NAMESPACE).map(str::to_owned)
}

/// The answer in a few words, for an operator.
pub(super) fn described(response: &http::Response<Bytes>) -> String {
    let status = response.status();
    match (problem(response), response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok())) {
        (Some(kind), _) => format!("{status} ({kind})"),
        (None, Some(media_type)) => format!("{status} with {media_type}"),
        (None, None) => status.to_string(),
    }
}

/// The time that the server asks to wait: in seconds, or until a date by our clock.
pub(super) fn retry_after(response: &http::Response<Bytes>) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}
