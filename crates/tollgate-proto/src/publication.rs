//! Publications: envelopes on their way to the broker, each with the id by which a broker that deduplicates recognises
//! repetitions. A message id would not do: it may stand for several messages, a token never does.

use std::fmt;
use std::time::Duration;

use crate::broker::OutgoingMessage;
use crate::codec;
use crate::envelope::Envelope;
use crate::ids::{AttemptId, EndpointName, MessageId, update_with_text};
use crate::sequence::TokenRef;

/// The id of one publication, for brokers that deduplicate.
///
/// It is the same whenever one outbox entry is published again, and different for every other entry, for ever. So a broker may
/// drop a copy whose id it remembers: the first one is still in its queue, or was delivered and settled. A publication that takes
/// the place of a copy that has **left** the queue (a replayed dead letter) needs a [renewed](DeduplicationId::renewed) id.
///
/// ```
/// use tollgate_proto::{DeduplicationId, MessageId};
///
/// let order = DeduplicationId::of_message(MessageId::from_name("web-shop", "order-4711"));
/// assert_eq!(order.to_string().len(), 32);
/// assert_ne!(order.renewed(1), order);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeduplicationId([u8; 16]);

impl DeduplicationId {
    /// Takes 16 bytes that were made elsewhere.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The id of the outbox entry at this token.
    ///
    /// The first 16 bytes of BLAKE3 over `"token" ‖ store ‖ partition` (each text preceded by its length, u32), the sequence's
    /// `incarnation (u64) ‖ counter (u64)` and `index (u32)`, all little endian. Test vectors:
    /// `specs/vectors/deduplication_ids.json`.
    pub fn of_token(token: &TokenRef) -> Self {
        let TokenRef { store, partition, entry } = token;
        let mut hasher = tagged("token");
        update_with_text(&mut hasher, store.as_str());
        update_with_text(&mut hasher, partition.as_str());
        hasher.update(&entry.sequence.incarnation.0.to_le_bytes());
        hasher.update(&entry.sequence.counter.to_le_bytes());
        hasher.update(&entry.index.to_le_bytes());
        Self::from_hash(&hasher.finalize())
    }

    /// The id of the `number`-th wake-up of an attempt, to the queue of `endpoint`.
    ///
    /// BLAKE3 over `"wake-up" ‖ endpoint`, the attempt's `process (u64) ‖ serial (u64) ‖ round (u32)` and `number (u32)`.
    pub fn of_wake_up(attempt: AttemptId, endpoint: &EndpointName, number: u32) -> Self {
        let mut hasher = tagged("wake-up");
        update_with_text(&mut hasher, endpoint.as_str());
        hasher.update(&attempt.process.to_le_bytes());
        hasher.update(&attempt.serial.to_le_bytes());
        hasher.update(&attempt.round.to_le_bytes());
        hasher.update(&number.to_le_bytes());
        Self::from_hash(&hasher.finalize())
    }

    /// The id for a producer that knows no tokens and never gives two different messages one id.
    ///
    /// BLAKE3 over `"message"` and the id's 16 bytes.
    pub fn of_message(id: MessageId) -> Self {
        let mut hasher = tagged("message");
        hasher.update(id.as_bytes());
        Self::from_hash(&hasher.finalize())
    }

    /// A fresh id for a publication that takes the place of a copy that has left the queue: a replayed dead letter, a message that
    /// a broker has lost. `nonce` is a random number: a broker must not drop the copy because it remembers an earlier one.
    ///
    /// BLAKE3 over `"renewed"`, these 16 bytes and the nonce (u64).
    #[must_use]
    pub fn renewed(self, nonce: u64) -> Self {
        let mut hasher = tagged("renewed");
        hasher.update(&self.0);
        hasher.update(&nonce.to_le_bytes());
        Self::from_hash(&hasher.finalize())
    }

    fn from_hash(hash: &blake3::Hash) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.as_bytes()[..16]);
        Self(bytes)
    }
}

fn tagged(tag: &str) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    update_with_text(&mut hasher, tag);
    hasher
}

impl fmt::Display for DeduplicationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for DeduplicationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeduplicationId({self})")
    }
}

/// An envelope to be sent, and the id of this publication.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Publication {
    /// The envelope.
    pub envelope: Envelope,
    /// The id for brokers that deduplicate.
    pub deduplication_id: DeduplicationId,
}

impl Publication {
    /// The message for the broker, to be delivered after `delay` where the broker can.
    pub fn into_message(self, delay: Duration) -> OutgoingMessage {
        let Self { envelope, deduplication_id } = self;
        OutgoingMessage {
            envelope: codec::encode_envelope(&envelope),
            headers: envelope.trace_headers(),
            endpoint: envelope.to.endpoint,
            partition: envelope.to.partition,
            message_id: envelope.message_id,
            deduplication_id,
            delay,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence::{EntryKey, Incarnation, Version};

    fn token(partition: &str, incarnation: u64, index: u32) -> TokenRef {
        TokenRef {
            store: "main".try_into().unwrap(),
            partition: partition.try_into().unwrap(),
            entry: EntryKey { sequence: Version::first(Incarnation(incarnation)).sequence(), index },
        }
    }

    #[test]
    fn every_token_has_an_id_of_its_own_and_always_the_same() {
        let mut places = vec![token("a", 1, 0), token("b", 1, 0), token("a", 2, 0), token("a", 1, 1)];
        let other_store = TokenRef { store: "other".try_into().unwrap(), ..token("a", 1, 0) };
        let mut later = token("a", 1, 0);
        later.entry.sequence.counter += 1;
        places.extend([other_store, later]);
        let ids: std::collections::HashSet<_> = places.iter().map(DeduplicationId::of_token).collect();
        assert_eq!(ids.len(), places.len());
        assert!(places.iter().all(|place| ids.contains(&DeduplicationId::of_token(place))));
    }

    #[test]
    fn a_renewed_id_is_new_for_each_nonce() {
        let first = DeduplicationId::of_token(&token("a", 1, 0));
        assert_ne!(first.renewed(1), first);
        assert_ne!(first.renewed(1), first.renewed(2));
    }

    #[test]
    fn wake_ups_of_one_attempt_differ_by_number_and_endpoint() {
        let attempt = AttemptId::new(1, 2);
        let endpoint = |name: &str| EndpointName::new(name).unwrap();
        let first = DeduplicationId::of_wake_up(attempt, &endpoint("orders"), 0);
        assert_ne!(first, DeduplicationId::of_wake_up(attempt, &endpoint("orders"), 1));
        assert_ne!(first, DeduplicationId::of_wake_up(attempt, &endpoint("payments"), 0));
        assert_ne!(first, DeduplicationId::of_wake_up(attempt.next_round(), &endpoint("orders"), 0));
    }
}
