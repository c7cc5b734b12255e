//! Tollgate's embedded stores: the durable one, which is the default, and the in-memory one for tests; and blob storage
//! in a directory or in memory. They know nothing of brokers, handlers or the algorithm.

mod directory_blobs;
mod directory_lock;
mod embedded_store;
mod error;
mod group;
mod journals;
mod layout;
mod limits;
mod memory_blobs;
mod memory_store;
mod reading;
mod statistics;
mod tables;
mod writer;

pub use directory_blobs::DirectoryBlobs;
pub use embedded_store::EmbeddedStore;
pub use error::EmbeddedError;
pub use limits::EMBEDDED_LIMITS;
pub use memory_blobs::MemoryBlobs;
pub use memory_store::MemoryStore;
pub use statistics::{EmbeddedStatistics, MemoryStatistics};
