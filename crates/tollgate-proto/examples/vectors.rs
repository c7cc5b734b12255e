//! Prints the test vectors in `specs/vectors`, for whoever ports the format or the ids to another language:
//!
//! ```text
//! cargo run -p tollgate-proto --example vectors -- envelopes > specs/vectors/envelopes.json
//! ```
//!
//! The files are generated once and then only added to: `tests/vectors.rs` checks that they and the code agree, and
//! computes nothing by what this file calls.

use bytes::Bytes;
use serde_json::{Value, json};
use tollgate_proto::codec::{encode_control, encode_entry, encode_envelope};
use tollgate_proto::control_record::{Origin, OutputRange, Registration, RegistrationState};
use tollgate_proto::{
    AttachedEffect, AttemptId, Audience, Body, Content, ControlRecord, DeduplicationId, Destination,
    EndpointName, EntryKey, Envelope, Incarnation, MessageId, OutboxEntry, PendingEntry, PendingId, Sequence,
    SessionMark, TokenRef, Version,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = match std::env::args().nth(1).as_deref() {
        Some("message_ids") => message_ids()?,
        Some("deduplication_ids") => deduplication_ids()?,
        Some("envelopes") => vectors("envelope", &envelopes()?, |envelope| {
            (envelope_fields(envelope), encode_envelope(envelope))
        }),
        Some("outbox_entries") => {
            vectors("outbox entry", &entries()?, |entry| (entry_fields(entry), encode_entry(entry)))
        }
        Some("control_records") => vectors("control record", &control_records()?, |record| {
            (control_fields(record), encode_control(record))
        }),
        _ => {
            let files = "message_ids, deduplication_ids, envelopes, outbox_entries, control_records";
            return Err(format!("name one of {files}").into());
        }
    };
    println!("{}", serde_json::to_string_pretty(&file)?);
    Ok(())
}

