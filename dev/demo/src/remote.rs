//! A store and a broker in another process: clients that implement their traits over a connection, and a server that
//! serves whatever implements them. It exists so that the demo's consumers can be real processes that are really killed;
//! it is no product: one connection a process, on the loopback interface, between programs of one build.
//!
//! ```text
//! consumer process                                             host process
//! RemoteStore ──┐                                        ┌── any Store
//!               ├── Connection ── frames over TCP ── serve
//! RemoteBroker ─┘   (reconnects)                         └── any Broker
//! ```
//!
//! A frame is its length (4 bytes), the call's number (8 bytes), one byte that tells what it is, and the rest as `wire`
//! writes it. Calls are pipelined and answered in any order. When the connection breaks, every call that waits for its
//! answer fails: a commit as `OutcomeUnknown`, for it may have happened, everything else as `Unavailable`.

mod address;
#[cfg(test)]
mod conformance;
mod connection;
mod frames;
mod operation;
mod receipts;
mod records;
mod remote_broker;
mod remote_store;
mod server;
mod wire;

pub use address::Address;
pub use connection::{CallError, Connection};
pub use operation::QueueDepth;
pub use remote_broker::RemoteBroker;
pub use remote_store::RemoteStore;
pub use server::{Served, serve};
