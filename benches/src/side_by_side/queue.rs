//! The broker of the measurements, the same for every contender: a queue in memory that costs next to nothing, delivers as many
//! copies as the scenario says, racing and late, and is the clock of all latencies. It never looks into a message.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tollgate::proto::{
    BoxFuture, Broker, BrokerError, Delivery, EndpointName, OutgoingMessage, Receipt, Settlement, Verdict,
};

use super::network::Network;
use super::scenario::Scenario;

/// A late copy comes after up to this many other deliveries.
const LATE_MAX: u64 = 2_000;
/// Longest latency that is told apart, in microseconds: a quarter of an hour.
const LATENCY_MAX_US: u64 = 900_000_000;
/// Digits of a latency that are kept.
const LATENCY_DIGITS: u8 = 3;

/// The queue.
pub struct Queue {
    state: Mutex<State>,
    /// As many permits as messages are ready.
    ready: Semaphore,
    /// As many permits as deliveries may still be unsettled at a time: the same for every contender, whatever it calls its window.
    window: Semaphore,
    progress: Notify,
    /// Part of all deliveries that are copies.
    duplicates: f64,
    /// Part of the copies that are late.
    late: f64,
    network: Arc<Network>,
}

struct State {
    random: fastrand::Rng,
    ready: VecDeque<Waiting>,
    /// Late copies, by the number of the delivery after which they come.
    late: BinaryHeap<Reverse<(u64, u64)>>,
    late_messages: HashMap<u64, Waiting>,
    in_flight: HashMap<u64, Waiting>,
    /// Messages that come later by the clock: put back, or not due yet.
    postponed: usize,
    deliveries: u64,
    next: u64,
    measuring: Measuring,
    acknowledged: u64,
    latency: Histogram<u64>,
    trips: Trips,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Measuring {
    WarmUp,
    FromDelivery,
    FromArrival,
}

#[derive(Clone)]
struct Waiting {
    message: Bytes,
    /// When it was sent, or due.
    arrived: Instant,
    /// When it was first delivered.
    delivered: Option<Instant>,
    kind: Kind,
    deliveries: u32,
    /// Calls to the store that had been made when it was delivered.
    calls: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Original,
    Copy,
}

/// Sequential calls to the store, looked at from the queue while one message at a time is in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trips {
    calls_at_delivery: u64,
    /// Messages that sent something.
    pub dispatched: u64,
    /// Calls between their delivery and their sending.
    pub before_dispatch: u64,
    /// Messages that were acknowledged.
    pub acknowledged: u64,
    /// Calls between their delivery and their acknowledgement.
    pub in_all: u64,
}

/// What the queue has measured.
#[derive(Clone, Debug)]
pub struct Observed {
    /// From delivery, or from when it was due, to acknowledgement, in microseconds.
    pub latency: Histogram<u64>,
    /// Deliveries, copies included.
    pub deliveries: u64,
    /// Calls to the store, where one message at a time was in flight.
    pub trips: Trips,
}

/// A delivered message.
pub struct Taking {
    /// What was sent.
    pub message: Bytes,
    /// By which it is settled.
    pub receipt: u64,
    /// Which delivery of it this is, from 1.
    pub deliveries: u32,
}

