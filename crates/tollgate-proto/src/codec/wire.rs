//! The layout of the records as structs that borrow, and the way back from bytes to owned, checked records. The order
//! of fields and variants here IS the format: see [`crate::codec`] before touching it. What a record is made of is
//! decided in the parent module; only it may use this one.

use bytes::Bytes;
use wincode::config::{Configuration, DEFAULT_PREALLOCATION_SIZE_LIMIT, Serialize};
use wincode::int_encoding::{LittleEndian, VarInt};
use wincode::io::Reader;
use wincode::len::BincodeLen;
use wincode::{SchemaRead, SchemaWrite};

use super::{DecodeError, FORMAT};
use crate::control_record::{Origin, OutputRange, PendingEntry, PendingId, Registration, RegistrationState};
use crate::envelope::{Content, Destination, Headers};
use crate::ids::{AttemptId, InvalidName, MessageId, MessageType};
use crate::outbox_entry::{Audience, Body};
use crate::sequence::{EntryKey, Incarnation, Sequence, SessionMark, TokenRef, Version};
use crate::side_effect::AttachedEffect;

/// The format of bincode 2's `config::standard()`.
type Standard = Configuration<true, DEFAULT_PREALLOCATION_SIZE_LIMIT, BincodeLen, LittleEndian, VarInt, u32>;
const STANDARD: Standard = Configuration::default().with_varint_encoding();

/// How many elements of a list are reserved on the word of its length alone; further ones as they are found.
const LIST_RESERVED_MAX: usize = 64;

/// Encodes a record, its format first, into a buffer of exactly its size.
pub(super) fn encode<T: SchemaWrite<Standard, Src = T>>(record: &T) -> Bytes {
    T::serialize(record, STANDARD)
        .expect("a record in memory has lengths that fit 64 bits, and its buffer is as large as it was computed to be")
        .into()
}

/// What the envelope and the outbox entry begin with.
#[derive(SchemaWrite, SchemaRead)]
pub(super) struct Head<'a> {
    message_id: [u8; 16],
    endpoint: &'a str,
    partition: &'a str,
    message_type: &'a str,
}

impl<'a> Head<'a> {
    pub(super) fn new(message_id: &MessageId, to: &'a Destination, message_type: &'a MessageType) -> Self {
        Self {
            message_id: *message_id.as_bytes(),
            endpoint: to.endpoint.as_str(),
            partition: to.partition.as_str(),
            message_type: message_type.as_str(),
        }
    }
}

#[derive(SchemaWrite, SchemaRead)]
pub(super) struct SequenceWire {
    incarnation: u64,
    counter: u64,
}

impl From<Sequence> for SequenceWire {
    fn from(Sequence { incarnation, counter }: Sequence) -> Self {
        Self { incarnation: incarnation.0, counter }
    }
}

impl From<SequenceWire> for Sequence {
    fn from(SequenceWire { incarnation, counter }: SequenceWire) -> Self {
        Self { incarnation: Incarnation(incarnation), counter }
    }
}

#[derive(SchemaWrite, SchemaRead)]
pub(super) struct AttemptWire {
    process: u64,
    serial: u64,
    round: u32,
}

impl From<AttemptId> for AttemptWire {
    fn from(AttemptId { process, serial, round }: AttemptId) -> Self {
        Self { process, serial, round }
    }
}

impl From<AttemptWire> for AttemptId {
    fn from(AttemptWire { process, serial, round }: AttemptWire) -> Self {
        Self { process, serial, round }
    }
}

#[derive(SchemaWrite, SchemaRead)]
pub(super) struct TokenWire<'a> {
    store: &'a str,
    partition: &'a str,
    sequence: SequenceWire,
    index: u32,
}

impl<'a> From<&'a TokenRef> for TokenWire<'a> {
    fn from(TokenRef { store, partition, entry }: &'a TokenRef) -> Self {
        Self {
            store: store.as_str(),
            partition: partition.as_str(),
            sequence: entry.sequence.into(),
            index: entry.index,
        }
    }
}

#[derive(SchemaWrite, SchemaRead)]
pub(super) struct SessionWire<'a> {
    store: &'a str,
    scope: &'a str,
    position: u64,
    token: &'a str,
}

