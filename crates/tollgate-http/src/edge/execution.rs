//! One request, executed once for its key in one commit with its response; and what becomes of responses that
//! can't leave with that commit.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use tollgate::{Answer, Edge, HandlerError, TollgateError, Tx};

use super::response::Full;
use crate::RESERVED;
use crate::problem::{Problem, ProblemKind};
use crate::stored_response::{Response, StoredResponse};

/// A request's outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// The response of the execution that committed.
    pub response: Response,
    /// Whether an earlier request was executed, and this one only recognised.
    pub is_replayed: bool,
}

/// Executes a request once for its key, on one partition: what the handler writes and sends, and its
/// response, are one commit.
///
/// `payload` is what makes the request the same one. The response is remembered for `retention`, and no
/// longer. The handler may run more than once, but commits at most once. What the handler wrote and sent with
/// a status of 400 and more is dropped; the response is remembered, unless it is one of those that pass
/// ([`remembered_by_default`]).
///
/// This function does not tell a request that is still being executed; the second one waits for the first.
/// The layer does.
///
/// # Errors
/// [`ProblemKind::KeyReused`] if another payload came under the key; [`ProblemKind::Refused`] if the handler fails for good;
/// [`ProblemKind::Unavailable`] if it could not be executed now.
pub async fn idempotent<H, F>(
    edge: &Edge,
    partition: &str,
    key: &str,
    payload: &[u8],
    retention: Duration,
    handler: H,
) -> Result<Outcome, Problem>
where
    H: Fn(Tx) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Response, HandlerError>> + Send + 'static,
{
    let handler = move |tx: Tx| {
        let response = handler(tx);
        async move { Ok(Full::of(response.await?)) }
    };
    let request =
        Keyed { edge, partition, key, payload, retention, remembered: Arc::new(remembered_by_default) };
    let (full, is_replayed) = request.execute(handler).await?;
    Ok(Outcome { response: full.response, is_replayed })
}

/// Decides about a status of 400 and more.
pub(super) type Remembered = Arc<dyn Fn(StatusCode) -> bool + Send + Sync>;

/// Whether a response with a status of 400 and more is remembered, unless something else is said.
///
/// Not those that the same request may get another answer than later: 401, 403, 405, 407, 408, 409, 421, 423,
/// 425, 429, and all of 500 and more.
pub fn remembered_by_default(status: StatusCode) -> bool {
    !status.is_server_error()
        && !matches!(status.as_u16(), 401 | 403 | 405 | 407 | 408 | 409 | 421 | 423 | 425 | 429)
}

/// A request with its key.
pub(super) struct Keyed<'a> {
    pub(super) edge: &'a Edge,
    pub(super) partition: &'a str,
    pub(super) key: &'a str,
    pub(super) payload: &'a [u8],
    pub(super) retention: Duration,
    pub(super) remembered: Remembered,
}

/// A response that can't leave with the commit of the attempt that gave it: it leaves on the way of failures,
/// which commit nothing and clean up.
enum Left {
    /// It leaves with the commit, and has parts that are not kept.
    Committed(Full),
    /// It is given and not remembered.
    Forgotten(Full),
    /// It is to be remembered, by a commit of its own.
    Remembered(Full),
    /// The handler fails for good.
    Refused(String),
}

impl Keyed<'_> {
    /// The response, and whether it was given before.
    pub(super) async fn execute<H, F>(&self, handler: H) -> Result<(Full, bool), Problem>
    where
        H: Fn(Tx) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Full, HandlerError>> + Send + 'static,
    {
        if self.partition.starts_with(RESERVED) {
            let detail = "the request asks for a partition that the server keeps for itself";
            return Err(Problem::new(ProblemKind::BadRequest, detail));
        }
        let fingerprint = blake3::hash(self.payload).to_hex().to_string();
        let left: Arc<Mutex<Option<Left>>> = Arc::default();
        let run = {
            let (fingerprint, left) = (fingerprint.clone(), Arc::clone(&left));
            let remembered = Arc::clone(&self.remembered);
            move |tx: Tx| {
                let response = handler(tx.clone());
                let (fingerprint, left) = (fingerprint.clone(), Arc::clone(&left));
                let remembered = Arc::clone(&remembered);
                async move {
                    let leave = |what| *left.lock().unwrap_or_else(PoisonError::into_inner) = what;
                    // What an earlier attempt said is of no interest.
                    leave(None);
                    let full = match response.await {
                        Ok(full) => full,
                        Err(error) if error.is_permanent() => {
                            leave(Some(Left::Refused(error.reason().to_owned())));
                            return Err(error);
                        }
                        Err(error) => return Err(error),
                    };
                    let status = full.response.status();
                    let refused = || HandlerError::permanent(format!("the handler answers with {status}"));
                    let is_success = status.is_success() || status.is_redirection();
                    let is_error = status.is_client_error() || status.is_server_error();
                    let is_remembered = is_error && full.may_be_kept && remembered(status);
                    if !is_success && !is_remembered {
                        leave(Some(Left::Forgotten(full)));
                        return Err(refused());
                    }
                    if !is_success && tx.discard().await.is_err() {
                        // Only an attempt that fails cleans up its side effects.
                        leave(Some(Left::Remembered(full)));
                        return Err(refused());
                    }
                    let kept = full.kept(&fingerprint).encode();
                    leave(Some(Left::Committed(full)));
                    Ok(kept)
                }
            }
        };
        let (edge, retention) = (self.edge, self.retention);
        let mut answer = edge.execute_bytes(self.partition, self.key, retention, run).await;
        let mut left = left.lock().unwrap_or_else(PoisonError::into_inner).take();
        if matches!(answer, Err(TollgateError::RequestRefused { .. })) {
            match left.take() {
                Some(Left::Forgotten(full)) => return Ok((full, false)),
                Some(Left::Refused(reason)) => return Err(Problem::refusal(&reason)),
                Some(Left::Remembered(full)) => {
                    let bytes = full.kept(&fingerprint).encode();
                    left = Some(Left::Committed(full));
                    let remember = move |_: Tx| std::future::ready(Ok(bytes.clone()));
                    answer = edge.execute_bytes(self.partition, self.key, retention, remember).await;
                }
                Some(Left::Committed(_)) | None => {}
            }
        }
        let (bytes, is_replayed) = match answer.map_err(|error| failed(&error))? {
            Answer::Executed(bytes) => (bytes, false),
            Answer::Replayed(bytes) => (bytes, true),
        };
        let stored = StoredResponse::decode(&bytes).map_err(|error| {
            tracing::error!(%error, "stored response can't be read");
            Problem::new(ProblemKind::Broken, "the server can't read the stored response; its log says why")
        })?;
        if stored.head.answers != fingerprint {
            let detail = "this Idempotency-Key was used for another request: draw a new one";
            return Err(Problem::new(ProblemKind::KeyReused, detail));
        }
        match left {
            Some(Left::Committed(full)) if !is_replayed => Ok((full, false)),
            _ => Ok((Full::stored(&stored), is_replayed)),
        }
    }
}

fn failed(error: &TollgateError) -> Problem {
    match error {
        TollgateError::Name(error) => Problem::new(ProblemKind::BadRequest, error.to_string()),
        error if error.is_retryable() || matches!(error, TollgateError::Closed) => {
            tracing::warn!(%error, "request not executed; the client may repeat it");
            Problem::new(ProblemKind::Unavailable, "repeat the request with the same Idempotency-Key")
        }
        error => {
            tracing::error!(%error, "request can't be executed before an operator has acted");
            Problem::new(ProblemKind::Broken, "the server can't execute this request; its log says why")
        }
    }
}
