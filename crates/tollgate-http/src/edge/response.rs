//! A handler's response with its headers: as it is given, and the part of it that is kept and given again.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response as HttpResponse;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, PROXY_AUTHENTICATE, RETRY_AFTER, SET_COOKIE, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::{BodyExt, Limited};

use crate::body::{append, content_type};
use crate::problem::{Problem, ProblemKind};
use crate::stored_response::{Response, StoredResponse};
use crate::{IDEMPOTENT_REPLAYED, STORED, TOLLGATE_RESPONSE};

/// Headers of the connection (RFC 9110, 7.6.1) and of the message's framing: never kept and never passed on.
const OF_CONNECTION: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    CONTENT_LENGTH,
    CONTENT_TYPE,
];

/// Headers that are for this answer only: credentials, challenges, times, and limits. The first answer has
/// them.
const OF_ONE_ANSWER: [HeaderName; 8] = [
    SET_COOKIE,
    HeaderName::from_static("set-cookie2"),
    WWW_AUTHENTICATE,
    PROXY_AUTHENTICATE,
    HeaderName::from_static("authentication-info"),
    HeaderName::from_static("proxy-authentication-info"),
    DATE,
    RETRY_AFTER,
];

/// Beginnings of the names of more such headers: rate limits, and what depends on the origin that asks.
const OF_ONE_ANSWER_BEGINNINGS: [&str; 3] = ["ratelimit", "x-ratelimit", "access-control-"];

/// A response with all of its headers.
#[derive(Clone)]
pub(super) struct Full {
    pub(super) response: Response,
    headers: Vec<(String, String)>,
    /// Those that are kept although they are for one answer only.
    listed: Vec<HeaderName>,
    /// Whether it may be remembered at all: not what a router answers where there is no route.
    pub(super) may_be_kept: bool,
}

impl Full {
    pub(super) fn of(response: Response) -> Self {
        let headers = response.headers().to_vec();
        Self { response, headers, listed: Vec::new(), may_be_kept: true }
    }

    /// A stored one.
    pub(super) fn stored(stored: &StoredResponse) -> Self {
        let mut full = Self::of(stored.response());
        full.headers.clone_from(&stored.head.headers);
        full
    }

    /// What is kept of it.
    pub(super) fn kept(&self, fingerprint: &str) -> StoredResponse {
        let mut stored = StoredResponse::inline(fingerprint.to_owned(), &self.response);
        stored.head.headers.clone_from(&self.headers);
        stored.head.headers.retain(|(name, _)| {
            let is_listed = self.listed.iter().any(|listed| listed.as_str() == name);
            let is_passing = OF_ONE_ANSWER.iter().any(|passing| passing.as_str() == name)
                || OF_ONE_ANSWER_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning));
            is_listed || !is_passing
        });
        stored
    }

    /// As HTTP.
    pub(super) fn written(&self, is_replayed: bool) -> HttpResponse {
        let mut answer = HttpResponse::new(Body::from(self.response.body().clone()));
        let status = self.response.status();
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        append(headers, &self.headers);
        if !self.response.content_type().is_empty() {
            headers.insert(CONTENT_TYPE, content_type(self.response.content_type()));
        }
        headers.remove(&IDEMPOTENT_REPLAYED);
        headers.remove(&TOLLGATE_RESPONSE);
        if status < StatusCode::INTERNAL_SERVER_ERROR {
            headers.insert(TOLLGATE_RESPONSE, STORED);
        }
        if is_replayed {
            headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
        }
        answer
    }
}

/// Limits of a response, and headers that are kept although they are for one answer only.
#[derive(Clone)]
pub(super) struct Reading {
    pub(super) bytes_max: usize,
    pub(super) time_max: Duration,
    pub(super) listed: Vec<HeaderName>,
}

impl Reading {
    /// Reads a handler's response, headers and all. One that can't be kept is the server's fault and not the
    /// caller's.
    pub(super) async fn whole(&self, response: HttpResponse, is_routed: bool) -> Full {
        let may_be_kept = is_routed || response.status() != StatusCode::NOT_FOUND;
        match self.read(response).await {
            Ok((response, headers)) => Full { response, headers, listed: self.listed.clone(), may_be_kept },
            Err(reason) => {
                tracing::error!(reason, "response can't be kept");
                let detail = "the server can't keep its response to this request; its log says why";
                Full::of(Problem::new(ProblemKind::Broken, detail).response())
            }
        }
    }

    async fn read(&self, response: HttpResponse) -> Result<(Response, Vec<(String, String)>), String> {
        let (parts, content) = response.into_parts();
        let bytes_max = self.bytes_max;
        let body = tokio::time::timeout(self.time_max, Limited::new(content, bytes_max).collect())
            .await
            .map_err(|_| format!("its body was not there after {:?} (`response_time_max`)", self.time_max))?
            .map_err(|error| format!("it has at most {bytes_max} bytes (`body_bytes_max`): {error}"))?;
        let headers = headers(&parts.headers)?;
        let media_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        Ok((Response::new(parts.status, media_type, body.to_bytes()), headers))
    }
}

/// The headers but for those of the connection, and those that `Connection` names.
fn headers(all: &HeaderMap) -> Result<Vec<(String, String)>, String> {
    let named: Vec<String> = all
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let mut headers = Vec::new();
    for (name, value) in all {
        if OF_CONNECTION.contains(name) || named.iter().any(|named| named == name.as_str()) {
            continue;
        }
        let value = value.to_str().map_err(|_| format!("its header {name} is no text"))?;
        headers.push((name.to_string(), value.to_owned()));
    }
    Ok(headers)
}
