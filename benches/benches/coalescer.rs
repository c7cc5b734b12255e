//! The coalescer's own price: many callers of a call that answers at once, joined, against each making its own call. What it
//! saves where a call takes time is measured by the program `workers`.

mod settings;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures_util::future::join_all;
use tollgate::bench_internals::Joined;
use tollgate::proto::BoxFuture;

const CALLERS: [u64; 3] = [1, 16, 256];
const BATCH_MAX: usize = 1_024;

fn call(requests: Vec<u64>) -> BoxFuture<'static, Vec<u64>> {
    Box::pin(async move { requests.into_iter().map(|request| request + 1).collect() })
}

fn coalescer(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime starts");
    for callers in CALLERS {
        let mut group = criterion.benchmark_group(format!("coalescer/{callers}_callers"));
        group.throughput(Throughput::Elements(callers));
        group.bench_function("joined/tollgate", |bencher| {
            let joined = runtime.block_on(async { Joined::new(BATCH_MAX, call) });
            bencher.iter(|| {
                runtime.block_on(async {
                    let answers = join_all((0..callers).map(|request| joined.ask(request))).await;
                    assert_eq!(answers.last(), Some(&Some(callers)));
                });
            });
        });
        group.bench_function("direct", |bencher| {
            bencher.iter(|| {
                runtime.block_on(async {
                    let answers = join_all((0..callers).map(|request| call(vec![request]))).await;
                    assert_eq!(answers.last(), Some(&vec![callers]));
                });
            });
        });
        group.finish();
    }
}

criterion_group! { name = benches; config = settings::quick(); targets = coalescer }
criterion_main!(benches);
