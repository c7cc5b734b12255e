//! What a store or a broker is tested with: conformance suites that check the promises of its trait, and wrappers that
//! inject faults and count calls. It may be used by tests only, knows the traits of `tollgate-core` and no
//! implementation of them.

pub mod blob_conformance;
pub mod broker_conformance;
pub mod counting_store;
pub mod explorer;
pub mod faulty_store;
pub mod gallery;
pub mod local_server;
#[cfg(feature = "simulation")]
pub mod one_by_one;
#[cfg(feature = "simulation")]
pub mod ring;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod store_conformance;
pub mod store_gate;
pub mod store_operation;

pub use counting_store::{CountingStore, OperationCount, StoreCounts};
pub use faulty_store::{FaultCounts, FaultRates, FaultyStore, Phase};
pub use local_server::LocalServer;
pub use store_gate::Gate;
pub use store_operation::Operation;
