#![doc = include_str!("../README.md")]

#[cfg(any(feature = "server", feature = "edge"))]
mod body;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "edge")]
pub mod edge;
mod frame;
mod problem;
mod request_id;
#[cfg(feature = "server")]
pub mod server;
mod stored_response;

pub use self::problem::{Problem, ProblemKind};
pub use self::request_id::{InvalidRequestId, RequestId};
pub use self::stored_response::Response;

/// What the names of partitions begin with that this crate keeps for itself: no request is executed on one of them.
#[cfg(any(feature = "server", feature = "edge"))]
pub(crate) const RESERVED: &str = "tollgate-http/";

/// Says that a response is a repetition: the request had been executed before.
pub const IDEMPOTENT_REPLAYED: http::HeaderName = http::HeaderName::from_static("idempotent-replayed");

/// Says that a response is the stored one, for good, whatever its status is; and not a server's or a proxy's own complaint.
pub const TOLLGATE_RESPONSE: http::HeaderName = http::HeaderName::from_static("tollgate-response");

/// The value of [`TOLLGATE_RESPONSE`].
pub const STORED: http::HeaderValue = http::HeaderValue::from_static("stored");
