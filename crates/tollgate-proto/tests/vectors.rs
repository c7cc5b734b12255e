//! The test vectors in `specs/vectors` against the code. The records are built here from the files' fields, and the
//! ids are recomputed from BLAKE3 by their definition: nothing expected is read from the code under test.

#![expect(clippy::unwrap_used, reason = "a test panics where its file is wrong")]

use std::path::PathBuf;

use bytes::Bytes;
use serde_json::Value;
use tollgate_proto::codec::{
    decode_control, decode_entry, decode_envelope, encode_control, encode_entry, encode_envelope,
};
use tollgate_proto::control_record::{Origin, OutputRange, Registration, RegistrationState};
use tollgate_proto::{
    AttachedEffect, AttemptId, Audience, Body, Content, ControlRecord, DeduplicationId, Destination,
    EndpointName, EntryKey, Envelope, Headers, Incarnation, MessageId, OutboxEntry, PendingEntry, PendingId,
    Sequence, SessionMark, TokenRef, Version,
};

#[test]
fn every_derived_id_is_the_hash_that_its_definition_says() {
    let file = read("message_ids");
    let vectors = list(&file["derived"]["vectors"]);
    assert!(vectors.len() >= 12);
    for vector in vectors {
        let (cause, endpoint, n) = (id(&vector["cause"]), text(&vector["endpoint"]), number32(&vector["n"]));
        let mut hashed = cause.as_bytes().to_vec();
        hashed.extend(u32::try_from(endpoint.len()).unwrap().to_le_bytes());
        hashed.extend(endpoint.as_bytes());
        hashed.extend(n.to_le_bytes());
        assert_eq!(text(&vector["id"]), uuid_version_8(&hashed), "{vector}");
        let endpoint = EndpointName::new(endpoint).unwrap();
        assert_eq!(text(&vector["id"]), MessageId::derive(cause, &endpoint, n).to_string(), "{vector}");
    }
}

#[test]
fn every_id_of_a_name_is_the_hash_that_its_definition_says() {
    let file = read("message_ids");
    let vectors = list(&file["named"]["vectors"]);
    assert!(vectors.len() >= 5);
    for vector in vectors {
        let (namespace, name) = (text(&vector["namespace"]), text(&vector["name"]));
        let mut hashed = Vec::new();
        for part in [namespace, name] {
            hashed.extend(u32::try_from(part.len()).unwrap().to_le_bytes());
            hashed.extend(part.as_bytes());
        }
        assert_eq!(text(&vector["id"]), uuid_version_8(&hashed), "{vector}");
        assert_eq!(text(&vector["id"]), MessageId::from_name(namespace, name).to_string(), "{vector}");
    }
}

#[test]
fn every_cause_of_a_step_is_the_hash_that_its_definition_says() {
    let file = read("message_ids");
    let vectors = list(&file["steps"]["vectors"]);
    assert!(vectors.len() >= 4);
    for vector in vectors {
        let (step, sequence) = (id(&vector["step"]), sequence(&vector["sequence"]));
        let mut hashed = [texts(&["step"]), step.as_bytes().to_vec()].concat();
        hashed.extend(sequence.incarnation.0.to_le_bytes());
        hashed.extend(sequence.counter.to_le_bytes());
        assert_eq!(text(&vector["id"]), uuid_version_8(&hashed), "{vector}");
        assert_eq!(text(&vector["id"]), MessageId::of_step(step, sequence).to_string(), "{vector}");
    }
}

