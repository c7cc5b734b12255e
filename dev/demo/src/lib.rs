//! The demo: real flights through a hostile broker, in one process or in several that are killed, and an audit of every total.
//!
//! The program `tollgate-demo` is its command line. The soak of `tollgate-bench` uses its brokers, stores and leftovers.
#![allow(
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    reason = "never published: its callers are this program and the soak"
)]

mod aircraft;
mod airports;
pub mod audit;
pub mod broker_choice;
mod consumer;
pub mod consumer_process;
pub mod demo;
pub mod error;
mod flights;
pub mod host;
mod lifeline;
pub mod processes;
pub mod queues;
pub mod remote;
pub mod report;
mod source;
pub mod store_choice;
