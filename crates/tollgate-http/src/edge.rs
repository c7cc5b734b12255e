//! The edge over HTTP: one request, recognised by its `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header), executed in
//! one commit with its response. As a layer around axum's routes, and as a plain function for any other server.

mod running;

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{OriginalUri, Request as HttpRequest};
use axum::response::Response as HttpResponse;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode};
use http_body_util::{BodyExt, Limited};
use tollgate::proto::BoxFuture;
use tollgate::{Answer, Edge, HandlerError, TollgateError, Tx};
use tower::{Layer, Service, ServiceExt};

use self::running::Running;
use crate::body::{Arrival, content_type, refusal};
use crate::problem::{Problem, ProblemKind};
use crate::stored_response::{Response, StoredResponse};
use crate::{IDEMPOTENT_REPLAYED, STORED, TOLLGATE_RESPONSE};

/// The header that names a request.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Longest key, in bytes.
const KEY_BYTES_MAX: usize = 255;

/// What a request was answered, and whether that was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The response of the execution that committed.
    pub response: Response,
    /// Whether an earlier request was executed, and this one only recognised.
    pub is_replayed: bool,
}

/// Executes a request once for its key, on one partition: what the handler writes and sends, and its response, are one commit.
///
/// `payload` is whatever makes the request the same one. The response is remembered for `retention`, and no longer. The handler
/// may run more than once, but commits at most once. A response with a status of 400 to 499 is remembered too, but what the
/// handler wrote and sent with it is dropped; one of 500 and more is given and not remembered.
///
/// This function does not tell a request that is still being executed; the second one waits for the first. The layer does.
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
        async move { Ok(Full { response: response.await?, headers: Vec::new() }) }
    };
    let (stored, is_replayed) = execute(edge, partition, key, payload, retention, handler).await?;
    let response = stored.response();
    Ok(Outcome { response, is_replayed })
}

/// A response with all of its headers.
#[derive(Clone)]
struct Full {
    response: Response,
    headers: Vec<(String, String)>,
}

impl Full {
    fn stored(self, fingerprint: &str) -> StoredResponse {
        let mut stored = StoredResponse::inline(fingerprint.to_owned(), &self.response);
        stored.head.headers = self.headers;
        stored
    }
}

/// A response that can't leave with the commit of the attempt that gave it: it leaves on the way of failures, which commit
/// nothing and clean up.
enum Uncommitted {
    /// It is given and not remembered.
    Forgotten(Full),
    /// It is to be remembered, by a commit of its own.
    Remembered(Full),
}

