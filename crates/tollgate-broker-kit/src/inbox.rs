//! What a process has taken from a queue on a network and not settled yet: a few messages that wait for a
//! receiver, and those that receivers have. Tasks fetch what is wanted and ask the broker for more time while
//! a message is here, so that no visibility timeout passes in our own queue. It knows no protocol: a broker
//! brings a [`Fetcher`] for each connection that is to fetch, and a [`Keeper`].

mod state;

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tollgate_proto::store::BoxFuture;
use tollgate_proto::{BrokerError, Delivery, EndpointName, Receipt};

use self::state::State;
use crate::counters::EndpointCounters;

/// How long a receiver waits for a message before it is told that there is none.
const RECEIVE_WAIT: Duration = Duration::from_secs(20);

/// The shortest pause after a fetch that failed; it doubles with each.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Most time that giving messages back, or asking for more time, may take. What could not be told comes again
/// by itself.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// More time is asked for when this part of the visibility timeout has passed: a second and a third attempt
/// fit in.
const EXTENDED_AFTER_ONE_IN: u32 = 3;

/// And it is looked so often in that time.
const LOOKS: u32 = 2;

/// What a process has of the messages of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Held {
    /// Fetched, and seen by no receiver yet.
    pub waiting: usize,
    /// Not settled, those that wait included.
    pub unsettled: usize,
}

/// Bounds and times of the inbox of one endpoint.
#[derive(Clone, Copy, Debug)]
pub struct InboxSettings {
    /// How long the broker waits for a settlement before it delivers again.
    pub visibility_timeout: Duration,
    /// For how long more time is asked for while a receiver has a message. After that it comes again: whoever
    /// has it is taken for dead.
    pub hold_max: Duration,
    /// Messages that are fetched before a receiver asks for them.
    pub prefetch: usize,
    /// Most unsettled messages of the endpoint in this process.
    pub in_flight_max: usize,
}

/// A message as it comes from the broker.
#[derive(Clone, Debug)]
pub struct Arrival<H> {
    /// What the broker wants back.
    pub handle: H,
    /// The encoded envelope.
    pub envelope: Bytes,
    /// Counted from 1.
    pub delivery_count: u32,
}

/// Fetches messages, one call at a time. An endpoint may have several.
pub trait Fetcher<H>: Send + 'static {
    /// Most messages that one fetch can bring.
    const FETCH_MAX: usize;

    /// How long a fetch that is under way may take to end when the inbox is closed, before it is dropped.
    const CLOSE_WAIT: Duration;

    /// The longest that a fetch takes while its server answers. One that takes longer is dropped and has
    /// failed: its connection may be dark, as behind a gateway that has forgotten it.
    const FETCH_WITHIN: Duration;

    /// Waits for messages and delivers them to the order as they come; ends when it is filled, or after a
    /// wait of its own choosing. May be dropped at any time: what was on its way comes again.
    fn fetch<'a>(&'a mut self, order: &'a Order<H>) -> BoxFuture<'a, Result<(), BrokerError>>;

    /// Fetches no more: takes back what it had asked for. Comes last, and before messages are given back.
    fn stop(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Tells the broker about messages that are here.
pub trait Keeper<H>: Send + Sync + 'static {
    /// Asks for as much time again. Failures need no more than a word to the log: then they come again.
    fn extend(&self, handles: Vec<H>) -> BoxFuture<'_, ()>;

    /// Gives back what no receiver has seen.
    fn give_back(&self, handles: Vec<H>) -> BoxFuture<'_, ()>;
}

/// The inbox of one endpoint.
pub struct Inbox<H> {
    shared: Arc<Shared<H>>,
    keeper: Arc<dyn Keeper<H>>,
    closing: CancellationToken,
    tasks: Mutex<JoinSet<()>>,
}

struct Shared<H> {
    endpoint: EndpointName,
    settings: InboxSettings,
    state: Mutex<State<H>>,
    /// Rung when there is something for a receiver.
    arrived: Notify,
    /// Rung when there may be something to fetch.
    wanted: Notify,
    counters: Arc<EndpointCounters>,
}

