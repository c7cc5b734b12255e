//! What can go wrong for users of the engine. What goes wrong with a single message does not surface here: it is put
//! back, or dead-lettered with the reason.

use tollgate_proto::{BlobError, BrokerError, EffectError, InvalidName, ItemName, PartitionKey, StoreError};

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TollgateError {
    /// The gate, or something on it, is configured wrongly.
    #[error("wrong configuration: {0}")]
    Configuration(String),
    /// A name breaks a rule.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A store refused or could not be reached.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The broker refused or could not be reached.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// Blob storage refused or could not be reached.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A side effect was refused or could not be reached.
    #[error(transparent)]
    Effect(#[from] EffectError),
    /// A value could not be written as JSON.
    #[error("{what} can't be written as JSON: {source}")]
    Encode {
        /// What it is.
        what: String,
        /// What the encoder says.
        source: serde_json::Error,
    },
    /// An item is not what the handler expects.
    #[error("item {item} of partition {partition} is not what the handler expects: {source}")]
    Decode {
        /// Which item.
        item: ItemName,
        /// Of which partition.
        partition: PartitionKey,
        /// What the decoder says.
        source: serde_json::Error,
    },
    /// The unit of work has ended: its handler returned before this call was made.
    #[error("the unit of work has ended: await everything inside the handler that uses the transaction")]
    Ended,
    /// Another process changed the partition while the handler ran; the handler will be run again.
    #[error("the attempt was overtaken by another process; return this error, and the handler is run again")]
    Overtaken,
    /// The attempt has run for longer than its deadline and may not create side effects any more.
    #[error(
        "the attempt is past its deadline of {deadline_ms} ms since the epoch; return this error, it is tried again"
    )]
    PastDeadline {
        /// The deadline, in milliseconds since the Unix epoch.
        deadline_ms: u64,
    },
    /// A request could not be executed, and may be tried again under the same key.
    #[error("the request could not be executed now: {reason}; try again with the same key")]
    RequestFailed {
        /// Why.
        reason: String,
    },
    /// A request that will never succeed.
    #[error("the request is refused: {reason}")]
    RequestRefused {
        /// Why.
        reason: String,
    },
    /// The handler of a request ran into its time limit ([`crate::Endpoint::handler_time_max`]). Nothing of that run commits; the
    /// same call may be made again.
    #[error("the request could not be executed now: {reason}; try again with the same key")]
    TimedOut {
        /// The limit that was hit.
        reason: String,
    },
    /// As many requests wait as the endpoint takes ([`crate::Endpoint::requests_max`]); the same call may be made again.
    #[error(
        "{requests} requests wait {place}, and no more are taken; back off and try again with the same key"
    )]
    Overloaded {
        /// Where they wait.
        place: String,
        /// The limit.
        requests: usize,
    },
    /// A handler asked for a request to a partition that it holds itself, directly or through requests that wait for each other.
    #[error(
        "a handler of partition {partition} waits for a request to the same partition, which would have to wait for it: do the work \
         in the handler's own transaction, or send a message"
    )]
    WaitsForItself {
        /// The partition.
        partition: PartitionKey,
    },
    /// The gate is closed or closing.
    #[error("the gate is closed")]
    Closed,
}

impl TollgateError {
    /// Whether the same call may succeed later, without a person's doing anything.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            Self::Broker(error) => error.is_retryable(),
            Self::Blob(error) => error.is_retryable(),
            Self::Effect(error) => error.is_retryable(),
            Self::Overtaken
            | Self::PastDeadline { .. }
            | Self::RequestFailed { .. }
            | Self::TimedOut { .. }
            | Self::Overloaded { .. } => true,
            Self::Configuration(_)
            | Self::Name(_)
            | Self::Encode { .. }
            | Self::Decode { .. }
            | Self::Ended
            | Self::RequestRefused { .. }
            | Self::WaitsForItself { .. }
            | Self::Closed => false,
        }
    }
}

/// Why a handler did not succeed. Any error becomes a retry by `?`; say so if it is permanent.
#[derive(Debug, PartialEq, Eq)]
pub enum HandlerError {
    /// Try again later, until the limit of deliveries.
    Retry {
        /// Why, for a person.
        reason: String,
    },
    /// Never try again: dead-letter the message.
    Permanent {
        /// Why, for a person.
        reason: String,
    },
}

impl HandlerError {
    /// A failure that may pass.
    pub fn retry(reason: impl std::fmt::Display) -> Self {
        Self::Retry { reason: reason.to_string() }
    }

    /// A failure that will not pass.
    pub fn permanent(reason: impl std::fmt::Display) -> Self {
        Self::Permanent { reason: reason.to_string() }
    }
}

impl<E: std::error::Error> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self::retry(error)
    }
}
