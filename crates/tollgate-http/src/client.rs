//! The client's side of exactly-once HTTP: calls as side effects of a handler. `PUT` prepares, `POST` publishes, `GET` fetches the
//! response for the message that follows up, `DELETE` cleans up before that message's token is consumed. In which order and how
//! often is decided by Tollgate's engine; what travels over the network is [`transport`]'s business.

mod transport;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, IF_MATCH, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tollgate::proto::{AttachedEffect, BoxFuture, EffectError, EffectKind, EffectName, MessageId};
use tollgate::{Message, SideEffect, TollgateError, Tx};

pub use self::transport::{Reqwest, Transport, TransportError};
use crate::TOLLGATE_RESPONSE;
use crate::frame;
use crate::problem::{NAMESPACE, PROBLEM_JSON};
use crate::request_id::RequestId;
use crate::stored_response::Response;

/// The kind of side effect that calls are.
pub const HTTP_CALL: &str = "http-call";

/// Longest time that a step takes with all its repetitions, unless something else is said: shorter than an attempt may take, so
/// that nothing is created after its deadline.
const STEP_TIME_MAX: Duration = Duration::from_secs(40);

/// Longest time for which a server is left alone because it says so (`Retry-After`).
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// First wait before a repetition; it doubles each time.
const BACKOFF_FIRST: Duration = Duration::from_millis(40);

/// Most doublings of the wait.
const BACKOFF_DOUBLINGS_MAX: u32 = 7;

/// Most servers of which it is remembered that they want to be left alone.
const SERVERS_MAX: usize = 1_024;

/// What is to be asked of another system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    content_type: String,
    body: Bytes,
}

impl Call {
    /// Any body.
    pub fn new(content_type: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { content_type: content_type.into(), body: body.into() }
    }

    /// JSON.
    ///
    /// # Errors
    /// If the value can't be written as JSON.
    pub fn json(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self::new("application/json", serde_json::to_vec(value)?))
    }
}

/// Calls from handlers: what [`Tx`] can do with a gate that knows [`HttpCalls`].
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use tollgate::{HandlerError, Message, Tx};
/// use tollgate_http::client::{Call, HttpCall};
///
/// #[derive(Serialize, Deserialize)]
/// struct Bill { account: String, cents: u64 }
/// # impl Message for Bill { const TYPE: &'static str = "shop.bill"; }
///
/// #[derive(Serialize, Deserialize)]
/// struct Billed;
/// # impl Message for Billed { const TYPE: &'static str = "shop.billed"; }
///
/// async fn bill(tx: Tx, bill: Bill) -> Result<(), HandlerError> {
///     // Paid exactly once, if and only if this handler commits; then `Billed` comes to this partition.
///     tx.call("https://bank.example/payments", Call::json(&bill)?, &Billed).await?;
///     Ok(())
/// }
///
/// async fn billed(tx: Tx, _: Billed) -> Result<(), HandlerError> {
///     let response = tx.response()?.expect("whatever follows up a call carries its response");
///     tx.put("paid", &response.status().is_success())?;
///     Ok(())
/// }
/// ```
pub trait HttpCall {
    /// Calls the exactly-once server at `url` (its base, without an id) if this handler commits. The message `follow_up` comes to
    /// the same endpoint and partition then, with the response.
    ///
    /// # Errors
    /// As for [`Tx::prepare`]: the server can't be reached or does not know us. What it says for good, even if that is a
    /// refusal, is no error here but the response.
    fn call<M: Message + Sync>(
        &self,
        url: &str,
        call: Call,
        follow_up: &M,
    ) -> impl Future<Output = Result<MessageId, TollgateError>> + Send;

    /// As [`HttpCall::call`], with the message going to any endpoint and partition.
    ///
    /// # Errors
    /// As for [`HttpCall::call`].
    fn call_then<M: Message + Sync>(
        &self,
        url: &str,
        call: Call,
        endpoint: &str,
        partition: &str,
        follow_up: &M,
    ) -> impl Future<Output = Result<MessageId, TollgateError>> + Send;

    /// The response that the message being handled follows up. `None`: it follows up no call.
    ///
    /// # Errors
    /// [`TollgateError::RequestRefused`] if it can't be read, which means that the versions on both ends of a queue differ.
    fn response(&self) -> Result<Option<Response>, TollgateError>;
}

impl HttpCall for Tx {
    async fn call<M: Message + Sync>(
        &self,
        url: &str,
        call: Call,
        follow_up: &M,
    ) -> Result<MessageId, TollgateError> {
        let (endpoint, partition) = (self.endpoint().clone(), self.partition().clone());
        self.call_then(url, call, endpoint.as_str(), partition.as_str(), follow_up).await
    }

