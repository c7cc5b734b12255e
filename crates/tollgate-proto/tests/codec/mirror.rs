//! The three records once more, written down a second time for bincode's own derive: an independent statement of the
//! format that the codec is compared with. Nothing here may be computed by the codec. The measurements of the codec use them too.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};
use tollgate_proto::control_record::{Origin, RegistrationState};
use tollgate_proto::{AttachedEffect, Audience, Body, Content, ControlRecord, Envelope, OutboxEntry};

type Id = [u8; 16];

#[derive(Debug, PartialEq, Encode, Decode, Serialize, Deserialize)]
pub struct Sequence(u64, u64);

#[derive(Debug, PartialEq, Encode, Decode, Serialize, Deserialize)]
pub struct Attempt(u64, u64, u32);

#[derive(Debug, PartialEq, Encode, Decode, Serialize, Deserialize)]
pub struct Token {
    store: String,
    partition: String,
    sequence: Sequence,
    index: u32,
}

#[derive(Debug, PartialEq, Encode, Decode, Serialize, Deserialize)]
pub struct Session {
    store: String,
    scope: String,
    position: u64,
    token: String,
}

#[derive(Debug, PartialEq, Encode, Decode, Serialize, Deserialize)]
pub enum MirrorContent {
    Token { token: Token, read_after: Option<Session> },
    Body(Vec<u8>),
    WakeUp { attempt: Attempt, expected: Option<Sequence> },
}

#[derive(Debug, PartialEq, Encode, Decode, Serialize, Deserialize)]
pub struct MirrorEnvelope {
    format: u8,
    message_id: Id,
    endpoint: String,
    partition: String,
    message_type: String,
    headers: Vec<(String, String)>,
    content: MirrorContent,
}

#[derive(Debug, PartialEq, Encode, Decode, Serialize, Deserialize)]
pub enum MirrorBody {
    Inline(Vec<u8>),
    Blob(String),
}

#[derive(Debug, PartialEq, Encode, Decode, Serialize, Deserialize)]
pub struct MirrorEffect {
    kind: String,
    name: String,
    detail: Vec<u8>,
}

#[derive(Debug, PartialEq, Encode, Decode, Serialize, Deserialize)]
pub enum MirrorAudience {
    Tollgate,
    External,
    TollgateWithEffects(Vec<MirrorEffect>),
    NobodyWithEffects(Vec<MirrorEffect>),
}

#[derive(Debug, PartialEq, Encode, Decode, Serialize, Deserialize)]
pub struct MirrorEntry {
    format: u8,
    message_id: Id,
    endpoint: String,
    partition: String,
    message_type: String,
    headers: Vec<(String, String)>,
    body: MirrorBody,
    audience: MirrorAudience,
}

#[derive(Debug, PartialEq, Encode, Decode, Serialize, Deserialize)]
pub enum MirrorOrigin {
    Token { token: Token, message_id: Id },
    Attempt { attempt: Attempt, message_id: Id },
    TokenWithEffects { token: Token, message_id: Id, effects: Vec<MirrorEffect> },
}

#[derive(Debug, PartialEq, Encode, Decode, Serialize, Deserialize)]
pub struct Pending {
    origin: MirrorOrigin,
    sequence: Sequence,
    place: u32,
    first: u32,
    count: u32,
}

#[derive(Debug, PartialEq, Encode, Decode, Serialize, Deserialize)]
pub enum State {
    Open,
    Condemned,
}

#[derive(Debug, PartialEq, Encode, Decode, Serialize, Deserialize)]
pub struct MirrorRegistration {
    message_id: Id,
    attempt: Attempt,
    kind: String,
    name: String,
    deadline_ms: u64,
    state: State,
}

#[derive(Debug, PartialEq, Encode, Decode, Serialize, Deserialize)]
pub struct MirrorControl {
    format: u8,
    version: Sequence,
    attempt: Attempt,
    pending: Vec<Pending>,
    registrations: Vec<MirrorRegistration>,
    sessions: Vec<Session>,
}

impl From<tollgate_proto::Sequence> for Sequence {
    fn from(sequence: tollgate_proto::Sequence) -> Self {
        Self(sequence.incarnation.0, sequence.counter)
    }
}

impl From<tollgate_proto::AttemptId> for Attempt {
    fn from(attempt: tollgate_proto::AttemptId) -> Self {
        Self(attempt.process, attempt.serial, attempt.round)
    }
}

