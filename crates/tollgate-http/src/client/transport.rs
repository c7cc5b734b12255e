//! How calls get over the network: a trait, so that tests put faults in between, and the one over reqwest. It does not know what
//! is called or why; it repeats nothing.

use std::time::Duration;

use bytes::Bytes;
use tollgate::proto::BoxFuture;

/// Sends HTTP requests, each once.
pub trait Transport: Send + Sync + 'static {
    /// Sends a request, and waits for the whole response.
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, TransportError>>;
}

/// Why there is no response.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The request or the response was lost; nobody knows which. It is safe to repeat.
    #[error("the server could not be reached: {reason}")]
    Failed {
        /// What was said.
        reason: String,
    },
    /// The response is larger than what is taken.
    #[error("the response has more than {bytes_max} bytes")]
    TooLarge {
        /// Most bytes that are taken.
        bytes_max: usize,
    },
}

impl TransportError {
    /// Whether the same request may succeed later, without a person's doing anything.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }
}

/// The transport over reqwest. It follows no redirects: a call goes where the handler says.
#[derive(Clone, Debug)]
pub struct Reqwest {
    client: reqwest::Client,
    bytes_max: usize,
}

impl Default for Reqwest {
    fn default() -> Self {
        Self::new()
    }
}

impl Reqwest {
    /// With 5 s to connect, 30 s for a whole exchange, and at most 4 MiB of response.
    ///
    /// # Panics
    /// If TLS is a feature and can't be set up.
    pub fn new() -> Self {
        let client = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(30))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("a client without certificates of its own has nothing that could be wrong");
        Self::with_client(client)
    }

    /// With a client that was put together elsewhere. It should not follow redirects.
    pub fn with_client(client: reqwest::Client) -> Self {
        Self { client, bytes_max: 4 << 20 }
    }

    /// Most bytes of a response. They travel with the message that follows up, at most as a blob.
    #[must_use]
    pub fn bytes_max(mut self, bytes: usize) -> Self {
        self.bytes_max = bytes;
        self
    }

    async fn exchange(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        let failed =
            |error: reqwest::Error| TransportError::Failed { reason: error.without_url().to_string() };
        let request = reqwest::Request::try_from(request).map_err(failed)?;
        let mut response = self.client.execute(request).await.map_err(failed)?;
        let mut answer = http::Response::new(Bytes::new());
        *answer.status_mut() = response.status();
        *answer.headers_mut() = response.headers().clone();
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(failed)? {
            if body.len() + piece.len() > self.bytes_max {
                return Err(TransportError::TooLarge { bytes_max: self.bytes_max });
            }
            body.extend_from_slice(&piece);
        }
        *answer.body_mut() = body.into();
        Ok(answer)
    }
}

impl Transport for Reqwest {
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, TransportError>> {
        Box::pin(self.exchange(request))
    }
}
