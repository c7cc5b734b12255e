#![doc = include_str!("../README.md")]
//!
//! # Where to start
//!
//! - [`Gate`] runs endpoints on stores and a broker; [`Gate::builder`] puts one together.
//! - [`Endpoint`] names a queue and its handlers; a [`Message`] is a type that a handler accepts.
//! - [`Tx`] is the transaction of one handler run: read and write items of the partition, send messages, register side effects.
//! - [`Edge`] is the entry point for work that does not arrive as a message: HTTP requests, files, feeds.
//! - [`Gate::process_all`] hands in messages from a loop of your own.
//!
//! # Features
//!
//! | feature | contents |
//! |---|---|
//! | `tokio-runtime` (default) | [`TokioRuntime`]; without it, implement [`Runtime`] |

mod backoff;
mod batch;
#[cfg(feature = "bench-internals")]
#[doc(hidden)]
pub mod bench_internals;
mod blob_reference;
mod broker_client;
mod call_limits;
mod cause;
mod circuit_breaker;
mod claims;
mod coalescer;
mod completing;
mod consumer;
mod edge;
mod engine;
mod error;
mod gate;
mod handler;
mod idle_flush;
mod in_progress;
mod inside;
mod lanes;
mod limited;
mod negative_cache;
mod own_loop;
mod partition_cache;
mod put_backs;
mod republishing;
mod retry_policy;
mod runtime;
mod settings;
mod side_effects;
mod statistics;
mod store_client;
mod topology;
mod transaction;
mod transaction_effects;
mod unfinished;

pub use tollgate_proto as proto;
pub use tollgate_proto::{Blobs, Broker, SideEffect, Store, Verdict};

pub use self::backoff::Backoff;
pub use self::blob_reference::{BlobReference, IntoBlob};
pub use self::claims::Claim;
pub use self::edge::{Answer, Edge};
pub use self::error::{HandlerError, TollgateError};
pub use self::gate::{Gate, GateBuilder};
pub use self::handler::{
    CONCURRENCY_DEFAULT, Deduplicate, Endpoint, Foreign, HANDLER_TIME_MAX_DEFAULT, Message,
};
pub use self::in_progress::OldestInProgress;
pub use self::own_loop::Received;
pub use self::republishing::Republished;
pub use self::retry_policy::RetryPolicy;
pub use self::runtime::Runtime;
#[cfg(feature = "tokio-runtime")]
pub use self::runtime::TokioRuntime;
pub use self::statistics::Statistics;
pub use self::transaction::Tx;
pub use self::transaction_effects::Prepared;
