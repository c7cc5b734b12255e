//! Cosmos DB for tests and measurements, without Azure and without Docker: Microsoft's in-memory emulator, which ships inside
//! the SDK, behind the whole SDK in process ([`CosmosEmulator`]: regions, paused replication, splits, faults, counts), or
//! served over HTTP by the program `cosmos-emulator` (feature `host`). Development only, never published. It knows nothing
//! of Tollgate, and it is the only crate that touches the emulator, which is not part of the SDK's stable interface.
//!
//! ```
//! use tollgate_cosmos_emulator::{CosmosEmulator, FaultRules};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tollgate_cosmos_emulator::EmulatorError> {
//! let emulator = CosmosEmulator::builder().container("shop", "orders", &["/pk"]).start()?;
//! let client = emulator.client().await?;
//! let orders = client.database_client("shop").container_client("orders", None).await.expect("it exists");
//! assert_eq!(emulator.counts().items(), 0);
//!
//! // Every other request is throttled.
//! let throttled = emulator.client_with(None, &FaultRules::throttling(0.5)).await?;
//! # let _ = (orders, throttled);
//! # Ok(())
//! # }
//! ```
//!
//! What the emulator does not have, and what differs from an account, is in `docs/stores/cosmos.md`.

mod emulator;
mod error;
mod expiry;
mod fault_rules;
#[cfg(feature = "host")]
pub mod host;
mod request_counts;

pub use azure_data_cosmos_driver::in_memory_emulator::{ConsistencyLevel, WriteMode};
pub use emulator::{CosmosEmulator, CosmosEmulatorBuilder, KEY, PHYSICAL_PARTITIONS};
pub use error::EmulatorError;
pub use fault_rules::FaultRules;
pub use request_counts::RequestCounts;
