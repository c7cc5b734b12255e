//! A request as it is stored: the token of its execution. [`super::exchange`] has what is done with it.
//!
//! A request lies in a bucket. Of one with a large body there lies a reservation only, which says in which
//! upload partition its body arrives; the request lies there, because it takes its time to arrive and a
//! bucket belongs to many.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tollgate::BlobReference;

use super::Caller;
use crate::frame::{self, DamagedFrame};
use crate::request_id::RequestId;

/// A caller on its way to store a request.
#[derive(Clone)]
pub(super) struct Sender {
    pub(super) id: RequestId,
    pub(super) caller: Caller,
    /// The path below which the server is mounted.
    pub(super) mount: String,
    pub(super) content_type: String,
}

impl Sender {
    /// Whether it has stored this one.
    pub(super) fn is_of(&self, stored: &StoredRequest) -> bool {
        stored.is_of(&self.caller) && stored.head.mount == self.mount
    }
}

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
    /// The path below which the server was mounted, where it was nested.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) mount: String,
    /// The partition that executes it: decided once. Empty in a reservation.
    pub(super) partition: String,
    /// BLAKE3 of content type and body. Empty in a reservation.
    pub(super) fingerprint: String,
    pub(super) content_type: String,
    pub(super) stored_at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) blob: Option<BlobReference>,
    /// The number of the upload partition where its body arrives or has arrived, if it is large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) upload: Option<u16>,
    /// Whether it counts among its caller's open requests.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_counted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum RequestState {
    /// It may be executed, or was.
    Stored,
    /// A reservation whose body did not arrive. The next request for it checks that, and removes it.
    GivenUp,
    /// It can't be executed any more, and its traces are being removed.
    Deleting,
}

impl StoredRequest {
    /// One that is stored now; its body, fingerprint and partition are added later.
    pub(super) fn new(sender: &Sender, stored_at_ms: u64) -> Self {
        let head = RequestHead {
            state: RequestState::Stored,
            incarnation: RequestId::random().to_string(),
            caller: sender.caller.as_str().to_owned(),
            mount: sender.mount.clone(),
            partition: String::new(),
            fingerprint: String::new(),
            content_type: sender.content_type.clone(),
            stored_at_ms,
            blob: None,
            upload: None,
            is_counted: false,
        };
        Self { head, body: Bytes::new() }
    }

    /// Whether its body has not arrived, or is not known to have.
    pub(super) fn is_reservation(&self) -> bool {
        self.head.upload.is_some() && self.head.blob.is_none()
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

/// The beginning of the hash that makes a request the same one; the body follows.
pub(super) fn fingerprint_of(content_type: &str) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(content_type.len() as u64).to_le_bytes());
    hasher.update(content_type.as_bytes());
    hasher
}
