//! The exchange as HTTP: paths, methods, headers, statuses.

use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{OriginalUri, RawPathParams, Request as HttpRequest, State};
use axum::middleware::map_response;
use axum::response::Response as HttpResponse;
use axum::routing::{get, put};
use bytes::Bytes;
use futures_util::future::{Either, select};
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH,
    IF_NONE_MATCH,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tollgate::Claim;

use super::Response;
use super::content::Content;
use super::exchange::{Answered, Asked, Exchange, Stored};
use super::refusals::failed;
use super::stored_request::{Sender, fingerprint_of};
use crate::body::{self, Arrival, Begun};
use crate::problem::{Problem, ProblemKind};
use crate::{IDEMPOTENT_REPLAYED, STORED, TOLLGATE_RESPONSE};

/// The routes, which keep the claim on the server's names.
pub(super) fn router(exchange: &Arc<Exchange>, claim: Claim) -> Router {
    let base = &exchange.base;
    let requests = put(store).post(execute).get(read).delete(remove).fallback(wrong_method);
    let served = Arc::new(Served { exchange: Arc::clone(exchange), _claim: claim });
    Router::new()
        .route(&format!("{base}/openapi.json"), get(describe).fallback(wrong_method_of_description))
        .route(&format!("{base}/{{id}}"), requests)
        .layer(map_response(never_stored))
        .with_state(served)
}

/// A server whose names are claimed as long as it has routes.
struct Served {
    exchange: Arc<Exchange>,
    _claim: Claim,
}

