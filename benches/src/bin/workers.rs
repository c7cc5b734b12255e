//! What a window of messages achieves when each store call takes a while: Tollgate against a naive consumer (get, put, send,
//! acknowledge; it deduplicates nothing) with a window of the same size, on warm partitions, one output a message. The clock
//! stands still while anything is at work, so the figures are exact and of waiting alone: neither the machine nor what else
//! runs on it is in them. A second of that clock stands for a millisecond, because tokio's timers go by milliseconds.
//!
//! `cargo run --release -p tollgate-bench --bin workers [WINDOW] [CONNECTIONS] [PARTITIONS] [MESSAGES]`

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tollgate::proto::{
    BoxFuture, Broker, BrokerError, BrokerWrapper, Delivery, EndpointName, OutgoingMessage, Receipt,
    Settlement, Store, StoreAlias, StoreLimits, Verdict, codec,
};
use tollgate::{Endpoint, Gate, HandlerError, Tx};
use tollgate_bench::naive_consumer::get_and_put;
use tollgate_bench::slow_store::SlowStore;
use tollgate_bench::{Add, ENDPOINT, TOTAL, seed, send};
use tollgate_brokers::InProcessBroker;
use tollgate_embedded::MemoryStore;

/// What the clock shows when a millisecond has passed.
const MILLISECOND: Duration = Duration::from_secs(1);

/// Milliseconds that a store call takes.
const LATENCY: u32 = 5;

/// Calls that take as long as each other keep messages in step, which flatters whoever joins calls; real ones don't.
const SPREADS: [f64; 2] = [0.0, 0.3];

/// Batches as `DynamoDB` takes them.
const LIMITS: StoreLimits =
    StoreLimits { read_batch_max: 100, delete_batch_max: 25, ..StoreLimits::UNLIMITED };

/// The endpoint of the outputs. Nobody consumes it.
const SINK: &str = "sink";

/// Longer than any run.
const NEVER: Duration = Duration::from_secs(30 * 24 * 3600);

