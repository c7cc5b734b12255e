//! The cache of partitions: taking a view out and putting it back, a look in vain, and filling one in; against a hash map
//! behind a lock, which forgets nothing and so is no alternative.

mod settings;

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Mutex;

use criterion::{Criterion, criterion_group, criterion_main};
use foldhash::fast::RandomState;
use tollgate::bench_internals::{ViewKey, Views};
use tollgate::proto::partition_view::PartitionView;
use tollgate::proto::{AttemptId, ControlRecord, Incarnation, ItemValue, PartitionKey, Version};

const PARTITIONS: usize = 1_000;
const CACHE_BYTES: u64 = 64 << 20;

fn key(number: usize) -> PartitionKey {
    PartitionKey::new(format!("partition/{number}")).expect("a valid key")
}

fn view() -> PartitionView {
    let item = ("total".try_into().expect("a valid name"), Some(ItemValue::Json("815".into())));
    PartitionView {
        control: Some(ControlRecord {
            version: Version::first(Incarnation(1)),
            attempt: AttemptId::new(1, 1),
            pending: Vec::new(),
            registrations: Vec::new(),
            sessions: Vec::new(),
        }),
        items: [item].into_iter().collect(),
        session: None,
    }
}

fn partition_cache(criterion: &mut Criterion) {
    let keys: Vec<ViewKey> = (0..PARTITIONS).map(|number| ViewKey::of(key(number))).collect();
    let absent: Vec<ViewKey> = (PARTITIONS..2 * PARTITIONS).map(|number| ViewKey::of(key(number))).collect();
    let views = Views::new(CACHE_BYTES);
    for key in &keys {
        views.fill(key, view());
    }
    let mut group = criterion.benchmark_group("partition_cache");
    let mut turn = 0;
    let mut next = || {
        turn = (turn + 1) % PARTITIONS;
        turn
    };
    group.bench_function("hit/tollgate", |bencher| {
        bencher.iter(|| assert!(views.visit(&keys[next()])));
    });
    group.bench_function("miss/tollgate", |bencher| {
        bencher.iter(|| assert!(!views.visit(&absent[next()])));
    });
    group.bench_function("fill/tollgate", |bencher| {
        bencher.iter(|| views.fill(&keys[next()], view()));
    });

    let keys: Vec<PartitionKey> = (0..PARTITIONS).map(key).collect();
    let absent: Vec<PartitionKey> = (PARTITIONS..2 * PARTITIONS).map(key).collect();
    let map: Mutex<HashMap<PartitionKey, Option<PartitionView>, RandomState>> = Mutex::default();
    let lock = || map.lock().expect("nobody panics");
    lock().extend(keys.iter().map(|key| (key.clone(), Some(view()))));
    group.bench_function("hit/hash_map", |bencher| {
        bencher.iter(|| {
            let key = &keys[next()];
            let view = lock().get_mut(key).and_then(Option::take);
            *lock().get_mut(key).expect("it is there") = black_box(view);
        });
    });
    group.bench_function("miss/hash_map", |bencher| {
        bencher.iter(|| assert!(lock().get_mut(&absent[next()]).is_none()));
    });
    group.bench_function("fill/hash_map", |bencher| {
        bencher.iter(|| lock().insert(keys[next()].clone(), Some(view())));
    });
    group.finish();
}

criterion_group! { name = benches; config = settings::quick(); targets = partition_cache }
criterion_main!(benches);