impl Queue {
    /// An empty queue that delivers copies. It looks at the network to see how many calls a message takes.
    pub fn new(scenario: &Scenario, network: Arc<Network>) -> Self {
        let state = State {
            random: fastrand::Rng::with_seed(scenario.seed),
            ready: VecDeque::new(),
            late: BinaryHeap::new(),
            late_messages: HashMap::new(),
            in_flight: HashMap::new(),
            postponed: 0,
            deliveries: 0,
            next: 0,
            measuring: Measuring::WarmUp,
            acknowledged: 0,
            latency: new_histogram(),
            trips: Trips::default(),
        };
        Self {
            state: Mutex::new(state),
            ready: Semaphore::new(0),
            window: Semaphore::new(scenario.in_flight),
            progress: Notify::new(),
            duplicates: scenario.duplicates,
            late: scenario.late_copies,
            network,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to measure: latencies count from delivery, or from when a message was due.
    pub fn measure(&self, from_arrival: bool) {
        let mut state = self.state();
        state.measuring = if from_arrival { Measuring::FromArrival } else { Measuring::FromDelivery };
        state.latency.reset();
        state.deliveries = 0;
        state.trips = Trips::default();
        // Nothing is late across this line: it is called when the queue is quiet.
        debug_assert!(state.late.is_empty(), "measuring begins when the queue is quiet");
    }

    /// What was measured since.
    pub fn observed(&self) -> Observed {
        let state = self.state();
        Observed { latency: state.latency.clone(), deliveries: state.deliveries, trips: state.trips }
    }

    /// Puts messages in that nobody under measurement has sent: those that begin chains.
    pub fn begin(&self, messages: impl IntoIterator<Item = Bytes>) {
        // First, since whoever takes the first message may be done with the last one before this returns.
        let calls = self.network.traffic().calls;
        self.state().trips = Trips { calls_at_delivery: calls, ..Trips::default() };
        self.add_ready(messages);
    }

    /// Sends messages that are ready at once.
    pub fn publish(&self, messages: impl IntoIterator<Item = Bytes>) {
        let calls = self.network.traffic().calls;
        {
            let trips = &mut self.state().trips;
            trips.dispatched += 1;
            trips.before_dispatch += calls.saturating_sub(trips.calls_at_delivery);
        }
        self.add_ready(messages);
    }

    fn add_ready(&self, messages: impl IntoIterator<Item = Bytes>) {
        let now = Instant::now();
        let mut state = self.state();
        let before = state.ready.len();
        for message in messages {
            state.add(message, now, self.duplicates, self.late);
        }
        let more = state.ready.len() - before;
        drop(state);
        self.ready.add_permits(more);
    }

    /// Sends messages one after the other, so many a second, whether or not anybody takes them. Returns when all are sent.
    pub async fn publish_at(&self, messages: Vec<Bytes>, a_second: f64) {
        self.state().postponed += 1;
        let begin = Instant::now();
        let mut due = 0.0;
        for message in messages {
            let arrival = begin + Duration::from_secs_f64(due);
            due += 1.0 / a_second;
            if arrival > Instant::now() {
                tokio::time::sleep_until(arrival).await;
            }
            let mut state = self.state();
            let before = state.ready.len();
            state.add(message, arrival, self.duplicates, self.late);
            let more = state.ready.len() - before;
            drop(state);
            self.ready.add_permits(more);
        }
        self.state().postponed -= 1;
        self.progress.notify_waiters();
    }

    /// Waits for messages and takes up to `max`.
    ///
    /// # Panics
    /// Never: the queue is not closed.
    pub async fn take(&self, max: usize) -> Vec<Taking> {
        let room = self.window.acquire().await.expect("the queue is never closed");
        self.ready.acquire().await.expect("the queue is never closed").forget();
        room.forget();
        let calls = self.network.traffic().calls;
        let mut state = self.state();
        state.trips.calls_at_delivery = calls;
        let mut taken = Vec::new();
        loop {
            let Some(mut waiting) = state.ready.pop_front() else {
                self.window.add_permits(1);
                break;
            };
            let receipt = state.next;
            state.next += 1;
            state.deliveries += 1;
            waiting.deliveries += 1;
            waiting.calls = calls;
            waiting.delivered.get_or_insert_with(Instant::now);
            let message = waiting.message.clone();
            taken.push(Taking { message, receipt, deliveries: waiting.deliveries });
            state.in_flight.insert(receipt, waiting);
            if taken.len() == max {
                break;
            }
            let (Ok(room), Ok(ready)) = (self.window.try_acquire(), self.ready.try_acquire()) else { break };
            room.forget();
            ready.forget();
        }
        let deliveries = state.deliveries;
        let more = state.release_late(|due| due <= deliveries);
        drop(state);
        self.ready.add_permits(more);
        taken
    }

    /// Settles a delivery: it is done.
    pub fn acknowledge(&self, receipt: u64) {
        let (now, calls) = (Instant::now(), self.network.traffic().calls);
        let mut state = self.state();
        if let Some(waiting) = state.in_flight.remove(&receipt) {
            self.window.add_permits(1);
            state.acknowledged += 1;
            state.trips.acknowledged += 1;
            state.trips.in_all += calls.saturating_sub(waiting.calls);
            let since = match state.measuring {
                Measuring::WarmUp => None,
                Measuring::FromArrival => Some(waiting.arrived),
                Measuring::FromDelivery => waiting.delivered,
            };
            if let (Some(since), Kind::Original) = (since, waiting.kind) {
                let microseconds = u64::try_from((now - since).as_micros()).unwrap_or(LATENCY_MAX_US);
                state.latency.saturating_record(microseconds);
            }
        }
        self.settled(state);
    }

    /// Settles a delivery: it comes again after a while.
    pub fn put_back(self: &Arc<Self>, receipt: u64, after: Duration) {
        let mut state = self.state();
        let Some(waiting) = state.in_flight.remove(&receipt) else { return };
        self.window.add_permits(1);
        state.postponed += 1;
        drop(state);
        let queue = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let mut state = queue.state();
            state.postponed -= 1;
            state.ready.push_back(waiting);
            drop(state);
            queue.ready.add_permits(1);
        });
    }

