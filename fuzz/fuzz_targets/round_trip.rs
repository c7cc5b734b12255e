//! Records built from parts that the fuzzer chooses: each is encoded to what bincode makes of it, decoded as it was, and refused
//! when it is cut or something follows it.
#![no_main]

#[path = "../../crates/tollgate-proto/tests/codec/mirror.rs"]
mod mirror;

use arbitrary::Arbitrary;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mirror::{MirrorControl, MirrorEntry, MirrorEnvelope};
use tollgate_proto::codec::{
    decode_control, decode_entry, decode_envelope, encode_control, encode_entry, encode_envelope,
};
use tollgate_proto::control_record::{Origin, OutputRange, Registration, RegistrationState};
use tollgate_proto::{
    AttachedEffect, AttemptId, Audience, Body, Content, ControlRecord, Destination, EntryKey, Envelope, Incarnation, InvalidName,
    MessageId, OutboxEntry, PendingEntry, PendingId, Sequence, SessionMark, TokenRef, Version,
};

#[derive(Arbitrary, Debug)]
struct Parts {
    id: [u8; 16],
    names: [String; 4],
    long: String,
    numbers: [u64; 3],
    small: [u32; 3],
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    kind: u8,
    how_many: u8,
    cut: u16,
    tail: u8,
}

impl Parts {
    fn name<T: for<'a> TryFrom<&'a str, Error = InvalidName>>(&self, which: usize) -> Option<T> {
        T::try_from(&self.names[which]).ok()
    }

    fn sequence(&self) -> Sequence {
        Sequence { incarnation: Incarnation(self.numbers[0]), counter: self.numbers[1] }
    }

    fn attempt(&self) -> AttemptId {
        AttemptId { process: self.numbers[1], serial: self.numbers[2], round: self.small[0] }
    }

    fn token(&self) -> Option<TokenRef> {
        Some(TokenRef {
            store: self.name(0)?,
            partition: self.long.as_str().try_into().ok()?,
            entry: EntryKey { sequence: self.sequence(), index: self.small[1] },
        })
    }

    fn mark(&self) -> Option<SessionMark> {
        Some(SessionMark {
            store: self.name(0)?,
            scope: self.names[1].clone(),
            position: self.numbers[2],
            token: self.names[2].clone(),
        })
    }

    fn destination(&self) -> Option<Destination> {
        Some(Destination { endpoint: self.name(3)?, partition: self.long.as_str().try_into().ok()? })
    }

    fn envelope(&self) -> Option<Envelope> {
        let content = match self.kind % 3 {
            0 => Content::Token {
                token: self.token()?,
                read_after: if self.tail.is_multiple_of(2) { self.mark() } else { None },
            },
            1 => Content::Body(self.body.clone().into()),
            _ => Content::WakeUp {
                attempt: self.attempt(),
                expected: self.tail.is_multiple_of(2).then(|| Version::from_sequence(self.sequence())),
            },
        };
        Some(Envelope {
            message_id: MessageId::from_bytes(self.id),
            to: self.destination()?,
            message_type: self.name(2)?,
            headers: self.headers.clone(),
            content,
        })
    }

    fn entry(&self) -> Option<OutboxEntry> {
        Some(OutboxEntry {
            message_id: MessageId::from_bytes(self.id),
            to: self.destination()?,
            message_type: self.name(2)?,
            headers: self.headers.clone(),
            body: if self.kind.is_multiple_of(2) {
                Body::Inline(self.body.clone().into())
            } else {
                Body::Blob(self.long.as_str().try_into().ok()?)
            },
            audience: match self.tail % 3 {
                0 => Audience::Tollgate,
                1 => Audience::External,
                _ => Audience::Nobody,
            },
            effects: if self.tail % 3 == 1 { Vec::new() } else { self.effects()? },
        })
    }

    fn effects(&self) -> Option<Vec<AttachedEffect>> {
        let effect = AttachedEffect {
            kind: self.name(1)?,
            name: self.long.as_str().try_into().ok()?,
            detail: self.body.clone().into(),
        };
        Some(vec![effect; usize::from(self.how_many % 3)])
    }

    fn control(&self) -> Option<ControlRecord> {
        let message_id = MessageId::from_bytes(self.id);
        let origin = if self.kind.is_multiple_of(2) {
            Origin::Token { token: self.token()?, message_id }
        } else {
            Origin::Attempt { attempt: self.attempt(), message_id }
        };
        let pending = PendingEntry {
            origin,
            id: PendingId { sequence: self.sequence(), place: self.small[0] },
            outputs: OutputRange { first: self.small[1] / 2, count: self.small[2] / 2 },
            carried: if self.kind.is_multiple_of(2) { self.effects()? } else { Vec::new() },
        };
        let registration = Registration {
            message_id,
            attempt: self.attempt(),
            kind: self.name(1)?,
            name: self.long.as_str().try_into().ok()?,
            deadline_ms: self.numbers[2],
            state: if self.tail.is_multiple_of(2) { RegistrationState::Open } else { RegistrationState::Condemned },
        };
        let how_many = usize::from(self.how_many % 4);
        Some(ControlRecord {
            version: Version::from_sequence(self.sequence()),
            attempt: self.attempt(),
            pending: vec![pending; how_many],
            registrations: vec![registration; usize::from(self.how_many / 64)],
            sessions: self.mark().into_iter().collect(),
        })
    }

    /// The bytes with an end that is not theirs.
    fn damaged(&self, bytes: &Bytes) -> [Bytes; 2] {
        let end = usize::from(self.cut) % bytes.len();
        [bytes.slice(..end), [bytes, &[self.tail][..]].concat().into()]
    }
}

macro_rules! check {
    ($record:expr, $parts:expr, $encode:ident, $decode:ident, $mirror:ident) => {
        if let Some(record) = $record {
            let bytes = $encode(&record);
            let by_bincode = bincode::encode_to_vec($mirror::from(&record), bincode::config::standard());
            assert_eq!(by_bincode.as_deref().ok(), Some(&bytes[..]), "bincode writes the same");
            for damaged in $parts.damaged(&bytes) {
                assert!($decode(&damaged).is_err(), "a record that ends elsewhere is none");
            }
            assert_eq!($decode(&bytes), Ok(record), "what was encoded is decoded as it was");
        }
    };
}

fuzz_target!(|parts: Parts| {
    check!(parts.envelope(), parts, encode_envelope, decode_envelope, MirrorEnvelope);
    check!(parts.entry(), parts, encode_entry, decode_entry, MirrorEntry);
    check!(parts.control(), parts, encode_control, decode_control, MirrorControl);
});