impl<'a> From<&'a SessionMark> for SessionWire<'a> {
    fn from(SessionMark { store, scope, position, token }: &'a SessionMark) -> Self {
        Self { store: store.as_str(), scope, position: *position, token }
    }
}

#[derive(SchemaWrite, SchemaRead)]
pub(super) enum ContentWire<'a> {
    Token { token: TokenWire<'a>, read_after: Option<SessionWire<'a>> },
    Body(&'a [u8]),
    WakeUp { attempt: AttemptWire, expected: Option<SequenceWire> },
}

impl<'a> From<&'a Content> for ContentWire<'a> {
    fn from(content: &'a Content) -> Self {
        match content {
            Content::Token { token, read_after } => {
                Self::Token { token: token.into(), read_after: read_after.as_ref().map(Into::into) }
            }
            Content::Body(body) => Self::Body(body),
            Content::WakeUp { attempt, expected } => Self::WakeUp {
                attempt: (*attempt).into(),
                expected: expected.map(|version| version.sequence().into()),
            },
        }
    }
}

#[derive(SchemaWrite, SchemaRead)]
pub(super) enum BodyWire<'a> {
    Inline(&'a [u8]),
    Blob(&'a str),
}

impl<'a> From<&'a Body> for BodyWire<'a> {
    fn from(body: &'a Body) -> Self {
        match body {
            Body::Inline(body) => Self::Inline(body),
            Body::Blob(name) => Self::Blob(name.as_str()),
        }
    }
}

#[derive(SchemaWrite)]
pub(super) enum AudienceWire<'a> {
    Tollgate,
    External,
    TollgateWithEffects(Vec<EffectWire<'a>>),
    NobodyWithEffects(Vec<EffectWire<'a>>),
}

impl<'a> AudienceWire<'a> {
    pub(super) fn new(audience: Audience, effects: &'a [AttachedEffect]) -> Self {
        match audience {
            Audience::Tollgate if effects.is_empty() => Self::Tollgate,
            Audience::Tollgate => Self::TollgateWithEffects(effects.iter().map(Into::into).collect()),
            // Such a consumer knows neither tokens nor side effects, so nothing is attached for it.
            Audience::External => Self::External,
            Audience::Nobody => Self::NobodyWithEffects(effects.iter().map(Into::into).collect()),
        }
    }
}

#[derive(SchemaWrite, SchemaRead)]
pub(super) struct EffectWire<'a> {
    kind: &'a str,
    name: &'a str,
    detail: &'a [u8],
}

impl<'a> From<&'a AttachedEffect> for EffectWire<'a> {
    fn from(AttachedEffect { kind, name, detail }: &'a AttachedEffect) -> Self {
        Self { kind: kind.as_str(), name: name.as_str(), detail }
    }
}

#[derive(SchemaWrite)]
pub(super) struct PendingWire<'a> {
    origin: OriginWire<'a>,
    sequence: SequenceWire,
    place: u32,
    first: u32,
    count: u32,
}

impl<'a> From<&'a PendingEntry> for PendingWire<'a> {
    fn from(PendingEntry { origin, id, outputs, carried }: &'a PendingEntry) -> Self {
        Self {
            origin: OriginWire::new(origin, carried),
            sequence: id.sequence.into(),
            place: id.place,
            first: outputs.first,
            count: outputs.count,
        }
    }
}

#[derive(SchemaWrite)]
enum OriginWire<'a> {
    Token { token: TokenWire<'a>, message_id: [u8; 16] },
    Attempt { attempt: AttemptWire, message_id: [u8; 16] },
    TokenWithEffects { token: TokenWire<'a>, message_id: [u8; 16], effects: Vec<EffectWire<'a>> },
}

impl<'a> OriginWire<'a> {
    fn new(origin: &'a Origin, carried: &'a [AttachedEffect]) -> Self {
        match origin {
            Origin::Token { token, message_id } if !carried.is_empty() => Self::TokenWithEffects {
                token: token.into(),
                message_id: *message_id.as_bytes(),
                effects: carried.iter().map(Into::into).collect(),
            },
            // Only a message with a token can carry something.
            Origin::Token { token, message_id } => {
                Self::Token { token: token.into(), message_id: *message_id.as_bytes() }
            }
            Origin::Attempt { attempt, message_id } => {
                Self::Attempt { attempt: (*attempt).into(), message_id: *message_id.as_bytes() }
            }
        }
    }
}

