//! One endpoint's consumer as receivers and settlers see it, for brokers that push messages or are read by
//! one task: RabbitMQ, Kafka.
//!
//! A [`Ledger`] knows what is held: what waits, what was given out until when, what is being settled. The
//! protocol's task alone talks to the broker, so there is one order of acknowledgements, and no lock is held
//! while it waits.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tollgate_proto::{BrokerError, Delivery, EndpointName, Receipt, Settlement, Verdict};

use crate::EndpointCounters;

/// How long a receiver waits for a message before it is told that there is none.
const RECEIVE_WAIT: Duration = Duration::from_secs(20);

/// Most calls of `settle` that wait for the task.
const SETTLE_CALLS_MAX: usize = 64;

/// The messages that one consumer holds. No I/O and no clock of its own.
pub trait Ledger: Send + 'static {
    /// The protocol's way to carry out a verdict.
    type Action: Send + 'static;

    /// Gives out up to `max` waiting messages, which are to be settled by then.
    fn take(&mut self, max: usize, until: Instant) -> Vec<Delivery>;

    /// The number of messages that wait for a receiver.
    fn ready(&self) -> usize;

    /// Begins to settle a delivery: its number and what is to be done. `None`: it was settled before, or
    /// comes again.
    fn begin(&mut self, receipt: &Receipt, verdict: &Verdict) -> Option<(u64, Self::Action)>;

    /// The reason why nothing comes, for a receiver that has found nothing.
    fn failure(&mut self) -> Option<BrokerError>;
}

/// State that receivers, settlers and the task share.
pub struct Shared<L> {
    endpoint: EndpointName,
    visibility_timeout: Duration,
    counters: Arc<EndpointCounters>,
    state: Mutex<State<L>>,
    /// Rung when there is something for a receiver.
    pub arrived: Notify,
    /// Rung when a receiver has taken something.
    pub taken: Notify,
}

struct State<L> {
    ledger: L,
    life: Life,
    /// When a receiver asked last, and for how many.
    asked: Option<(Instant, usize)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Open,
    Closed,
}

/// A lock on the ledger.
pub struct Locked<'a, L>(MutexGuard<'a, State<L>>);

impl<L> std::ops::Deref for Locked<'_, L> {
    type Target = L;

    fn deref(&self) -> &L {
        &self.0.ledger
    }
}

impl<L> std::ops::DerefMut for Locked<'_, L> {
    fn deref_mut(&mut self) -> &mut L {
        &mut self.0.ledger
    }
}

/// One answer for each settlement, in their order.
pub type Answers = Vec<Result<(), BrokerError>>;

/// One settlement on its way to the task.
pub struct Begun<A> {
    place: usize,
    /// The message's number in the ledger.
    pub number: u64,
    /// The verdict, as the protocol carries it out.
    pub action: A,
}

/// The settlements of one call, with the caller that waits for the answers.
pub struct Settling<A> {
    /// One or more.
    pub begun: Vec<Begun<A>>,
    answer: oneshot::Sender<Answers>,
}

/// The rest of a call that waits for copies to be confirmed.
pub struct Waiting {
    answers: Answers,
    answer: oneshot::Sender<Answers>,
}

/// Copies that take the place of held messages, confirmed or not.
pub struct Copied {
    outcomes: Vec<(usize, u64, Result<(), BrokerError>)>,
    waiting: Option<Waiting>,
}

impl<A> Settling<A> {
    /// The settlements, and the caller. All of them succeed unless a copy fails.
    pub fn split(self) -> (Vec<Begun<A>>, Waiting) {
        let answers = vec![Ok(()); self.begun.len()];
        (self.begun, Waiting { answers, answer: self.answer })
    }
}

impl Waiting {
    /// Answers the caller, who may have gone.
    pub fn answer(self) {
        let _ = self.answer.send(self.answers);
    }
}

impl Copied {
    /// Outcomes of copies: `which` are the index in the call and the number of each. Nobody waits for those
    /// of messages that came too early.
    pub fn new(
        which: Vec<(usize, u64)>,
        outcomes: impl IntoIterator<Item = Result<(), BrokerError>>,
        waiting: Option<Waiting>,
    ) -> Self {
        let outcomes =
            which.into_iter().zip(outcomes).map(|((index, number), outcome)| (index, number, outcome));
        Self { outcomes: outcomes.collect(), waiting }
    }

    /// Numbers that are done, numbers that failed with the reason, and the caller.
    pub fn split(self) -> (Vec<u64>, Vec<(u64, BrokerError)>, Option<Waiting>) {
        let Self { outcomes, mut waiting } = self;
        let (mut done, mut failed) = (Vec::with_capacity(outcomes.len()), Vec::new());
        for (index, number, outcome) in outcomes {
            match &outcome {
                Ok(()) => done.push(number),
                Err(error) => failed.push((number, error.clone())),
            }
            if let Some(waiting) = &mut waiting {
                waiting.answers[index] = outcome;
            }
        }
        (done, failed, waiting)
    }
}