    async fn call_then<M: Message + Sync>(
        &self,
        url: &str,
        call: Call,
        endpoint: &str,
        partition: &str,
        follow_up: &M,
    ) -> Result<MessageId, TollgateError> {
        let intent = Intent { url: url.to_owned(), content_type: call.content_type };
        let prepared = self.prepare(HTTP_CALL, frame::encode(&intent, &call.body)).await?;
        self.send_with(endpoint, partition, follow_up, vec![prepared]).await
    }

    fn response(&self) -> Result<Option<Response>, TollgateError> {
        let Some(carried) = self.carried(HTTP_CALL) else { return Ok(None) };
        let (head, body): (ResponseHead, Bytes) = frame::decode("response", carried)
            .map_err(|error| TollgateError::RequestRefused { reason: error.to_string() })?;
        let status = StatusCode::from_u16(head.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Ok(Some(Response::new(status, head.content_type, body)))
    }
}

#[derive(Serialize, Deserialize)]
struct Intent {
    url: String,
    content_type: String,
}

/// What travels with the follow-up message.
#[derive(Serialize, Deserialize)]
enum Detail {
    /// The request is stored, as this incarnation.
    Stored { etag: String },
    /// The server will never take it, and this is what it said. The body follows.
    Refused { head: ResponseHead },
}

#[derive(Clone, Serialize, Deserialize)]
struct ResponseHead {
    status: u16,
    content_type: String,
}

/// The kind of side effect that makes the calls: give it to [`tollgate::GateBuilder::side_effect`].
///
/// ```
/// # fn configure(gate: tollgate::GateBuilder) -> tollgate::GateBuilder {
/// use std::sync::Arc;
/// use tollgate_http::client::{HttpCalls, Reqwest};
///
/// gate.side_effect(Arc::new(HttpCalls::new(Reqwest::new())))
/// # }
/// ```
pub struct HttpCalls {
    kind: EffectKind,
    transport: Arc<dyn Transport>,
    headers: Headers,
    attempts: u32,
    time_max: Duration,
    /// Until when a server wants to be left alone, by scheme and authority. Repetitions by the engine respect it too.
    left_alone: Mutex<HashMap<String, Instant>>,
}

/// Headers for calls of a URL.
type Headers = Box<dyn Fn(&str) -> HeaderMap + Send + Sync>;

impl HttpCalls {
    /// Calls over a transport.
    ///
    /// # Panics
    /// Never: the kind's name is a valid one.
    pub fn new(transport: impl Transport) -> Self {
        Self {
            kind: EffectKind::new(HTTP_CALL).expect("the constant is a valid name"),
            transport: Arc::new(transport),
            headers: Box::new(|_| HeaderMap::new()),
            attempts: 4,
            time_max: STEP_TIME_MAX,
            left_alone: Mutex::default(),
        }
    }

    /// Adds headers to every call, by its URL: the credentials that the server asks for.
    #[must_use]
    pub fn headers(mut self, headers: impl Fn(&str) -> HeaderMap + Send + Sync + 'static) -> Self {
        self.headers = Box::new(headers);
        self
    }

    /// How often a step is tried in place before its message is put back. Default: 4.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Longest time that a step takes with all its repetitions, whatever the transport does. Keep it below the gate's
    /// `attempt_max`. Default: 40 s.
    #[must_use]
    pub fn time_max(mut self, duration: Duration) -> Self {
        self.time_max = duration;
        self
    }

