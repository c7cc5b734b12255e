//! The trait that a broker implements and what is asked of it: little. It delivers at least once, in any order, with
//! any number of copies; it carries envelopes as bytes and never looks inside.

use std::time::Duration;

use bytes::Bytes;
use smol_str::SmolStr;

use crate::envelope::Headers;
use crate::future::BoxFuture;
use crate::ids::{EndpointName, MessageId, PartitionKey};
use crate::publication::DeduplicationId;

/// A message broker with a queue per endpoint.
///
/// # Promises
///
/// 1. **A confirmed send is not lost**: once [`Broker::send`] has answered `Ok` for a message, it is delivered until
///    acknowledged or dead-lettered, as durably as the broker is configured to be.
/// 2. **At least once**: a delivered message that is not settled is delivered again, with a higher delivery count: soon after
///    its receiver died, and after a bound that the broker declares even if the receiver lives.
/// 3. **Held while it is worked on**: until that bound a delivery is not delivered again just because time passed, whether it is
///    being worked on or waits in the engine for its turn. A broker whose visibility timeout is shorter keeps a bounded
///    table of unsettled deliveries and extends them by itself; the engine never asks for it.
/// 4. **Settling is idempotent**: settling twice, or after the bound, does no harm to other messages.
/// 5. **It comes back**: a call fails while the broker can't be reached, and succeeds afterwards, without anybody's
///    reconnecting it.
///
/// [`Broker::receive`] may be cancelled by dropping its future: what it had taken is delivered again.
pub trait Broker: Send + Sync + 'static {
    /// Sends messages; one answer each, in their order. `Err`: it may or may not have been sent.
    fn send(&self, messages: Vec<OutgoingMessage>) -> BoxFuture<'_, Vec<Result<(), BrokerError>>>;

    /// Waits for messages to an endpoint, returns between 1 and `max` of them, or none after a wait of the broker's own
    /// choosing.
    fn receive(
        &self,
        endpoint: &EndpointName,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<Delivery>, BrokerError>>;

    /// Tells what became of deliveries; one answer each, in their order.
    fn settle(
        &self,
        endpoint: &EndpointName,
        settlements: Vec<Settlement>,
    ) -> BoxFuture<'_, Vec<Result<(), BrokerError>>>;

    /// Checks that an endpoint's queue is there and will do.
    ///
    /// A gate asks before it takes the first message, and health checks may ask at any time. It changes nothing.
    ///
    /// # Errors
    /// [`BrokerError::Misconfigured`] says what is wrong with the queue and what to do; others, that nobody could tell.
    fn verify(&self, endpoint: &EndpointName) -> BoxFuture<'_, Result<(), BrokerError>>;
}

/// A message on its way to the broker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OutgoingMessage {
    /// Whose queue.
    pub endpoint: EndpointName,
    /// The destination partition, for brokers that can keep one partition's messages together.
    pub partition: PartitionKey,
    /// The deterministic id of the message, to be shown to people and other systems. Several messages may have it.
    pub message_id: MessageId,
    /// The id for a broker's own deduplication: equal for repeated publications of one outbox entry, and for nothing else.
    pub deduplication_id: DeduplicationId,
    /// The encoded envelope.
    pub envelope: Bytes,
    /// What other systems on the way should see, for brokers that have headers of their own: the message's trace context,
    /// [`Envelope::trace_headers`](crate::Envelope::trace_headers).
    pub headers: Headers,
    /// How long to wait before the first delivery, where the broker can.
    pub delay: Duration,
}

impl OutgoingMessage {
    /// A message of a producer that knows no tokens, and never gives one id to two different messages.
    pub fn without_token(
        endpoint: EndpointName,
        partition: PartitionKey,
        message_id: MessageId,
        envelope: Bytes,
    ) -> Self {
        Self {
            endpoint,
            partition,
            message_id,
            deduplication_id: DeduplicationId::of_message(message_id),
            envelope,
            headers: Headers::new(),
            delay: Duration::ZERO,
        }
    }
}

/// A message from the broker.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The encoded envelope.
    pub envelope: Bytes,
    /// What the broker wants back when the delivery is settled.
    pub receipt: Receipt,
    /// Which delivery of this message it is, counted from 1. Brokers that don't count say 1.
    pub delivery_count: u32,
}

/// A broker's own handle of one delivery.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Receipt {
    /// A number.
    Number(u64),
    /// A text.
    Text(SmolStr),
}

/// What became of one delivery.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settlement {
    /// Which delivery.
    pub receipt: Receipt,
    /// What became of it.
    pub verdict: Verdict,
}

/// What is to happen with a delivered message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is done: never deliver it again.
    Acknowledge,
    /// Deliver it again, not before this time has passed.
    Retry {
        /// How long to wait.
        after: Duration,
    },
    /// It can't be processed: put it aside with the reason. Its token is left in place, so that a replay is processed
    /// exactly once.
    DeadLetter {
        /// Why, for a person.
        reason: String,
    },
}

/// Why a broker did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// The broker could not be reached, or answered with a passing fault.
    #[error("the broker is not available for endpoint {endpoint}: {reason}; the call is safe to repeat")]
    Unavailable {
        /// Which endpoint.
        endpoint: EndpointName,
        /// What the broker or the transport said.
        reason: String,
    },
    /// The endpoint's queue is full: back off.
    #[error("the queue of endpoint {endpoint} is full ({capacity} messages); back off and try again")]
    Full {
        /// Which endpoint.
        endpoint: EndpointName,
        /// How many messages it takes.
        capacity: usize,
    },
    /// There is no such queue, or it may not be used: needs a person.
    #[error("endpoint {endpoint} is not usable: {reason}")]
    Misconfigured {
        /// Which endpoint.
        endpoint: EndpointName,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The broker has been shut down.
    #[error("the broker is closed; endpoint {endpoint} takes and gives no more messages")]
    Closed {
        /// Which endpoint.
        endpoint: EndpointName,
    },
}

impl BrokerError {
    /// Whether the same call may succeed later, without a person's doing anything.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Full { .. })
    }
}
