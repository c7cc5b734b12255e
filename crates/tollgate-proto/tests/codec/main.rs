//! The codec against bincode itself, against itself, and against damage.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

mod mirror;
mod records;

use bytes::Bytes;
use mirror::{MirrorControl, MirrorEntry, MirrorEnvelope};
use proptest::prelude::*;
use tollgate_proto::codec::{
    DecodeError, decode_control, decode_entry, decode_envelope, encode_control, encode_entry, encode_envelope,
};
use tollgate_proto::{Body, Content, Destination, Envelope, MessageId, OutboxEntry};

fn by_bincode<T: bincode::Encode>(mirror: T) -> Bytes {
    bincode::encode_to_vec(mirror, bincode::config::standard()).unwrap().into()
}

fn from_bincode<T: bincode::Decode<()>>(bytes: &[u8]) -> T {
    let (mirror, read) = bincode::decode_from_slice(bytes, bincode::config::standard()).unwrap();
    assert_eq!(read, bytes.len(), "bincode leaves bytes unread");
    mirror
}

proptest! {
    #[test]
    fn an_envelope_is_what_bincode_makes_of_it_both_ways(envelope in records::envelope()) {
        let bytes = encode_envelope(&envelope);
        prop_assert_eq!(&bytes, &by_bincode(MirrorEnvelope::from(&envelope)));
        prop_assert_eq!(from_bincode::<MirrorEnvelope>(&bytes), MirrorEnvelope::from(&envelope));
        prop_assert_eq!(decode_envelope(&bytes).unwrap(), envelope);
    }

    #[test]
    fn an_outbox_entry_is_what_bincode_makes_of_it_both_ways(entry in records::entry()) {
        let bytes = encode_entry(&entry);
        prop_assert_eq!(&bytes, &by_bincode(MirrorEntry::from(&entry)));
        prop_assert_eq!(from_bincode::<MirrorEntry>(&bytes), MirrorEntry::from(&entry));
        prop_assert_eq!(decode_entry(&bytes).unwrap(), entry);
    }

    #[test]
    fn a_control_record_is_what_bincode_makes_of_it_both_ways(record in records::control()) {
        let bytes = encode_control(&record);
        prop_assert_eq!(&bytes, &by_bincode(MirrorControl::from(&record)));
        prop_assert_eq!(from_bincode::<MirrorControl>(&bytes), MirrorControl::from(&record));
        prop_assert_eq!(decode_control(&bytes).unwrap(), record);
    }

    #[test]
    fn a_cut_off_record_is_an_error_wherever_it_is_cut(
        envelope in records::envelope(),
        entry in records::entry(),
        record in records::control(),
    ) {
        let bytes = encode_envelope(&envelope);
        for end in 0..bytes.len() {
            prop_assert!(decode_envelope(&bytes.slice(..end)).is_err());
        }
        let bytes = encode_entry(&entry);
        for end in 0..bytes.len() {
            prop_assert!(decode_entry(&bytes.slice(..end)).is_err());
        }
        let bytes = encode_control(&record);
        for end in 0..bytes.len() {
            prop_assert!(decode_control(&bytes[..end]).is_err());
        }
    }

    #[test]
    fn a_record_followed_by_other_bytes_is_an_error(
        envelope in records::envelope(),
        entry in records::entry(),
        record in records::control(),
        tail in proptest::collection::vec(any::<u8>(), 1..20),
    ) {
        let with_tail = |bytes: Bytes| Bytes::from([&bytes[..], &tail].concat());
        prop_assert!(decode_envelope(&with_tail(encode_envelope(&envelope))).is_err());
        prop_assert!(decode_entry(&with_tail(encode_entry(&entry))).is_err());
        prop_assert!(decode_control(&with_tail(encode_control(&record))).is_err());
    }

    // A changed byte may lie in a text or number and give another valid record: then that one must survive a round trip.
    #[test]
    fn changed_bytes_give_an_error_or_a_record_and_never_a_panic(
        envelope in records::envelope(),
        entry in records::entry(),
        record in records::control(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let change = |bytes: Bytes| {
            let mut bytes = bytes.to_vec();
            for (index, value) in &changes {
                let index = index.index(bytes.len());
                bytes[index] = *value;
            }
            Bytes::from(bytes)
        };
        if let Ok(envelope) = decode_envelope(&change(encode_envelope(&envelope))) {
            prop_assert_eq!(decode_envelope(&encode_envelope(&envelope)).unwrap(), envelope);
        }
        if let Ok(entry) = decode_entry(&change(encode_entry(&entry))) {
            prop_assert_eq!(decode_entry(&encode_entry(&entry)).unwrap(), entry);
        }
        if let Ok(record) = decode_control(&change(encode_control(&record))) {
            prop_assert_eq!(&decode_control(&encode_control(&record)).unwrap(), &record);
            // What a decoded record promises: its outputs can be counted through without an overflow.
            for pending in &record.pending {
                prop_assert!(pending.outputs.first.checked_add(pending.outputs.count).is_some());
            }
        }
    }

    #[test]
    fn random_bytes_of_the_known_format_never_cause_a_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 1..600),
    ) {
        bytes[0] = 1;
        let bytes = Bytes::from(bytes);
        let _ = decode_envelope(&bytes);
        let _ = decode_entry(&bytes);
        let _ = decode_control(&bytes);
    }
}

