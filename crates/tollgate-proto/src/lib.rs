#![doc = include_str!("../README.md")]
//!
//! # Where to start
//!
//! [`processing`] has a driver loop that runs, and [`completion`] the second half of a message's way. A store implements [`Store`],
//! a broker [`Broker`]; `tollgate-testkit` checks both.

/// Whether a mutation breaks a rule here. Without the feature it is `false` at compile time.
#[cfg(feature = "mutations")]
macro_rules! mutated {
    ($mutation:ident) => {
        $crate::mutation::Mutation::$mutation.is_on()
    };
}
#[cfg(not(feature = "mutations"))]
macro_rules! mutated {
    ($mutation:ident) => {
        false
    };
}

pub mod blobs;
pub mod broker;
pub mod broker_wrapper;
pub mod codec;
pub mod completion;
pub mod control_record;
pub mod envelope;
pub mod future;
pub mod ids;
pub mod limits;
pub mod marks;
#[cfg(feature = "mutations")]
pub mod mutation;
pub mod outbox_entry;
pub mod partition_view;
pub mod processing;
pub mod publication;
pub mod sequence;
pub mod side_effect;
pub mod store;
pub mod store_wrapper;
pub mod unit_of_work;

pub use blobs::{BlobError, BlobStream, Blobs};
pub use broker::{Broker, BrokerError, Delivery, OutgoingMessage, Receipt, Settlement, Verdict};
pub use broker_wrapper::BrokerWrapper;
pub use control_record::{ControlRecord, PendingEntry, PendingId};
pub use envelope::{Content, Destination, Envelope, Headers, TRACE_HEADERS};
pub use future::BoxFuture;
pub use ids::{
    AttemptId, DeduplicationKey, EffectKind, EffectName, EndpointName, InvalidName, ItemName, MessageId,
    MessageType, PartitionKey, StoreAlias,
};
pub use limits::{LimitExceeded, StoreLimits};
pub use outbox_entry::{Audience, Body, OutboxEntry};
pub use publication::{DeduplicationId, Publication};
pub use sequence::{EntryKey, Incarnation, Placement, Sequence, SessionMark, TokenRef, Version};
pub use side_effect::{AttachedEffect, EffectError, SideEffect};
pub use store::{
    Commit, CommitOutcome, EntryRead, ItemValue, LoadRequest, LoadedPartition, RecordWrite, ScanCursor,
    ScanPage, ScanPrice, ScannedPartition, Store, StoreError,
};
pub use store_wrapper::StoreWrapper;