/// Keeps caches from answering in the server's place: neither a refusal nor a response is the same for every
/// caller.
async fn never_stored(mut response: HttpResponse) -> HttpResponse {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn describe(State(served): Shared, request: HttpRequest) -> HttpResponse {
    let (parts, _) = request.into_parts();
    let description = served.exchange.described(&mount(&parts));
    body::written(&Response::json(&description).expect("a description is JSON"))
}

type Shared = State<Arc<Served>>;

type Answer = Result<HttpResponse, Refusal>;

/// A problem on its way out.
struct Refusal(Problem);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl axum::response::IntoResponse for Refusal {
    fn into_response(self) -> HttpResponse {
        body::refusal(&self.0)
    }
}

async fn store(State(served): Shared, path: RawId, request: HttpRequest) -> Answer {
    let exchange = &served.exchange;
    let (parts, content) = request.into_parts();
    let asked = admit(exchange, path, &parts).await?;
    check_whole(&parts.headers)?;
    check_conditions(exchange, &asked, &parts.headers).await?;
    let content_type = body::media_type(&parts.headers)?;
    let Asked { id, caller, mount, .. } = asked;
    let sender = Sender { id, caller, mount, content_type };
    let (bytes_max, time_max) = (exchange.body_bytes_max(), exchange.limits.body_time_max);
    let mut arrival = Arrival::begin(&parts.headers, content, bytes_max, time_max)?;
    let stored = match arrival.up_to(exchange.held_bytes_max()).await? {
        Begun::Whole(body) => exchange.store(sender, body).await?,
        Begun::Large(beginning) => store_upload(exchange, sender, beginning, arrival).await?,
    };
    let (status, incarnation) = match &stored {
        Stored::New { incarnation } => (StatusCode::CREATED, incarnation),
        Stored::Again { incarnation } => (StatusCode::OK, incarnation),
    };
    let mut response = HttpResponse::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(ETAG, etag(incarnation));
    if status == StatusCode::OK {
        response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// Refuses a body that is a part of one (RFC 9110, 14.5), or is encoded: it is stored and given to the
/// handler as it is.
fn check_whole(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.contains_key(CONTENT_RANGE) {
        return Err(Problem::new(
            ProblemKind::BadRequest,
            "a request is stored as a whole: no Content-Range",
        ));
    }
    let is_identity = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(CONTENT_ENCODING).iter().all(is_identity) {
        return Ok(());
    }
    Err(Problem::new(ProblemKind::UnsupportedEncoding, "send the body without a Content-Encoding"))
}

/// Checks the conditions of a `PUT`, if it has any.
async fn check_conditions(exchange: &Exchange, asked: &Asked, headers: &HeaderMap) -> Result<(), Problem> {
    let is_there = headers.contains_key(IF_MATCH);
    let none_match = tags(headers, &IF_NONE_MATCH)?;
    if !is_there && none_match.is_none() {
        return Ok(());
    }
    let none_match = none_match.map(Tags::listed);
    exchange.check_conditions(asked, is_there, none_match.as_deref()).await
}

/// Stores the rest that the connection is still reading. A broken connection gets no answer; what was begun
/// is tidied up all the same.
async fn store_upload(
    exchange: &Arc<Exchange>,
    sender: Sender,
    beginning: Bytes,
    arrival: Arrival,
) -> Result<Stored, Problem> {
    let id = sender.id;
    let (content, pump) = Content::of(beginning, arrival, fingerprint_of(&sender.content_type));
    let storing = exchange.edge.to_its_end(Arc::clone(exchange).store_upload(sender, content));
    let stored = match select(pin!(storing), pin!(pump.run())).await {
        Either::Left((stored, _)) => stored,
        Either::Right(((), storing)) => storing.await,
    };
    stored.map_err(|error| failed(id, &error))?
}

async fn execute(State(served): Shared, path: RawId, request: HttpRequest) -> Answer {
    let exchange = &served.exchange;
    let (parts, _) = request.into_parts();
    let asked = admit(exchange, path, &parts).await?;
    demand_tag(exchange, &asked)?;
    Ok(stored_response(exchange.execute(&asked).await?))
}

async fn read(State(served): Shared, path: RawId, request: HttpRequest) -> Answer {
    let exchange = &served.exchange;
    let (parts, _) = request.into_parts();
    let asked = admit(exchange, path, &parts).await?;
    demand_tag(exchange, &asked)?;
    let known = tags(&parts.headers, &IF_NONE_MATCH)?;
    let answered = exchange.read(&asked).await?;
    let incarnation = &answered.response.head.answers;
    let has_it = match known {
        None => false,
        Some(Tags::Any) => true,
        Some(Tags::Listed(tags)) => tags.contains(incarnation),
    };
    if has_it {
        let mut response = HttpResponse::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response.headers_mut().insert(ETAG, etag(incarnation));
        response.headers_mut().insert(TOLLGATE_RESPONSE, STORED);
        return Ok(response);
    }
    Ok(stored_response(answered))
}

async fn remove(State(served): Shared, path: RawId, request: HttpRequest) -> Answer {
    let exchange = &served.exchange;
    let (parts, _) = request.into_parts();
    let asked = admit(exchange, path, &parts).await?;
    exchange.delete(&asked).await?;
    let mut response = HttpResponse::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// Refuses a request that does not name its incarnation, where the server demands it.
fn demand_tag(exchange: &Exchange, asked: &Asked) -> Result<(), Problem> {
    if exchange.limits.if_match_required && asked.meant.is_none() {
        let detail = "send If-Match with the ETag of the PUT that stored the request";
        return Err(Problem::new(ProblemKind::PreconditionRequired, detail));
    }
    Ok(())
}

async fn wrong_method() -> HttpResponse {
    not_allowed("PUT, POST, GET, HEAD, DELETE")
}

async fn wrong_method_of_description() -> HttpResponse {
    not_allowed("GET, HEAD")
}

fn not_allowed(methods: &'static str) -> HttpResponse {
    let problem = Problem::new(ProblemKind::MethodNotAllowed, format!("use one of {methods}"));
    let mut answer = body::refusal(&problem);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    answer
}

type RawId = Result<RawPathParams, axum::extract::rejection::RawPathParamsRejection>;

/// Identifies the caller and the request. A caller that is not known learns nothing about ids.
async fn admit(exchange: &Exchange, path: RawId, parts: &Parts) -> Result<Asked, Problem> {
    let caller = (exchange.authenticate)(parts).await?;
    // A router above may have parameters of its own.
    let last = path.ok().and_then(|params| params.iter().last().map(|(_, value)| value.to_owned()));
    let id = last.and_then(|text| text.parse().ok());
    let id = id.ok_or_else(|| Problem::new(ProblemKind::InvalidId, crate::InvalidRequestId.to_string()))?;
    let meant = tags(&parts.headers, &IF_MATCH)?.and_then(|tags| match tags {
        Tags::Any => None,
        Tags::Listed(tags) => Some(tags),
    });
    Ok(Asked { id, caller, mount: mount(parts), meant })
}

/// The path below which the server is nested in another router.
fn mount(parts: &Parts) -> String {
    let original = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |OriginalUri(uri)| uri);
    original.path().strip_suffix(parts.uri.path()).unwrap_or_default().to_owned()
}

/// Entity tags of a condition.
enum Tags {
    /// `*`.
    Any,
    Listed(Vec<String>),
}

impl Tags {
    /// The tags. Empty: any.
    fn listed(self) -> Vec<String> {
        match self {
            Self::Any => Vec::new(),
            Self::Listed(tags) => tags,
        }
    }
}

/// The entity tags of `If-Match` or `If-None-Match`. `None`: there is no such header.
fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, Problem> {
    let malformed = || Problem::new(ProblemKind::BadRequest, format!("{name} is not a list of entity tags"));
    let mut tags = Vec::new();
    for value in headers.get_all(name) {
        let text = value.to_str().map_err(|_| malformed())?;
        // Empty elements of a list are ignored (RFC 9110, 5.6.1.2); a list of nothing else means no request
        // at all.
        for tag in text.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
            if tag == "*" {
                return Ok(Some(Tags::Any));
            }
            // A proxy that compresses makes tags weak.
            let quoted = tag.strip_prefix("W/").unwrap_or(tag);
            let opaque = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            let opaque = opaque.filter(|opaque| !opaque.contains('"')).ok_or_else(malformed)?;
            tags.push(opaque.to_owned());
        }
    }
    Ok(headers.contains_key(name).then_some(Tags::Listed(tags)))
}

fn stored_response(answered: Answered) -> HttpResponse {
    let Answered { response, blob, replayed } = answered;
    let length = blob.as_ref().map_or(response.body.len() as u64, |(length, _)| *length);
    // These have no body, even if the handler has given one, and a length without one would confuse the
    // connection.
    let is_bodiless = matches!(response.head.status, 204 | 304);
    let is_reset = response.head.status == 205;
    let length = if is_reset { 0 } else { length };
    let content = match blob {
        _ if is_bodiless || is_reset => Body::empty(),
        None => Body::from(response.body),
        Some((_, content)) => Body::from_stream(content),
    };
    let mut answer = HttpResponse::new(content);
    *answer.status_mut() = response.head.status();
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, body::content_type(&response.head.content_type));
    body::append(headers, &response.head.headers);
    if !is_bodiless {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    headers.insert(ETAG, etag(&response.head.answers));
    headers.insert(TOLLGATE_RESPONSE, STORED);
    if replayed {
        headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    answer
}

fn etag(incarnation: &str) -> HeaderValue {
    let tag = Bytes::from(format!("\"{incarnation}\""));
    HeaderValue::from_maybe_shared(tag).expect("an incarnation is made of hexadecimal digits")
}