impl From<&tollgate_proto::TokenRef> for Token {
    fn from(token: &tollgate_proto::TokenRef) -> Self {
        Self {
            store: token.store.to_string(),
            partition: token.partition.to_string(),
            sequence: token.entry.sequence.into(),
            index: token.entry.index,
        }
    }
}

impl From<&tollgate_proto::SessionMark> for Session {
    fn from(mark: &tollgate_proto::SessionMark) -> Self {
        Self {
            store: mark.store.to_string(),
            scope: mark.scope.clone(),
            position: mark.position,
            token: mark.token.clone(),
        }
    }
}

fn effects(effects: &[AttachedEffect]) -> Vec<MirrorEffect> {
    let mirror = |effect: &AttachedEffect| MirrorEffect {
        kind: effect.kind.to_string(),
        name: effect.name.to_string(),
        detail: effect.detail.to_vec(),
    };
    effects.iter().map(mirror).collect()
}

impl From<&Envelope> for MirrorEnvelope {
    fn from(envelope: &Envelope) -> Self {
        Self {
            format: 1,
            message_id: *envelope.message_id.as_bytes(),
            endpoint: envelope.to.endpoint.to_string(),
            partition: envelope.to.partition.to_string(),
            message_type: envelope.message_type.to_string(),
            headers: envelope.headers.clone(),
            content: match &envelope.content {
                Content::Token { token, read_after } => MirrorContent::Token {
                    token: token.into(),
                    read_after: read_after.as_ref().map(Into::into),
                },
                Content::Body(body) => MirrorContent::Body(body.to_vec()),
                Content::WakeUp { attempt, expected } => MirrorContent::WakeUp {
                    attempt: (*attempt).into(),
                    expected: expected.map(|version| version.sequence().into()),
                },
            },
        }
    }
}

impl From<&OutboxEntry> for MirrorEntry {
    fn from(entry: &OutboxEntry) -> Self {
        Self {
            format: 1,
            message_id: *entry.message_id.as_bytes(),
            endpoint: entry.to.endpoint.to_string(),
            partition: entry.to.partition.to_string(),
            message_type: entry.message_type.to_string(),
            headers: entry.headers.clone(),
            body: match &entry.body {
                Body::Inline(body) => MirrorBody::Inline(body.to_vec()),
                Body::Blob(name) => MirrorBody::Blob(name.to_string()),
            },
            audience: match entry.audience {
                Audience::Tollgate if entry.effects.is_empty() => MirrorAudience::Tollgate,
                Audience::Tollgate => MirrorAudience::TollgateWithEffects(effects(&entry.effects)),
                Audience::External => MirrorAudience::External,
                Audience::Nobody => MirrorAudience::NobodyWithEffects(effects(&entry.effects)),
            },
        }
    }
}

impl From<&ControlRecord> for MirrorControl {
    fn from(record: &ControlRecord) -> Self {
        let pending = record.pending.iter().map(|entry| Pending {
            origin: match &entry.origin {
                Origin::Token { token, message_id } if !entry.carried.is_empty() => {
                    MirrorOrigin::TokenWithEffects {
                        token: token.into(),
                        message_id: *message_id.as_bytes(),
                        effects: effects(&entry.carried),
                    }
                }
                Origin::Token { token, message_id } => {
                    MirrorOrigin::Token { token: token.into(), message_id: *message_id.as_bytes() }
                }
                Origin::Attempt { attempt, message_id } => {
                    MirrorOrigin::Attempt { attempt: (*attempt).into(), message_id: *message_id.as_bytes() }
                }
            },
            sequence: entry.id.sequence.into(),
            place: entry.id.place,
            first: entry.outputs.first,
            count: entry.outputs.count,
        });
        let registrations = record.registrations.iter().map(|registration| MirrorRegistration {
            message_id: *registration.message_id.as_bytes(),
            attempt: registration.attempt.into(),
            kind: registration.kind.to_string(),
            name: registration.name.to_string(),
            deadline_ms: registration.deadline_ms,
            state: match registration.state {
                RegistrationState::Open => State::Open,
                RegistrationState::Condemned => State::Condemned,
            },
        });
        Self {
            format: 1,
            version: record.version.sequence().into(),
            attempt: record.attempt.into(),
            pending: pending.collect(),
            registrations: registrations.collect(),
            sessions: record.sessions.iter().map(Into::into).collect(),
        }
    }
}
