//! Names and identities: who sent what to whom. Every one is a newtype, so that an endpoint can't be passed
//! where a partition is meant. Positions inside a partition (sequences, versions, tokens) live in
//! [`crate::sequence`]; nothing here knows about storage.

use std::fmt;

use smol_str::SmolStr;
use uuid::Uuid;

use crate::sequence::Sequence;

/// The deterministic identity of a message: a UUID, 16 bytes.
///
/// Messages that a handler sends get the id [`MessageId::derive`] computes, so that a second attempt at the same
/// message produces the same ids and other systems can deduplicate by them too.
///
/// ```
/// use tollgate_proto::{EndpointName, MessageId};
///
/// let order = MessageId::from_name("web-shop", "order-4711");
/// let billing = EndpointName::new("billing").unwrap();
/// assert_eq!(MessageId::derive(order, &billing, 0), MessageId::derive(order, &billing, 0));
/// assert_ne!(MessageId::derive(order, &billing, 0), MessageId::derive(order, &billing, 1));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId([u8; 16]);

impl MessageId {
    /// Takes the 16 bytes of an existing id, in the order a UUID prints them.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes, in the order a UUID prints them.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The id of the `n`-th message (counted from 0) sent while message `cause` is handled at `endpoint`.
    ///
    /// UUIDv8 (RFC 9562, section 5.8) of BLAKE3 over
    /// `cause (16 bytes) ‖ length of endpoint (u32, little endian) ‖ endpoint (UTF-8) ‖ n (u32, little endian)`.
    /// Test vectors: `specs/vectors/message_ids.json`.
    pub fn derive(cause: Self, endpoint: &EndpointName, n: u32) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&cause.0);
        update_with_text(&mut hasher, endpoint.as_str());
        hasher.update(&n.to_le_bytes());
        Self::from_hash(&hasher.finalize())
    }

    /// The cause of what one step of a source sends: `step` names the step, `sequence` is that of the commit that it is part of. So a
    /// source that gives all its steps one name sends messages with different ids.
    ///
    /// UUIDv8 of BLAKE3 over the text `step` (4 bytes of length, then UTF-8) and
    /// `step (16 bytes) ‖ incarnation (u64) ‖ counter (u64)`, all little endian.
    pub fn of_step(step: Self, sequence: Sequence) -> Self {
        let mut hasher = blake3::Hasher::new();
        update_with_text(&mut hasher, "step");
        hasher.update(&step.0);
        hasher.update(&sequence.incarnation.0.to_le_bytes());
        hasher.update(&sequence.counter.to_le_bytes());
        Self::from_hash(&hasher.finalize())
    }

    /// The id of something that has a name in a namespace but no id yet: a request, a line of a file.
    ///
    /// UUIDv8 of BLAKE3 over both texts, each preceded by its length (u32, little endian).
    pub fn from_name(namespace: &str, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        update_with_text(&mut hasher, namespace);
        update_with_text(&mut hasher, name);
        Self::from_hash(&hasher.finalize())
    }

    fn from_hash(hash: &blake3::Hash) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.as_bytes()[..16]);
        Self(*uuid::Builder::from_custom_bytes(bytes).as_uuid().as_bytes())
    }
}

pub(crate) fn update_with_text(hasher: &mut blake3::Hasher, text: &str) {
    // A name is at most NAME_BYTES_MAX or PARTITION_KEY_BYTES_MAX long; request ids are bounded by their constructor.
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    hasher.update(&length.to_le_bytes());
    hasher.update(text.as_bytes());
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_bytes(self.0).fmt(f)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self})")
    }
}

impl std::str::FromStr for MessageId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::try_parse(text)
            .map(|uuid| Self(*uuid.as_bytes()))
            .map_err(|_| InvalidName { what: "message id", problem: "it is not a UUID" })
    }
}

/// A name that breaks a rule: says what it was to name and which rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what}: {problem}")]
pub struct InvalidName {
    what: &'static str,
    problem: &'static str,
}

/// Longest endpoint name, store alias, item name, message type or effect kind, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// Longest partition key or request id, in bytes. Cosmos DB allows 2048 in a partition key, DynamoDB as well; 1024
/// leaves room for what a store puts around it.
pub const PARTITION_KEY_BYTES_MAX: usize = 1024;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(SmolStr);

        impl $name {
            /// Checks and takes a name. Names up to 23 bytes are kept inline; longer ones are shared.
            ///
            /// # Errors
            /// [`InvalidName`] when it is empty or longer than allowed.
            pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidName> {
                let name = name.as_ref();
                if name.is_empty() {
                    return Err(InvalidName { what: $what, problem: "it is empty" });
                }
                if name.len() > $max {
                    return Err(InvalidName { what: $what, problem: "it is too long" });
                }
                Ok(Self(SmolStr::new(name)))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = InvalidName;
            fn try_from(text: &str) -> Result<Self, Self::Error> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::new(text)
            }
        }
    };
}

