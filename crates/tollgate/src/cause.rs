//! The one rule for failures: a message is blamed for what its own handler makes of it, and for nothing else.
//!
//! A message's failures are counted ([`crate::put_backs`]) and lead to a dead letter: its handler returned an error,
//! panicked or ran out of time; no handler knows its type; its body does not parse; its token names a store that the
//! gate does not have. Every other reason to put a message back is [`Cause::Outside`] and is never counted: a call to a
//! store, a broker, blob storage or a side effect's target that failed, refused credentials included; a completion that
//! did not go through; a conflict with another process. So the engine names a cause where a handler has failed, and
//! what has no cause named is outside.

use std::time::Duration;

use tollgate_proto::{BlobError, BrokerError, EffectError, StoreError};

use crate::error::{HandlerError, TollgateError};
use crate::transaction::OutsideFailure;

/// Longest time for which a message is put back because a handler or a target asks for it: an hour.
///
/// More would be a mistake or an attack, and brokers hold no message back for longer than some hours.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// The side that a failure belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The message or its handler: it counts towards the limit of deliveries.
    Message,
    /// Something outside, or another process at work on the partition: it counts for nothing.
    Outside,
}

/// Why one message is put back, and when it may come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PutBack {
    pub(crate) cause: Cause,
    pub(crate) again: Again,
}

/// When a message that is put back may come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// After the back-off of its retry policy.
    BackOff,
    /// After this time, as its handler asks.
    After(Duration),
    /// After this time and the back-off: a target that many messages wait for asks to be left alone.
    AfterAndBackOff(Duration),
}

impl PutBack {
    /// A failure of something outside.
    pub(crate) const OUTSIDE: Self = Self { cause: Cause::Outside, again: Again::BackOff };

    /// A failure of the message.
    pub(crate) const MESSAGE: Self = Self { cause: Cause::Message, again: Again::BackOff };

    /// A handler's failure, which is nothing of the message's if something outside has failed the handler.
    pub(crate) fn of_handler(error: &HandlerError, outside: Option<OutsideFailure>) -> Self {
        let is_outside = outside.is_some() || error.is_outside();
        let put_back = if is_outside { Self::OUTSIDE } else { Self::MESSAGE };
        match error.after() {
            Some(after) => Self { again: Again::After(after), ..put_back },
            None => put_back.leaving_alone(outside.and_then(|outside| outside.retry_after)),
        }
    }

    /// The same, with a target that asks to be left alone for a while.
    pub(crate) fn leaving_alone(mut self, retry_after: Option<Duration>) -> Self {
        if let (Some(asked), Again::BackOff) = (retry_after, self.again) {
            self.again = Again::AfterAndBackOff(asked.min(RETRY_AFTER_MAX));
        }
        self
    }
}

/// An error of a call to something outside.
pub(crate) trait OutsideError {
    /// Whether the message that the call was made for is not to blame. `false`: it asks for something impossible.
    fn is_outside(&self) -> bool;

    /// For how long whoever was asked wants to be left alone, if they say so.
    fn retry_after(&self) -> Option<Duration> {
        None
    }
}

impl OutsideError for StoreError {
    fn is_outside(&self) -> bool {
        !matches!(self, Self::TooLarge { .. } | Self::ForeignToken { .. })
    }
}

impl OutsideError for BrokerError {
    fn is_outside(&self) -> bool {
        true
    }
}

impl OutsideError for BlobError {
    fn is_outside(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Misconfigured { .. })
    }
}

impl OutsideError for EffectError {
    fn is_outside(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    fn retry_after(&self) -> Option<Duration> {
        self.retry_after()
    }
}

impl OutsideError for TollgateError {
    fn is_outside(&self) -> bool {
        match self {
            Self::Store(error) => error.is_outside(),
            Self::Broker(error) => error.is_outside(),
            Self::Blob(error) => error.is_outside(),
            Self::Effect(error) => error.is_outside(),
            Self::Overtaken | Self::Overloaded { .. } | Self::Closed => true,
            Self::Configuration(_)
            | Self::Name(_)
            | Self::Encode { .. }
            | Self::Decode { .. }
            | Self::Ended
            | Self::PastDeadline { .. }
            | Self::TimedOut { .. }
            | Self::WaitsForItself { .. }
            | Self::RequestFailed { .. }
            | Self::RequestRefused { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_asks_to_be_left_alone_adds_to_the_back_off_and_a_handler_that_names_a_time_replaces_it()
    {
        let second = Duration::from_secs(1);
        assert_eq!(PutBack::OUTSIDE.leaving_alone(None).again, Again::BackOff);
        assert_eq!(PutBack::OUTSIDE.leaving_alone(Some(second)).again, Again::AfterAndBackOff(second));
        let day = Duration::from_secs(86_400);
        assert_eq!(PutBack::OUTSIDE.leaving_alone(Some(day)).again, Again::AfterAndBackOff(RETRY_AFTER_MAX));
        let asked = PutBack { again: Again::After(second), ..PutBack::MESSAGE };
        assert_eq!(asked.leaving_alone(Some(day)).again, Again::After(second));
    }
}
