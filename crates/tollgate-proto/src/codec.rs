//! The bytes of the three records that leave a process: the envelope, the outbox entry and the control record. This is
//! the only place that makes or reads them; what they mean is said where the records are, and how they are laid out
//! byte by byte in `docs/formats.md`.
//!
//! The first byte of every encoding is its format ([`FORMAT`]). What follows is bincode 2's `config::standard()`:
//! little endian, integers of more than one byte as varints, texts and sequences preceded by their length, an enum by
//! the number of its variant.
//!
//! **Fields and variants may never be reordered, removed or inserted before others**: stored records outlive the
//! process that wrote them. Whatever changes the layout takes a new format number, and the old one stays readable.
//!
//! | enum | 0 | 1 | 2 | 3 |
//! |---|---|---|---|---|
//! | [`Content`](crate::Content) | `Token` | `Body` | `WakeUp` | |
//! | [`Body`](crate::Body) | `Inline` | `Blob` | | |
//! | [`Audience`](crate::Audience) | `Tollgate` | `External` | `Tollgate`, with side effects | `Nobody`, with side effects |
//! | [`Origin`](crate::control_record::Origin) | `Token` | `Attempt` | `Token`, with side effects | |
//! | [`RegistrationState`](crate::control_record::RegistrationState) | `Open` | `Condemned` | | |
//!
//! Decoding trusts nothing: bytes that are damaged, cut off or followed by others are an error, never a panic, and
//! nothing is allocated that the input is not long enough to fill.

mod wire;

use bytes::Bytes;

use self::wire::{AttemptWire, BodyWire, ContentWire, Head, SequenceWire, Source};
use crate::control_record::ControlRecord;
use crate::envelope::Envelope;
use crate::ids::InvalidName;
use crate::outbox_entry::OutboxEntry;
use crate::sequence::Version;

/// The format that this version writes, and the only one so far.
pub const FORMAT: u8 = 1;

/// Encodes an envelope.
///
/// ```
/// use bytes::Bytes;
/// use tollgate_proto::codec::{decode_envelope, encode_envelope};
/// use tollgate_proto::{Content, Destination, EndpointName, Envelope, MessageId, MessageType, PartitionKey};
///
/// let envelope = Envelope {
///     message_id: MessageId::from_name("web-shop", "order-4711"),
///     to: Destination { endpoint: EndpointName::new("orders")?, partition: PartitionKey::new("order/4711")? },
///     message_type: MessageType::new("place-order")?,
///     headers: vec![],
///     content: Content::Body(Bytes::from_static(b"{}")),
/// };
/// assert_eq!(decode_envelope(&encode_envelope(&envelope))?, envelope);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn encode_envelope(envelope: &Envelope) -> Bytes {
    let Envelope { message_id, to, message_type, headers, content } = envelope;
    let head = Head::new(message_id, to, message_type);
    wire::encode(&(FORMAT, head, headers.as_slice(), ContentWire::from(content)))
}

/// Decodes an envelope. A body is a slice of `bytes`, not a copy.
///
/// # Errors
/// [`DecodeError`] when the format is unknown, the bytes are not an envelope and nothing else, or a name breaks a rule.
pub fn decode_envelope(bytes: &Bytes) -> Result<Envelope, DecodeError> {
    let mut source = Source::open("envelope", bytes)?;
    let (message_id, to, message_type) = source.head()?;
    let headers = source.headers()?;
    let content = source.content(bytes)?;
    source.finish()?;
    Ok(Envelope { message_id, to, message_type, headers, content })
}

/// Encodes an outbox entry.
pub fn encode_entry(entry: &OutboxEntry) -> Bytes {
    let OutboxEntry { message_id, to, message_type, headers, body, audience, effects } = entry;
    let head = Head::new(message_id, to, message_type);
    wire::encode(&(
        FORMAT,
        head,
        headers.as_slice(),
        BodyWire::from(body),
        wire::AudienceWire::new(*audience, effects),
    ))
}

/// Decodes an outbox entry. An inline body is a slice of `bytes`, not a copy.
///
/// # Errors
/// [`DecodeError`] when the format is unknown, the bytes are not an outbox entry and nothing else, or a name breaks a
/// rule.
pub fn decode_entry(bytes: &Bytes) -> Result<OutboxEntry, DecodeError> {
    let mut source = Source::open("outbox entry", bytes)?;
    let (message_id, to, message_type) = source.head()?;
    let headers = source.headers()?;
    let body = source.body(bytes)?;
    let (audience, effects) = source.audience()?;
    source.finish()?;
    Ok(OutboxEntry { message_id, to, message_type, headers, body, audience, effects })
}

/// Encodes a control record.
pub fn encode_control(record: &ControlRecord) -> Bytes {
    let ControlRecord { version, attempt, pending, registrations, sessions } = record;
    let pending: Vec<_> = pending.iter().map(wire::PendingWire::from).collect();
    let registrations: Vec<_> = registrations.iter().map(wire::RegistrationWire::from).collect();
    let sessions: Vec<_> = sessions.iter().map(wire::SessionWire::from).collect();
    wire::encode(&(
        FORMAT,
        SequenceWire::from(version.sequence()),
        AttemptWire::from(*attempt),
        pending.as_slice(),
        registrations.as_slice(),
        sessions.as_slice(),
    ))
}

/// Decodes a control record.
///
/// # Errors
/// [`DecodeError`] when the format is unknown, the bytes are not a control record and nothing else, or a name breaks a
/// rule.
pub fn decode_control(bytes: &[u8]) -> Result<ControlRecord, DecodeError> {
    let mut source = Source::open("control record", bytes)?;
    let version = Version::from_sequence(source.sequence()?);
    let attempt = source.attempt()?;
    let pending = source.list(Source::pending)?;
    let registrations = source.list(Source::registration)?;
    let sessions = source.list(Source::session)?;
    source.finish()?;
    Ok(ControlRecord { version, attempt, pending, registrations, sessions })
}

/// Why bytes are not the record they were taken for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A later version of Tollgate wrote them, or something else altogether.
    #[error(
        "{what} has format {format} and this version reads {FORMAT}: \
         upgrade every process before the first one that writes a newer format"
    )]
    UnknownFormat {
        /// Which record.
        what: &'static str,
        /// Its first byte.
        format: u8,
    },
    /// They are cut off, continued or altered.
    #[error("{what} is damaged: {reason}")]
    Damaged {
        /// Which record.
        what: &'static str,
        /// What was found instead of what.
        reason: String,
    },
    /// A name in them breaks a rule.
    #[error("{what} holds an {name}")]
    InvalidName {
        /// Which record.
        what: &'static str,
        /// Which name, and which rule.
        #[source]
        name: InvalidName,
    },
}