impl<H> Shared<H> {
    fn state(&self) -> MutexGuard<'_, State<H>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<H: Clone + Send + Sync + 'static> Inbox<H> {
    /// Opens the inbox; its tasks run on the caller's runtime until it is closed or dropped.
    pub fn open<F: Fetcher<H>>(
        endpoint: EndpointName,
        settings: InboxSettings,
        fetchers: Vec<F>,
        keeper: Arc<dyn Keeper<H>>,
        counters: Arc<EndpointCounters>,
    ) -> Self {
        let shared = Arc::new(Shared {
            endpoint,
            settings,
            state: Mutex::new(State::new()),
            arrived: Notify::new(),
            wanted: Notify::new(),
            counters,
        });
        let closing = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for fetcher in fetchers {
            tasks.spawn(fetch_what_is_wanted(Arc::clone(&shared), fetcher, closing.clone()));
        }
        tasks.spawn(extend_what_is_held(Arc::clone(&shared), Arc::clone(&keeper), closing.clone()));
        Self { shared, keeper, closing, tasks: Mutex::new(tasks) }
    }

    /// Waits for messages. Dropping the future loses nothing: they wait for the next receiver.
    ///
    /// # Errors
    /// The reason why the last fetch failed, or [`BrokerError::Closed`].
    pub async fn receive(&self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        let shared = &*self.shared;
        let mut demand: Option<Demand<'_, H>> = None;
        let until = Instant::now() + RECEIVE_WAIT;
        loop {
            let mut arrived = pin!(shared.arrived.notified());
            arrived.as_mut().enable();
            {
                let mut state = shared.state();
                if self.closing.is_cancelled() {
                    return Err(BrokerError::Closed { endpoint: shared.endpoint.clone() });
                }
                let handed_out = state.hand_out(max, Instant::now());
                state.note_demand(max);
                if !handed_out.is_empty() {
                    if state.has_waiting() {
                        shared.arrived.notify_one();
                    }
                    drop(state);
                    drop(demand);
                    shared.wanted.notify_waiters();
                    shared.counters.delivered(handed_out.len());
                    return Ok(handed_out.into_iter().map(delivery).collect());
                }
                if let Some(failure) = state.take_failure(Instant::now()) {
                    return Err(failure);
                }
                demand.get_or_insert_with(|| {
                    state.demand += max;
                    Demand { shared, max }
                });
            }
            shared.wanted.notify_waiters();
            tokio::select! {
                () = arrived => {}
                () = self.closing.cancelled() => {}
                () = tokio::time::sleep_until(until) => return Ok(Vec::new()),
            }
        }
    }

    /// Takes a delivery out, for its settlement. `None`: it was settled before, or given up.
    pub fn take(&self, receipt: &Receipt) -> Option<Arrival<H>> {
        let Receipt::Number(number) = receipt else { return None };
        let taken = self.shared.state().take(*number);
        self.shared.wanted.notify_waiters();
        taken
    }

    /// How many messages are here.
    pub fn held(&self) -> Held {
        let state = self.shared.state();
        Held { waiting: state.waiting(), unsettled: state.held() }
    }

    /// Stops fetching, ends the tasks and gives back what no receiver has seen. Several inboxes are to be
    /// closed together: each may wait for a fetch that is under way.
    pub async fn close(&self) {
        self.closing.cancel();
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(endpoint = %self.shared.endpoint, %error, "a task of the inbox panicked");
            }
        }
        let handles = self.shared.state().take_waiting();
        if !handles.is_empty() {
            give_back(&self.shared.endpoint, &*self.keeper, handles).await;
        }
    }
}

/// A receiver that waits. Whatever becomes of it, what it asked for is asked for no longer.
struct Demand<'a, H> {
    shared: &'a Shared<H>,
    max: usize,
}

impl<H> Drop for Demand<'_, H> {
    fn drop(&mut self) {
        self.shared.state().demand -= self.max;
    }
}

fn delivery((number, envelope, delivery_count): (u64, Bytes, u32)) -> Delivery {
    Delivery { envelope, receipt: Receipt::Number(number), delivery_count }
}

/// What a fetcher is to bring. However the fetch ends, what it has not brought is on its way no longer.
pub struct Order<H> {
    shared: Arc<Shared<H>>,
    /// Changed under the lock of the state only.
    missing: AtomicUsize,
}

impl<H: Clone> Order<H> {
    /// Waits until something is wanted.
    async fn wanted(shared: &Arc<Shared<H>>, fetch_max: usize) -> Self {
        loop {
            let mut wanted = pin!(shared.wanted.notified());
            wanted.as_mut().enable();
            let count = shared.state().order(&shared.settings, fetch_max);
            if count > 0 {
                return Self { shared: Arc::clone(shared), missing: AtomicUsize::new(count) };
            }
            wanted.await;
        }
    }

    /// How many messages are still to be brought.
    pub fn missing(&self) -> usize {
        self.missing.load(Ordering::Relaxed)
    }

    /// The queue from which messages came is gone, or is not the one it was: handles of the old one must
    /// settle nothing of a new one.
    pub fn forget_all(&self) {
        self.shared.state().forget();
    }

