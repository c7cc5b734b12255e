//! The server's side of exactly-once HTTP: what a user puts together, and the types that his functions meet. How a request is
//! stored, executed, read and deleted is in [`exchange`]; how that looks as HTTP is in [`routes`].

mod abandoned;
mod arriving;
mod content;
mod exchange;
mod openapi;
mod request_body;
mod routes;
mod stored_request;
mod tombstones;

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use tollgate::proto::BoxFuture;
use tollgate::{Edge, HandlerError, Tx};

pub use self::abandoned::AbandonedRequest;
use self::exchange::Exchange;
pub use self::request_body::RequestBody;
use self::tombstones::Tombstones;
use crate::problem::{Problem, ProblemKind};
use crate::request_id::RequestId;
use crate::stored_response::Response;

/// Who makes a request. Whoever stored a request is the only one who can execute, read or delete it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller(String);

impl Caller {
    /// A caller, by whatever name tells him from all others.
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
pub struct Request {
    /// Its id.
    pub id: RequestId,
    /// Who stored it.
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
    /// As for [`RequestBody::read_json`], to be returned from the handler: what is no `T` is refused for good.
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
/// # fn routes(edge: Edge) -> axum::Router {
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
    /// Serves requests below the path `base`, in the name of the edge's endpoint. Requests are stored under both names: never
    /// change one of them while requests are stored.
    ///
    /// `partition` says which partition a request is to be executed on; a permanent error is answered as a bad request, a retry with
    /// 503. It is asked when the body has arrived, and its answer is stored with the request. `handler` executes a request; it may run more than once, but commits at most once. What it
    /// returns is the response, for good; [`HandlerError::Permanent`] is a response too (422, a problem) and drops its
    /// changes, [`HandlerError::Retry`] is answered with 503, and nothing is remembered.
    pub fn new<P, Q, H, F>(edge: Edge, base: impl Into<String>, partition: P, handler: H) -> Self
    where
        P: Fn(Request) -> Q + Send + Sync + 'static,
        Q: Future<Output = Result<String, HandlerError>> + Send + 'static,
        H: Fn(Tx, Request) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Response, HandlerError>> + Send + 'static,
    {
        let exchange = Exchange {
            edge,
            partition: Arc::new(move |request| Box::pin(partition(request))),
            handler: Arc::new(move |tx, request| Box::pin(handler(tx, request))),
            authenticate: Arc::new(|_: &Parts| Box::pin(async { Ok(Caller::new("")) })),
            base: base.into().trim_end_matches('/').to_owned(),
            limits: Limits::default(),
            accepted: None,
            tombstones: Tombstones::new(TOMBSTONES_DEFAULT),
        };
        Self { exchange: Arc::new(exchange) }
    }

    /// Says who makes a request, from its method, path and headers; an error is answered as it is. Without this every caller is
    /// the same one, and an id is all that protects a request.
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

    /// Bodies of requests and responses with more bytes than this are kept in blob storage, if the gate has one; so is what the store
    /// would not take in an item. Such a body of a request is never held in memory while it arrives. Default: 64 KiB.
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

    /// Over how many partitions stored requests are spread; two requests on the same one may have to wait for each other.
    /// Never change it while requests are stored. Default: 256.
    #[must_use]
    pub fn shelves(self, shelves: u16) -> Self {
        self.with(|exchange| exchange.limits.shelves = shelves.max(1))
    }

    /// Lists stored requests in their shelves, so that [`ExactlyOnce::abandoned`] finds them. Each `PUT` and `DELETE` writes a
    /// list of its shelf's requests then: choose enough shelves for a hundred or so on each. Never change it while requests
    /// are stored.
    #[must_use]
    pub fn tracked(self) -> Self {
        self.with(|exchange| exchange.limits.is_tracked = true)
    }

    /// Of how many deleted requests this process remembers that they were: `POST` is answered with 410 then, with 404
    /// otherwise; and a copy of a `PUT` that was held up is not stored again. Default: 100,000, about 32 bytes each.
    #[must_use]
    pub fn tombstones(self, requests: usize) -> Self {
        self.with(|exchange| exchange.tombstones = Tombstones::new(requests))
    }

    /// Says in the OpenAPI description what bodies have to look like: their media type, and a JSON schema. What they do look like is
    /// for the function that chooses the partition to check. Without this any body is described.
    #[must_use]
    pub fn describe_body(self, media_type: impl Into<String>, schema: serde_json::Value) -> Self {
        let accepted = openapi::Accepted { media_type: media_type.into(), schema };
        self.with(|exchange| exchange.accepted = Some(accepted))
    }

    /// The routes.
    pub fn router(&self) -> axum::Router {
        routes::router(&self.exchange, &self.openapi())
    }

    /// The OpenAPI 3.1 description of the routes, as JSON. It is also served at `/{base}/openapi.json`.
    pub fn openapi(&self) -> serde_json::Value {
        let exchange = &self.exchange;
        openapi::describe(&exchange.base, exchange.limits.body_bytes_max, exchange.accepted.as_ref())
    }

    fn with(mut self, change: impl FnOnce(&mut Exchange)) -> Self {
        let exchange = Arc::make_mut(&mut self.exchange);
        change(exchange);
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
    shelves: u16,
    is_tracked: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 4 << 20,
            inline_bytes_max: 64 << 10,
            read_bytes_max: 4 << 20,
            body_time_max: Duration::from_secs(30),
            shelves: 256,
            is_tracked: false,
        }
    }
}

/// The answer to whoever asks for what is not his or not there: the same, so that nobody learns what is.
fn unknown(id: RequestId) -> Problem {
    Problem::new(ProblemKind::UnknownId, format!("no request {id} is stored for this caller"))
}
