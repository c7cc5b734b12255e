//! A response, as a handler gives it and as it is stored and given again: status, content type, headers,
//! body. Byte for byte the same each time.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, TRANSFER_ENCODING};
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use tollgate::BlobReference;

use crate::frame::{self, DamagedFrame};

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    status: StatusCode,
    content_type: String,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl Response {
    /// Any response.
    pub fn new(status: StatusCode, content_type: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { status, content_type: content_type.into(), headers: Vec::new(), body: body.into() }
    }

    /// 200, with JSON.
    ///
    /// # Errors
    /// If the value can't be written as JSON.
    pub fn json(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self::new(StatusCode::OK, "application/json", serde_json::to_vec(value)?))
    }

    /// 200, with a text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::new(StatusCode::OK, "text/plain; charset=utf-8", text.into())
    }

    /// Adds a header, e.g. `Location` or `Retry-After`, which is stored and given again with the response.
    ///
    /// `Content-Type`, `ETag` and those that belong to the connection are the server's own: they are left
    /// out.
    #[must_use]
    pub fn with_header(mut self, name: &HeaderName, value: &str) -> Self {
        let is_own = [CONTENT_TYPE, CONTENT_LENGTH, ETAG, TRANSFER_ENCODING, CONNECTION].contains(name);
        if !is_own && HeaderValue::from_str(value).is_ok() {
            self.headers.push((name.as_str().to_owned(), value.to_owned()));
        }
        self
    }

    /// Its status.
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The media type of its body.
    pub fn content_type(&self) -> &str {
        &self.content_type
    }

    /// Its other headers.
    #[cfg(feature = "edge")]
    pub(crate) fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// Its body.
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// Its body, as JSON.
    ///
    /// # Errors
    /// If it is not a `T`.
    pub fn read_json<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }
}

/// A response as it is stored, with what it belongs to.
#[derive(Clone, Debug)]
pub(crate) struct StoredResponse {
    pub(crate) head: ResponseHead,
    /// Empty where the body is a blob.
    pub(crate) body: Bytes,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ResponseHead {
    /// The incarnation of a stored request, or the fingerprint of one at the edge.
    pub(crate) answers: String,
    pub(crate) status: u16,
    pub(crate) content_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) blob: Option<BlobReference>,
    /// All others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) headers: Vec<(String, String)>,
}

impl StoredResponse {
    pub(crate) fn inline(answers: String, response: &Response) -> Self {
        Self { head: ResponseHead::new(answers, response, None), body: response.body.clone() }
    }

    #[cfg(feature = "server")]
    pub(crate) fn in_blob(answers: String, response: &Response, blob: BlobReference) -> Self {
        Self { head: ResponseHead::new(answers, response, Some(blob)), body: Bytes::new() }
    }

    #[cfg(feature = "edge")]
    pub(crate) fn response(&self) -> Response {
        let (status, content_type) = (self.head.status(), self.head.content_type.clone());
        Response { status, content_type, headers: self.head.headers.clone(), body: self.body.clone() }
    }

    pub(crate) fn encode(&self) -> Bytes {
        frame::encode(&self.head, &self.body)
    }

    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, DamagedFrame> {
        let (head, body) = frame::decode("response", bytes)?;
        Ok(Self { head, body })
    }
}

impl ResponseHead {
    fn new(answers: String, response: &Response, blob: Option<BlobReference>) -> Self {
        let content_type = response.content_type.clone();
        let headers = response.headers.clone();
        Self { answers, status: response.status.as_u16(), content_type, blob, headers }
    }

    pub(crate) fn status(&self) -> StatusCode {
        // Only statuses are stored.
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}
