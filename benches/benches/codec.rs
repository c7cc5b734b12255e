//! The codec: the three records to bytes and back, against bincode 2 and `serde_json` with derives on the same fields. JSON has
//! no bytes: ids and the body of the outbox entry are lists of numbers there, as serde writes them.

#[path = "../../crates/tollgate-proto/tests/codec/mirror.rs"]
mod mirror;
mod settings;

use std::hint::black_box;

use bincode::config::standard;
use bytes::Bytes;
use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use mirror::{MirrorControl, MirrorEntry, MirrorEnvelope};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tollgate::proto::control_record::{Origin, OutputRange};
use tollgate::proto::{
    AttemptId, Audience, Body, ControlRecord, Destination, EndpointName, EntryKey, Envelope, Incarnation,
    MessageId, OutboxEntry, PartitionKey, PendingEntry, PendingId, TokenRef, Version, codec,
};

/// Bytes of the outbox entry's body: a small business message.
const BODY_BYTES: usize = 256;

/// Pending entries in the control record: what a busy partition carries on from the commits before.
const PENDING: u32 = 4;

fn id(number: u8) -> MessageId {
    MessageId::from_bytes([number; 16])
}

fn token(index: u32) -> TokenRef {
    TokenRef {
        store: "main".try_into().expect("a valid name"),
        partition: PartitionKey::new("customer/4711").expect("a valid key"),
        entry: EntryKey { sequence: Version::first(Incarnation(0x1234_5678_9abc_def0)).sequence(), index },
    }
}

fn entry() -> OutboxEntry {
    OutboxEntry {
        message_id: id(7),
        to: Destination {
            endpoint: EndpointName::new("orders").expect("a valid name"),
            partition: PartitionKey::new("order/0815").expect("a valid key"),
        },
        message_type: "shop.place-order".try_into().expect("a valid name"),
        headers: vec![(
            "traceparent".into(),
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        )],
        body: Body::Inline(Bytes::from(vec![b'x'; BODY_BYTES])),
        audience: Audience::Tollgate,
        effects: Vec::new(),
    }
}

fn control() -> ControlRecord {
    let sequence = Version::first(Incarnation(0x0fed_cba9_8765_4321)).sequence();
    let pending = (0..PENDING).map(|place| PendingEntry {
        origin: Origin::Token { token: token(place), message_id: id(9) },
        id: PendingId { sequence, place },
        outputs: OutputRange { first: place, count: 1 },
        carried: Vec::new(),
    });
    ControlRecord {
        version: Version::from_sequence(sequence),
        attempt: AttemptId::new(0x1111_2222_3333_4444, 815),
        pending: pending.collect(),
        registrations: Vec::new(),
        sessions: Vec::new(),
    }
}

/// What the others do with a mirror of the record.
fn others<Mirror>(group: &mut BenchmarkGroup<'_, WallTime>, mirror: &Mirror)
where
    Mirror: bincode::Encode + bincode::Decode<()> + Serialize + DeserializeOwned,
{
    let binary = bincode::encode_to_vec(mirror, standard()).expect("bincode encodes it");
    group.bench_function("encode/bincode", |bencher| {
        bencher.iter(|| bincode::encode_to_vec(black_box(mirror), standard()).expect("bincode encodes it"));
    });
    group.bench_function("decode/bincode", |bencher| {
        bencher.iter(|| {
            bincode::decode_from_slice::<Mirror, _>(black_box(&binary), standard())
                .expect("bincode decodes it")
        });
    });
    let json = serde_json::to_vec(mirror).expect("serde_json encodes it");
    group.bench_function("encode/serde_json", |bencher| {
        bencher.iter(|| serde_json::to_vec(black_box(mirror)).expect("serde_json encodes it"));
    });
    group.bench_function("decode/serde_json", |bencher| {
        bencher.iter(|| serde_json::from_slice::<Mirror>(black_box(&json)).expect("serde_json decodes it"));
    });
}

fn envelopes(criterion: &mut Criterion) {
    let envelope: Envelope = entry().envelope(token(3), None);
    let bytes = codec::encode_envelope(&envelope);
    let mut group = criterion.benchmark_group("codec/envelope");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("encode/tollgate", |bencher| {
        bencher.iter(|| codec::encode_envelope(black_box(&envelope)));
    });
    group.bench_function("decode/tollgate", |bencher| {
        bencher.iter(|| codec::decode_envelope(black_box(&bytes)).expect("it decodes"));
    });
    others(&mut group, &MirrorEnvelope::from(&envelope));
    group.finish();
}

fn entries(criterion: &mut Criterion) {
    let entry = entry();
    let bytes = codec::encode_entry(&entry);
    let mut group = criterion.benchmark_group("codec/outbox_entry");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group
        .bench_function("encode/tollgate", |bencher| bencher.iter(|| codec::encode_entry(black_box(&entry))));
    group.bench_function("decode/tollgate", |bencher| {
        bencher.iter(|| codec::decode_entry(black_box(&bytes)).expect("it decodes"));
    });
    others(&mut group, &MirrorEntry::from(&entry));
    group.finish();
}

fn control_records(criterion: &mut Criterion) {
    let control = control();
    let bytes = codec::encode_control(&control);
    let mut group = criterion.benchmark_group("codec/control_record");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("encode/tollgate", |bencher| {
        bencher.iter(|| codec::encode_control(black_box(&control)));
    });
    group.bench_function("decode/tollgate", |bencher| {
        bencher.iter(|| codec::decode_control(black_box(&bytes)).expect("it decodes"));
    });
    others(&mut group, &MirrorControl::from(&control));
    group.finish();
}

criterion_group! { name = benches; config = settings::quick(); targets = envelopes, entries, control_records }
criterion_main!(benches);
