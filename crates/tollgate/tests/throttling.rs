//! A few partitions that the store throttles, beside 2,000 healthy ones: those keep their rate. On a paused clock.
//!
//! `cargo test -p tollgate --test throttling -- --nocapture` prints the rates.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use harness::{TOTAL, add, broker, memory_store, send_many, total, until, waiting};
use tollgate::proto::{BoxFuture, LoadRequest, LoadedPartition, PartitionKey, StoreError, StoreWrapper};
use tollgate::{Broker, Endpoint, Gate, Store};

/// Partitions that are not throttled, with five messages each.
const HEALTHY: usize = 2000;

/// One message of so many is for a throttled partition.
const ONE_IN: usize = 100;

const MESSAGES: usize = 5 * HEALTHY + 5 * HEALTHY / (ONE_IN - 1);

/// How long a load takes.
const LOAD: Duration = Duration::from_millis(5);

/// A store whose loads take a while, and that throttles partitions whose names begin with `T`.
struct Throttling {
    inner: Arc<dyn Store>,
    throttles: bool,
    retry_after: Option<Duration>,
    refused: AtomicUsize,
}

impl Throttling {
    fn refusal(&self, partition: &PartitionKey) -> Option<StoreError> {
        if !self.throttles || !partition.as_str().starts_with('T') {
            return None;
        }
        self.refused.fetch_add(1, Ordering::SeqCst);
        let (store, partition) = (self.inner.alias().clone(), Some(partition.clone()));
        Some(StoreError::Throttled { store, partition, retry_after: self.retry_after })
    }
}

impl StoreWrapper for Throttling {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    fn load(&self, requests: Vec<LoadRequest>) -> BoxFuture<'_, Vec<Result<LoadedPartition, StoreError>>> {
        Box::pin(async move {
            tokio::time::sleep(LOAD).await;
            let mut answers = Vec::with_capacity(requests.len());
            for request in requests {
                answers.push(match self.refusal(&request.partition) {
                    Some(refusal) => Err(refusal),
                    None => self.inner.load(vec![request]).await.pop().unwrap(),
                });
            }
            answers
        })
    }
}

struct Run {
    rate: f64,
    refused: usize,
}

/// How many healthy messages are committed a second. `throttled`: how many partitions are.
async fn run(throttled: usize, retry_after: Option<Duration>) -> Run {
    let (inner, queues) = (memory_store(), broker());
    let source = Gate::builder()
        .store(Arc::clone(&inner))
        .broker(Arc::clone(&queues) as Arc<dyn Broker>)
        .endpoint(Endpoint::new("edge"))
        .open()
        .await
        .unwrap();
    let partition = move |n: usize| match n % ONE_IN {
        0 => format!("T{}", n / ONE_IN % throttled.max(1)),
        _ => format!("P{}", n % HEALTHY),
    };
    send_many(&source.edge("edge").unwrap(), "adder", MESSAGES, partition).await;
    until(&source, |_| waiting(&queues, "edge") == 0).await;
    source.close().await;

    let refuses_some = throttled > 0;
    let store = Arc::new(Throttling {
        inner: Arc::clone(&inner),
        throttles: refuses_some,
        retry_after,
        refused: 0.into(),
    });
    let begin = tokio::time::Instant::now();
    let gate = Gate::builder()
        .store(Arc::clone(&store) as Arc<dyn Store>)
        .broker(Arc::clone(&queues) as Arc<dyn Broker>)
        .cache_bytes(0)
        .sweep_every(None)
        .endpoint(Endpoint::new("adder").preload(TOTAL).on::<harness::Add, _, _>(add))
        .open()
        .await
        .unwrap();
    let healthy = MESSAGES - MESSAGES.div_ceil(ONE_IN);
    let wanted = if refuses_some { healthy } else { MESSAGES };
    until(&gate, |statistics| statistics.committed >= wanted as u64).await;
    #[allow(clippy::cast_precision_loss, reason = "a rate for people, of counts far below 2^52")]
    let rate = wanted as f64 / begin.elapsed().as_secs_f64();
    let refused = store.refused.load(Ordering::SeqCst);
    assert_eq!(gate.close().await.dead_letters, 0);
    if refuses_some {
        assert_eq!(total(&*inner, "T0").await, 0);
    }
    Run { rate, refused }
}

#[tokio::test(start_paused = true)]
async fn one_percent_of_the_messages_for_throttled_partitions_cost_the_others_less_than_a_twentieth() {
    let nothing = run(0, None).await.rate;
    let second = Some(Duration::from_secs(1));
    let minute = Some(Duration::from_secs(60));
    for (throttled, retry_after) in [(1, None), (32, None), (1, second), (32, minute)] {
        let Run { rate, refused } = run(throttled, retry_after).await;
        println!(
            "{throttled} partitions throttled, retry after {retry_after:?}: {rate:.0} healthy messages a second of {nothing:.0}; \
             {refused} loads refused"
        );
        assert!(rate >= 0.95 * nothing, "{rate:.0} of {nothing:.0}");
    }
}