name!(
    /// A logical consumer with a queue of its own, e.g. `orders`.
    EndpointName, "endpoint name", NAME_BYTES_MAX
);
name!(
    /// The unit of consistency: all items under one partition key change together or not at all.
    PartitionKey, "partition key", PARTITION_KEY_BYTES_MAX
);
name!(
    /// The name under which a token refers to its store. Every process of a system must know the same aliases.
    StoreAlias, "store alias", NAME_BYTES_MAX
);
name!(
    /// The name of a business item inside its partition.
    ItemName, "item name", NAME_BYTES_MAX
);
name!(
    /// The type of a message's body; it selects the handler.
    MessageType, "message type", NAME_BYTES_MAX
);
name!(
    /// The kind of a side effect outside the partition, e.g. `blob`; it selects who cleans it up.
    EffectKind, "effect kind", NAME_BYTES_MAX
);
name!(
    /// The name of a side effect, unique to the attempt that registered it, e.g. a blob's path.
    EffectName, "effect name", PARTITION_KEY_BYTES_MAX
);
name!(
    /// What a request or a tokenless message is recognised by when it comes again: an `Idempotency-Key` or a message id.
    DeduplicationKey, "deduplication key", PARTITION_KEY_BYTES_MAX
);

impl DeduplicationKey {
    /// The key under which an endpoint remembers a tokenless message (identity-based deduplication):
    /// `message/LENGTH:ENDPOINT/ID`.
    ///
    /// Endpoints that share a partition do not share keys: an event that its producer sends to two of them is handled by both.
    pub fn of_message(endpoint: &EndpointName, id: MessageId) -> Self {
        let name = endpoint.as_str();
        Self(SmolStr::new(format!("message/{}:{name}/{id}", name.len())))
    }

    /// The key under which an endpoint remembers a request: `request/LENGTH:ENDPOINT/REQUEST ID`.
    ///
    /// # Errors
    /// [`InvalidName`] when the request id is empty, or too long beside the endpoint's name.
    pub fn of_request(endpoint: &EndpointName, request_id: &str) -> Result<Self, InvalidName> {
        if request_id.is_empty() {
            return Err(InvalidName { what: "request id", problem: "it is empty" });
        }
        let name = endpoint.as_str();
        Self::new(format!("request/{}:{name}/{request_id}", name.len()))
    }
}

/// One execution of a handler, unique for ever: which process, which of its executions, which try after a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId {
    /// Drawn at random once when a process starts.
    pub process: u64,
    /// Counts the executions that this process has started.
    pub serial: u64,
    /// Counts the reloads inside one execution: each starts the handler anew.
    pub round: u32,
}

impl AttemptId {
    /// The first round of an execution.
    pub const fn new(process: u64, serial: u64) -> Self {
        Self { process, serial, round: 0 }
    }

    /// The id under which this attempt commits its registrations of side effects. The commit of its messages has
    /// another one, so that neither is taken for the other when an answer is lost (R7).
    #[must_use]
    pub const fn registering(self) -> Self {
        Self { round: self.round | 1 << 31, ..self }
    }

    /// The attempt that follows a reload.
    #[must_use]
    pub const fn next_round(self) -> Self {
        Self { round: self.round + 1, ..self }
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}-{}", self.process, self.serial, self.round)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_id_is_a_version_8_uuid_of_the_rfc_variant() {
        let id = MessageId::derive(MessageId::from_bytes([7; 16]), &EndpointName::new("orders").unwrap(), 3);
        let uuid = Uuid::from_bytes(*id.as_bytes());
        assert_eq!(uuid.get_version_num(), 8);
        assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
    }

    #[test]
    fn names_that_run_into_each_other_give_different_ids() {
        assert_ne!(MessageId::from_name("ab", "c"), MessageId::from_name("a", "bc"));
    }

    #[test]
    fn keys_of_different_endpoints_kinds_and_ids_are_different() {
        let endpoint = |name: &str| EndpointName::new(name).unwrap();
        let id = MessageId::from_name("a", "b");
        let request =
            |name: &str, request: &str| DeduplicationKey::of_request(&endpoint(name), request).unwrap();
        let keys = [
            DeduplicationKey::of_message(&endpoint("billing"), id),
            DeduplicationKey::of_message(&endpoint("shipping"), id),
            request("billing", &id.to_string()),
            request("a/1:b", "c"),
            request("a", "1:b/c"),
        ];
        let distinct: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len(), "{keys:?}");
    }

    #[test]
    fn an_empty_or_overlong_name_is_refused_with_its_reason() {
        assert_eq!(EndpointName::new("").unwrap_err().to_string(), "invalid endpoint name: it is empty");
        let long = "x".repeat(PARTITION_KEY_BYTES_MAX + 1);
        assert_eq!(PartitionKey::new(long).unwrap_err().to_string(), "invalid partition key: it is too long");
    }
}