    fn settled(&self, mut state: MutexGuard<'_, State>) {
        let mut more = 0;
        if state.ready.is_empty() && state.in_flight.is_empty() {
            // Nobody would ever count up to the late ones.
            more = state.release_late(|_| true);
        }
        let quiet = state.is_quiet();
        drop(state);
        self.ready.add_permits(more);
        if quiet {
            self.progress.notify_waiters();
        }
    }

    /// Waits until everything is settled. `Err`: nothing was settled for so long; so many messages are left.
    ///
    /// # Errors
    /// If there is no progress.
    pub async fn until_quiet(&self, patience: Duration) -> Result<(), usize> {
        let mut last = u64::MAX;
        loop {
            let quiet = self.progress.notified();
            let (is_quiet, acknowledged, left) = {
                let state = self.state();
                let left = state.ready.len() + state.in_flight.len() + state.postponed + state.late.len();
                (state.is_quiet(), state.acknowledged, left)
            };
            if is_quiet {
                return Ok(());
            }
            if tokio::time::timeout(patience, quiet).await.is_err() && acknowledged == last {
                return Err(left);
            }
            last = acknowledged;
        }
    }
}

fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_US, LATENCY_DIGITS)
        .expect("the bounds are constants that are valid")
}

impl State {
    fn add(&mut self, message: Bytes, arrived: Instant, duplicates: f64, late: f64) {
        let original =
            Waiting { message, arrived, delivered: None, kind: Kind::Original, deliveries: 0, calls: 0 };
        for _ in 0..self.copies(duplicates) {
            let copy = Waiting { kind: Kind::Copy, ..original.clone() };
            if self.random.f64() < late {
                let (due, key) = (self.deliveries + self.random.u64(1..=LATE_MAX), self.next);
                self.next += 1;
                self.late.push(Reverse((due, key)));
                self.late_messages.insert(key, copy);
            } else {
                self.ready.push_back(copy);
            }
        }
        self.ready.push_back(original);
    }

    /// How many copies a message gets, so that on average the wanted part of all deliveries are copies.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small number that is not negative"
    )]
    fn copies(&mut self, duplicates: f64) -> u64 {
        if duplicates <= 0.0 {
            return 0;
        }
        let mean = duplicates / (1.0 - duplicates);
        mean as u64 + u64::from(self.random.f64() < mean.fract())
    }

    /// Makes late copies ready. Returns how many.
    fn release_late(&mut self, is_due: impl Fn(u64) -> bool) -> usize {
        let mut released = 0;
        while let Some(Reverse((due, key))) = self.late.peek().copied() {
            if !is_due(due) {
                break;
            }
            self.late.pop();
            if let Some(copy) = self.late_messages.remove(&key) {
                self.ready.push_back(copy);
                released += 1;
            }
        }
        released
    }

    fn is_quiet(&self) -> bool {
        self.ready.is_empty() && self.in_flight.is_empty() && self.late.is_empty() && self.postponed == 0
    }
}

/// For Tollgate; other contenders use the queue as it is.
impl Broker for QueueBroker {
    fn send(&self, messages: Vec<OutgoingMessage>) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        let answers = messages.iter().map(|_| Ok(())).collect();
        self.0.publish(messages.into_iter().map(|message| message.envelope));
        Box::pin(std::future::ready(answers))
    }

    fn receive(&self, _: &EndpointName, max: usize) -> BoxFuture<'_, Result<Vec<Delivery>, BrokerError>> {
        Box::pin(async move {
            let taken = self.0.take(max).await;
            let deliver = |Taking { message, receipt, deliveries }| Delivery {
                envelope: message,
                receipt: Receipt::Number(receipt),
                delivery_count: deliveries,
            };
            Ok(taken.into_iter().map(deliver).collect())
        })
    }

    fn settle(
        &self,
        endpoint: &EndpointName,
        settlements: Vec<Settlement>,
    ) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        let settle = |Settlement { receipt, verdict }| {
            let Receipt::Number(receipt) = receipt else {
                let reason = "a receipt of another broker".to_owned();
                return Err(BrokerError::Misconfigured { endpoint: endpoint.clone(), reason });
            };
            match verdict {
                // A message that can't be processed is missing in the accounts: the audit tells.
                Verdict::Acknowledge | Verdict::DeadLetter { .. } => self.0.acknowledge(receipt),
                Verdict::Retry { after } => self.0.put_back(receipt, after),
            }
            Ok(())
        };
        let answers = settlements.into_iter().map(settle).collect();
        Box::pin(std::future::ready(answers))
    }

    /// A queue in memory is always there.
    fn verify(&self, _: &EndpointName) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// The queue as a broker with one endpoint.
pub struct QueueBroker(pub Arc<Queue>);
