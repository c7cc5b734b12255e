//! Side effects: whatever a handler wants to happen outside its partition and that can't join the transaction. This file has
//! the trait that a kind of side effect implements, and the form in which a prepared effect travels with an outgoing message.
//! When which part of it is called is decided by [`crate::processing`] and [`crate::completion`]; blobs are one kind, with a
//! trait of their own ([`crate::blobs`]).

use std::time::Duration;

use bytes::Bytes;

use crate::future::BoxFuture;
use crate::ids::{EffectKind, EffectName};

/// One kind of side effect: how it is prepared, published, read and removed.
///
/// # Order
///
/// | step | when | may be called again |
/// |---|---|---|
/// | [`register`](Self::register) | while the handler runs, before anything exists | with another attempt's name only |
/// | [`prepare`](Self::prepare) | after the registration is stored, before the attempt's deadline | never by us with the same name; repeats of a call whose answer was lost are the kind's own business |
/// | [`publish`](Self::publish) | after the commit, before the message that carries the effect is sent | yes, by anyone, concurrently, even after [`clean_up`](Self::clean_up) |
/// | [`fetch`](Self::fetch) | before the handler of that message | yes, once for each attempt |
/// | [`clean_up`](Self::clean_up) | when the attempt has lost; or before that message's token is consumed | yes, by anyone, even when nothing is there |
///
/// # Promises
///
/// 1. **Prepared is invisible**: nobody but the effect's own steps can tell that something was prepared.
/// 2. **Publishing is idempotent**, and does nothing, successfully, where the effect was cleaned up: whoever cleaned it up was
///    past the message that it belonged to.
/// 3. **Cleaning up is final**: a confirmed clean-up leaves no trace, and repeating it succeeds. A *preparation* that was
///    stalled may still arrive afterwards; the engine cleans up once more when the attempt's deadline has passed.
/// 4. An error says whether repeating helps. Retryable ones are repeated: with back-off in place, then by redelivery; not in place, and
///    not before the time is over, where it says that whoever was asked wants to be left alone.
pub trait SideEffect: Send + Sync + 'static {
    /// The kind, which is written into control records: never reuse one for something else.
    fn kind(&self) -> &EffectKind;

    /// Names the effect before anything of it exists. `unique` was never used before and is to be part of the name.
    ///
    /// # Errors
    /// If `intent` asks for something that can't be named or must not be done.
    fn register(&self, unique: &str, intent: &Bytes) -> Result<EffectName, EffectError>;

    /// Creates the effect, invisibly. What it returns travels with the effect to the other steps.
    fn prepare<'a>(
        &'a self,
        name: &'a EffectName,
        intent: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, EffectError>>;

    /// Makes the effect happen.
    fn publish<'a>(&'a self, effect: &'a AttachedEffect) -> BoxFuture<'a, Result<(), EffectError>>;

    /// What the handler of the message that carries the effect is to see of it.
    fn fetch<'a>(&'a self, effect: &'a AttachedEffect) -> BoxFuture<'a, Result<Bytes, EffectError>>;

    /// Removes all trace of the effect.
    fn clean_up<'a>(&'a self, name: &'a EffectName) -> BoxFuture<'a, Result<(), EffectError>>;
}

/// A prepared side effect that travels with an outgoing message: it is published before the message is sent, is there when the
/// message is handled, and is cleaned up before the message's token is consumed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttachedEffect {
    /// What kind of thing: it selects who publishes it and who cleans it up.
    pub kind: EffectKind,
    /// Its attempt-unique name.
    pub name: EffectName,
    /// What its preparation returned, for its kind alone to understand.
    pub detail: Bytes,
}

/// Why a side effect did not come about.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EffectError {
    /// It could not be reached, or answered with a passing fault.
    #[error("side effect {name} could not be reached: {reason}; the step is safe to repeat")]
    Unavailable {
        /// Which effect.
        name: EffectName,
        /// What was said.
        reason: String,
        /// For how long whoever was asked wants to be left alone, if he says so.
        retry_after: Option<Duration>,
    },
    /// It will never come about as asked for.
    #[error("side effect {name} is refused: {reason}")]
    Refused {
        /// Which effect.
        name: EffectName,
        /// What is wrong and what to do.
        reason: String,
    },
    /// What was asked for can't even be named.
    #[error("a side effect of kind {kind} is not possible: {reason}")]
    Invalid {
        /// Of which kind.
        kind: EffectKind,
        /// What is wrong and what to do.
        reason: String,
    },
}

impl EffectError {
    /// Whether the same step may succeed later, without a person's doing anything.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// For how long whoever was asked wants to be left alone, if he says so.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            Self::Refused { .. } | Self::Invalid { .. } => None,
        }
    }
}
