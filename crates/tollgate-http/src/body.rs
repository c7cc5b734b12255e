//! Bodies as they come and go over HTTP: read within a limit of bytes and of time, and written with their
//! headers. Their content is not looked at.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::Instant;

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

/// A body on its way in, within its limits of bytes and of time.
pub(crate) struct Arrival {
    content: Limited<Body>,
    bytes_max: usize,
    time_max: Duration,
    end: Instant,
}

impl Arrival {
    /// Begins to read a body, unless it says itself that it is too large.
    pub(crate) fn begin(
        headers: &HeaderMap,
        content: Body,
        bytes_max: usize,
        time_max: Duration,
    ) -> Result<Self, Problem> {
        let announced =
            headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > bytes_max as u64) {
            return Err(too_large(bytes_max));
        }
        let content = Limited::new(content, bytes_max);
        Ok(Self { content, bytes_max, time_max, end: Instant::now() + time_max })
    }

    /// The next piece. `None`: the body is whole.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            match tokio::time::timeout_at(self.end, self.content.frame()).await {
                Err(_) => {
                    let detail = format!("the body did not arrive within {} s", self.time_max.as_secs_f32());
                    return Err(Problem::new(ProblemKind::TooSlow, detail));
                }
                Ok(Some(Err(error))) if is_length_limit(&*error) => return Err(too_large(self.bytes_max)),
                Ok(Some(Err(error))) => {
                    tracing::debug!(%error, "a body was cut off");
                    return Err(Problem::new(ProblemKind::BadRequest, CUT_OFF));
                }
                Ok(None) => return Ok(None),
                // Trailers are no part of it.
                Ok(Some(Ok(frame))) => {
                    if let Ok(piece) = frame.into_data() {
                        return Ok(Some(piece));
                    }
                }
            }
        }
    }

    /// Reads the body into memory as a whole.
    #[cfg(feature = "edge")]
    pub(crate) async fn whole(&mut self) -> Result<Bytes, Problem> {
        match self.up_to(self.bytes_max).await? {
            Begun::Whole(body) => Ok(body),
            Begun::Large(_) => Err(too_large(self.bytes_max)),
        }
    }

    /// Reads the body into memory, as long as it has at most `bytes_max` bytes.
    pub(crate) async fn up_to(&mut self, bytes_max: usize) -> Result<Begun, Problem> {
        // Copied together: many small pieces would hold on to the large buffers that they came in.
        let mut held = BytesMut::new();
        while let Some(piece) = self.next().await? {
            held.extend_from_slice(&piece);
            if held.len() > bytes_max {
                return Ok(Begun::Large(held.freeze()));
            }
        }
        Ok(Begun::Whole(held.freeze()))
    }
}

/// What was read of a body.
pub(crate) enum Begun {
    /// All of it.
    Whole(Bytes),
    /// More than was asked for, and it goes on.
    Large(Bytes),
}

/// What is said of a body whose end never came.
pub(crate) const CUT_OFF: &str = "the body was cut off";

fn too_large(bytes_max: usize) -> Problem {
    Problem::new(ProblemKind::TooLarge, format!("a body may have {bytes_max} bytes"))
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

/// Adds a stored response's own headers.
pub(crate) fn append(headers: &mut HeaderMap, stored: &[(String, String)]) {
    for (name, value) in stored {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    }
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
