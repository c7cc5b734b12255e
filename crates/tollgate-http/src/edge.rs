//! The edge over HTTP: one request, recognised by its `Idempotency-Key`
//! (draft-ietf-httpapi-idempotency-key-header), executed in one commit with its response. As a layer around
//! axum's routes, and as a plain function for any other server.

mod execution;
mod key;
mod response;
mod running;

use std::convert::Infallible;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{MatchedPath, Request as HttpRequest};
use axum::response::Response as HttpResponse;
use bytes::Bytes;
use http::header::LINK;
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode};
use tollgate::proto::BoxFuture;
use tollgate::{Edge, Tx};
use tower::{Layer, Service, ServiceExt};

use self::execution::{Keyed, Remembered};
pub use self::execution::{Outcome, idempotent, remembered_by_default};
use self::key::{key, payload};
use self::response::Reading;
use self::running::Running;
use crate::body::{Arrival, refusal};
use crate::problem::{Problem, ProblemKind};

/// The header that names a request.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Time for which a request without a key is remembered: until its outcome is certain, whatever happens to
/// its commit.
const KEYLESS_RETENTION: Duration = Duration::from_secs(15 * 60);

type PartitionOf = Arc<dyn Fn(&Parts, &Bytes) -> Result<String, String> + Send + Sync>;
type CallerOf = Arc<dyn Fn(&Parts) -> BoxFuture<'static, Result<String, Problem>> + Send + Sync>;

/// The state of an [`IdempotencyKey`] that knows whose keys they are.
#[derive(Clone, Copy, Debug)]
pub struct Scoped;

/// The state of an [`IdempotencyKey`] that does not know yet whose keys they are: it is no layer.
#[derive(Clone, Copy, Debug)]
pub struct Unscoped;

/// `Idempotency-Key` as a layer: every request of the routes below is executed once for its key. Their
/// handlers find the [`Tx`] among the request's extensions, and must do all their work with it; they may run
/// more than once.
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
/// What was written and sent with a status of 400 and more is dropped. The response is remembered for the
/// retention, and no longer; one that may pass ([`remembered_by_default`]), or that a router gives where
/// there is no route, is not remembered at all.
///
/// Repetitions are answered before the routes below are asked, authentication inside of them included:
/// [`caller`](Self::caller) must say whose keys they are, or [`shared`](Self::shared) that they are
/// everybody's.
///
/// ```
/// use std::time::Duration;
/// use axum::{Extension, Router, routing::post};
/// use tollgate::{Edge, Tx};
/// use tollgate_http::edge::IdempotencyKey;
/// use tollgate_http::{Problem, ProblemKind};
///
/// async fn order(Extension(tx): Extension<Tx>, body: String) -> Result<String, String> {
///     tx.put("last", &body).map_err(|error| error.to_string())?;
///     Ok("ordered".to_owned())
/// }
///
/// # async fn customer_of(token: String) -> Option<String> { Some(token) }
/// # fn routes(edge: Edge) -> Router {
/// let day = Duration::from_secs(24 * 3600);
/// let keys = IdempotencyKey::new(edge, day, |_, _| Ok("orders".to_owned())).caller(|head| {
///     let token = head.headers.get("authorization").and_then(|token| token.to_str().ok()).unwrap_or("").to_owned();
///     async move {
///         let unknown = || Problem::new(ProblemKind::Unauthenticated, "send a bearer token");
///         customer_of(token).await.ok_or_else(unknown)
///     }
/// });
/// Router::new().route("/orders", post(order)).layer(keys)
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct IdempotencyKey<S = Scoped> {
    edge: Edge,
    retention: Duration,
    partition: PartitionOf,
    caller: CallerOf,
    remembered: Remembered,
    is_required: bool,
    body_bytes_max: usize,
    body_time_max: Duration,
    response_time_max: Duration,
    kept_headers: Vec<HeaderName>,
    documentation: Option<HeaderValue>,
    running: Running,
    state: PhantomData<S>,
}

impl IdempotencyKey<Unscoped> {
    /// Remembers requests for `retention` by their key. `partition` names the partition that a request is
    /// executed on, from its head and body; an error is answered as a bad request.
    ///
    /// A key is remembered **in the partition**: let everything that chooses it be the same in all requests
    /// of a key. Another payload that leads to another partition is another request, and not refused.
    pub fn new(
        edge: Edge,
        retention: Duration,
        partition: impl Fn(&Parts, &Bytes) -> Result<String, String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            edge,
            retention,
            partition: Arc::new(partition),
            caller: Arc::new(|_| Box::pin(async { Ok(String::new()) })),
            remembered: Arc::new(remembered_by_default),
            is_required: true,
            body_bytes_max: 1 << 20,
            body_time_max: Duration::from_secs(30),
            response_time_max: Duration::from_secs(30),
            kept_headers: Vec::new(),
            documentation: None,
            running: Running::default(),
            state: PhantomData,
        }
    }

    /// Identifies the caller from the head of a request, so that keys of different callers never meet; an
    /// error is answered as it is.
    pub fn caller<F>(self, caller: impl Fn(&Parts) -> F + Send + Sync + 'static) -> IdempotencyKey
    where
        F: Future<Output = Result<String, Problem>> + Send + 'static,
    {
        let mut scoped = self.shared();
        scoped.caller = Arc::new(move |parts| Box::pin(caller(parts)));
        scoped
    }

    /// Lets all callers share their keys: one that repeats another's key and request gets the other's stored
    /// answer.
    pub fn shared(self) -> IdempotencyKey {
        let Self { edge, retention, partition, caller, remembered, is_required, .. } = self;
        IdempotencyKey {
            edge,
            retention,
            partition,
            caller,
            remembered,
            is_required,
            body_bytes_max: self.body_bytes_max,
            body_time_max: self.body_time_max,
            response_time_max: self.response_time_max,
            kept_headers: self.kept_headers,
            documentation: self.documentation,
            running: self.running,
            state: PhantomData,
        }
    }
}

