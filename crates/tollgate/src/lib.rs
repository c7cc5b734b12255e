//! Tollgate processes every message exactly once on stores that offer no cross-partition transactions.
//!
//! This crate is what users depend on: the builder, the engine that drives the state machine of `tollgate-proto`, the
//! caches and the coalescers. It knows stores and brokers only by their traits; which ones there are, it does not know.

mod backoff;
mod batch;
#[cfg(feature = "bench-internals")]
#[doc(hidden)]
pub mod bench_internals;
mod blob_reference;
mod broker_client;
mod call_limits;
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
mod inside;
mod lanes;
mod limited;
mod negative_cache;
mod own_loop;
mod partition_cache;
mod runtime;
mod settings;
mod side_effects;
mod statistics;
mod store_client;
mod topology;
mod transaction;
mod transaction_effects;
mod trouble;

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
pub use self::own_loop::Received;
pub use self::runtime::Runtime;
#[cfg(feature = "tokio-runtime")]
pub use self::runtime::TokioRuntime;
pub use self::statistics::Statistics;
pub use self::transaction::Tx;
pub use self::transaction_effects::Prepared;
