//! Message ids: what deriving one costs, against a random UUID, one by SHA-1 of the same bytes, and the hash alone.

mod settings;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use tollgate::proto::{EndpointName, MessageId};
use uuid::Uuid;

fn ids(criterion: &mut Criterion) {
    let cause = MessageId::from_bytes([7; 16]);
    let endpoint = EndpointName::new("orders").expect("a valid name");
    let mut group = criterion.benchmark_group("ids");
    group.bench_function("derive/tollgate", |bencher| {
        bencher.iter(|| MessageId::derive(black_box(cause), black_box(&endpoint), black_box(3)));
    });
    group.bench_function("from_name/tollgate", |bencher| {
        bencher.iter(|| MessageId::from_name(black_box("web-shop"), black_box("order-4711")));
    });
    group.bench_function("derive/blake3", |bencher| {
        let bytes = [7; 16 + 4 + 6 + 4];
        bencher.iter(|| blake3::hash(black_box(&bytes)));
    });
    group.bench_function("derive/uuid_v5", |bencher| {
        let (namespace, name) = (Uuid::from_bytes([7; 16]), [7; 4 + 6 + 4]);
        bencher.iter(|| Uuid::new_v5(black_box(&namespace), black_box(&name)));
    });
    group.bench_function("random/uuid_v4", |bencher| bencher.iter(Uuid::new_v4));
    group.finish();
}

criterion_group! { name = benches; config = settings::quick(); targets = ids }
criterion_main!(benches);
