//! One run of one contender: an empty store, a warm-up, the measured messages, the end of all background work, the audit. Every figure
//! of it is defined here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::BenchError;
use super::audit::Audit;
use super::contender::{Contender, Reported, Stage};
use super::network::{Network, Traffic};
use super::plan::Plan;
use super::queue::Queue;
use super::resources::{Watch, live_bytes};
use super::scenario::{Arrival, Scenario};

/// How long nothing may be settled before a run is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a run has shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The contender's name.
    pub contender: String,
    /// Messages that were measured, copies not counted.
    pub messages: u64,
    /// Deliveries of them, copies counted.
    pub deliveries: u64,
    /// From the first delivery until the queue was quiet.
    pub seconds: f64,
    /// Messages a second.
    pub rate: f64,
    /// From delivery (or, in an open loop, from when a message was due) to acknowledgement.
    pub latency: Latencies,
    /// Calls to the store for each message, work in the background and at the end included.
    pub calls: f64,
    /// Calls one after the other from delivery to sending, if one message at a time was in flight.
    pub calls_before_dispatch: Option<f64>,
    /// Calls one after the other from delivery to acknowledgement, likewise.
    pub calls_in_sequence: Option<f64>,
    /// Write capacity units a message, by the published rules.
    pub write_units: f64,
    /// Read capacity units a message, by the published rules.
    pub read_units: f64,
    /// Request units a message, by the published table.
    pub request_units: f64,
    /// The same for each message as the store itself reported them, where it does.
    pub reported: Reported,
    /// Processor time a message, in microseconds.
    pub processor_us: f64,
    /// Allocations a message.
    pub allocations: Option<f64>,
    /// Live bytes at most, beyond those at the begin: with a store in memory, its content included.
    pub peak_bytes: Option<u64>,
    /// Live bytes on the heap in the end, beyond those before: with a store in memory, its content included.
    pub heap_bytes: Option<u64>,
    /// Bytes in the store afterwards.
    pub left_bytes: u64,
    /// Bytes of them that are there for deduplication.
    pub left_deduplication_bytes: u64,
    /// The audit.
    pub audit: Audit,
}

/// A distribution of latencies, in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latencies {
    /// Half are below.
    pub p50: f64,
    /// 99 of 100 are below.
    pub p99: f64,
    /// 999 of 1,000 are below.
    pub p999: f64,
    /// The longest.
    pub max: f64,
    /// The curve: parts of all messages, and the latency that they are below.
    pub curve: Vec<(f64, f64)>,
}

const MICROSECONDS: f64 = 1_000.0;
/// Where the curve is looked at.
const CURVE: [f64; 12] = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999, 1.0];

impl Latencies {
    /// Of a histogram of microseconds.
    #[expect(clippy::cast_precision_loss, reason = "latencies are shorter than 2^52 us")]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |part: f64| histogram.value_at_quantile(part) as f64 / MICROSECONDS;
        Self {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / MICROSECONDS,
            curve: CURVE.map(|part| (part, at(part))).to_vec(),
        }
    }
}

/// Runs a contender once.
///
/// # Errors
/// If the scenario makes no sense, a store refuses or nothing moves any more. That messages were lost or doubled is no error:
/// the outcome tells.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub async fn run(contender: &dyn Contender, scenario: &Scenario) -> Result<Outcome, BenchError> {
    scenario.check()?;
    let heap = live_bytes();
    let plan = Arc::new(Plan::new(scenario));
    let network = Arc::new(Network::new(scenario.latency, scenario.connections, scenario.seed));
    let queue = Arc::new(Queue::new(scenario, Arc::clone(&network)));
    let stage = Stage {
        scenario: Arc::new(scenario.clone()),
        plan: Arc::clone(&plan),
        queue: Arc::clone(&queue),
        network: Arc::clone(&network),
    };
    let mut running = contender.open(stage).await?;
    let until_quiet = async || {
        queue.until_quiet(PATIENCE).await.map_err(|left| BenchError::Stuck {
            contender: contender.name(),
            seconds: PATIENCE.as_secs(),
            left,
        })
    };
    let starts = running.admit(plan.starts()).await?;
    queue.publish(running.admit(plan.warm_ups()).await?);
    until_quiet().await?;

    queue.measure(matches!(scenario.arrival, Arrival::Open(_)));
    let (before, reported_before) = (network.traffic(), running.reported());
    let (watch, begin) = (Watch::begin(), Instant::now());
    match scenario.arrival {
        Arrival::Closed => queue.begin(starts),
        Arrival::Open(rate) => {
            // Messages that are sent by others arrive when they are sent: only the first of each chain has a time of its own.
            let share = starts.len() as f64 / plan.measured() as f64;
            queue.publish_at(starts, rate * share).await;
        }
    }
    until_quiet().await?;
    let elapsed = begin.elapsed();
    running.finish().await?;
    let taken = watch.end();
    let traffic = network.traffic().since(before);
    let reported = running.reported().since(reported_before);
    let observed = queue.observed();
    let heap_bytes = live_bytes().zip(heap).map(|(now, before)| now.saturating_sub(before));
    let left = running.inspect().await?;

    let messages = plan.measured();
    let a_message = |figure: f64| figure / messages as f64;
    let Traffic { calls, write_units, read_units, request_units } = traffic;
    let one_at_a_time = scenario.in_flight == 1;
    let trips = observed.trips;
    Ok(Outcome {
        contender: contender.name().to_owned(),
        messages,
        deliveries: observed.deliveries,
        seconds: elapsed.as_secs_f64(),
        rate: messages as f64 / elapsed.as_secs_f64(),
        latency: Latencies::of(&observed.latency),
        calls: a_message(calls as f64),
        calls_before_dispatch: one_at_a_time
            .then(|| trips.before_dispatch as f64 / trips.dispatched.max(1) as f64),
        calls_in_sequence: one_at_a_time.then(|| trips.in_all as f64 / trips.acknowledged.max(1) as f64),
        write_units: a_message(write_units as f64),
        read_units: a_message(read_units as f64),
        request_units: a_message(request_units),
        reported: Reported {
            write_units: reported.write_units.map(a_message),
            read_units: reported.read_units.map(a_message),
            request_units: reported.request_units.map(a_message),
        },
        processor_us: a_message(taken.processor.as_secs_f64() * 1e6),
        allocations: taken.allocations.map(|allocations| a_message(allocations as f64)),
        peak_bytes: taken.peak_bytes,
        heap_bytes,
        left_bytes: left.bytes,
        left_deduplication_bytes: left.deduplication_bytes,
        audit: Audit::of(&plan, &left.accounts),
    })
}
