//! The client's side of exactly-once HTTP: calls as side effects of a handler. `PUT` prepares, `POST`
//! publishes, `GET` fetches the response for the message that follows up, `DELETE` cleans up before that
//! message's token is consumed. Tollgate's engine decides about their order and repetition; `steps` has
//! what each makes of an answer, `answers` what an answer means, and `transport` the network.

mod answers;
mod guard;
mod sending;
mod steps;
mod transport;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use tollgate::proto::{AttachedEffect, BoxFuture, EffectError, EffectKind, EffectName, MessageId};
use tollgate::{Message, SideEffect, TollgateError, Tx};

use self::sending::LeftAlone;
use self::steps::{Odd, PATIENCE_DEFAULT};
pub use self::transport::{Reqwest, Transport, TransportError};
use crate::frame;
use crate::request_id::RequestId;
use crate::stored_response::Response;

/// The kind of side effect that calls are.
pub const HTTP_CALL: &str = "http-call";

/// Longest time that a step takes with all its repetitions, unless something else is said: shorter than an
/// attempt may take, so that nothing is created after its deadline.
const STEP_TIME_MAX: Duration = Duration::from_secs(40);

/// A request to another system.
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
///     let response = tx.response()?.expect("a follow-up carries the response of its call");
///     tx.put("paid", &response.status().is_success())?;
///     Ok(())
/// }
/// ```
pub trait HttpCall {
    /// Calls the exactly-once server at `url` (its base, without an id) if this handler commits. The message
    /// `follow_up` comes to the same endpoint and partition then, with the response.
    ///
    /// Never put a password into the URL: such URLs are refused, because URLs are stored and logged. See
    /// [`HttpCalls::headers`].
    ///
    /// # Errors
    /// As for [`Tx::prepare`]: the server can't be reached or does not know us. Its final word, even if that
    /// is a refusal, is no error here but the response.
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
    patience: Duration,
    /// Repetitions by the engine respect it too.
    left_alone: LeftAlone,
    odd: Odd,
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
            patience: PATIENCE_DEFAULT,
            left_alone: LeftAlone::default(),
            odd: Odd::default(),
        }
    }

    /// Adds headers to every call, by its URL: the credentials that the server asks for, and no other.
    #[must_use]
    pub fn headers(mut self, headers: impl Fn(&str) -> HeaderMap + Send + Sync + 'static) -> Self {
        self.headers = Box::new(headers);
        self
    }

    /// Tries of a step in place before its message is put back. Default: 4.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Longest time that a step takes with all its repetitions, whatever the transport does. Keep it below
    /// the gate's `attempt_max`. Default: 40 s.
    #[must_use]
    pub fn time_max(mut self, duration: Duration) -> Self {
        self.time_max = duration;
        self
    }

    /// Longest time for which pages of a proxy (3xx, 4xx) that answer `DELETE` are taken for a passing fault;
    /// then the clean-up is given up with an error in the log, and the server may keep the request. Default:
    /// an hour.
    #[must_use]
    pub fn patience(mut self, duration: Duration) -> Self {
        self.patience = duration;
        self
    }

    fn intent(&self, intent: &Bytes) -> Result<(Intent, Bytes), EffectError> {
        frame::decode("call", intent).map_err(|error| self.invalid(error.to_string()))
    }

    fn invalid(&self, reason: String) -> EffectError {
        EffectError::Invalid { kind: self.kind.clone(), reason }
    }
}

impl SideEffect for HttpCalls {
    fn kind(&self) -> &EffectKind {
        &self.kind
    }

    fn register(&self, _unique: &str, intent: &Bytes) -> Result<EffectName, EffectError> {
        let (Intent { url, .. }, _) = self.intent(intent)?;
        let base = url.trim_end_matches('/');
        let uri = base.parse::<http::Uri>().ok().filter(|uri| uri.host().is_some() && uri.query().is_none());
        // The reasons don't have the URL in them, which may have a secret in it.
        let no_base = || self.invalid("its URL is not the base of an exactly-once server".to_owned());
        let uri = uri.ok_or_else(no_base)?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") if self.transport.has_tls() => {}
            Some("https") => {
                let what =
                    "its URL is https, and the client is built without TLS: enable the feature client-tls";
                return Err(self.invalid(what.to_owned()));
            }
            _ => return Err(no_base()),
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            let what =
                "its URL has credentials in it, and URLs are stored and logged: use `HttpCalls::headers`";
            return Err(self.invalid(what.to_owned()));
        }
        // An id that can be guessed would let others meddle with the request: it is drawn at random and not
        // made of known names.
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