impl<S> IdempotencyKey<S> {
    /// Executes requests without a key too, each as a new one.
    pub fn optional(mut self) -> Self {
        self.is_required = false;
        self
    }

    /// Decides which responses with a status of 400 and more are remembered. Default:
    /// [`remembered_by_default`].
    pub fn remember(mut self, remembered: impl Fn(StatusCode) -> bool + Send + Sync + 'static) -> Self {
        self.remembered = Arc::new(remembered);
        self
    }

    /// Keeps a header of responses for repetitions although it is for one answer only, e.g. `Set-Cookie`.
    ///
    /// Kept are all but those of the connection, cookies, challenges, `Date`, `Retry-After`, rate limits and
    /// `Access-Control-*`.
    pub fn keep_header(mut self, name: HeaderName) -> Self {
        self.kept_headers.push(name);
        self
    }

    /// Links refusals to the documentation of keys, as the draft wants it: `Link: <url>; rel="describedby"`.
    ///
    /// # Panics
    /// If the URL can't stand in a header.
    pub fn documentation(mut self, url: &str) -> Self {
        let link = HeaderValue::from_str(&format!("<{url}>; rel=\"describedby\""));
        self.documentation = Some(link.expect("a URL has no control characters"));
        self
    }

    /// Most bytes of a body, of requests and of responses. Default: 1 MiB.
    pub fn body_bytes_max(mut self, bytes: usize) -> Self {
        self.body_bytes_max = bytes;
        self
    }

    /// Longest time for a request's body to arrive. Default: 30 s.
    pub fn body_time_max(mut self, duration: Duration) -> Self {
        self.body_time_max = duration;
        self
    }

    /// Longest time for the body of a handler's response. Default: 30 s.
    pub fn response_time_max(mut self, duration: Duration) -> Self {
        self.response_time_max = duration;
        self
    }
}

impl IdempotencyKey {
    async fn serve<S>(&self, service: S, request: HttpRequest) -> Result<HttpResponse, Problem>
    where
        S: Service<HttpRequest, Response = HttpResponse, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send,
    {
        let (parts, content) = request.into_parts();
        if parts.extensions.get::<Tx>().is_some() {
            // The inner one would wait for the partition that the outer one holds.
            tracing::error!(
                path = parts.uri.path(),
                "IdempotencyKey is applied twice to a route: remove one"
            );
            return Err(Problem::new(ProblemKind::Broken, "the server is set up wrongly; its log says why"));
        }
        let caller = (self.caller)(&parts).await?;
        let (key, retention) = match key(&parts.headers)? {
            Some(key) => (format!("{}/{key}", blake3::hash(caller.as_bytes()).to_hex()), self.retention),
            None if self.is_required => {
                let detail = "draw one, and repeat it with the request";
                return Err(Problem::new(ProblemKind::KeyMissing, detail));
            }
            None => (format!("none/{}", crate::RequestId::random()), KEYLESS_RETENTION.min(self.retention)),
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
        let reading = Reading {
            bytes_max: self.body_bytes_max,
            time_max: self.response_time_max,
            listed: self.kept_headers.clone(),
        };
        let is_routed = parts.extensions.get::<MatchedPath>().is_some();
        let handler = move |tx: Tx| {
            let mut parts = parts.clone();
            parts.extensions.insert(tx);
            let request = HttpRequest::from_parts(parts, Body::from(body.clone()));
            let response = service.clone().oneshot(request);
            let reading = reading.clone();
            async move {
                let Ok(response) = response.await;
                Ok(reading.whole(response, is_routed).await)
            }
        };
        let remembered = Arc::clone(&self.remembered);
        let (edge, partition, key, payload) = (&self.edge, &partition, &key, &payload);
        let request = Keyed { edge, partition, key, payload, retention, remembered };
        let (full, is_replayed) = request.execute(handler).await?;
        Ok(full.written(is_replayed))
    }
}

impl<S> Layer<S> for IdempotencyKey {
    type Service = Idempotent<S>;

    fn layer(&self, service: S) -> Idempotent<S> {
        Idempotent { layer: self.clone(), service }
    }
}

/// A service behind an [`IdempotencyKey`].
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
            Ok(layer.serve(service, request).await.unwrap_or_else(|problem| {
                let mut answer = refusal(&problem);
                if let Some(documentation) = &layer.documentation {
                    answer.headers_mut().insert(LINK, documentation.clone());
                }
                answer
            }))
        })
    }
}