    /// Sends a request until somebody says something for good.
    async fn send(
        &self,
        name: &EffectName,
        method: Method,
        etag: Option<&str>,
        body: Option<(&str, Bytes)>,
    ) -> Result<http::Response<Bytes>, EffectError> {
        let refused = |reason: String| EffectError::Refused { name: name.clone(), reason };
        let unavailable = |reason: String, retry_after| EffectError::Unavailable {
            name: name.clone(),
            reason,
            retry_after,
        };
        let uri: http::Uri = name.as_str().parse().map_err(|_| refused("it is no URL".to_owned()))?;
        let server =
            format!("{}://{}", uri.scheme_str().unwrap_or(""), uri.authority().map_or("", |a| a.as_str()));
        let end = Instant::now() + self.time_max;
        let mut failures = 0;
        loop {
            if let Some(until) = self.left_alone_until(&server) {
                if until > end {
                    // Waiting here would keep the partition; its message is put back for so long.
                    let reason = "the server has asked to be left alone for a while".to_owned();
                    return Err(unavailable(reason, Some(until - Instant::now())));
                }
                tokio::time::sleep_until(until).await;
            }
            let mut request = http::Request::new(Bytes::new());
            *request.method_mut() = method.clone();
            *request.uri_mut() = uri.clone();
            *request.headers_mut() = (self.headers)(name.as_str());
            if let Some(etag) = etag {
                let etag = HeaderValue::from_str(etag).map_err(|error| refused(error.to_string()))?;
                request.headers_mut().insert(IF_MATCH, etag);
            }
            if let Some((content_type, content)) = &body {
                let value =
                    HeaderValue::from_str(content_type).map_err(|error| refused(error.to_string()))?;
                request.headers_mut().insert(CONTENT_TYPE, value);
                *request.body_mut() = content.clone();
            }
            let reason = match tokio::time::timeout_at(end, self.transport.send(request)).await {
                Ok(Ok(response)) if is_final(&response) => return Ok(response),
                Ok(Ok(response)) => {
                    if let Some(wait) = retry_after(&response) {
                        self.leave_alone(&server, wait);
                    }
                    format!("{method} was answered with {}", response.status())
                }
                Ok(Err(TransportError::TooLarge { bytes_max })) => {
                    let what =
                        format!("the response has more than {bytes_max} bytes: raise the transport's limit");
                    return Err(refused(what));
                }
                Ok(Err(TransportError::Failed { reason })) => reason,
                Err(_) => format!("{method} was not answered within {} s", self.time_max.as_secs_f32()),
            };
            let wait = BACKOFF_FIRST * 2u32.pow(failures.min(BACKOFF_DOUBLINGS_MAX));
            failures += 1;
            if failures >= self.attempts || Instant::now() + wait > end {
                let left_alone = self.left_alone_until(&server).map(|until| until - Instant::now());
                return Err(unavailable(reason, left_alone));
            }
            tracing::debug!(effect = %name, failures, reason, "a call is repeated");
            tokio::time::sleep(wait).await;
        }
    }

    fn left_alone_until(&self, server: &str) -> Option<Instant> {
        let left_alone = self.left_alone.lock().unwrap_or_else(PoisonError::into_inner);
        left_alone.get(server).copied().filter(|until| *until > Instant::now())
    }

    fn leave_alone(&self, server: &str, wait: Duration) {
        let now = Instant::now();
        let mut left_alone = self.left_alone.lock().unwrap_or_else(PoisonError::into_inner);
        left_alone.retain(|_, until| *until > now);
        if left_alone.len() < SERVERS_MAX {
            left_alone.insert(server.to_owned(), now + wait.min(RETRY_AFTER_MAX));
        }
    }

    async fn put(&self, name: &EffectName, intent: &Bytes) -> Result<Bytes, EffectError> {
        let (Intent { content_type, .. }, body) = self.intent(intent)?;
        let response = self.send(name, Method::PUT, None, Some((&content_type, body))).await?;
        let status = response.status();
        if status.is_success() {
            let Some(etag) = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok()) else {
                // Found out before the commit: afterwards nobody could be made to execute anything.
                let reason = format!(
                    "{status} without an ETag is not what an exactly-once server says: correct the URL"
                );
                return Err(EffectError::Refused { name: name.clone(), reason });
            };
            return Ok(frame::encode(&Detail::Stored { etag: etag.to_owned() }, b""));
        }
        // Nothing has happened yet, and an operator can mend it: the message waits, or is dead-lettered with this reason.
        check_credentials(name, &response)?;
        Ok(frame::encode(&Detail::Refused { head: head_of(&response) }, response.body()))
    }

    async fn post(&self, effect: &AttachedEffect) -> Result<(), EffectError> {
        match detail(effect)? {
            (Detail::Refused { .. }, _) => Ok(()),
            (Detail::Stored { etag }, _) => {
                let response = self.send(&effect.name, Method::POST, Some(&etag), None).await?;
                // Even where it says that there is no such request: then somebody was past the follow-up, and cleaned up.
                check_origin(effect, &response)
            }
        }
    }

    async fn get(&self, effect: &AttachedEffect) -> Result<Bytes, EffectError> {
        match detail(effect)? {
            (Detail::Refused { head }, body) => Ok(frame::encode(&head, &body)),
            (Detail::Stored { etag }, _) => {
                let mut response = self.send(&effect.name, Method::GET, Some(&etag), None).await?;
                check_origin(effect, &response)?;
                if response.status() == StatusCode::CONFLICT && !is_stored(&response) {
                    // Stored, and not executed: the server has lost the execution that it had confirmed.
                    response = self.send(&effect.name, Method::POST, Some(&etag), None).await?;
                    check_origin(effect, &response)?;
                }
                Ok(frame::encode(&head_of(&response), response.body()))
            }
        }
    }