type Named<T> = Vec<(&'static str, T)>;
type Failure = Box<dyn std::error::Error>;

fn vectors<T>(what: &str, records: &Named<T>, encode: impl Fn(&T) -> (Value, Bytes)) -> Value {
    let vectors = records.iter().map(|(name, record)| {
        let (fields, bytes) = encode(record);
        json!({ "name": name, "fields": fields, "bytes": hex(&bytes) })
    });
    json!({
        "what": what,
        "notes": "64-bit numbers are decimal texts; ids are UUIDs; bodies and bytes are hexadecimal. See docs/formats.md.",
        "vectors": vectors.collect::<Vec<_>>(),
    })
}

fn message_ids() -> Result<Value, Failure> {
    let long = "x".repeat(255);
    let causes =
        [MessageId::from_bytes([0; 16]), MessageId::from_bytes([0xff; 16]), MessageId::from_name("a", "b")];
    let mut derived = Vec::new();
    for cause in causes {
        for (endpoint, n) in [("orders", 0), ("orders", 1), ("ørders/東", 255), (long.as_str(), u32::MAX)] {
            let id = MessageId::derive(cause, &EndpointName::new(endpoint)?, n);
            derived.push(
                json!({ "cause": cause.to_string(), "endpoint": endpoint, "n": n, "id": id.to_string() }),
            );
        }
    }
    let texts = [("web-shop", "order-4711"), ("ab", "c"), ("a", "bc"), ("", ""), ("flüge", "北京\u{0}")];
    let named = texts.map(|(namespace, name)| {
        json!({ "namespace": namespace, "name": name, "id": MessageId::from_name(namespace, name).to_string() })
    });
    let steps = [sequence(1, 1), sequence(1, 2), sequence(2, 1), sequence(u64::MAX, u64::MAX)].map(|sequence| {
        let cause = MessageId::of_step(id(1), sequence);
        json!({ "step": id(1).to_string(), "sequence": sequence_fields(sequence), "id": cause.to_string() })
    });
    Ok(json!({
        "what": "message id",
        "steps": {
            "definition": "UUIDv8 of the first 16 bytes of BLAKE3(4, u32 little endian || \"step\" || step, 16 bytes || \
                           incarnation, u64 little endian || counter, u64 little endian)",
            "vectors": steps,
        },
        "derived": {
            "definition": "UUIDv8 of the first 16 bytes of BLAKE3(cause, 16 bytes || length of endpoint, u32 little \
                           endian || endpoint, UTF-8 || n, u32 little endian)",
            "vectors": derived,
        },
        "named": {
            "definition": "UUIDv8 of the first 16 bytes of BLAKE3(length of namespace, u32 little endian || namespace, \
                           UTF-8 || length of name, u32 little endian || name, UTF-8)",
            "vectors": named,
        },
    }))
}

fn deduplication_ids() -> Result<Value, Failure> {
    let at = |store: &str, partition: &str, sequence, index| -> Result<TokenRef, Failure> {
        let entry = EntryKey { sequence, index };
        Ok(TokenRef { store: store.parse()?, partition: partition.parse()?, entry })
    };
    let tokens = [
        token()?,
        at("main", "a", sequence(1, 1), 0)?,
        at("mai", "na", sequence(1, 1), 0)?,
        at("main", "a", sequence(1, 2), 0)?,
        at("main", "a", sequence(2, 1), 0)?,
        at("main", "a", sequence(u64::MAX, u64::MAX), u32::MAX)?,
    ];
    let of_tokens = tokens.map(
        |token| json!({ "token": token_fields(&token), "id": DeduplicationId::of_token(&token).to_string() }),
    );
    let mut wake_ups = Vec::new();
    for (endpoint, number) in [("orders", 0), ("orders", 1), ("ørders/東", u32::MAX)] {
        let id = DeduplicationId::of_wake_up(attempt(), &EndpointName::new(endpoint)?, number);
        wake_ups.push(json!({
            "attempt": attempt_fields(attempt()), "endpoint": endpoint, "number": number, "id": id.to_string(),
        }));
    }
    let messages = [id(1), MessageId::from_bytes([0xff; 16])].map(|message| {
        json!({ "message_id": message.to_string(), "id": DeduplicationId::of_message(message).to_string() })
    });
    let first = DeduplicationId::of_message(id(1));
    let renewed = [0, 1, u64::MAX].map(|nonce| {
        json!({ "of": first.to_string(), "nonce": nonce.to_string(), "id": first.renewed(nonce).to_string() })
    });
    Ok(json!({
        "what": "deduplication id",
        "notes": "The first 16 bytes of BLAKE3, in hexadecimal. A text is its length, u32, then UTF-8; numbers are little \
                  endian.",
        "tokens": {
            "definition": "BLAKE3(text \"token\" || text store || text partition || incarnation, u64 || counter, u64 || \
                           index, u32)",
            "vectors": of_tokens,
        },
        "wake_ups": {
            "definition": "BLAKE3(text \"wake-up\" || text endpoint || process, u64 || serial, u64 || round, u32 || \
                           number, u32)",
            "vectors": wake_ups,
        },
        "messages": {
            "definition": "BLAKE3(text \"message\" || message id, 16 bytes)",
            "vectors": messages,
        },
        "renewed": {
            "definition": "BLAKE3(text \"renewed\" || id, 16 bytes || nonce, u64)",
            "vectors": renewed,
        },
    }))
}

fn envelopes() -> Result<Named<Envelope>, Failure> {
    let envelope = |content| -> Result<Envelope, Failure> {
        Ok(Envelope {
            message_id: id(1),
            to: destination()?,
            message_type: "place-order".parse()?,
            headers: vec![],
            content,
        })
    };
    let with_headers = Envelope { headers: headers(), ..envelope(Content::Body(Bytes::from_static(b"{}")))? };
    let read_after = Some(session_mark()?);
    let expected = Some(Version::from_sequence(sequence(u64::MAX, u64::from(u32::MAX) + 1)));
    Ok(vec![
        ("token", envelope(Content::Token { token: token()?, read_after: None })?),
        (
            "token of a store with session consistency",
            envelope(Content::Token { token: token()?, read_after })?,
        ),
        ("body and headers", with_headers),
        ("empty body", envelope(Content::Body(Bytes::new()))?),
        (
            "body of 251 bytes: the first length of three bytes",
            envelope(Content::Body(vec![0xab; 251].into()))?,
        ),
        ("wake-up of a new partition", envelope(Content::WakeUp { attempt: attempt(), expected: None })?),
        ("wake-up of a known partition", envelope(Content::WakeUp { attempt: attempt(), expected })?),
    ])
}

fn entries() -> Result<Named<OutboxEntry>, Failure> {
    let entry = |body, audience| -> Result<OutboxEntry, Failure> {
        Ok(OutboxEntry {
            message_id: id(2),
            to: destination()?,
            message_type: "place-order".parse()?,
            headers: vec![],
            body,
            audience,
            effects: vec![],
        })
    };
    let inline = || Body::Inline(Bytes::from_static(br#"{"order":4711}"#));
    let with_headers = OutboxEntry { headers: headers(), ..entry(inline(), Audience::Tollgate)? };
    Ok(vec![
        ("inline body", entry(inline(), Audience::Tollgate)?),
        ("inline body and headers", with_headers),
        ("body in blob storage", entry(Body::Blob("bodies/0001/é".parse()?), Audience::Tollgate)?),
        ("for a consumer that knows no tokens", entry(inline(), Audience::External)?),
        ("empty body", entry(Body::Inline(Bytes::new()), Audience::Tollgate)?),
        (
            "carrying a side effect",
            OutboxEntry { effects: vec![effect()?], ..entry(inline(), Audience::Tollgate)? },
        ),
        (
            "for nobody, carrying a side effect",
            OutboxEntry { effects: vec![effect()?], ..entry(Body::Inline(Bytes::new()), Audience::Nobody)? },
        ),
    ])
}

fn control_records() -> Result<Named<ControlRecord>, Failure> {
    let first = ControlRecord {
        version: Version::first(Incarnation(0x0123_4567_89ab_cdef)),
        attempt: attempt(),
        pending: vec![],
        registrations: vec![],
        sessions: vec![],
    };
    let pending = |origin, place, first, count| PendingEntry {
        origin,
        id: PendingId { sequence: sequence(7, 300), place },
        outputs: OutputRange { first, count },
        carried: vec![],
    };
    let by_token = Origin::Token { token: token()?, message_id: id(3) };
    let by_attempt = Origin::Attempt { attempt: attempt(), message_id: id(4) };
    let registration = |state| -> Result<Registration, Failure> {
        Ok(Registration {
            message_id: id(5),
            attempt: attempt(),
            kind: "blob".parse()?,
            name: "invoices/4711".parse()?,
            deadline_ms: 1_790_000_000_000,
            state,
        })
    };
    let full = ControlRecord {
        version: Version::from_sequence(sequence(7, 301)),
        pending: vec![pending(by_token, 0, 0, 2), pending(by_attempt, 1, 2, 0)],
        registrations: vec![
            registration(RegistrationState::Open)?,
            registration(RegistrationState::Condemned)?,
        ],
        sessions: vec![session_mark()?],
        ..first.clone()
    };
    let mut carrying = pending(Origin::Token { token: token()?, message_id: id(3) }, 0, 0, 0);
    carrying.carried = vec![effect()?];
    let carrying = ControlRecord { pending: vec![carrying], ..first.clone() };
    Ok(vec![
        ("first version", first),
        ("everything", full),
        ("a message that carried a side effect", carrying),
    ])
}

fn effect() -> Result<AttachedEffect, Failure> {
    let name = "https://bank.example/transfers/0001".parse()?;
    Ok(AttachedEffect { kind: "http".parse()?, name, detail: Bytes::from_static(b"detail") })
}

fn effect_fields(effects: &[AttachedEffect]) -> Value {
    let fields = effects.iter().map(|effect| {
        json!({ "kind": effect.kind.as_str(), "name": effect.name.as_str(), "detail": hex(&effect.detail) })
    });
    fields.collect()
}

fn id(last: u8) -> MessageId {
    MessageId::from_bytes([0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0x8c, 0xde, 0x80, 0, 0, 0, 0, 0, 0, last])
}

fn destination() -> Result<Destination, Failure> {
    Ok(Destination { endpoint: "orders".parse()?, partition: "order/4711".parse()? })
}

fn headers() -> Vec<(String, String)> {
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    vec![("traceparent".into(), trace.into()), ("región".into(), String::new())]
}

const fn sequence(incarnation: u64, counter: u64) -> Sequence {
    Sequence { incarnation: Incarnation(incarnation), counter }
}

const fn attempt() -> AttemptId {
    AttemptId { process: 0xfeed_face_cafe_beef, serial: 65_536, round: 250 }
}

fn token() -> Result<TokenRef, Failure> {
    let entry = EntryKey { sequence: sequence(0x0123_4567_89ab_cdef, 251), index: 3 };
    Ok(TokenRef { store: "main".parse()?, partition: "customer/東京".parse()?, entry })
}

fn session_mark() -> Result<SessionMark, Failure> {
    Ok(SessionMark {
        store: "cosmos".parse()?,
        scope: "0".into(),
        position: 65_535,
        token: "0:-1#65535".into(),
    })
}

fn envelope_fields(envelope: &Envelope) -> Value {
    json!({
        "message_id": envelope.message_id.to_string(),
        "endpoint": envelope.to.endpoint.as_str(),
        "partition": envelope.to.partition.as_str(),
        "message_type": envelope.message_type.as_str(),
        "headers": envelope.headers,
        "content": match &envelope.content {
            Content::Token { token, read_after } => json!({
                "token": token_fields(token),
                "read_after": read_after.as_ref().map(session_fields),
            }),
            Content::Body(body) => json!({ "body": hex(body) }),
            Content::WakeUp { attempt, expected } => json!({
                "attempt": attempt_fields(*attempt),
                "expected": expected.map(|version| sequence_fields(version.sequence())),
            }),
        },
    })
}

fn entry_fields(entry: &OutboxEntry) -> Value {
    json!({
        "message_id": entry.message_id.to_string(),
        "endpoint": entry.to.endpoint.as_str(),
        "partition": entry.to.partition.as_str(),
        "message_type": entry.message_type.as_str(),
        "headers": entry.headers,
        "body": match &entry.body {
            Body::Inline(body) => json!({ "inline": hex(body) }),
            Body::Blob(name) => json!({ "blob": name.as_str() }),
        },
        "audience": match entry.audience {
            Audience::Tollgate => "tollgate",
            Audience::External => "external",
            Audience::Nobody => "nobody",
        },
        "effects": effect_fields(&entry.effects),
    })
}

fn control_fields(record: &ControlRecord) -> Value {
    let pending = record.pending.iter().map(|entry| {
        json!({
            "token": entry.origin.token().map(token_fields),
            "attempt": match &entry.origin {
                Origin::Attempt { attempt, .. } => Some(attempt_fields(*attempt)),
                Origin::Token { .. } => None,
            },
            "message_id": entry.origin.message_id().to_string(),
            "sequence": sequence_fields(entry.id.sequence),
            "place": entry.id.place,
            "first": entry.outputs.first,
            "count": entry.outputs.count,
            "carried": effect_fields(&entry.carried),
        })
    });
    let registrations = record.registrations.iter().map(|registration| {
        json!({
            "message_id": registration.message_id.to_string(),
            "attempt": attempt_fields(registration.attempt),
            "kind": registration.kind.as_str(),
            "name": registration.name.as_str(),
            "deadline_ms": registration.deadline_ms.to_string(),
            "state": match registration.state {
                RegistrationState::Open => "open",
                RegistrationState::Condemned => "condemned",
            },
        })
    });
    json!({
        "version": sequence_fields(record.version.sequence()),
        "attempt": attempt_fields(record.attempt),
        "pending": pending.collect::<Vec<_>>(),
        "registrations": registrations.collect::<Vec<_>>(),
        "sessions": record.sessions.iter().map(session_fields).collect::<Vec<_>>(),
    })
}

fn sequence_fields(sequence: Sequence) -> Value {
    json!({ "incarnation": sequence.incarnation.0.to_string(), "counter": sequence.counter.to_string() })
}

fn attempt_fields(attempt: AttemptId) -> Value {
    let AttemptId { process, serial, round } = attempt;
    json!({ "process": process.to_string(), "serial": serial.to_string(), "round": round })
}

fn token_fields(token: &TokenRef) -> Value {
    json!({
        "store": token.store.as_str(),
        "partition": token.partition.as_str(),
        "sequence": sequence_fields(token.entry.sequence),
        "index": token.entry.index,
    })
}

fn session_fields(mark: &SessionMark) -> Value {
    json!({
        "store": mark.store.as_str(),
        "scope": mark.scope,
        "position": mark.position.to_string(),
        "token": mark.token,
    })
}

fn hex(bytes: &Bytes) -> String {
    format!("{bytes:x}")
}
