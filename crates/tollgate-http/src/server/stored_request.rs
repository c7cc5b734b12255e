//! A request as it is stored: the token of its execution. Where it lies, and that it is the same one that a caller means, is told
//! here; what is done with it is in [`super::exchange`].

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tollgate::BlobReference;

use super::{Caller, Request};
use crate::frame::{self, DamagedFrame};
use crate::request_id::RequestId;

/// A stored request.
#[derive(Clone, Debug)]
pub(super) struct StoredRequest {
    pub(super) head: RequestHead,
    /// Empty where the body is a blob.
    pub(super) body: Bytes,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct RequestHead {
    pub(super) state: RequestState,
    /// Drawn at random when it was stored: an id that is stored again is another request.
    pub(super) incarnation: String,
    pub(super) caller: String,
    /// Where it is executed: decided once.
    pub(super) partition: String,
    /// BLAKE3 of content type and body.
    pub(super) fingerprint: String,
    pub(super) content_type: String,
    pub(super) stored_at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) blob: Option<BlobReference>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum RequestState {
    /// It may be executed, or was.
    Stored,
    /// It can't be executed any more, and its traces are being removed.
    Deleting,
}

impl StoredRequest {
    pub(super) fn new(request: &Request, partition: String, stored_at_ms: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(request.content_type.len() as u64).to_le_bytes());
        hasher.update(request.content_type.as_bytes());
        hasher.update(&request.body);
        let head = RequestHead {
            state: RequestState::Stored,
            incarnation: RequestId::random().to_string(),
            caller: request.caller.as_str().to_owned(),
            partition,
            fingerprint: hasher.finalize().to_hex().to_string(),
            content_type: request.content_type.clone(),
            stored_at_ms,
            blob: None,
        };
        Self { head, body: request.body.clone() }
    }

    pub(super) fn is_of(&self, caller: &Caller) -> bool {
        caller.is(&self.head.caller)
    }

    pub(super) fn encode(&self) -> Bytes {
        frame::encode(&self.head, &self.body)
    }

    pub(super) fn decode(bytes: &Bytes) -> Result<Self, DamagedFrame> {
        let (head, body) = frame::decode("request", bytes)?;
        Ok(Self { head, body })
    }
}

/// Where a request lies: an item in one of many partitions, all of which belong to the endpoint's server.
pub(super) fn shelf(prefix: &str, id: RequestId, shelves: u16) -> String {
    let [first, second, ..] = *id.as_bytes();
    shelf_of(prefix, u16::from_le_bytes([first, second]) % shelves)
}

pub(super) fn shelf_of(prefix: &str, number: u16) -> String {
    format!("{prefix}{number}")
}

/// The item of the shelf that holds the request.
pub(super) fn request_item(id: RequestId) -> String {
    format!("request/{id}")
}

/// The item of the partition in which the request was executed that holds its response: the marker of its execution.
pub(super) fn response_item(id: RequestId) -> String {
    format!("http-response/{id}")
}