async fn execute<H, F>(
    edge: &Edge,
    partition: &str,
    key: &str,
    payload: &[u8],
    retention: Duration,
    handler: H,
) -> Result<(StoredResponse, bool), Problem>
where
    H: Fn(Tx) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Full, HandlerError>> + Send + 'static,
{
    let fingerprint = blake3::hash(payload).to_hex().to_string();
    let uncommitted: Arc<Mutex<Option<Uncommitted>>> = Arc::default();
    let run = {
        let (fingerprint, uncommitted) = (fingerprint.clone(), Arc::clone(&uncommitted));
        move |tx: Tx| {
            let response = handler(tx.clone());
            let (fingerprint, uncommitted) = (fingerprint.clone(), Arc::clone(&uncommitted));
            async move {
                let leave = |response| {
                    *uncommitted.lock().unwrap_or_else(PoisonError::into_inner) = response;
                };
                // What an earlier attempt said is of no interest.
                leave(None);
                let full = response.await?;
                let status = full.response.status();
                let refused = || HandlerError::permanent(format!("the handler answers with {status}"));
                if status.is_server_error() || status.is_informational() {
                    leave(Some(Uncommitted::Forgotten(full)));
                    return Err(refused());
                }
                if status.is_client_error() && tx.discard().await.is_err() {
                    // Only an attempt that fails cleans up its side effects.
                    leave(Some(Uncommitted::Remembered(full)));
                    return Err(refused());
                }
                Ok(full.stored(&fingerprint).encode())
            }
        }
    };
    let mut answer = edge.execute_bytes(partition, key, retention, run).await;
    if matches!(answer, Err(TollgateError::RequestRefused { .. })) {
        let left = uncommitted.lock().unwrap_or_else(PoisonError::into_inner).take();
        match left {
            Some(Uncommitted::Forgotten(full)) => return Ok((full.stored(&fingerprint), false)),
            Some(Uncommitted::Remembered(full)) => {
                let bytes = full.stored(&fingerprint).encode();
                let remember = move |_: Tx| std::future::ready(Ok(bytes.clone()));
                answer = edge.execute_bytes(partition, key, retention, remember).await;
            }
            None => {}
        }
    }
    let (bytes, is_replayed) = match answer.map_err(|error| failed(&error))? {
        Answer::Executed(bytes) => (bytes, false),
        Answer::Replayed(bytes) => (bytes, true),
    };
    let stored = StoredResponse::decode(&bytes).map_err(|error| {
        tracing::error!(%error, "a stored response can't be read");
        Problem::new(ProblemKind::Broken, "the server can't read the stored response; its log says why")
    })?;
    if stored.head.answers != fingerprint {
        let detail = "this Idempotency-Key was used for another request: draw a new one";
        return Err(Problem::new(ProblemKind::KeyReused, detail));
    }
    Ok((stored, is_replayed))
}

fn failed(error: &TollgateError) -> Problem {
    match error {
        TollgateError::RequestRefused { reason } => Problem::new(ProblemKind::Refused, reason.clone()),
        TollgateError::Name(error) => Problem::new(ProblemKind::BadRequest, error.to_string()),
        error if error.is_retryable() || matches!(error, TollgateError::Closed) => {
            tracing::warn!(%error, "a request could not be executed and may be repeated");
            Problem::new(ProblemKind::Unavailable, "repeat the request with the same Idempotency-Key")
        }
        error => {
            tracing::error!(%error, "a request can't be executed until somebody has looked at it");
            Problem::new(ProblemKind::Broken, "the server can't execute this request; its log says why")
        }
    }
}

type PartitionOf = Arc<dyn Fn(&Parts, &Bytes) -> Result<String, String> + Send + Sync>;
type CallerOf = Arc<dyn Fn(&Parts) -> Result<String, Problem> + Send + Sync>;

/// `Idempotency-Key` as a layer: every request of the routes below is executed once for its key. Their handlers find the [`Tx`]
/// among the request's extensions, and must do all their work with it; they may run more than once.
///
/// Requests with safe methods (`GET`, `HEAD`, `OPTIONS`) pass as if the layer was not there.
///
/// | | |
/// |---|---|
/// | no key | 400, unless keys are [optional](Self::optional): then the request is executed, and never recognised |
/// | the first request with the key is being executed in this process | 409, with `Retry-After` |
/// | another method, path, query, media type or body under the key | 422 |
/// | a repetition | the stored response, with `Idempotent-Replayed: true` |
///
/// A response with a status of 400 to 499 is remembered, but what was written and sent with it is dropped; one of 500 and more is
/// not remembered. A response is remembered for the retention, and no longer.
///
/// ```
/// use std::time::Duration;
/// use axum::{Extension, Router, routing::post};
/// use tollgate::{Edge, Tx};
/// use tollgate_http::edge::IdempotencyKey;
///
/// async fn order(Extension(tx): Extension<Tx>, body: String) -> Result<String, String> {
///     tx.put("last", &body).map_err(|error| error.to_string())?;
///     Ok("ordered".to_owned())
/// }
///
/// # fn routes(edge: Edge) -> Router {
/// let day = Duration::from_secs(24 * 3600);
/// Router::new()
///     .route("/orders", post(order))
///     .layer(IdempotencyKey::new(edge, day, |_, _| Ok("orders".to_owned())))
/// # }
/// ```
#[derive(Clone)]
pub struct IdempotencyKey {
    edge: Edge,
    retention: Duration,
    partition: PartitionOf,
    caller: CallerOf,
    is_required: bool,
    body_bytes_max: usize,
    body_time_max: Duration,
    running: Running,
}

