//! One request of a step, sent until the server has its final word: a few tries in place, with jitter, within
//! a time, and never to a server that has asked to be left alone.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, IF_MATCH, USER_AGENT};
use http::{HeaderValue, Method};
use tokio::time::Instant;
use tollgate::proto::{EffectError, EffectName};

use super::answers::{Meaning, described, meaning, retry_after};
use super::{HttpCalls, TransportError};
use crate::request_id::RequestId;

/// Longest time for which a server is left alone because it says so (`Retry-After`).
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// First wait before a repetition; it doubles each time.
const BACKOFF_FIRST: Duration = Duration::from_millis(40);

/// Most doublings of the wait.
const BACKOFF_DOUBLINGS_MAX: u32 = 7;

/// Most servers of which it is remembered that they want to be left alone.
const SERVERS_MAX: usize = 1_024;

/// What calls say they are, unless their headers say something else.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("tollgate-http/", env!("CARGO_PKG_VERSION")));

/// A request of a step.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) etag: Option<&'a str>,
    pub(super) body: Option<(&'a str, Bytes)>,
}

impl Ask<'_> {
    /// One without a body.
    pub(super) fn of(method: Method, etag: Option<&str>) -> Ask<'_> {
        Ask { method, etag, body: None }
    }
}

/// Why a request has no final answer.
pub(super) enum NoAnswer {
    /// All tries were answered with 3xx or 4xx by something else than the server.
    Foreign(EffectError),
    Other(EffectError),
}

impl From<NoAnswer> for EffectError {
    fn from(no_answer: NoAnswer) -> Self {
        match no_answer {
            NoAnswer::Foreign(error) | NoAnswer::Other(error) => error,
        }
    }
}

/// Servers that want to be left alone, by scheme and authority.
#[derive(Default)]
pub(super) struct LeftAlone {
    until: Mutex<HashMap<String, Instant>>,
}

impl LeftAlone {
    fn until(&self, server: &str) -> Option<Instant> {
        let until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.get(server).copied().filter(|until| *until > Instant::now())
    }

    fn add(&self, server: &str, wait: Duration) {
        let now = Instant::now();
        let mut all = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, until| *until > now);
        if all.len() < SERVERS_MAX {
            all.insert(server.to_owned(), now + wait.min(RETRY_AFTER_MAX));
        }
    }
}

impl HttpCalls {
    /// Sends a request until the server says something for good.
    pub(super) async fn send(
        &self,
        name: &EffectName,
        ask: Ask<'_>,
    ) -> Result<http::Response<Bytes>, NoAnswer> {
        let refused = |reason: String| NoAnswer::Other(EffectError::Refused { name: name.clone(), reason });
        let uri: http::Uri = name.as_str().parse().map_err(|_| refused("it is no URL".to_owned()))?;
        let server =
            format!("{}://{}", uri.scheme_str().unwrap_or(""), uri.authority().map_or("", |a| a.as_str()));
        let end = Instant::now() + self.time_max;
        let mut failures = 0;
        let mut is_foreign = true;
        loop {
            if let Some(until) = self.left_alone.until(&server) {
                if until > end {
                    // Waiting here would keep the message's window; it is put back for so long.
                    let reason = "the server has asked to be left alone for a while".to_owned();
                    return Err(NoAnswer::Other(unavailable(name, reason, Some(until - Instant::now()))));
                }
                tokio::time::sleep_until(until).await;
            }
            let request = self.request(name, &uri, &ask).map_err(&refused)?;
            let method = &ask.method;
            let reason = match tokio::time::timeout_at(end, self.transport.send(request)).await {
                Ok(Ok(response)) => {
                    let answer = described(&response);
                    let meaning = meaning(method, &response);
                    is_foreign &= meaning == Meaning::Foreign;
                    match meaning {
                        Meaning::Final => return Ok(response),
                        Meaning::Credentials => {
                            let reason =
                                format!("the server refuses our credentials ({answer}): correct them");
                            return Err(NoAnswer::Other(unavailable(name, reason, None)));
                        }
                        Meaning::Busy => {
                            if let Some(wait) = retry_after(&response) {
                                self.left_alone.add(&server, wait);
                            }
                            format!("{method} was answered with {answer}")
                        }
                        Meaning::Foreign => {
                            format!("not the server but something else answered {method}: {answer}")
                        }
                    }
                }
                Ok(Err(TransportError::TooLarge { bytes_max })) => {
                    let what =
                        format!("the response has more than {bytes_max} bytes: raise the transport's limit");
                    return Err(refused(what));
                }
                Ok(Err(error @ TransportError::Forbidden { .. })) => return Err(refused(error.to_string())),
                Ok(Err(TransportError::Failed { reason, .. })) => {
                    is_foreign = false;
                    reason
                }
                Err(_) => {
                    is_foreign = false;
                    format!("{method} was not answered within {} s", self.time_max.as_secs_f32())
                }
            };
            let wait = jittered(BACKOFF_FIRST * 2u32.pow(failures.min(BACKOFF_DOUBLINGS_MAX)));
            failures += 1;
            if failures >= self.attempts || Instant::now() + wait > end {
                let left_alone = self.left_alone.until(&server).map(|until| until - Instant::now());
                let error = unavailable(name, reason, left_alone);
                return Err(if is_foreign { NoAnswer::Foreign(error) } else { NoAnswer::Other(error) });
            }
            tracing::debug!(effect = %name, failures, reason, "call repeated");
            tokio::time::sleep(wait).await;
        }
    }

    fn request(
        &self,
        name: &EffectName,
        uri: &http::Uri,
        ask: &Ask<'_>,
    ) -> Result<http::Request<Bytes>, String> {
        let mut request = http::Request::new(Bytes::new());
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = uri.clone();
        let mut headers = (self.headers)(name.as_str());
        headers.entry(USER_AGENT).or_insert(AGENT);
        let value = |text: &str| HeaderValue::from_str(text).map_err(|error| error.to_string());
        if let Some(etag) = ask.etag {
            headers.insert(IF_MATCH, value(etag)?);
        }
        if let Some((content_type, content)) = &ask.body {
            headers.insert(CONTENT_TYPE, value(content_type)?);
            *request.body_mut() = content.clone();
        }
        if [Method::PUT, Method::POST].contains(&ask.method) && request.body().is_empty() {
            // Front ends refuse a POST that says nothing about its length (RFC 9110, 8.6).
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// A passing fault. The tries in place are over: the engine repeats none, and puts the message back.
pub(super) fn unavailable(name: &EffectName, reason: String, wait: Option<Duration>) -> EffectError {
    EffectError::Unavailable { name: name.clone(), reason, retry_after: Some(wait.unwrap_or_default()) }
}

/// Between half of a wait and all of it, so that those who failed together don't come again together.
fn jittered(wait: Duration) -> Duration {
    let [first, second, ..] = *RequestId::random().as_bytes();
    let share = f64::from(u16::from_le_bytes([first, second])) / f64::from(u16::MAX);
    wait / 2 + (wait / 2).mul_f64(share)
}
