//! Blobs on object storage: Amazon S3, Azure Blob Storage, and whatever else the crate [`object_store`] reaches. Uploads are
//! streamed in parts, so that no blob has to fit into memory, and a blob becomes visible whole or not at all. Nothing in here
//! knows why a blob is stored or when it is deleted: that is decided by the engine.
//!
//! ```
//! use std::sync::Arc;
//! use tollgate_blobs::ObjectStoreBlobs;
//! use tollgate_proto::blobs::{collect, whole};
//! use tollgate_proto::{Blobs, EffectName};
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let blobs = ObjectStoreBlobs::in_memory().below("invoices");
//! blobs.verify().await?;
//! let name = EffectName::new("2026/1")?;
//! blobs.put(&name, whole("100 crowns")).await?;
//! let content = blobs.get(&name).await?.expect("it was stored");
//! assert_eq!(collect(&name, content, 1_000).await?, "100 crowns");
//!
//! // To a gate it is `.blobs(Arc::new(blobs))`.
//! let blobs: Arc<dyn Blobs> = Arc::new(blobs);
//! # blobs.delete(&name).await?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | feature | what it adds |
//! |---|---|
//! | `s3` | `ObjectStoreBlobs::s3` and its siblings, with TLS |
//! | `azure` | `ObjectStoreBlobs::azure` and its siblings, with TLS |

#[cfg(feature = "azure")]
mod azure;
mod error;
mod failure;
mod object_blobs;
mod object_path;
#[cfg(any(feature = "s3", feature = "azure"))]
mod requests;
#[cfg(feature = "s3")]
mod s3;
mod upload;
mod verification;

pub use error::BlobsError;
pub use object_blobs::ObjectStoreBlobs;
/// The crate that talks to the clouds: its builders are what [`ObjectStoreBlobs`] is made from.
pub use object_store;