#[test]
fn every_deduplication_id_is_the_hash_that_its_definition_says() {
    let file = read("deduplication_ids");
    let group = |name: &str, vectors_min: usize| {
        let vectors = list(&file[name]["vectors"]).clone();
        assert!(vectors.len() >= vectors_min, "{name}");
        vectors
    };
    for vector in group("tokens", 6) {
        let token = token(&vector["token"]);
        let mut hashed = texts(&["token", token.store.as_str(), token.partition.as_str()]);
        hashed.extend(token.entry.sequence.incarnation.0.to_le_bytes());
        hashed.extend(token.entry.sequence.counter.to_le_bytes());
        hashed.extend(token.entry.index.to_le_bytes());
        check_id(&vector, &hashed, DeduplicationId::of_token(&token));
    }
    for vector in group("wake_ups", 3) {
        let (attempt, endpoint) = (attempt(&vector["attempt"]), text(&vector["endpoint"]));
        let number = number32(&vector["number"]);
        let mut hashed = texts(&["wake-up", endpoint]);
        hashed.extend(attempt.process.to_le_bytes());
        hashed.extend(attempt.serial.to_le_bytes());
        hashed.extend(attempt.round.to_le_bytes());
        hashed.extend(number.to_le_bytes());
        let endpoint = EndpointName::new(endpoint).unwrap();
        check_id(&vector, &hashed, DeduplicationId::of_wake_up(attempt, &endpoint, number));
    }
    for vector in group("messages", 2) {
        let message = id(&vector["message_id"]);
        let hashed = [texts(&["message"]), message.as_bytes().to_vec()].concat();
        check_id(&vector, &hashed, DeduplicationId::of_message(message));
    }
    for vector in group("renewed", 3) {
        let (of, nonce) = (bytes(&vector["of"]), number64(&vector["nonce"]));
        let hashed = [texts(&["renewed"]), of.to_vec(), nonce.to_le_bytes().to_vec()].concat();
        check_id(&vector, &hashed, DeduplicationId::from_bytes(of[..].try_into().unwrap()).renewed(nonce));
    }
}

/// Texts, each preceded by its length.
fn texts(parts: &[&str]) -> Vec<u8> {
    let part = |part: &&str| [&u32::try_from(part.len()).unwrap().to_le_bytes(), part.as_bytes()].concat();
    parts.iter().flat_map(part).collect()
}

fn check_id(vector: &Value, hashed: &[u8], id: DeduplicationId) {
    let expected = format!("{:x}", Bytes::copy_from_slice(&blake3::hash(hashed).as_bytes()[..16]));
    assert_eq!(text(&vector["id"]), expected, "{vector}");
    assert_eq!(id.to_string(), expected, "{vector}");
}

#[test]
fn every_envelope_of_the_vectors_has_their_bytes() {
    check("envelopes", 7, envelope, encode_envelope, |bytes| decode_envelope(&bytes).unwrap());
}

#[test]
fn every_outbox_entry_of_the_vectors_has_their_bytes() {
    check("outbox_entries", 5, entry, encode_entry, |bytes| decode_entry(&bytes).unwrap());
}

#[test]
fn every_control_record_of_the_vectors_has_their_bytes() {
    check("control_records", 2, control, encode_control, |bytes| decode_control(&bytes).unwrap());
}

fn check<T: PartialEq + std::fmt::Debug>(
    file: &str,
    vectors_min: usize,
    build: impl Fn(&Value) -> T,
    encode: impl Fn(&T) -> Bytes,
    decode: impl Fn(Bytes) -> T,
) {
    let file = read(file);
    let vectors = list(&file["vectors"]);
    assert!(vectors.len() >= vectors_min);
    for vector in vectors {
        let record = build(&vector["fields"]);
        let bytes = bytes(&vector["bytes"]);
        assert_eq!(encode(&record), bytes, "{}", vector["name"]);
        assert_eq!(decode(bytes), record, "{}", vector["name"]);
    }
}

