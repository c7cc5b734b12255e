#![doc = include_str!("../README.md")]

pub mod blob_conformance;
pub mod broker_conformance;
pub mod broker_story;
pub mod chaos_broker;
pub mod counting_store;
pub mod dark_proxy;
pub mod faulty_store;
pub mod local_server;
#[cfg(feature = "traffic")]
pub mod one_by_one;
#[cfg(feature = "traffic")]
pub mod ring;
pub mod store_conformance;
pub mod store_gate;
pub mod store_operation;

pub use chaos_broker::{ChaosBroker, ChaosBuilder, ChaosCounts};
pub use counting_store::{CountingStore, OperationCount, StoreCounts};
pub use dark_proxy::DarkProxy;
pub use faulty_store::{FaultCounts, FaultRates, FaultyStore, Phase};
pub use local_server::LocalServer;
pub use store_gate::Gate;
pub use store_operation::Operation;
