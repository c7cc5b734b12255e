//! Shared parts of Tollgate's broker adapters. For authors of adapters: `tollgate-nats`, `tollgate-sqs`,
//! `tollgate-rabbitmq` and `tollgate-kafka` are built on it.
//!
//! [`Inbox`] keeps what a process has fetched and not settled; an adapter brings a [`Fetcher`] and a
//! [`Keeper`] that speak its protocol. Where one task has to speak for all, as on a channel of RabbitMQ or
//! with a client of Kafka, [`consumer`] is the shell around it. [`EndpointCounters`] are the metrics that all
//! adapters count under the same names, [`queue_name`] makes legal names of queues from names of endpoints.

pub mod consumer;
mod counters;
mod error;
mod inbox;
pub mod queue_name;

pub use counters::EndpointCounters;
pub use error::{BrokerSetupError, without_password};
pub use inbox::{Arrival, Fetcher, Held, Inbox, InboxSettings, Keeper, Order};