/// RFC 9562, section 5.8: version 8 in the high half of byte 6, variant 10 in the two high bits of byte 8.
fn uuid_version_8(hashed: &[u8]) -> String {
    let hash = blake3::hash(hashed);
    let mut bytes = hash.as_bytes()[..16].to_vec();
    bytes[6] = 0x80 | bytes[6] & 0x0f;
    bytes[8] = 0x80 | bytes[8] & 0x3f;
    let hex = format!("{:x}", Bytes::from(bytes));
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

fn envelope(fields: &Value) -> Envelope {
    let content = &fields["content"];
    let content = if content["token"].is_object() {
        let read_after = Some(&content["read_after"]).filter(|mark| !mark.is_null()).map(session_mark);
        Content::Token { token: token(&content["token"]), read_after }
    } else if content["attempt"].is_object() {
        let expected = Some(&content["expected"]).filter(|version| !version.is_null());
        let expected = expected.map(|version| Version::from_sequence(sequence(version)));
        Content::WakeUp { attempt: attempt(&content["attempt"]), expected }
    } else {
        Content::Body(bytes(&content["body"]))
    };
    Envelope {
        message_id: id(&fields["message_id"]),
        to: destination(fields),
        message_type: text(&fields["message_type"]).parse().unwrap(),
        headers: headers(&fields["headers"]),
        content,
    }
}

fn entry(fields: &Value) -> OutboxEntry {
    let body = &fields["body"];
    OutboxEntry {
        message_id: id(&fields["message_id"]),
        to: destination(fields),
        message_type: text(&fields["message_type"]).parse().unwrap(),
        headers: headers(&fields["headers"]),
        body: match body["blob"].as_str() {
            Some(name) => Body::Blob(name.parse().unwrap()),
            None => Body::Inline(bytes(&body["inline"])),
        },
        audience: match text(&fields["audience"]) {
            "tollgate" => Audience::Tollgate,
            "external" => Audience::External,
            "nobody" => Audience::Nobody,
            other => panic!("unknown audience {other}"),
        },
        effects: effects(&fields["effects"]),
    }
}

/// Vectors that are older than side effects have none.
fn effects(fields: &Value) -> Vec<AttachedEffect> {
    let effect = |fields: &Value| AttachedEffect {
        kind: text(&fields["kind"]).parse().unwrap(),
        name: text(&fields["name"]).parse().unwrap(),
        detail: bytes(&fields["detail"]),
    };
    fields.as_array().into_iter().flatten().map(effect).collect()
}

fn control(fields: &Value) -> ControlRecord {
    ControlRecord {
        version: Version::from_sequence(sequence(&fields["version"])),
        attempt: attempt(&fields["attempt"]),
        pending: list(&fields["pending"]).iter().map(pending).collect(),
        registrations: list(&fields["registrations"]).iter().map(registration).collect(),
        sessions: list(&fields["sessions"]).iter().map(session_mark).collect(),
    }
}

fn pending(fields: &Value) -> PendingEntry {
    let message_id = id(&fields["message_id"]);
    PendingEntry {
        origin: if fields["token"].is_null() {
            Origin::Attempt { attempt: attempt(&fields["attempt"]), message_id }
        } else {
            Origin::Token { token: token(&fields["token"]), message_id }
        },
        id: PendingId { sequence: sequence(&fields["sequence"]), place: number32(&fields["place"]) },
        outputs: OutputRange { first: number32(&fields["first"]), count: number32(&fields["count"]) },
        carried: effects(&fields["carried"]),
    }
}

fn registration(fields: &Value) -> Registration {
    Registration {
        message_id: id(&fields["message_id"]),
        attempt: attempt(&fields["attempt"]),
        kind: text(&fields["kind"]).parse().unwrap(),
        name: text(&fields["name"]).parse().unwrap(),
        deadline_ms: number64(&fields["deadline_ms"]),
        state: match text(&fields["state"]) {
            "open" => RegistrationState::Open,
            "condemned" => RegistrationState::Condemned,
            other => panic!("unknown state {other}"),
        },
    }
}

fn destination(fields: &Value) -> Destination {
    Destination {
        endpoint: text(&fields["endpoint"]).parse().unwrap(),
        partition: text(&fields["partition"]).parse().unwrap(),
    }
}

fn headers(fields: &Value) -> Headers {
    list(fields).iter().map(|header| (text(&header[0]).to_owned(), text(&header[1]).to_owned())).collect()
}

fn sequence(fields: &Value) -> Sequence {
    let incarnation = Incarnation(number64(&fields["incarnation"]));
    Sequence { incarnation, counter: number64(&fields["counter"]) }
}

fn attempt(fields: &Value) -> AttemptId {
    AttemptId {
        process: number64(&fields["process"]),
        serial: number64(&fields["serial"]),
        round: number32(&fields["round"]),
    }
}

fn token(fields: &Value) -> TokenRef {
    TokenRef {
        store: text(&fields["store"]).parse().unwrap(),
        partition: text(&fields["partition"]).parse().unwrap(),
        entry: EntryKey { sequence: sequence(&fields["sequence"]), index: number32(&fields["index"]) },
    }
}

fn session_mark(fields: &Value) -> SessionMark {
    SessionMark {
        store: text(&fields["store"]).parse().unwrap(),
        scope: text(&fields["scope"]).into(),
        position: number64(&fields["position"]),
        token: text(&fields["token"]).into(),
    }
}

fn read(file: &str) -> Value {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../specs/vectors");
    let path = folder.join(file).with_extension("json");
    let json = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&json).unwrap()
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn id(value: &Value) -> MessageId {
    text(value).parse().unwrap()
}

fn number32(value: &Value) -> u32 {
    u32::try_from(value.as_u64().unwrap()).unwrap()
}

fn number64(value: &Value) -> u64 {
    text(value).parse().unwrap()
}

fn bytes(value: &Value) -> Bytes {
    let digits = text(value).as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}
