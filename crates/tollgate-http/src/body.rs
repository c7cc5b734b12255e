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
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("application/octet-stream"))
}
