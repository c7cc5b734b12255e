//! A request as it is stored: the token of its execution. Where it lies, and that it is the same one that a caller means, is told
//! here; what is done with it is in [`super::exchange`].
//!
//! A request lies in its shelf. Of one with a large body there lies a reservation only, which says at which place its body arrives; the
//! request lies there, in a partition of its own, because it takes its time to arrive and a shelf belongs to many.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tollgate::BlobReference;

use super::Caller;
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
    /// Where it is executed: decided once. Empty in a reservation.
    pub(super) partition: String,
    /// BLAKE3 of content type and body. Empty in a reservation.
    pub(super) fingerprint: String,
    pub(super) content_type: String,
    pub(super) stored_at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) blob: Option<BlobReference>,
    /// At which place its body arrives or has arrived, if it is large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) place: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum RequestState {
    /// It may be executed, or was.
    Stored,
    /// A reservation whose body did not arrive: whoever meets it looks whether that is still so, and removes it.
    GivenUp,
    /// It can't be executed any more, and its traces are being removed.
    Deleting,
}

impl StoredRequest {
    /// One that is stored now, by its caller; what it asks for is to be added.
    pub(super) fn new(caller: &Caller, content_type: &str, stored_at_ms: u64) -> Self {
        let head = RequestHead {
            state: RequestState::Stored,
            incarnation: RequestId::random().to_string(),
            caller: caller.as_str().to_owned(),
            partition: String::new(),
            fingerprint: String::new(),
            content_type: content_type.to_owned(),
            stored_at_ms,
            blob: None,
            place: None,
        };
        Self { head, body: Bytes::new() }
    }

    /// Whether its body has not arrived, or is not known to have.
    pub(super) fn is_reservation(&self) -> bool {
        self.head.place.is_some() && self.head.blob.is_none()
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

/// What makes a request the same one: begin with this, and add the body.
pub(super) fn fingerprint_of(content_type: &str) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(content_type.len() as u64).to_le_bytes());
    hasher.update(content_type.as_bytes());
    hasher
}

/// Where a request lies: an item in one of many partitions, all of which belong to the endpoint's server.
pub(super) fn shelf(prefix: &str, id: RequestId, shelves: u16) -> String {
    let [first, second, ..] = *id.as_bytes();
    shelf_of(prefix, u16::from_le_bytes([first, second]) % shelves)
}

pub(super) fn shelf_of(prefix: &str, number: u16) -> String {
    format!("{prefix}{number}")
}

/// Where the large body of a request arrives, and lies with what is known of it.
pub(super) fn place_of(prefix: &str, number: u16) -> String {
    format!("{prefix}large/{number}")
}

/// The item of the shelf that holds the request, or of the place where its body arrives.
pub(super) fn request_item(id: RequestId) -> String {
    format!("request/{id}")
}

/// The item of the partition in which the request was executed that holds its response: the marker of its execution.
pub(super) fn response_item(id: RequestId) -> String {
    format!("http-response/{id}")
}