    async fn delete(&self, name: &EffectName) -> Result<(), EffectError> {
        let response = self.send(name, Method::DELETE, None, None).await?;
        // Whatever else is refused for good is nothing that could have been stored.
        check_credentials(name, &response)
    }

    fn intent(&self, intent: &Bytes) -> Result<(Intent, Bytes), EffectError> {
        frame::decode("call", intent).map_err(|error| self.invalid(error.to_string()))
    }

    fn invalid(&self, reason: String) -> EffectError {
        EffectError::Invalid { kind: self.kind.clone(), reason }
    }
}

fn detail(effect: &AttachedEffect) -> Result<(Detail, Bytes), EffectError> {
    frame::decode("call", &effect.detail).map_err(|error| {
        let reason = error.to_string();
        EffectError::Refused { name: effect.name.clone(), reason }
    })
}

impl SideEffect for HttpCalls {
    fn kind(&self) -> &EffectKind {
        &self.kind
    }

    fn register(&self, _unique: &str, intent: &Bytes) -> Result<EffectName, EffectError> {
        let (Intent { url, .. }, _) = self.intent(intent)?;
        let base = url.trim_end_matches('/');
        let is_http = base.parse::<http::Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some()
                && uri.query().is_none()
        });
        if !is_http {
            return Err(self.invalid(format!("{url} is not the base of an exactly-once server")));
        }
        // Whoever knows an id can meddle with the request, so it is drawn at random and not made of names that are known.
        EffectName::new(format!("{base}/{}", RequestId::random()))
            .map_err(|error| self.invalid(error.to_string()))
    }

    fn prepare<'a>(
        &'a self,
        name: &'a EffectName,
        intent: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, EffectError>> {
        Box::pin(async move { self.put(name, &intent).await })
    }

    fn publish<'a>(&'a self, effect: &'a AttachedEffect) -> BoxFuture<'a, Result<(), EffectError>> {
        Box::pin(self.post(effect))
    }

    fn fetch<'a>(&'a self, effect: &'a AttachedEffect) -> BoxFuture<'a, Result<Bytes, EffectError>> {
        Box::pin(self.get(effect))
    }

    fn clean_up<'a>(&'a self, name: &'a EffectName) -> BoxFuture<'a, Result<(), EffectError>> {
        Box::pin(self.delete(name))
    }
}

/// The stored response, whatever its status is.
fn is_stored(response: &http::Response<Bytes>) -> bool {
    response.headers().contains_key(TOLLGATE_RESPONSE)
}

/// Whether asking again would bring nothing new.
fn is_final(response: &http::Response<Bytes>) -> bool {
    let status = response.status();
    let is_passing = status.is_server_error()
        || matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
        );
    is_stored(response) || !is_passing
}

/// Whether the exactly-once server itself says so. Once a request is stored, nobody else's word counts: a proxy's page for
/// a server that is being replaced must not become the response to a payment.
fn check_origin(effect: &AttachedEffect, response: &http::Response<Bytes>) -> Result<(), EffectError> {
    if is_stored(response) {
        return Ok(());
    }
    check_credentials(&effect.name, response)?;
    if is_problem_of_ours(response) {
        return Ok(());
    }
    let reason = format!("somebody else than the server answered with {}", response.status());
    Err(EffectError::Unavailable { name: effect.name.clone(), reason, retry_after: None })
}

/// An error if the refusal is about our credentials and not about the request. That passes when an operator has corrected them,
/// so whatever waits for it goes on waiting, and is no response.
fn check_credentials(name: &EffectName, response: &http::Response<Bytes>) -> Result<(), EffectError> {
    match response.status() {
        status @ (StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::PROXY_AUTHENTICATION_REQUIRED)
            if !is_stored(response) =>
        {
            let reason = format!("the server refuses our credentials with {status}: correct them");
            Err(EffectError::Unavailable { name: name.clone(), reason, retry_after: None })
        }
        _ => Ok(()),
    }
}

/// Whether it is a problem that an exactly-once server tells of.
fn is_problem_of_ours(response: &http::Response<Bytes>) -> bool {
    #[derive(Deserialize)]
    struct Kind {
        r#type: String,
    }
    let is_problem = response.headers().get(CONTENT_TYPE).is_some_and(|value| value == PROBLEM_JSON);
    is_problem
        && serde_json::from_slice(response.body()).is_ok_and(|Kind { r#type }| r#type.starts_with(NAMESPACE))
}

/// How long the server wants us to wait: in seconds, or until a date by our clock.
fn retry_after(response: &http::Response<Bytes>) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

fn head_of(response: &http::Response<Bytes>) -> ResponseHead {
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    ResponseHead {
        status: response.status().as_u16(),
        content_type: content_type.unwrap_or_default().to_owned(),
    }
}
