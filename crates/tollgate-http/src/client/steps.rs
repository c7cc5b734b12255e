//! The steps of a call: `PUT`, `POST`, `GET`, `DELETE`, and what each makes of the server's final word.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::header::{CONTENT_TYPE, ETAG};
use tokio::time::Instant;
use tollgate::proto::{AttachedEffect, EffectError, EffectName};

use super::answers::{described, is_stored, problem};
use super::sending::{Ask, NoAnswer, unavailable};
use super::{Detail, HttpCalls, Intent, ResponseHead};
use crate::frame;

/// Deliveries of a follow-up whose request the server no longer knows, before it is left to an operator. An
/// old copy of a follow-up that is done meets the same answer, and finds out at its next delivery.
const MISSING_MAX: u32 = 5;

/// Most requests of which something is remembered.
const REMEMBERED_MAX: usize = 10_000;

/// Requests with answers that are not the server's.
#[derive(Default)]
pub(super) struct Odd {
    requests: Mutex<HashMap<EffectName, OddRequest>>,
}

#[derive(Clone, Copy)]
struct OddRequest {
    /// Whether its `PUT` was answered by pages only: then nothing is stored.
    is_unstored: bool,
    /// The time of the first page that answered its `DELETE`.
    since: Instant,
    missing: u32,
}

impl Odd {
    fn update(&self, name: &EffectName, change: impl FnOnce(&mut OddRequest)) -> OddRequest {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let new = OddRequest { is_unstored: false, since: Instant::now(), missing: 0 };
        let mut request = requests.get(name).copied().unwrap_or(new);
        change(&mut request);
        if requests.len() < REMEMBERED_MAX || requests.contains_key(name) {
            requests.insert(name.clone(), request);
        }
        request
    }

    fn forget(&self, name: &EffectName) {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

impl HttpCalls {
    pub(super) async fn put(&self, name: &EffectName, intent: &Bytes) -> Result<Bytes, EffectError> {
        let (Intent { content_type, .. }, body) = self.intent(intent)?;
        let ask = Ask { method: Method::PUT, etag: None, body: Some((&content_type, body)) };
        let response = match self.send(name, ask).await {
            Ok(response) => response,
            Err(no_answer) => {
                if matches!(no_answer, NoAnswer::Foreign(_)) {
                    self.odd.update(name, |request| request.is_unstored = true);
                }
                return Err(no_answer.into());
            }
        };
        let status = response.status();
        if status.is_success() {
            let Some(etag) = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok()) else {
                // Found out before the commit: afterwards it could not be executed.
                let reason = format!(
                    "{status} without an ETag is not what an exactly-once server says: correct the URL"
                );
                self.odd.update(name, |request| request.is_unstored = true);
                return Err(EffectError::Refused { name: name.clone(), reason });
            };
            return Ok(frame::encode(&Detail::Stored { etag: etag.to_owned() }, b""));
        }
        match problem(&response).as_deref() {
            // The counterparty's own word about this request.
            Some("bad-request" | "too-large" | "refused" | "unsupported-encoding") => {
                Ok(frame::encode(&Detail::Refused { head: head_of(&response) }, response.body()))
            }
            // About the id, which is drawn anew in the next attempt.
            Some("id-in-use" | "deleted") => Err(unavailable(name, described(&response), None)),
            _ => {
                let reason = format!("PUT was answered with {}: correct the URL", described(&response));
                Err(EffectError::Refused { name: name.clone(), reason })
            }
        }
    }

    pub(super) async fn post(&self, effect: &AttachedEffect) -> Result<(), EffectError> {
        match detail(effect)? {
            (Detail::Refused { .. }, _) => Ok(()),
            (Detail::Stored { etag }, _) => {
                let response = self.send(&effect.name, Ask::of(Method::POST, Some(&etag))).await?;
                // The request is no longer there: an earlier publication's follow-up is done and has cleaned
                // up. If that is not so, the follow-up finds out.
                if is_stored(&response) || is_missing(&response) {
                    return Ok(());
                }
                Err(unavailable(
                    &effect.name,
                    format!("POST was answered with {}", described(&response)),
                    None,
                ))
            }
        }
    }

    pub(super) async fn get(&self, effect: &AttachedEffect) -> Result<Bytes, EffectError> {
        let (etag, name) = match detail(effect)? {
            (Detail::Refused { head }, body) => return Ok(frame::encode(&head, &body)),
            (Detail::Stored { etag }, _) => (etag, &effect.name),
        };
        let mut response = self.send(name, Ask::of(Method::GET, Some(&etag))).await?;
        if problem(&response).as_deref() == Some("not-executed") && !is_stored(&response) {
            // Stored, and not executed: the server has lost the execution that it had confirmed.
            response = self.send(name, Ask::of(Method::POST, Some(&etag))).await?;
        }
        if is_stored(&response) {
            self.odd.forget(name);
            return Ok(frame::encode(&head_of(&response), response.body()));
        }
        let answer = described(&response);
        if !is_missing(&response) {
            return Err(unavailable(name, format!("GET was answered with {answer}"), None));
        }
        // No response: neither a success nor a refusal of the counterparty's.
        let reason = format!(
            "the server does not know the request any more ({answer}), and its response is lost: find out from the server's \
             operator whether it was executed"
        );
        if self.odd.update(name, |request| request.missing += 1).missing < MISSING_MAX {
            return Err(unavailable(name, reason, None));
        }
        self.odd.forget(name);
        Err(EffectError::Refused { name: name.clone(), reason })
    }

    pub(super) async fn delete(&self, name: &EffectName) -> Result<(), EffectError> {
        let error = match self.send(name, Ask::of(Method::DELETE, None)).await {
            Ok(response) if response.status().is_success() || is_missing(&response) => {
                self.odd.forget(name);
                return Ok(());
            }
            Ok(response) => {
                let reason = format!("DELETE was answered with {}", described(&response));
                return Err(unavailable(name, reason, None));
            }
            Err(NoAnswer::Foreign(error)) => error,
            Err(NoAnswer::Other(error)) => return Err(error),
        };
        let request = self.odd.update(name, |_| {});
        let is_over = request.since.elapsed() >= self.patience;
        if !request.is_unstored && !is_over {
            return Err(error);
        }
        if is_over {
            tracing::error!(effect = %name, %error, "request given up: its server may still have it");
        }
        self.odd.forget(name);
        Ok(())
    }
}

/// Whether the server says that it has no such request, or another one.
fn is_missing(response: &http::Response<Bytes>) -> bool {
    let kind = problem(response);
    !is_stored(response) && matches!(kind.as_deref(), Some("unknown-id" | "deleted" | "other-incarnation"))
}

fn detail(effect: &AttachedEffect) -> Result<(Detail, Bytes), EffectError> {
    frame::decode("call", &effect.detail).map_err(|error| {
        let reason = error.to_string();
        EffectError::Refused { name: effect.name.clone(), reason }
    })
}

fn head_of(response: &http::Response<Bytes>) -> ResponseHead {
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    ResponseHead {
        status: response.status().as_u16(),
        content_type: content_type.unwrap_or_default().to_owned(),
    }
}

/// Longest time for which pages that answer `DELETE` are taken for a passing fault.
pub(super) const PATIENCE_DEFAULT: Duration = Duration::from_secs(3_600);
