//! The exchange as HTTP: methods, headers, bodies within their limits, and problems as answers. What is done is in
//! [`super::exchange`].

use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request as HttpRequest, State};
use axum::response::Response as HttpResponse;
use axum::routing::{get, put};
use bytes::Bytes;
use futures_util::future::{Either, select};
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_MATCH};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::arriving::Sender;
use super::content::Content;
use super::exchange::{Answered, Exchange, Meant, Stored, failed};
use super::stored_request::fingerprint_of;
use super::{Caller, Response};
use crate::body::{self, Arrival, Begun};
use crate::problem::{Problem, ProblemKind};
use crate::request_id::RequestId;
use crate::{IDEMPOTENT_REPLAYED, STORED, TOLLGATE_RESPONSE};

pub(super) fn router(exchange: &Arc<Exchange>, description: &serde_json::Value) -> Router {
    let base = &exchange.base;
    let described = Response::json(description).expect("a description is JSON");
    let described = move || std::future::ready(body::written(&described));
    let requests = put(store).post(execute).get(read).delete(remove).fallback(wrong_method);
    Router::new()
        .route(&format!("{base}/openapi.json"), get(described).fallback(wrong_method_of_description))
        .route(&format!("{base}/{{id}}"), requests)
        .with_state(Arc::clone(exchange))
}

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

async fn store(State(exchange): State<Arc<Exchange>>, path: RawId, request: HttpRequest) -> Answer {
    let (parts, content) = request.into_parts();
    let (id, caller) = admit(&exchange, path, &parts).await?;
    let content_type = body::media_type(&parts.headers)?;
    let sender = Sender { id, caller, content_type };
    let limits = exchange.limits;
    let mut arrival = Arrival::begin(&parts.headers, content, limits.body_bytes_max, limits.body_time_max)?;
    let stored = match arrival.up_to(exchange.held_bytes_max()).await? {
        Begun::Whole(body) => exchange.store(sender, body).await?,
        Begun::Large(beginning) => store_arriving(&exchange, sender, beginning, arrival).await?,
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

/// Stores what the connection goes on reading. If the connection breaks, nobody is there any more who would be answered; what was
/// begun is tidied up all the same.
async fn store_arriving(
    exchange: &Arc<Exchange>,
    sender: Sender,
    beginning: Bytes,
    arrival: Arrival,
) -> Result<Stored, Problem> {
    let id = sender.id;
    let (content, pump) = Content::of(beginning, arrival, fingerprint_of(&sender.content_type));
    let storing = exchange.edge.to_its_end(Arc::clone(exchange).store_arriving(sender, content));
    let stored = match select(pin!(storing), pin!(pump.run())).await {
        Either::Left((stored, _)) => stored,
        Either::Right(((), storing)) => storing.await,
    };
    stored.map_err(|error| failed(id, &error))?
}

async fn execute(State(exchange): State<Arc<Exchange>>, path: RawId, request: HttpRequest) -> Answer {
    let (parts, _) = request.into_parts();
    let (id, caller) = admit(&exchange, path, &parts).await?;
    let answered = exchange.execute(id, &caller, meant(&parts.headers)?.as_ref()).await?;
    Ok(stored_response(answered))
}

async fn read(State(exchange): State<Arc<Exchange>>, path: RawId, request: HttpRequest) -> Answer {
    let (parts, _) = request.into_parts();
    let (id, caller) = admit(&exchange, path, &parts).await?;
    let answered = exchange.read(id, &caller, meant(&parts.headers)?.as_ref()).await?;
    Ok(stored_response(answered))
}

async fn remove(State(exchange): State<Arc<Exchange>>, path: RawId, request: HttpRequest) -> Answer {
    let (parts, _) = request.into_parts();
    let (id, caller) = admit(&exchange, path, &parts).await?;
    exchange.delete(id, &caller, meant(&parts.headers)?.as_ref()).await?;
    let mut response = HttpResponse::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
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

type RawId = Result<Path<String>, axum::extract::rejection::PathRejection>;

/// Who asks for what. Whoever is not known learns nothing about ids.
async fn admit(exchange: &Exchange, path: RawId, parts: &Parts) -> Result<(RequestId, Caller), Problem> {
    let caller = (exchange.authenticate)(parts).await?;
    let id = path.ok().and_then(|Path(text)| text.parse().ok());
    let id = id.ok_or_else(|| Problem::new(ProblemKind::InvalidId, crate::InvalidRequestId.to_string()))?;
    Ok((id, caller))
}

/// The entity tags of `If-Match`. `None`: any will do.
fn meant(headers: &HeaderMap) -> Result<Option<Meant>, Problem> {
    let malformed = || Problem::new(ProblemKind::BadRequest, "If-Match is not a list of entity tags");
    let mut tags = Vec::new();
    for value in headers.get_all(IF_MATCH) {
        let text = value.to_str().map_err(|_| malformed())?;
        // Empty elements of a list are to be ignored (RFC 9110, 5.6.1.2); a list of nothing else means no request at all.
        for tag in text.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
            if tag == "*" {
                return Ok(None);
            }
            // A proxy that compresses makes tags weak.
            let quoted = tag.strip_prefix("W/").unwrap_or(tag);
            let opaque = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            let opaque = opaque.filter(|opaque| !opaque.contains('"')).ok_or_else(malformed)?;
            tags.push(opaque.to_owned());
        }
    }
    Ok(if headers.contains_key(IF_MATCH) { Some(Meant(tags)) } else { None })
}

fn stored_response(answered: Answered) -> HttpResponse {
    let Answered { response, blob, replayed } = answered;
    let length = blob.as_ref().map_or(response.body.len() as u64, |(length, _)| *length);
    // Whatever a handler thinks: these have no body, and a length without one would confuse the connection.
    let is_bodiless = matches!(response.head.status, 204 | 304);
    let content = match blob {
        _ if is_bodiless => Body::empty(),
        None => Body::from(response.body),
        Some((_, content)) => Body::from_stream(content),
    };
    let mut answer = HttpResponse::new(content);
    *answer.status_mut() = response.head.status();
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, body::content_type(&response.head.content_type));
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