fn envelope_with(content: Content) -> Envelope {
    Envelope {
        message_id: MessageId::from_bytes([7; 16]),
        to: destination(),
        message_type: "place-order".parse().unwrap(),
        headers: vec![],
        content,
    }
}

fn destination() -> Destination {
    Destination { endpoint: "orders".parse().unwrap(), partition: "order/4711".parse().unwrap() }
}

#[test]
fn a_format_of_a_later_version_is_named_in_the_error() {
    let mut bytes = encode_envelope(&envelope_with(Content::Body(Bytes::new()))).to_vec();
    bytes[0] = 2;
    let error = decode_envelope(&Bytes::from(bytes)).unwrap_err();
    assert_eq!(error, DecodeError::UnknownFormat { what: "envelope", format: 2 });
    assert!(decode_entry(&Bytes::from_static(&[0])).unwrap_err().to_string().contains("format 0"));
}

#[test]
fn no_bytes_at_all_are_a_damaged_record() {
    assert_eq!(
        decode_control(&[]),
        Err(DecodeError::Damaged { what: "control record", reason: "it is empty".into() })
    );
}

#[test]
fn a_name_that_breaks_a_rule_is_refused_by_its_newtype() {
    let mut mirror = encode_envelope(&envelope_with(Content::Body(Bytes::new()))).to_vec();
    // The endpoint's length follows the format and the id; an empty endpoint takes its six letters away.
    mirror[17] = 0;
    mirror.drain(18..24);
    let error = decode_envelope(&Bytes::from(mirror)).unwrap_err();
    assert_eq!(error.to_string(), "envelope holds an invalid endpoint name: it is empty");
}

#[test]
fn a_body_is_a_slice_of_the_input_and_no_copy() {
    let body = Bytes::from(vec![9; 300]);
    let bytes = encode_envelope(&envelope_with(Content::Body(body.clone())));
    let Content::Body(decoded) = decode_envelope(&bytes).unwrap().content else { panic!("it was a body") };
    assert!(bytes.as_ptr_range().contains(&decoded.as_ptr()));

    let entry = OutboxEntry {
        message_id: MessageId::from_bytes([7; 16]),
        to: destination(),
        message_type: "place-order".parse().unwrap(),
        headers: vec![],
        body: Body::Inline(body),
        audience: tollgate_proto::Audience::Tollgate,
        effects: vec![],
    };
    let bytes = encode_entry(&entry);
    let Body::Inline(decoded) = decode_entry(&bytes).unwrap().body else { panic!("it was inline") };
    assert!(bytes.as_ptr_range().contains(&decoded.as_ptr()));
}

#[test]
fn a_body_larger_than_any_preallocation_limit_comes_back() {
    let body = Bytes::from(vec![5; 9 << 20]);
    let envelope = envelope_with(Content::Body(body));
    assert_eq!(decode_envelope(&encode_envelope(&envelope)).unwrap(), envelope);
}

#[test]
fn many_headers_come_back() {
    let mut envelope = envelope_with(Content::Body(Bytes::new()));
    envelope.headers = vec![(String::new(), String::new()); 200_000];
    assert_eq!(decode_envelope(&encode_envelope(&envelope)).unwrap(), envelope);
}

#[test]
fn an_announced_length_of_all_64_bits_is_an_error_and_no_allocation() {
    let bytes = encode_envelope(&envelope_with(Content::Body(Bytes::new())));
    // Empty headers are one zero byte before the content, which is the number of its variant and an empty length.
    let headers = bytes.len() - 3;
    assert_eq!(bytes[headers..], [0, 1, 0]);
    let huge = [253, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let huge_headers = Bytes::from([&bytes[..headers], &huge, &[1, 0]].concat());
    assert!(matches!(decode_envelope(&huge_headers), Err(DecodeError::Damaged { .. })));
    let huge_body = Bytes::from([&bytes[..headers + 2], &huge].concat());
    assert!(matches!(decode_envelope(&huge_body), Err(DecodeError::Damaged { .. })));
}

#[test]
fn a_range_of_outputs_beyond_32_bits_is_damage() {
    // format, version 1.1, attempt 1-1-0, one pending entry: origin Attempt 1-1-0 of id 0, sequence 1.1, place 0, range
    let start = [1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 0];
    let range =
        |first: &[u8], count: &[u8]| [&start[..], &[0; 16], &[1, 1, 0], first, count, &[0, 0]].concat();
    let maximum = [252, 0xff, 0xff, 0xff, 0xff];
    assert!(decode_control(&range(&maximum, &[0])).is_ok());
    let error = decode_control(&range(&maximum, &[1])).unwrap_err();
    assert!(error.to_string().contains("exceed 32 bits"), "{error}");
}
