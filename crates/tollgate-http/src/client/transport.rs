//! The network under calls: a trait, so that tests put faults in between, and an implementation over reqwest.
//! It does not know what is called or why; it repeats nothing.

use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tollgate::proto::BoxFuture;

use super::guard::{Allowed, NotPublic, PublicOnly, may_call};

/// Sends HTTP requests, each once.
pub trait Transport: Send + Sync + 'static {
    /// Sends a request, and waits for the whole response.
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, TransportError>>;

    /// Whether it can call `https` URLs. Default: yes.
    fn has_tls(&self) -> bool {
        true
    }
}

/// Why there is no response.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The request or the response was lost, and it is not known which. It is safe to repeat.
    #[error("the server could not be reached: {reason}")]
    #[non_exhaustive]
    Failed {
        /// The causes in a line, outermost first.
        reason: String,
        /// The error below, if there is one.
        #[source]
        source: Option<Arc<dyn Error + Send + Sync>>,
    },
    /// The response is larger than what is taken.
    #[error("the response has more than {bytes_max} bytes")]
    TooLarge {
        /// Most bytes that are taken.
        bytes_max: usize,
    },
    /// Calls don't go to the address.
    #[error("{reason}")]
    Forbidden {
        /// The address, and why.
        reason: String,
    },
}

impl TransportError {
    /// A request or a response that was lost.
    pub fn failed(reason: impl Into<String>) -> Self {
        Self::Failed { reason: reason.into(), source: None }
    }

    /// Whether the same request may succeed later, without a person's doing anything.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }

    fn of(error: reqwest::Error) -> Self {
        // The URL is known, and may have a secret in it.
        let error = error.without_url();
        let causes = || {
            let mut next: Option<&(dyn Error + 'static)> = Some(&error);
            std::iter::from_fn(move || {
                let cause = next?;
                next = cause.source();
                Some(cause)
            })
        };
        if let Some(NotPublic { host }) = causes().find_map(|cause| cause.downcast_ref()) {
            return Self::Forbidden { reason: NotPublic { host: host.clone() }.to_string() };
        }
        let mut reasons: Vec<String> = causes().map(ToString::to_string).collect();
        // Some errors repeat the one below.
        reasons.dedup_by(|below, above| above.contains(below.as_str()));
        Self::Failed { reason: reasons.join(": "), source: Some(Arc::new(error)) }
    }
}

/// The transport over reqwest. It follows no redirects: a call goes where the handler says.
#[derive(Clone)]
pub struct Reqwest {
    client: reqwest::Client,
    bytes_max: usize,
    has_tls: bool,
    /// Addresses that are called although they are not public. `None`: all.
    allowed: Option<Allowed>,
}

impl std::fmt::Debug for Reqwest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Reqwest").field("bytes_max", &self.bytes_max).finish_non_exhaustive()
    }
}

impl Default for Reqwest {
    fn default() -> Self {
        Self::new()
    }
}

impl Reqwest {
    /// With 5 s to connect, 30 s for a whole exchange, and at most 4 MiB of response.
    ///
    /// It calls any address, and obeys the environment's proxies: for URLs that you choose. See
    /// [`Reqwest::public`].
    ///
    /// # Panics
    /// If TLS is a feature and can't be set up.
    pub fn new() -> Self {
        Self { has_tls: cfg!(feature = "client-tls"), ..Self::with_client(build(client())) }
    }

    /// As [`Reqwest::new`], for URLs that come from outside: calls go to public addresses only.
    ///
    /// Loopback, private, link-local and other special addresses are refused, as literals and after a name is
    /// resolved. The environment's proxies are not used.
    ///
    /// # Panics
    /// As for [`Reqwest::new`].
    pub fn public() -> Self {
        Self::public_and(|_| false)
    }

    /// As [`Reqwest::public`], and to the addresses that are allowed.
    ///
    /// # Panics
    /// As for [`Reqwest::new`].
    pub fn public_and(allowed: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        let allowed: Allowed = Arc::new(allowed);
        let client = client().no_proxy().dns_resolver(Arc::new(PublicOnly(Arc::clone(&allowed))));
        let has_tls = cfg!(feature = "client-tls");
        Self { has_tls, allowed: Some(allowed), ..Self::with_client(build(client)) }
    }

    /// With a client that was put together elsewhere. It should not follow redirects.
    pub fn with_client(client: reqwest::Client) -> Self {
        Self { client, bytes_max: 4 << 20, has_tls: true, allowed: None }
    }

    /// Most bytes of a response. They travel with the message that follows up, at most as a blob.
    #[must_use]
    pub fn bytes_max(mut self, bytes: usize) -> Self {
        self.bytes_max = bytes;
        self
    }

    /// Checks a URL whose host is an address; names are checked when they are resolved.
    fn check(&self, url: &reqwest::Url) -> Result<(), TransportError> {
        let Some(allowed) = &self.allowed else { return Ok(()) };
        let host = url.host_str().unwrap_or_default();
        match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) if !may_call(address, allowed) => {
                Err(TransportError::Forbidden { reason: NotPublic { host: host.to_owned() }.to_string() })
            }
            _ => Ok(()),
        }
    }

    async fn exchange(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        let request = reqwest::Request::try_from(request).map_err(TransportError::of)?;
        self.check(request.url())?;
        let mut response = self.client.execute(request).await.map_err(TransportError::of)?;
        let mut answer = http::Response::new(Bytes::new());
        *answer.status_mut() = response.status();
        *answer.headers_mut() = response.headers().clone();
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(TransportError::of)? {
            if body.len() + piece.len() > self.bytes_max {
                return Err(TransportError::TooLarge { bytes_max: self.bytes_max });
            }
            body.extend_from_slice(&piece);
        }
        *answer.body_mut() = body.into();
        Ok(answer)
    }
}

fn client() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_secs(30))
        .redirect(reqwest::redirect::Policy::none())
}

fn build(client: reqwest::ClientBuilder) -> reqwest::Client {
    client.build().expect("a client without certificates of its own has nothing that could be wrong")
}

impl Transport for Reqwest {
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, TransportError>> {
        Box::pin(self.exchange(request))
    }

    fn has_tls(&self) -> bool {
        self.has_tls
    }
}