    /// Messages have come.
    pub fn deliver(&self, arrivals: Vec<Arrival<H>>) {
        let extend_after = self.shared.settings.visibility_timeout / EXTENDED_AFTER_ONE_IN;
        {
            let mut state = self.shared.state();
            let missing = self.missing();
            let of_this_order = missing.min(arrivals.len());
            self.missing.store(missing - of_this_order, Ordering::Relaxed);
            state.end_order(of_this_order);
            state.arrive(arrivals, Instant::now(), extend_after);
        }
        self.shared.arrived.notify_one();
    }
}

impl<H> Drop for Order<H> {
    fn drop(&mut self) {
        let missing = *self.missing.get_mut();
        self.shared.state().end_order(missing);
    }
}

async fn fetch_what_is_wanted<H: Clone + Send + Sync + 'static, F: Fetcher<H>>(
    shared: Arc<Shared<H>>,
    mut fetcher: F,
    closing: CancellationToken,
) {
    let mut failures = 0;
    while let Some(order) = closing.run_until_cancelled(Order::wanted(&shared, F::FETCH_MAX)).await {
        let outcome = tokio::select! {
            outcome = tokio::time::timeout(F::FETCH_WITHIN, fetcher.fetch(&order)) => {
                outcome.unwrap_or_else(|_| Err(unanswered::<F, H>(&shared.endpoint)))
            }
            () = after(&closing, F::CLOSE_WAIT) => break,
        };
        drop(order);
        match outcome {
            Ok(()) => failures = 0,
            Err(error) => {
                failures += 1;
                tracing::warn!(endpoint = %shared.endpoint, %error, failures, "fetching failed");
                shared.state().fail(error, Instant::now());
                shared.arrived.notify_one();
                closing.run_until_cancelled(tokio::time::sleep(pause(failures))).await;
            }
        }
    }
    fetcher.stop().await;
}

fn unanswered<F: Fetcher<H>, H>(endpoint: &EndpointName) -> BrokerError {
    let reason = format!("fetching was not answered within {:?}", F::FETCH_WITHIN);
    BrokerError::Unavailable { endpoint: endpoint.clone(), reason }
}

async fn give_back<H: 'static>(endpoint: &EndpointName, keeper: &dyn Keeper<H>, handles: Vec<H>) {
    let count = handles.len();
    if tokio::time::timeout(TOLD_WITHIN, keeper.give_back(handles)).await.is_err() {
        tracing::warn!(%endpoint, count, "messages could not be given back in time; they come again by themselves");
    }
}

async fn after(closing: &CancellationToken, wait: Duration) {
    closing.cancelled().await;
    tokio::time::sleep(wait).await;
}

/// Half of it is random, so that processes that lost their broker together don't all come back together.
fn pause(failures: u32) -> Duration {
    let whole = PAUSE_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(PAUSE_MAX);
    whole.mul_f64(0.5 + fastrand::f64() / 2.0)
}

async fn extend_what_is_held<H: Clone + Send + Sync + 'static>(
    shared: Arc<Shared<H>>,
    keeper: Arc<dyn Keeper<H>>,
    closing: CancellationToken,
) {
    let every = shared.settings.visibility_timeout / EXTENDED_AFTER_ONE_IN / LOOKS;
    let every = every.max(Duration::from_millis(1));
    let extended =
        metrics::counter!("tollgate_broker_extended_total", "endpoint" => shared.endpoint.to_string());
    while closing.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
        let (due, given_up, unwanted) = {
            let mut state = shared.state();
            let now = Instant::now();
            let given_up = state.give_up(&shared.settings, now);
            let unwanted = state.take_unwanted(&shared.settings, now);
            (state.due(&shared.settings, EXTENDED_AFTER_ONE_IN, now), given_up, unwanted)
        };
        if !unwanted.is_empty() {
            let count = unwanted.len();
            tracing::debug!(endpoint = %shared.endpoint, count, "messages that waited here too long are given back");
            give_back(&shared.endpoint, &*keeper, unwanted).await;
        }
        if given_up > 0 {
            shared.wanted.notify_waiters();
            let held = shared.settings.hold_max;
            tracing::warn!(endpoint = %shared.endpoint, given_up, ?held, "deliveries were not settled in time and come again");
        }
        if !due.is_empty() {
            extended.increment(due.len() as u64);
            let extending = tokio::time::timeout(TOLD_WITHIN, keeper.extend(due));
            if let Some(Err(_)) = closing.run_until_cancelled(extending).await {
                tracing::warn!(endpoint = %shared.endpoint, "more time could not be asked for in time");
            }
        }
    }
}

#[cfg(test)]
mod tests;
