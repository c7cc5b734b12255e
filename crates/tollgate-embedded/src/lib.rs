//! Tollgate's embedded stores: [`EmbeddedStore`], durable in a directory and the default, and [`MemoryStore`] for tests; and
//! blob storage, in a directory or in memory. They know nothing of brokers, handlers or the algorithm.
//!
//! # What the durable store promises, and how
//!
//! **A confirmed write is on the disk.** One thread takes the requests that wait, decides them one after the other on the
//! state that the ones before them leave, writes all their changes as one batch of the engine's journal, syncs once and then
//! answers. So 64 concurrent commits cost one sync, and no two commits race.
//!
//! **Nobody reads what a crash could take back.** Readers share a snapshot that the writer renews after each sync: it shows all
//! of every group that was synced and nothing of the one that is being written. An engine that shows writes before they
//! are durable would let a reader act on the deletion of a token, or on a version, that is gone after the next power failure. A
//! load is one moment of its partition for the same reason. And reads wait neither for syncs nor for each other.
//!
//! **A crash leaves whole commits.** The engine's journal ends a batch with a checksum; what a kill or a power failure leaves
//! of the last one is cut off at opening. The engine (fjall 3.1) refuses to open if the end of a batch reached the
//! disk but a page in its middle did not; so the store looks for that itself, and cuts off a last batch that is torn. It never
//! cuts anything that more data follows: that was synced, so it is damaged, and a person should know.
//!
//! **A failed sync is final.** The commits of that group are answered [`OutcomeUnknown`](tollgate_proto::StoreError::OutcomeUnknown),
//! every later write [`Unavailable`](tollgate_proto::StoreError::Unavailable), until the store is opened again and reads what
//! is really there. Reads go on.
//!
//! **One process at a time.** The directory is locked; a second opener gets [`EmbeddedError::InUse`] at once.
//!
//! # Layout
//!
//! In the directory lie `tollgate.lock` and `engine/`, the database. It has four keyspaces, in each of which a key begins with the
//! partition:
//!
//! ```text
//! control   partition                                                    -> incarnation counter record
//! items     length partition item-name                                   -> tag value
//! entries   length partition incarnation counter index                   -> outbox entry
//! records   length partition deduplication-key                           -> expires-at-ms response
//!
//! length       2 bytes, of the partition key in bytes: no partition key can be mistaken for the beginning of another,
//!              whatever bytes it has, NUL included
//! incarnation  8 bytes     counter  8 bytes     index  4 bytes     expires-at-ms  8 bytes
//! tag          1 byte: 0 for binary, 1 for JSON
//! ```
//!
//! All numbers are big-endian, so that the entries of a partition lie in the order of their sequence. The version (incarnation
//! and counter) stands in front of the control record, so that a commit's condition is checked without decoding it.
//!
//! # Figures
//!
//! On a virtual machine with 2 cores and ext4 on a network disk, shared with other work at the time; figures of syncs vary
//! accordingly, so all comparisons were made in turns, within one run.
//!
//! | what | figure | command (`cargo run --release …`) |
//! |---|---|---|
//! | durable commits a second of 64 tasks, and of the engine alone in the same run | beside heavy other work, three runs: 21,400 and 17,800 (median ratio 1.21), 13,800 and 16,300 (0.83), 14,500 and 15,800 (1.06); on a quieter machine, before the writer decided requests while others came: 38,000 and 45,900 (0.84). 64 a sync | `-p tollgate-embedded --example group_commit` |
//! | the same on a file system in memory, where a sync costs nothing | 0.76 to 0.81 of the engine alone | `… --example group_commit -- /dev/shm` |
//! | 1,000,000 messages in 1000 partitions, each committed and consumed | 14,700 and 16,700 commits and as many deletions a second in two runs; 59 MB on the disk at most, 1.22 MB after a compaction of 0.4 to 0.6 s; 1.10 MB for their state alone, written directly | `-p tollgate-embedded --example footprint` |
//! | [`MemoryStore`]: a commit, an entry read of a batch | 181 ns, 47 ns | `-p tollgate-embedded --example memory_store` |
//!
//! Why fjall: `docs/decisions/0002-the-embedded-engine.md`.

mod directory;
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
#[cfg(feature = "bench-internals")]
pub mod plain_records;
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
