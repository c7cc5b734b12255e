//! DynamoDB for tests and measurements, without AWS and without Docker: in process behind the whole SDK
//! ([`InProcessDynamoDb`]: seeded faults, a clock set by hand, calls and capacity counted), or as a server beside the test
//! ([`external_endpoint`]). Development only, never published, and no crate that is published may depend on it but in its
//! dev-dependencies. It knows nothing of Tollgate: no records, no traits, no table layout.
//!
//! # What it costs to build
//!
//! A cold build with the workspace's profile, which optimises dependencies, took 3 min 20 s on two cores that others used as
//! well; without optimisation 61 s (SDK, dynoxide and its bundled `SQLite`). It brings no TLS: no rustls, no ring, no
//! aws-lc, no OpenSSL. `docs/stores/dynamodb-emulators.md` tells what each emulator is good for and where it differs.
//!
//! # Where to start
//!
//! ```
//! use tollgate_dynamodb_emulator::{Effect, Fault, FaultPlan, InProcessDynamoDb, Operation, Throttling};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let dynamo = InProcessDynamoDb::new();
//! let client = dynamo.client();
//! client.list_tables().send().await.expect("the emulator lists its tables");
//! assert_eq!(dynamo.counts().of(Operation::ListTables).calls, 1);
//!
//! // Every other call is throttled, and every twentieth update is done without the client's hearing of it.
//! dynamo.set_faults(
//!     FaultPlan::seeded(7)
//!         .inject(Fault::Throttle(Throttling::RequestLimit), 0.5)
//!         .inject_into(Operation::UpdateItem, Fault::Disconnect(Effect::Done), 0.05),
//! );
//! client.list_tables().send().await.ok();
//! # }
//! ```

mod capacity_units;
pub mod connector;
mod continuous_backups;
mod dispatch;
mod error;
pub mod external;
pub mod fault;
pub mod fault_plan;
mod in_process;
mod operation;
mod unprocessed;
mod wire_counter;
pub mod wire_counts;

pub use capacity_units::CapacityUnits;
pub use error::EmulatorError;
pub use external::{Endpoint, ServerKind, external_endpoint};
pub use fault::{Cancellation, Effect, Fault, Throttling};
pub use fault_plan::{FaultPlan, WireCall};
pub use in_process::InProcessDynamoDb;
pub use operation::Operation;
pub use wire_counter::WireCounter;
pub use wire_counts::{OperationCounts, WireCounts};
