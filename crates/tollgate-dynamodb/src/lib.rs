#![doc = include_str!("../README.md")]
//!
//! # Where to start
//!
//! [`DynamoDbStore`] is the store; [`capacity`] computes what a commit costs. `docs/stores/dynamodb.md` in the repository
//! describes the table, the permissions and the limits.

#![forbid(unsafe_code)]

mod batch_reading;
mod builder;
mod calls;
pub mod capacity;
mod commit_writes;
mod committing;
mod deleting;
#[cfg(feature = "tls")]
mod environment;
mod error;
mod expression;
mod failure;
mod item_size;
mod limiter;
mod loading;
mod main_item;
mod names;
mod native_json;
#[cfg(feature = "plain-http")]
mod plain_http;
mod prepared_commit;
mod provisioning;
mod scanning;
mod store;
mod token_reading;
mod verification;
mod waiting_entries;

pub use builder::DynamoDbStoreBuilder;
pub use error::DynamoDbError;
pub use provisioning::{Billing, Provisioned, TableOptions};
pub use store::DynamoDbStore;