fn argument(place: usize, default: u64) -> u64 {
    std::env::args().nth(place).map_or(default, |text| text.parse().expect("arguments are numbers"))
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() {
    let window = usize::try_from(argument(1, 64)).expect("it fits");
    let connections = usize::try_from(argument(2, 64)).expect("it fits");
    let partitions = argument(3, 1_000);
    let messages = argument(4, 20_000);
    println!("{messages} messages to {partitions} partitions, {LATENCY} ms a store call");
    println!("window {window}, at most {connections} store calls at a time");
    println!("consumer   spread   messages/s  p50 ms  p99 ms  unsettled  calls at a time  calls/message");
    for spread in SPREADS {
        for consumer in [Consumer::Naive, Consumer::Tollgate] {
            let figures = run(consumer, spread, connections, window, partitions, messages).await;
            println!(
                "{:<10} {spread:>6} {:>12.0} {:>7.2} {:>7.2} {:>10} {:>16} {:>14.2}",
                format!("{consumer:?}"),
                figures.rate,
                figures.percentile(50),
                figures.percentile(99),
                figures.unsettled,
                figures.calls_at_a_time,
                figures.calls
            );
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Consumer {
    Naive,
    Tollgate,
}

struct Figures {
    rate: f64,
    latencies: Vec<Duration>,
    unsettled: usize,
    calls_at_a_time: usize,
    calls: f64,
}

impl Figures {
    fn percentile(&self, percent: usize) -> f64 {
        in_milliseconds(self.latencies[(self.latencies.len() - 1) * percent / 100])
    }
}

fn in_milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() / MILLISECOND.as_secs_f64()
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
async fn run(
    consumer: Consumer,
    spread: f64,
    connections: usize,
    window: usize,
    partitions: u64,
    messages: u64,
) -> Figures {
    let alias = StoreAlias::new("main").expect("a valid name");
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::with_limits(alias, LIMITS));
    // The warm-up first: one message to each partition.
    let mut warm_up = seed(&*memory, partitions + messages, partitions).await;
    let mut announced = warm_up.split_off(usize::try_from(partitions).expect("it fits"));
    fastrand::Rng::with_seed(0).shuffle(&mut announced);
    let slow = Arc::new(SlowStore::new(memory, LATENCY * MILLISECOND, spread, connections));
    let queues = InProcessBroker::builder().visibility_timeout(NEVER).build();
    let watch = Arc::new(Watch { queues, state: Mutex::default(), settled: AtomicU64::new(0) });
    let broker: Arc<dyn Broker> = Arc::clone(&watch) as _;
    let store: Arc<dyn Store> = Arc::clone(&slow) as _;

    let mut naive = JoinSet::new();
    let mut gate = None;
    match consumer {
        Consumer::Naive => {
            for _ in 0..window {
                naive.spawn(consume_naively(Arc::clone(&store), Arc::clone(&broker)));
            }
        }
        Consumer::Tollgate => {
            let endpoint =
                Endpoint::new(ENDPOINT).concurrency(window).preload(TOTAL).on::<Add, _, _>(add_and_tell);
            let builder = Gate::builder().store(store).broker(Arc::clone(&broker)).endpoint(endpoint);
            let opened = builder.flush_after(NEVER).sweep_every(None).open().await;
            gate = Some(opened.expect("the gate opens"));
        }
    }
    send(&broker, &warm_up).await;
    watch.until_settled(partitions).await;
    watch.start_again();
    let calls_before = slow.traffic().0;
    let started = Instant::now();
    send(&broker, &announced).await;
    watch.until_settled(messages).await;
    let elapsed = in_milliseconds(started.elapsed()) / 1_000.0;
    let (calls, calls_at_a_time) = slow.traffic();
    naive.shutdown().await;
    if let Some(gate) = gate {
        let statistics = gate.close().await;
        assert_eq!(statistics.committed, partitions + messages, "each message once");
    }
    let mut state = std::mem::take(&mut *watch.lock());
    state.latencies.sort_unstable();
    Figures {
        rate: messages as f64 / elapsed,
        latencies: state.latencies,
        unsettled: state.unsettled_max,
        calls_at_a_time,
        calls: (calls - calls_before) as f64 / messages as f64,
    }
}

/// Tollgate's handler: adds, and sends one message.
async fn add_and_tell(tx: Tx, message: Add) -> Result<(), HandlerError> {
    let total: u64 = tx.get(TOTAL).await?.unwrap_or_default();
    tx.put(TOTAL, &(total + message.amount))?;
    tx.send(SINK, "sink", &message)?;
    Ok(())
}

/// Gets, puts, sends and acknowledges, one message at a time. The put is conditional, because two workers may meet.
async fn consume_naively(store: Arc<dyn Store>, broker: Arc<dyn Broker>) {
    let endpoint = EndpointName::new(ENDPOINT).expect("a valid name");
    loop {
        let deliveries = broker.receive(&endpoint, 1).await.expect("the broker is open");
        for Delivery { envelope, receipt, .. } in deliveries {
            let envelope = codec::decode_envelope(&envelope).expect("an envelope");
            let partition = envelope.to.partition;
            while !get_and_put(&*store, &partition).await.expect("the store answers") {}
            let output = OutgoingMessage::without_token(
                EndpointName::new(SINK).expect("a valid name"),
                partition,
                envelope.message_id,
                Bytes::from_static(b"{\"amount\":1}"),
            );
            broker.send(vec![output]).await;
            broker.settle(&endpoint, vec![Settlement { receipt, verdict: Verdict::Acknowledge }]).await;
        }
    }
}

/// A broker that looks how long deliveries stay unsettled, and how many of them.
struct Watch {
    queues: InProcessBroker,
    state: Mutex<Watched>,
    settled: AtomicU64,
}

#[derive(Default)]
struct Watched {
    delivered: HashMap<Receipt, Instant>,
    latencies: Vec<Duration>,
    unsettled_max: usize,
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_again(&self) {
        *self.lock() = Watched::default();
        self.settled.store(0, Ordering::Relaxed);
    }

    async fn until_settled(&self, messages: u64) {
        while self.settled.load(Ordering::Relaxed) < messages {
            tokio::time::sleep(MILLISECOND / 10).await;
        }
    }
}

impl BrokerWrapper for Watch {
    fn inner(&self) -> &dyn Broker {
        &self.queues
    }

    fn receive(
        &self,
        endpoint: &EndpointName,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<Delivery>, BrokerError>> {
        let receiving = self.queues.receive(endpoint, max);
        Box::pin(async move {
            let deliveries = receiving.await?;
            let mut state = self.lock();
            for delivery in &deliveries {
                state.delivered.insert(delivery.receipt.clone(), Instant::now());
            }
            state.unsettled_max = state.unsettled_max.max(state.delivered.len());
            Ok(deliveries)
        })
    }

    fn settle(
        &self,
        endpoint: &EndpointName,
        settlements: Vec<Settlement>,
    ) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        let mut state = self.lock();
        for settlement in &settlements {
            assert_eq!(settlement.verdict, Verdict::Acknowledge, "nothing fails here");
            let delivered = state.delivered.remove(&settlement.receipt).expect("it was delivered");
            state.latencies.push(delivered.elapsed());
        }
        drop(state);
        self.settled.fetch_add(settlements.len() as u64, Ordering::Relaxed);
        self.queues.settle(endpoint, settlements)
    }
}
