//! The in-process broker: [`InProcessBroker`] needs no server, and is fast in memory or durable in a
//! directory.
//!
//! Brokers on a network are crates of their own: `tollgate-nats`, `tollgate-sqs`, `tollgate-rabbitmq` and
//! `tollgate-kafka`. A broker carries envelopes as bytes: nothing that looks into one may enter this crate,
//! and no store may either. `ChaosBroker` in `tollgate-testkit` makes any broker misbehave.
//!
//! Metrics, by endpoint where that makes sense, with the recorder that is installed when an endpoint is first
//! used: `tollgate_broker_sent_total`, `_delivered_total`, `_acknowledged_total`, `_retried_total`,
//! `_dead_lettered_total`, `_extended_total` (more time was asked for), `_log_syncs_total` and
//! `_log_messages_total`.
//!
//! ```
//! use std::time::Duration;
//!
//! use bytes::Bytes;
//! use tollgate_brokers::InProcessBroker;
//! use tollgate_proto::{Broker, EndpointName, MessageId, OutgoingMessage, PartitionKey, Settlement, Verdict};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let broker = InProcessBroker::builder().visibility_timeout(Duration::from_secs(30)).build();
//! let orders = EndpointName::new("orders")?;
//! let message = OutgoingMessage::without_token(
//!     orders.clone(),
//!     PartitionKey::new("customer-7")?,
//!     MessageId::from_name("web-shop", "order-4711"),
//!     Bytes::from_static(b"an envelope"),
//! );
//! for answer in broker.send(vec![message]).await {
//!     answer?;
//! }
//! for delivery in broker.receive(&orders, 10).await? {
//!     let acknowledgement = Settlement { receipt: delivery.receipt, verdict: Verdict::Acknowledge };
//!     broker.settle(&orders, vec![acknowledgement]).await;
//! }
//! assert_eq!(broker.depth(&orders).total(), 0);
//! # Ok(())
//! # }
//! ```

mod error;
pub mod in_process;
#[cfg(feature = "durable")]
mod log;

pub use error::RecoveryLogError;
#[cfg(feature = "durable")]
pub use in_process::DurableBuilder;
pub use in_process::{DeadLetter, Depth, InProcessBroker, InProcessBuilder};
