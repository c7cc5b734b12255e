//! What can go wrong for users of the engine. What goes wrong with a single message does not surface here: it is put
//! back, or dead-lettered with the reason.

use std::time::Duration;

use tollgate_proto::{BlobError, BrokerError, EffectError, InvalidName, ItemName, PartitionKey, StoreError};

use crate::cause::OutsideError;

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
    /// Whether the message or request that the call was made for can never succeed.
    pub(crate) const fn is_refusal(&self) -> bool {
        match self {
            Self::Name(_) | Self::Encode { .. } | Self::Decode { .. } | Self::RequestRefused { .. } => true,
            Self::Store(error) => matches!(error, StoreError::TooLarge { .. }),
            Self::Configuration(_)
            | Self::Broker(_)
            | Self::Blob(_)
            | Self::Effect(_)
            | Self::Ended
            | Self::Overtaken
            | Self::PastDeadline { .. }
            | Self::RequestFailed { .. }
            | Self::TimedOut { .. }
            | Self::Overloaded { .. }
            | Self::WaitsForItself { .. }
            | Self::Closed => false,
        }
    }

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

/// Anything that a handler's error was made of.
type Source = Box<dyn std::error::Error + Send + Sync>;

/// The reason why a handler did not succeed.
///
/// Any error becomes one by `?`. It is permanent if it is a [`TollgateError`] that says so of the message: a name that
/// breaks a rule, an item that can't be decoded, a value that can't be encoded, a request that is refused. Every other
/// error is a retry; say so if it is permanent ([`HandlerError::permanent`]).
///
/// What a handler could not do because a store, blob storage or a target was not available does not count as a failure
/// of its message.
#[derive(Debug)]
#[non_exhaustive]
pub enum HandlerError {
    /// Try again later, until the limit of deliveries.
    #[non_exhaustive]
    Retry {
        /// Why, for a person.
        reason: String,
        /// How long to leave the message alone, an hour at most. `None`: as its retry policy says.
        after: Option<Duration>,
        /// The error that it was made of.
        source: Option<Source>,
    },
    /// Never try again: dead-letter the message.
    #[non_exhaustive]
    Permanent {
        /// Why, for a person.
        reason: String,
        /// The error that it was made of.
        source: Option<Source>,
    },
}

impl HandlerError {
    /// A failure that may pass.
    pub fn retry(reason: impl std::fmt::Display) -> Self {
        Self::Retry { reason: reason.to_string(), after: None, source: None }
    }

    /// A failure that may pass after a time that the handler knows: the message is left alone for so long, instead of the
    /// back-off of its retry policy. It counts as a failure.
    pub fn retry_after(after: Duration, reason: impl std::fmt::Display) -> Self {
        Self::Retry { reason: reason.to_string(), after: Some(after), source: None }
    }

    /// A failure that will not pass.
    pub fn permanent(reason: impl std::fmt::Display) -> Self {
        Self::Permanent { reason: reason.to_string(), source: None }
    }

    /// The reason, for a person.
    pub fn reason(&self) -> &str {
        match self {
            Self::Retry { reason, .. } | Self::Permanent { reason, .. } => reason,
        }
    }

    pub(crate) fn into_reason(self) -> String {
        match self {
            Self::Retry { reason, .. } | Self::Permanent { reason, .. } => reason,
        }
    }

    /// How long the handler wants its message to be left alone.
    pub(crate) const fn after(&self) -> Option<Duration> {
        match self {
            Self::Retry { after, .. } => *after,
            Self::Permanent { .. } => None,
        }
    }

    /// Whether trying again is of no use.
    pub const fn is_permanent(&self) -> bool {
        matches!(self, Self::Permanent { .. })
    }

    /// The error that it was made of by `?`.
    pub fn source(&self) -> Option<&(dyn std::error::Error + Send + Sync + 'static)> {
        match self {
            Self::Retry { source, .. } | Self::Permanent { source, .. } => source.as_deref(),
        }
    }

    /// Whether it was made of an error of something outside.
    pub(crate) fn is_outside(&self) -> bool {
        self.source()
            .and_then(|source| source.downcast_ref())
            .is_some_and(|error: &TollgateError| error.is_outside())
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        let reason = error.to_string();
        let source: Source = Box::new(error);
        let refusal = source.downcast_ref::<TollgateError>().is_some_and(TollgateError::is_refusal);
        let source = Some(source);
        if refusal { Self::Permanent { reason, source } } else { Self::Retry { reason, after: None, source } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollgate_proto::{EffectName, LimitExceeded, StoreAlias};

    fn store() -> StoreAlias {
        "main".try_into().unwrap()
    }

    fn by_question_mark(error: TollgateError) -> HandlerError {
        let handler = || -> Result<(), HandlerError> { Err(error)? };
        handler().unwrap_err()
    }

    #[test]
    fn a_mistake_of_the_message_is_permanent_through_the_question_mark_and_keeps_its_source() {
        let invalid = ItemName::new("").unwrap_err();
        let no_number = || serde_json::from_str::<u64>("no").unwrap_err();
        let item = || ItemName::new("total").unwrap();
        let limit = LimitExceeded::TransactionItems { items: 101, max: 100 };
        let partition = || PartitionKey::new("P").unwrap();
        for mistake in [
            TollgateError::Name(invalid),
            TollgateError::Encode { what: "item total".into(), source: no_number() },
            TollgateError::Decode { item: item(), partition: partition(), source: no_number() },
            TollgateError::RequestRefused { reason: "no such account".into() },
            TollgateError::Store(StoreError::TooLarge { store: store(), partition: partition(), limit }),
        ] {
            let text = mistake.to_string();
            let error = by_question_mark(mistake);
            assert!(error.is_permanent(), "{text}");
            assert_eq!(error.source().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_outside_is_never_permanent_however_long_it_takes_a_person_to_mend_it() {
        let blob = EffectName::new("a").unwrap();
        let reason = || "credentials refused".to_owned();
        for outage in [
            TollgateError::Store(StoreError::Unavailable { store: store(), reason: reason() }),
            TollgateError::Store(StoreError::Misconfigured { store: store(), reason: reason() }),
            TollgateError::Blob(BlobError::Misconfigured { name: blob.clone(), reason: reason() }),
            TollgateError::Closed,
            TollgateError::Overtaken,
        ] {
            let text = outage.to_string();
            let error = by_question_mark(outage);
            assert!(!error.is_permanent() && error.is_outside(), "{text}");
        }
        let configuration = by_question_mark(TollgateError::Configuration("no blob storage".into()));
        assert!(
            !configuration.is_permanent() && !configuration.is_outside(),
            "it counts, and is tried again"
        );
        let io = HandlerError::from(std::io::Error::other("a disk of the handler's own"));
        assert!(!io.is_permanent() && !io.is_outside());
    }
}