#[derive(SchemaWrite, SchemaRead)]
pub(super) struct RegistrationWire<'a> {
    message_id: [u8; 16],
    attempt: AttemptWire,
    kind: &'a str,
    name: &'a str,
    deadline_ms: u64,
    state: StateWire,
}

impl<'a> From<&'a Registration> for RegistrationWire<'a> {
    fn from(registration: &'a Registration) -> Self {
        let Registration { message_id, attempt, kind, name, deadline_ms, state } = registration;
        Self {
            message_id: *message_id.as_bytes(),
            attempt: (*attempt).into(),
            kind: kind.as_str(),
            name: name.as_str(),
            deadline_ms: *deadline_ms,
            state: match state {
                RegistrationState::Open => StateWire::Open,
                RegistrationState::Condemned => StateWire::Condemned,
            },
        }
    }
}

#[derive(SchemaWrite, SchemaRead)]
enum StateWire {
    Open,
    Condemned,
}

/// Bytes that are being decoded, up to where the next field begins.
pub(super) struct Source<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Source<'a> {
    /// Checks the format and stands before the first field.
    pub(super) fn open(what: &'static str, bytes: &'a [u8]) -> Result<Self, DecodeError> {
        match bytes {
            [FORMAT, rest @ ..] => Ok(Self { what, rest }),
            [format, ..] => Err(DecodeError::UnknownFormat { what, format: *format }),
            [] => Err(DecodeError::Damaged { what, reason: "it is empty".into() }),
        }
    }

    /// Checks that nothing follows the last field.
    pub(super) fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(self.damaged(format!("{count} bytes follow its end"))),
        }
    }

    pub(super) fn head(&mut self) -> Result<(MessageId, Destination, MessageType), DecodeError> {
        let Head { message_id, endpoint, partition, message_type } = self.get()?;
        let to = Destination { endpoint: self.name(endpoint)?, partition: self.name(partition)? };
        Ok((MessageId::from_bytes(message_id), to, self.name(message_type)?))
    }

    pub(super) fn headers(&mut self) -> Result<Headers, DecodeError> {
        self.list(|source| {
            let (name, value): (&str, &str) = source.get()?;
            Ok((name.to_owned(), value.to_owned()))
        })
    }

    /// `bytes` are what was opened: a body becomes a slice of them.
    pub(super) fn content(&mut self, bytes: &Bytes) -> Result<Content, DecodeError> {
        Ok(match self.get()? {
            ContentWire::Token { token, read_after } => Content::Token {
                token: self.token(&token)?,
                read_after: read_after.map(|mark| self.session_mark(&mark)).transpose()?,
            },
            ContentWire::Body(body) => Content::Body(bytes.slice_ref(body)),
            ContentWire::WakeUp { attempt, expected } => Content::WakeUp {
                attempt: attempt.into(),
                expected: expected.map(|sequence| Version::from_sequence(sequence.into())),
            },
        })
    }

    /// `bytes` are what was opened: an inline body becomes a slice of them.
    pub(super) fn body(&mut self, bytes: &Bytes) -> Result<Body, DecodeError> {
        Ok(match self.get()? {
            BodyWire::Inline(body) => Body::Inline(bytes.slice_ref(body)),
            BodyWire::Blob(name) => Body::Blob(self.name(name)?),
        })
    }

    /// Who consumes a message, and what it carries.
    pub(super) fn audience(&mut self) -> Result<(Audience, Vec<AttachedEffect>), DecodeError> {
        Ok(match self.variant()? {
            0 => (Audience::Tollgate, Vec::new()),
            1 => (Audience::External, Vec::new()),
            2 => (Audience::Tollgate, self.list(Self::effect)?),
            3 => (Audience::Nobody, self.list(Self::effect)?),
            other => return Err(self.damaged(format!("there is no audience {other}"))),
        })
    }

    fn effect(&mut self) -> Result<AttachedEffect, DecodeError> {
        let EffectWire { kind, name, detail } = self.get()?;
        Ok(AttachedEffect {
            kind: self.name(kind)?,
            name: self.name(name)?,
            detail: Bytes::copy_from_slice(detail),
        })
    }

    fn variant(&mut self) -> Result<u32, DecodeError> {
        self.get()
    }

    pub(super) fn sequence(&mut self) -> Result<Sequence, DecodeError> {
        self.get::<SequenceWire>().map(Into::into)
    }

    pub(super) fn attempt(&mut self) -> Result<AttemptId, DecodeError> {
        self.get::<AttemptWire>().map(Into::into)
    }

    pub(super) fn pending(&mut self) -> Result<PendingEntry, DecodeError> {
        let (origin, carried) = self.origin()?;
        let (sequence, place, first, count): (SequenceWire, u32, u32, u32) = self.get()?;
        if first.checked_add(count).is_none() {
            return Err(self.damaged(format!("{count} outputs from index {first} on exceed 32 bits")));
        }
        let id = PendingId { sequence: sequence.into(), place };
        Ok(PendingEntry { origin, id, outputs: OutputRange { first, count }, carried })
    }

    fn origin(&mut self) -> Result<(Origin, Vec<AttachedEffect>), DecodeError> {
        let variant = self.variant()?;
        match variant {
            0 | 2 => {
                let (token, message_id): (TokenWire<'a>, [u8; 16]) = self.get()?;
                let token = self.token(&token)?;
                let carried = if variant == 2 { self.list(Self::effect)? } else { Vec::new() };
                Ok((Origin::Token { token, message_id: MessageId::from_bytes(message_id) }, carried))
            }
            1 => {
                let (attempt, message_id): (AttemptWire, [u8; 16]) = self.get()?;
                let message_id = MessageId::from_bytes(message_id);
                Ok((Origin::Attempt { attempt: attempt.into(), message_id }, Vec::new()))
            }
            other => Err(self.damaged(format!("there is no origin {other}"))),
        }
    }

    pub(super) fn registration(&mut self) -> Result<Registration, DecodeError> {
        let RegistrationWire { message_id, attempt, kind, name, deadline_ms, state } = self.get()?;
        Ok(Registration {
            message_id: MessageId::from_bytes(message_id),
            attempt: attempt.into(),
            kind: self.name(kind)?,
            name: self.name(name)?,
            deadline_ms,
            state: match state {
                StateWire::Open => RegistrationState::Open,
                StateWire::Condemned => RegistrationState::Condemned,
            },
        })
    }

    pub(super) fn session(&mut self) -> Result<SessionMark, DecodeError> {
        let mark = self.get()?;
        self.session_mark(&mark)
    }

    /// A length, then as many elements. The length is not believed: it may be damaged.
    pub(super) fn list<T>(
        &mut self,
        element: impl Fn(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.get::<u64>()?;
        // No element has less than one byte.
        let Some(count) = usize::try_from(count).ok().filter(|count| *count <= self.rest.len()) else {
            return Err(
                self.damaged(format!("{count} elements are announced and {} bytes left", self.rest.len()))
            );
        };
        let mut elements = Vec::with_capacity(count.min(LIST_RESERVED_MAX));
        for _ in 0..count {
            elements.push(element(self)?);
        }
        Ok(elements)
    }

    fn token(&self, token: &TokenWire<'_>) -> Result<TokenRef, DecodeError> {
        let TokenWire { store, partition, sequence: SequenceWire { incarnation, counter }, index } = *token;
        let sequence = Sequence { incarnation: Incarnation(incarnation), counter };
        let entry = EntryKey { sequence, index };
        Ok(TokenRef { store: self.name(store)?, partition: self.name(partition)?, entry })
    }

    fn session_mark(&self, mark: &SessionWire<'_>) -> Result<SessionMark, DecodeError> {
        let SessionWire { store, scope, position, token } = *mark;
        Ok(SessionMark { store: self.name(store)?, scope: scope.into(), position, token: token.into() })
    }

    fn name<T: TryFrom<&'a str, Error = InvalidName>>(&self, text: &'a str) -> Result<T, DecodeError> {
        T::try_from(text).map_err(|name| DecodeError::InvalidName { what: self.what, name })
    }

    fn get<T: SchemaRead<'a, Standard, Dst = T>>(&mut self) -> Result<T, DecodeError> {
        T::get(self.rest.by_ref()).map_err(|error| self.damaged(error.to_string()))
    }

    #[cold]
    fn damaged(&self, reason: String) -> DecodeError {
        DecodeError::Damaged { what: self.what, reason }
    }
}
