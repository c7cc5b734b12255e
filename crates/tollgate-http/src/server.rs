//! The server's side of exactly-once HTTP: its configuration, and the types that a user's functions meet.
//!
//! `exchange` stores, executes and reads a request, `removal` deletes it; `routes` is all that as HTTP.

mod abandoned;
mod content;
mod exchange;
mod names;
mod openapi;
mod refusals;
mod removal;
mod request_body;
mod routes;
mod stored_request;
mod tombstones;
mod uploads;

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use tollgate::proto::{BoxFuture, PartitionKey};
use tollgate::{Edge, HandlerError, TollgateError, Tx};

pub use self::abandoned::AbandonedRequest;
use self::exchange::Exchange;
use self::names::Names;
use self::openapi::Description;
pub use self::request_body::RequestBody;
use self::tombstones::Tombstones;
use crate::problem::Problem;
use crate::request_id::RequestId;
use crate::stored_response::Response;

/// The maker of a request: the only one who can execute, read or delete what it has stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller(String);

impl Caller {
    /// A caller, by a name that no other caller has.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether both are the same, in a time that says nothing about where they differ.
    pub(crate) fn is(&self, other: &str) -> bool {
        // BLAKE3's hashes are compared in constant time.
        blake3::hash(self.0.as_bytes()) == blake3::hash(other.as_bytes())
    }
}

/// A stored request, as the handler gets it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Request {
    /// Its id.
    pub id: RequestId,
    /// The caller that has stored it.
    pub caller: Caller,
    /// The media type of its body.
    pub content_type: String,
    /// Its body: in memory, or a stream.
    pub body: RequestBody,
}

impl Request {
    /// Its body, as JSON.
    ///
    /// # Errors
    /// As for [`RequestBody::read_json`], to be returned from the handler: what is no `T` is refused for
    /// good.
    pub async fn read_json<T: serde::de::DeserializeOwned>(&self) -> Result<T, HandlerError> {
        self.body.read_json().await
    }
}

type Handler = Arc<dyn Fn(Tx, Request) -> BoxFuture<'static, Result<Response, HandlerError>> + Send + Sync>;
type PartitionOf = Arc<dyn Fn(Request) -> BoxFuture<'static, Result<String, HandlerError>> + Send + Sync>;
type Authenticate = Arc<dyn Fn(&Parts) -> BoxFuture<'static, Result<Caller, Problem>> + Send + Sync>;

/// A server of requests that are executed exactly once: `PUT`, `POST`, `GET` and `DELETE` on `/{base}/{id}`.
///
/// ```
/// use tollgate::{Edge, HandlerError, Tx};
/// use tollgate_http::Response;
/// use tollgate_http::server::{ExactlyOnce, Request};
///
/// # fn routes(edge: Edge) -> Result<axum::Router, tollgate::TollgateError> {
/// // `edge` is `gate.edge("payments")?`; the router goes into any axum app.
/// ExactlyOnce::new(
///     edge,
///     "/payments",
///     |request: Request| async move {
///         let payment: serde_json::Value = request.read_json().await?;
///         let account = payment["account"].as_str();
///         Ok(format!("account/{}", account.ok_or_else(|| HandlerError::permanent("it names no account"))?))
///     },
///     |tx: Tx, request: Request| async move {
///         let payment: serde_json::Value = request.read_json().await?;
///         let balance: i64 = tx.get("balance").await?.unwrap_or(0);
///         tx.put("balance", &(balance - payment["cents"].as_i64().unwrap_or(0)))?;
///         Ok(Response::text("paid"))
///     },
/// )
/// .router()
/// # }
/// ```
#[derive(Clone)]
pub struct ExactlyOnce {
    exchange: Arc<Exchange>,
}

