//! Any bytes as an outbox entry: decoding never panics and never asks for memory that the bytes could not fill, and what it accepts
//! bincode itself reads as the same record and is the same after another round trip.
#![no_main]

#[allow(dead_code, reason = "each target uses one of the three")]
#[path = "../../crates/tollgate-proto/tests/codec/mirror.rs"]
mod mirror;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mirror::MirrorEntry;
use tollgate_proto::codec::{decode_entry, encode_entry};

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    let Ok(record) = decode_entry(&bytes) else { return };
    let (read, length) = bincode::decode_from_slice::<MirrorEntry, _>(data, bincode::config::standard())
        .expect("bincode reads what the codec reads");
    assert_eq!(length, data.len(), "nothing is left over");
    assert_eq!(read, MirrorEntry::from(&record), "bincode reads the same record");
    assert_eq!(decode_entry(&encode_entry(&record)), Ok(record), "a round trip changes nothing");
});