impl IdempotencyKey {
    /// Remembers requests for `retention` by their key. `partition` says which partition a request is executed on, from its head
    /// and body; an error is answered as a bad request.
    ///
    /// A key is remembered **in the partition**: let everything that chooses it be the same in all requests of a key. Another
    /// payload that leads to another partition is another request, and not refused.
    pub fn new(
        edge: Edge,
        retention: Duration,
        partition: impl Fn(&Parts, &Bytes) -> Result<String, String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            edge,
            retention,
            partition: Arc::new(partition),
            caller: Arc::new(|_| Ok(String::new())),
            is_required: true,
            body_bytes_max: 1 << 20,
            body_time_max: Duration::from_secs(30),
            running: Running::default(),
        }
    }

    /// Says who makes a request, so that keys of different callers never meet; an error is answered as it is.
    #[must_use]
    pub fn caller(
        mut self,
        caller: impl Fn(&Parts) -> Result<String, Problem> + Send + Sync + 'static,
    ) -> Self {
        self.caller = Arc::new(caller);
        self
    }

    /// Executes requests without a key too, each as a new one.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.is_required = false;
        self
    }

    /// Most bytes of a body, of requests and of responses. Default: 1 MiB.
    #[must_use]
    pub fn body_bytes_max(mut self, bytes: usize) -> Self {
        self.body_bytes_max = bytes;
        self
    }

    /// How long a body may take to arrive. Default: 30 s.
    #[must_use]
    pub fn body_time_max(mut self, duration: Duration) -> Self {
        self.body_time_max = duration;
        self
    }

    async fn serve<S>(self, service: S, request: HttpRequest) -> Result<HttpResponse, Problem>
    where
        S: Service<HttpRequest, Response = HttpResponse, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send,
    {
        let (parts, content) = request.into_parts();
        let caller = (self.caller)(&parts)?;
        let key = match self.key(&parts)? {
            Some(key) => format!("{}/{key}", blake3::hash(caller.as_bytes()).to_hex()),
            None => format!("none/{}", crate::RequestId::random()),
        };
        // In memory as a whole: the routes below take it as they like, and may be asked more than once.
        let mut arrival = Arrival::begin(&parts.headers, content, self.body_bytes_max, self.body_time_max)?;
        let body = arrival.whole().await?;
        let bad = |reason: String| Problem::new(ProblemKind::BadRequest, reason);
        let partition = (self.partition)(&parts, &body).map_err(bad)?;
        let payload = payload(&parts, &body);
        let Some(_running) = self.running.begin(&partition, &key) else {
            let detail = "the first request with this Idempotency-Key is being executed: ask again";
            return Err(Problem::new(ProblemKind::InProgress, detail));
        };
        let bytes_max = self.body_bytes_max;
        let handler = move |tx: Tx| {
            let mut parts = parts.clone();
            parts.extensions.insert(tx);
            let request = HttpRequest::from_parts(parts, Body::from(body.clone()));
            let response = service.clone().oneshot(request);
            async move {
                let Ok(response) = response.await;
                Ok(whole(response, bytes_max).await)
            }
        };
        let answered = execute(&self.edge, &partition, &key, &payload, self.retention, handler).await;
        let (stored, is_replayed) = answered?;
        Ok(written(&stored, is_replayed))
    }

    /// The key: as the draft has it, a string in quotes, or bare as everybody else does.
    fn key(&self, parts: &Parts) -> Result<Option<String>, Problem> {
        let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else {
            if self.is_required {
                return Err(Problem::new(
                    ProblemKind::KeyMissing,
                    "draw one, and repeat it with the request",
                ));
            }
            return Ok(None);
        };
        let text = value.to_str().ok().map(str::trim).filter(|_| values.next().is_none());
        let text = text.map(|text| {
            let unquoted = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            unquoted.unwrap_or(text)
        });
        match text {
            Some(key) if !key.is_empty() && key.len() <= KEY_BYTES_MAX && !key.contains(['"', '\\']) => {
                Ok(Some(key.to_owned()))
            }
            _ => {
                let detail = format!("an Idempotency-Key is one string of 1 to {KEY_BYTES_MAX} characters");
                Err(Problem::new(ProblemKind::BadRequest, detail))
            }
        }
    }
}