impl ExactlyOnce {
    /// Serves requests below the path `base`, in the name of the edge's endpoint. Requests are stored under
    /// both names: never change one of them while requests are stored, or keep the old one with
    /// [`ExactlyOnce::named`].
    ///
    /// `partition` names the partition that a request is executed on; a permanent error is answered as a bad
    /// request, with its reason, a retry with 503. It is asked when the body has arrived, and its answer is
    /// stored with the request.
    ///
    /// `handler` executes a request; it may run more than once, but commits at most once. What it returns is
    /// the response, for good. [`HandlerError::Permanent`] is a response too (422, a problem) and drops its
    /// changes; the caller is told why only if it was made of a [`Problem`] (see [`Problem::refused`]),
    /// otherwise the reason is for the log. [`HandlerError::Retry`] is answered with 503, and nothing is
    /// remembered.
    pub fn new<P, Q, H, F>(edge: Edge, base: impl Into<String>, partition: P, handler: H) -> Self
    where
        P: Fn(Request) -> Q + Send + Sync + 'static,
        Q: Future<Output = Result<String, HandlerError>> + Send + 'static,
        H: Fn(Tx, Request) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Response, HandlerError>> + Send + 'static,
    {
        let base = base.into().trim_end_matches('/').to_owned();
        let limits = Limits::default();
        let names = Names::new(edge.endpoint().as_str(), &base, limits.buckets, limits.bucket_key);
        let exchange = Exchange {
            edge,
            partition: Arc::new(move |request| Box::pin(partition(request))),
            handler: Arc::new(move |tx, request| Box::pin(handler(tx, request))),
            authenticate: Arc::new(|_: &Parts| Box::pin(async { Ok(Caller::new("")) })),
            base,
            name: None,
            names,
            limits,
            description: Description::default(),
            tombstones: Tombstones::new(TOMBSTONES_DEFAULT),
        };
        Self { exchange: Arc::new(exchange) }
    }

    /// Sets the name under which requests are stored, instead of the base path.
    ///
    /// Two servers of one endpoint need two names, also where they are nested at two places with the same
    /// base.
    #[must_use]
    pub fn named(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.with(|exchange| exchange.name = Some(format!("/{name}")))
    }

