//! Generated records: every variant, names at their bounds, numbers on both sides of each varint width.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use tollgate_proto::control_record::{Origin, OutputRange, Registration, RegistrationState};
use tollgate_proto::ids::{NAME_BYTES_MAX, PARTITION_KEY_BYTES_MAX};
use tollgate_proto::{
    AttachedEffect, AttemptId, Audience, Body, Content, ControlRecord, Destination, EntryKey, Envelope,
    Headers, Incarnation, InvalidName, MessageId, OutboxEntry, PendingEntry, PendingId, Sequence,
    SessionMark, TokenRef, Version,
};

fn name<T>(bytes_max: usize) -> impl Strategy<Value = T>
where
    T: for<'a> TryFrom<&'a str, Error = InvalidName> + std::fmt::Debug,
{
    prop_oneof![
        8 => "[a-z][a-z0-9/-]{0,30}",
        4 => "\\PC{1,40}",
        1 => Just("\0".to_owned()),
        1 => Just("x".repeat(bytes_max)),
    ]
    .prop_map(|text| T::try_from(&text).unwrap())
}

fn short_name<T>() -> impl Strategy<Value = T>
where
    T: for<'a> TryFrom<&'a str, Error = InvalidName> + std::fmt::Debug,
{
    name(NAME_BYTES_MAX)
}

fn long_name<T>() -> impl Strategy<Value = T>
where
    T: for<'a> TryFrom<&'a str, Error = InvalidName> + std::fmt::Debug,
{
    name(PARTITION_KEY_BYTES_MAX)
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..=256_u64,
        Just(u64::from(u16::MAX)),
        Just(u64::from(u16::MAX) + 1),
        Just(u64::from(u32::MAX)),
        Just(u64::from(u32::MAX) + 1),
        Just(u64::MAX),
    ]
}

fn small_number() -> impl Strategy<Value = u32> {
    prop_oneof![any::<u32>(), 0..=256_u32, Just(u32::from(u16::MAX)), Just(u32::from(u16::MAX) + 1)]
}

fn message_id() -> impl Strategy<Value = MessageId> {
    any::<[u8; 16]>().prop_map(MessageId::from_bytes)
}

fn sequence() -> impl Strategy<Value = Sequence> {
    (number(), number())
        .prop_map(|(incarnation, counter)| Sequence { incarnation: Incarnation(incarnation), counter })
}

fn attempt() -> impl Strategy<Value = AttemptId> {
    (number(), number(), small_number()).prop_map(|(process, serial, round)| AttemptId {
        process,
        serial,
        round,
    })
}

fn token() -> impl Strategy<Value = TokenRef> {
    (short_name(), long_name(), sequence(), small_number()).prop_map(|(store, partition, sequence, index)| {
        TokenRef { store, partition, entry: EntryKey { sequence, index } }
    })
}

fn session_mark() -> impl Strategy<Value = SessionMark> {
    (short_name(), ".{0,8}", number(), ".{0,40}").prop_map(|(store, scope, position, token)| SessionMark {
        store,
        scope,
        position,
        token,
    })
}

fn headers() -> impl Strategy<Value = Headers> {
    vec((".{0,20}", ".{0,80}"), 0..4)
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..400).prop_map(Bytes::from)
}

fn destination() -> impl Strategy<Value = Destination> {
    (short_name(), long_name()).prop_map(|(endpoint, partition)| Destination { endpoint, partition })
}

fn content() -> impl Strategy<Value = Content> {
    prop_oneof![
        (token(), proptest::option::of(session_mark()))
            .prop_map(|(token, read_after)| Content::Token { token, read_after }),
        bytes().prop_map(Content::Body),
        (attempt(), proptest::option::of(sequence().prop_map(Version::from_sequence)))
            .prop_map(|(attempt, expected)| Content::WakeUp { attempt, expected }),
    ]
}

pub fn envelope() -> impl Strategy<Value = Envelope> {
    (message_id(), destination(), short_name(), headers(), content()).prop_map(
        |(message_id, to, message_type, headers, content)| Envelope {
            message_id,
            to,
            message_type,
            headers,
            content,
        },
    )
}

pub fn entry() -> impl Strategy<Value = OutboxEntry> {
    let body = prop_oneof![bytes().prop_map(Body::Inline), long_name().prop_map(Body::Blob)];
    let audience = prop_oneof![
        vec(effect(), 0..3).prop_map(|effects| (Audience::Tollgate, effects)),
        Just((Audience::External, Vec::new())),
        vec(effect(), 0..3).prop_map(|effects| (Audience::Nobody, effects)),
    ];
    (message_id(), destination(), short_name(), headers(), body, audience).prop_map(
        |(message_id, to, message_type, headers, body, (audience, effects))| OutboxEntry {
            message_id,
            to,
            message_type,
            headers,
            body,
            audience,
            effects,
        },
    )
}

fn effect() -> impl Strategy<Value = AttachedEffect> {
    (short_name(), long_name(), bytes()).prop_map(|(kind, name, detail)| AttachedEffect {
        kind,
        name,
        detail,
    })
}

fn pending() -> impl Strategy<Value = PendingEntry> {
    let origin = prop_oneof![
        (token(), message_id(), vec(effect(), 0..3))
            .prop_map(|(token, message_id, carried)| (Origin::Token { token, message_id }, carried)),
        (attempt(), message_id())
            .prop_map(|(attempt, message_id)| (Origin::Attempt { attempt, message_id }, Vec::new())),
    ];
    (origin, sequence(), small_number(), 0..u32::MAX / 2, 0..u32::MAX / 2).prop_map(
        |((origin, carried), sequence, place, first, count)| PendingEntry {
            origin,
            carried,
            id: PendingId { sequence, place },
            outputs: OutputRange { first, count },
        },
    )
}

fn registration() -> impl Strategy<Value = Registration> {
    let state = prop_oneof![Just(RegistrationState::Open), Just(RegistrationState::Condemned)];
    (message_id(), attempt(), short_name(), long_name(), number(), state).prop_map(
        |(message_id, attempt, kind, name, deadline_ms, state)| Registration {
            message_id,
            attempt,
            kind,
            name,
            deadline_ms,
            state,
        },
    )
}

pub fn control() -> impl Strategy<Value = ControlRecord> {
    (sequence(), attempt(), vec(pending(), 0..5), vec(registration(), 0..4), vec(session_mark(), 0..4))
        .prop_map(|(version, attempt, pending, registrations, sessions)| ControlRecord {
            version: Version::from_sequence(version),
            attempt,
            pending,
            registrations,
            sessions,
        })
}