/// The consumer of one endpoint.
pub struct EndpointConsumer<L: Ledger> {
    shared: Arc<Shared<L>>,
    settling: mpsc::Sender<Settling<L::Action>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl<L: Ledger> EndpointConsumer<L> {
    /// Opens the consumer: `start` makes the protocol's task of what it shares with receivers, and of the
    /// settlements to come.
    ///
    /// # Errors
    /// Those of `start`.
    pub fn open<E, T>(
        shared: Arc<Shared<L>>,
        start: impl FnOnce(mpsc::Receiver<Settling<L::Action>>) -> Result<T, E>,
    ) -> Result<Self, E>
    where
        T: Future<Output = ()> + Send + 'static,
    {
        let (settling, settlings) = mpsc::channel(SETTLE_CALLS_MAX);
        let task = tokio::spawn(start(settlings)?);
        Ok(Self { shared, settling, task: Mutex::new(Some(task)) })
    }

    /// State shared with the task.
    pub fn shared(&self) -> &Shared<L> {
        &self.shared
    }

    /// Waits until something is ready and returns up to `max` of it. Between taking messages and returning
    /// them there is no await, so a dropped future has taken none.
    ///
    /// # Errors
    /// The reason why nothing comes, or [`BrokerError::Closed`].
    pub async fn receive(&self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let patience = Instant::now() + RECEIVE_WAIT;
        loop {
            let mut arrived = pin!(self.shared.arrived.notified());
            arrived.as_mut().enable();
            let deliveries = self.shared.try_receive(max)?;
            if !deliveries.is_empty() {
                return Ok(deliveries);
            }
            if tokio::time::timeout_at(patience, arrived).await.is_err() {
                return Ok(Vec::new());
            }
        }
    }

    /// Settles deliveries; those that were settled already, or come again, are answered `Ok` and left alone.
    pub async fn settle(&self, settlements: Vec<Settlement>) -> Answers {
        let mut answers = vec![Ok(()); settlements.len()];
        let begun = self.shared.begin(&settlements);
        if begun.is_empty() {
            return answers;
        }
        let places: Vec<usize> = begun.iter().map(|begun| begun.place).collect();
        let (answer, answered) = oneshot::channel();
        let outcomes = match self.settling.send(Settling { begun, answer }).await {
            Ok(()) => answered.await.ok(),
            Err(_) => None,
        };
        let lost = || BrokerError::Unavailable {
            endpoint: self.shared.endpoint.clone(),
            reason: "the connection was lost or closed before it could be settled: it comes again".to_owned(),
        };
        let outcomes = outcomes.unwrap_or_else(|| places.iter().map(|_| Err(lost())).collect());
        for (place, outcome) in places.into_iter().zip(outcomes) {
            if outcome.is_ok() {
                self.shared.counters.settled(&settlements[place].verdict);
            }
            answers[place] = outcome;
        }
        answers
    }

    /// Waits until the task has ended, which was told to.
    pub async fn join(&self) {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(task) = task else { return };
        if let Err(error) = task.await {
            tracing::error!(endpoint = %self.shared.endpoint, %error, "the task of a consumer panicked");
        }
    }
}

impl<L: Ledger> Shared<L> {
    /// State of a consumer that is open and holds what the ledger holds.
    pub fn new(
        endpoint: EndpointName,
        visibility_timeout: Duration,
        counters: Arc<EndpointCounters>,
        ledger: L,
    ) -> Arc<Self> {
        let state = Mutex::new(State { ledger, life: Life::Open, asked: None });
        let (arrived, taken) = (Notify::new(), Notify::new());
        Arc::new(Self { endpoint, visibility_timeout, counters, state, arrived, taken })
    }

    /// The endpoint whose messages are held.
    pub const fn endpoint(&self) -> &EndpointName {
        &self.endpoint
    }

    /// Locks the ledger. Never held across an await.
    pub fn ledger(&self) -> Locked<'_, L> {
        Locked(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The number of messages that the last receiver asked for, and how long ago that was.
    pub fn demand(&self) -> Option<(Duration, usize)> {
        self.ledger().0.asked.map(|(when, max)| (when.elapsed(), max))
    }

    /// Receivers get [`BrokerError::Closed`] from now on; deliveries can still be settled.
    pub fn close(&self) {
        self.ledger().0.life = Life::Closed;
        self.arrived.notify_waiters();
    }

    fn try_receive(&self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        let mut state = self.ledger();
        if state.0.life == Life::Closed {
            return Err(BrokerError::Closed { endpoint: self.endpoint.clone() });
        }
        let now = Instant::now();
        state.0.asked = Some((now, max));
        let deliveries = state.take(max, now + self.visibility_timeout);
        if deliveries.is_empty()
            && let Some(failure) = state.failure()
        {
            return Err(failure);
        }
        let is_more_ready = state.ready() > 0;
        drop(state);
        self.taken.notify_one();
        if is_more_ready {
            self.arrived.notify_one();
        }
        self.counters.delivered(deliveries.len());
        Ok(deliveries)
    }

    fn begin(&self, settlements: &[Settlement]) -> Vec<Begun<L::Action>> {
        let mut state = self.ledger();
        let mut begun = Vec::with_capacity(settlements.len());
        for (place, Settlement { receipt, verdict }) in settlements.iter().enumerate() {
            if let Some((number, action)) = state.begin(receipt, verdict) {
                begun.push(Begun { place, number, action });
            }
        }
        begun
    }
}