/// What makes a request the same one: each part with its length before it, so that no two requests have the same.
fn payload(parts: &Parts, body: &Bytes) -> Vec<u8> {
    // Nested routers take their part of the path away.
    let uri = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |OriginalUri(uri)| uri);
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    let content_type = parts.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let mut payload = Vec::new();
    for part in [parts.method.as_str().as_bytes(), target.as_bytes(), content_type, body] {
        payload.extend_from_slice(&(part.len() as u64).to_le_bytes());
        payload.extend_from_slice(part);
    }
    payload
}

/// Reads a handler's response, headers and all, but for those that belong to the connection. One that can't be kept is our own
/// fault and not the caller's.
async fn whole(response: HttpResponse, bytes_max: usize) -> Full {
    kept(response, bytes_max).await.unwrap_or_else(|reason| {
        tracing::error!(reason, "a response can't be kept");
        let detail = "the server can't keep its response to this request; its log says why";
        Full { response: Problem::new(ProblemKind::Broken, detail).response(), headers: Vec::new() }
    })
}

async fn kept(response: HttpResponse, bytes_max: usize) -> Result<Full, String> {
    let (parts, content) = response.into_parts();
    let body = Limited::new(content, bytes_max)
        .collect()
        .await
        .map_err(|error| format!("a response has at most {bytes_max} bytes (`body_bytes_max`): {error}"))?;
    let mut headers = Vec::new();
    for (name, value) in &parts.headers {
        if name == CONTENT_TYPE || name == CONTENT_LENGTH || name == TRANSFER_ENCODING {
            continue;
        }
        let value = value.to_str().map_err(|_| format!("the response's header {name} is no text"))?;
        headers.push((name.to_string(), value.to_owned()));
    }
    let media_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    Ok(Full { response: Response::new(parts.status, media_type, body.to_bytes()), headers })
}

fn written(stored: &StoredResponse, is_replayed: bool) -> HttpResponse {
    let mut answer = HttpResponse::new(Body::from(stored.body.clone()));
    let status = stored.head.status();
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    for (name, value) in &stored.head.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    }
    if !stored.head.content_type.is_empty() {
        headers.insert(CONTENT_TYPE, content_type(&stored.head.content_type));
    }
    if status < StatusCode::INTERNAL_SERVER_ERROR {
        headers.insert(TOLLGATE_RESPONSE, STORED);
    }
    if is_replayed {
        headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    answer
}

impl<S> Layer<S> for IdempotencyKey {
    type Service = Idempotent<S>;

    fn layer(&self, service: S) -> Idempotent<S> {
        Idempotent { layer: self.clone(), service }
    }
}

/// What [`IdempotencyKey`] makes of a service.
#[derive(Clone)]
pub struct Idempotent<S> {
    layer: IdempotencyKey,
    service: S,
}

impl<S> Service<HttpRequest> for Idempotent<S>
where
    S: Service<HttpRequest, Response = HttpResponse, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    type Response = HttpResponse;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<HttpResponse, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Each execution asks its own copy of the service.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest) -> Self::Future {
        let (layer, service) = (self.layer.clone(), self.service.clone());
        Box::pin(async move {
            if request.method().is_safe() {
                return service.oneshot(request).await;
            }
            Ok(layer.serve(service, request).await.unwrap_or_else(|problem| refusal(&problem)))
        })
    }
}
