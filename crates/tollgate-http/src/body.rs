//! Bodies as they come and go over HTTP: read within a limit of bytes and of time, and written with their headers. What is in
//! them is not looked at.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::problem::{Problem, ProblemKind};
use crate::stored_response::Response;

/// The media type of a body that says nothing about itself.
const OCTET_STREAM: &str = "application/octet-stream";

/// Longest media type, in bytes.
const MEDIA_TYPE_BYTES_MAX: usize = 1_024;

/// The media type that a body's sender says it has, as it was written.
pub(crate) fn media_type(headers: &HeaderMap) -> Result<String, Problem> {
    let malformed = || Problem::new(ProblemKind::BadRequest, "the Content-Type is not one media type");
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let Some(value) = values.next() else { return Ok(OCTET_STREAM.to_owned()) };
    let text = value.to_str().ok().filter(|_| values.next().is_none()).ok_or_else(malformed)?;
    let essence = text.split(';').next().unwrap_or_default().trim();
    let (main, sub) = essence.split_once('/').ok_or_else(malformed)?;
    let is_one = is_token(main) && is_token(sub) && text.len() <= MEDIA_TYPE_BYTES_MAX;
    if is_one { Ok(text.to_owned()) } else { Err(malformed()) }
}

/// Whether HTTP calls it a token (RFC 9110, 5.6.2).
fn is_token(text: &str) -> bool {
    let is_char = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_char)
}

/// Reads a body as a whole, as long as it is not too large and does not come too slowly.
pub(crate) async fn read_body(
    headers: &HeaderMap,
    content: Body,
    bytes_max: usize,
    time_max: Duration,
) -> Result<Bytes, Problem> {
    let too_large = || {
        let detail = format!("a body may have {bytes_max} bytes");
        Problem::new(ProblemKind::TooLarge, detail)
    };
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > bytes_max as u64) {
        return Err(too_large());
    }
    match tokio::time::timeout(time_max, Limited::new(content, bytes_max).collect()).await {
        Err(_) => {
            let detail = format!("the body did not arrive within {} s", time_max.as_secs_f32());
            Err(Problem::new(ProblemKind::TooSlow, detail))
        }
        Ok(Err(error)) if is_length_limit(&*error) => Err(too_large()),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a body was cut off");
            Err(Problem::new(ProblemKind::BadRequest, "the body was cut off"))
        }
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
    }
}

fn is_length_limit(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .any(<dyn std::error::Error>::is::<LengthLimitError>)
}

/// A response as HTTP.
pub(crate) fn written(response: &Response) -> axum::response::Response {
    let mut answer = axum::response::Response::new(Body::from(response.body().clone()));
    *answer.status_mut() = response.status();
    answer.headers_mut().insert(CONTENT_TYPE, content_type(response.content_type()));
    answer
}

/// A problem as HTTP.
pub(crate) fn refusal(problem: &Problem) -> axum::response::Response {
    let mut answer = written(&problem.response());
    if let Some(seconds) = problem.retry_after() {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if answer.status() == StatusCode::UNAUTHORIZED {
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    answer
}

/// A media type as a header's value.
pub(crate) fn content_type(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(OCTET_STREAM))
}
