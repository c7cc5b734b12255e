//! Tollgate's store on Azure Cosmos DB for NoSQL: a commit is one transactional batch on one logical partition, business
//! items are the user's own JSON documents, and session consistency, the default of every account, is made safe by session
//! marks. No broker, no handler and nothing of the algorithm may enter; nor may any emulator, but in tests.
//!
//! Where to start: [`CosmosStore`]. How the documents look, what they cost and what a real account needs is in
//! `docs/stores/cosmos.md`; why the store is safe in `docs/decisions/0010-cosmos-documents-and-sessions.md`.

pub mod charges;
mod committing;
mod container_layout;
mod cosmos_store;
mod deleting;
mod document;
pub mod document_id;
mod error;
mod failure;
mod item_document;
pub mod limits;
mod loading;
mod partition_memory;
mod reading;
mod requests;
mod scanning;
mod session;
mod statistics;
mod verification;

pub use container_layout::{ContainerLayout, KEY_LEVELS_MAX};
pub use cosmos_store::{CosmosStore, CosmosStoreBuilder, REQUESTS_UNDER_WAY_MAX, RecordExpiry};
pub use error::CosmosStoreError;
pub use limits::COSMOS_LIMITS;
pub use statistics::{CosmosStatistics, Operation, OperationCosts};