    /// Identifies the caller from a request's method, path and headers; an error is answered as it is.
    /// Without this every caller is the same one, and an id is all that protects a request.
    #[must_use]
    pub fn authenticate<F>(self, authenticate: impl Fn(&Parts) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Caller, Problem>> + Send + 'static,
    {
        self.with(|exchange| exchange.authenticate = Arc::new(move |parts| Box::pin(authenticate(parts))))
    }

    /// Most bytes of a request's body. Default: 4 MiB.
    #[must_use]
    pub fn body_bytes_max(self, bytes: usize) -> Self {
        self.with(|exchange| exchange.limits.body_bytes_max = bytes)
    }

    /// Bodies of requests and responses with more bytes than this are kept in blob storage, if the gate has
    /// one; so is what the store would not take in an item. Such a body of a request is never held in memory
    /// while it arrives. Default: 64 KiB.
    #[must_use]
    pub fn inline_bytes_max(self, bytes: usize) -> Self {
        self.with(|exchange| exchange.limits.inline_bytes_max = bytes)
    }

    /// Most bytes of a body that [`RequestBody::read`] takes into memory from blob storage. Default: 4 MiB.
    #[must_use]
    pub fn read_bytes_max(self, bytes: usize) -> Self {
        self.with(|exchange| exchange.limits.read_bytes_max = bytes)
    }

    /// How long a body may take to arrive. Keep it below the gate's `attempt_max`. Default: 30 s.
    #[must_use]
    pub fn body_time_max(self, duration: Duration) -> Self {
        self.with(|exchange| exchange.limits.body_time_max = duration)
    }

    /// Number of partitions over which stored requests are spread; two requests in the same one may have to
    /// wait for each other. Never change it while requests are stored. Default: 256.
    #[must_use]
    pub fn buckets(self, buckets: u16) -> Self {
        self.with(|exchange| exchange.limits.buckets = buckets.max(1))
    }

    /// A secret by which requests are spread over the buckets, so that no caller can choose ids that all lie
    /// in one.
    ///
    /// Never change it while requests are stored; all processes need the same. Default: none, ids are spread
    /// by a public hash.
    #[must_use]
    pub fn bucket_key(self, key: [u8; 32]) -> Self {
        self.with(|exchange| exchange.limits.bucket_key = key)
    }

    /// Most stored requests of one caller that are not deleted yet; further ones are answered with 429.
    ///
    /// They are counted in each bucket by itself, so that nothing below the quota is refused; a caller is
    /// refused at the latest at twice the quota and 32 for each bucket. Default: no quota.
    #[must_use]
    pub fn open_requests_max(self, requests: u64) -> Self {
        self.with(|exchange| exchange.limits.open_requests_max = Some(requests))
    }

    /// Number of deleted requests that this process remembers: a late `POST` is answered with 410 then, with
    /// 404 otherwise; and a copy of a `PUT` that was held up is not stored again. Default: 100,000, about 32
    /// bytes each.
    ///
    /// A restart forgets them, and other processes don't know them: see [`ExactlyOnce::remember_deletions`].
    #[must_use]
    pub fn tombstones(self, requests: usize) -> Self {
        self.with(|exchange| exchange.tombstones = Tombstones::new(requests))
    }

    /// Remembers deleted requests in the store for at least `retention`, for all processes and across
    /// restarts.
    ///
    /// A `PUT` of a deleted id is refused for so long (410), so that a client that begins again by mistake
    /// does not have the request executed again. Costs one more read for a new `PUT`, and about 100 bytes for
    /// each deletion until a sweep of the gate has removed it after its time. Default: not.
    #[must_use]
    pub fn remember_deletions(self, retention: Duration) -> Self {
        self.with(|exchange| exchange.limits.tombstone_retention = Some(retention))
    }

    /// Demands `If-Match` with the `ETag` of the client's own `PUT` at `POST` and `GET`, or answers 428.
    ///
    /// A client that sends it can't have a request executed again that was deleted and stored anew. `DELETE`
    /// executes nothing, and may come without.
    #[must_use]
    pub fn require_if_match(self) -> Self {
        self.with(|exchange| exchange.limits.if_match_required = true)
    }

    /// Describes bodies in the OpenAPI description: their media type, and a JSON schema. The function that
    /// chooses the partition checks what they do look like. Without this any body is described.
    #[must_use]
    pub fn describe_body(self, media_type: impl Into<String>, schema: serde_json::Value) -> Self {
        let accepted = openapi::Accepted { media_type: media_type.into(), schema };
        self.with(|exchange| exchange.description.accepted = Some(accepted))
    }

    /// Describes the credentials in the OpenAPI description: the name of a security scheme, and the scheme.
    #[must_use]
    pub fn describe_security(self, name: impl Into<String>, scheme: serde_json::Value) -> Self {
        self.with(|exchange| exchange.description.security = Some((name.into(), scheme)))
    }

    /// Sets title and version of the OpenAPI description.
    #[must_use]
    pub fn describe(self, title: impl Into<String>, version: impl Into<String>) -> Self {
        self.with(|exchange| {
            exchange.description.title = Some(title.into());
            exchange.description.version = Some(version.into());
        })
    }

    /// Builds the routes.
    ///
    /// # Errors
    /// [`TollgateError::Configuration`] if another server on this gate stores its requests under the same names (give one of them
    /// another with [`ExactlyOnce::named`]), or if the base is no path without parameters.
    pub fn router(&self) -> Result<axum::Router, TollgateError> {
        let exchange = &self.exchange;
        let base = &exchange.base;
        if !base.is_empty() && !base.starts_with('/') || base.contains(['{', '}', '*', '?', '#']) {
            let what = format!("{base:?} is no path: it begins with a slash and has no parameters");
            return Err(TollgateError::Configuration(what));
        }
        PartitionKey::new(exchange.names.upload_partition(u16::MAX))?;
        let claim = exchange.edge.claim(exchange.names.prefix())?;
        Ok(routes::router(exchange, claim))
    }

    /// The OpenAPI 3.1 description of the routes, as JSON. It is also served at `/{base}/openapi.json`.
    pub fn openapi(&self) -> serde_json::Value {
        self.exchange.described("")
    }

    fn with(mut self, change: impl FnOnce(&mut Exchange)) -> Self {
        let exchange = Arc::make_mut(&mut self.exchange);
        change(exchange);
        let name = exchange.name.as_ref().unwrap_or(&exchange.base);
        let limits = &exchange.limits;
        exchange.names =
            Names::new(exchange.edge.endpoint().as_str(), name, limits.buckets, limits.bucket_key);
        self
    }
}

/// Deleted requests that are remembered, unless something else is said.
const TOMBSTONES_DEFAULT: usize = 100_000;

#[derive(Clone, Copy, Debug)]
struct Limits {
    body_bytes_max: usize,
    inline_bytes_max: usize,
    read_bytes_max: usize,
    body_time_max: Duration,
    buckets: u16,
    bucket_key: [u8; 32],
    open_requests_max: Option<u64>,
    tombstone_retention: Option<Duration>,
    if_match_required: bool,
}

impl Limits {
    /// Most open requests of a caller in one bucket: twice its share and some more, so that chance refuses
    /// nothing below the quota.
    fn open_in_bucket_max(&self) -> Option<u64> {
        self.open_requests_max.map(|requests| requests * 2 / u64::from(self.buckets) + 32)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 4 << 20,
            inline_bytes_max: 64 << 10,
            read_bytes_max: 4 << 20,
            body_time_max: Duration::from_secs(30),
            buckets: 256,
            bucket_key: [0; 32],
            open_requests_max: None,
            tombstone_retention: None,
            if_match_required: false,
        }
    }
}
