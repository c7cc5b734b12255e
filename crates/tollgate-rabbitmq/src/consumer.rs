//! One endpoint's consumer as receivers and settlers see it. What is held is in `unsettled`; what RabbitMQ is told goes through
//! the task in `consumer_task`, so that no lock is held while one waits.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use lapin::types::ShortString;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tollgate_proto::{BrokerError, Delivery, EndpointName, Settlement, Verdict};

use super::consumer_task::Task;
use super::link::Link;
use super::message::{Message, Publication};
use super::problem::Problem;
use super::publisher::{NotSent, Publisher};
use super::topology::{DEFAULT_EXCHANGE, Topology};
use super::unsettled::Unsettled;
use tollgate_broker_kit::EndpointCounters;

/// How long a receiver waits for a message before it is told that there is none.
const RECEIVE_WAIT: Duration = Duration::from_secs(20);

/// Most calls of `settle` that wait for the task.
const SETTLE_CALLS_MAX: usize = 64;

/// What a consumer is told about itself.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) prefetch: u16,
    pub(super) visibility_timeout: Duration,
    pub(super) drain_within: Duration,
}

/// The consumer of one endpoint.
pub(super) struct EndpointConsumer {
    shared: Arc<Shared>,
    settling: mpsc::Sender<Settling>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What receivers, settlers and the task share.
pub(super) struct Shared {
    pub(super) endpoint: EndpointName,
    pub(super) settings: Settings,
    pub(super) counters: Arc<EndpointCounters>,
    pub(super) state: Mutex<State>,
    pub(super) arrived: Notify,
}

pub(super) struct State {
    pub(super) unsettled: Unsettled,
    pub(super) life: Life,
    /// Why there is no channel, once it is known.
    pub(super) problem: Option<Problem>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Open,
    Closed,
}

/// One answer for each settlement, in their order.
pub(super) type Answers = Vec<Result<(), BrokerError>>;

/// Settlements on their way to the task, with whom to answer.
pub(super) struct Settling {
    pub(super) begun: Vec<Begun>,
    pub(super) answer: oneshot::Sender<Answers>,
}

/// The rest of a call that waits for copies to be published.
pub(super) struct Waiting {
    pub(super) answers: Answers,
    pub(super) answer: oneshot::Sender<Answers>,
}

/// One of them: its place in the call, and what is to be done.
pub(super) struct Begun {
    pub(super) place: usize,
    pub(super) serial: u64,
    pub(super) what: What,
}

pub(super) enum What {
    Acknowledge,
    PutBack,
    /// Publish a copy, then acknowledge.
    Replace(Box<Publication>),
}

/// Copies that were published, or not.
pub(super) struct Published {
    pub(super) outcomes: Vec<(usize, u64, Result<(), BrokerError>)>,
    /// Who waits for it. Nobody does for a message that came too early.
    pub(super) waiting: Option<Waiting>,
}

impl EndpointConsumer {
    pub(super) fn open(
        endpoint: EndpointName,
        settings: Settings,
        topology: Arc<Topology>,
        link: Arc<Link>,
        publisher: Arc<Publisher>,
        counters: Arc<EndpointCounters>,
        closing: CancellationToken,
    ) -> Result<Self, BrokerError> {
        let queue = topology.queue(&endpoint)?;
        let state = State { unsettled: Unsettled::default(), life: Life::Open, problem: None };
        let shared = Arc::new(Shared {
            endpoint,
            settings,
            counters,
            state: Mutex::new(state),
            arrived: Notify::new(),
        });
        let (settling, settlings) = mpsc::channel(SETTLE_CALLS_MAX);
        let task = Task {
            shared: Arc::clone(&shared),
            queue,
            topology,
            link,
            publisher,
            settlings,
            closing,
            publishing: FuturesUnordered::new(),
        };
        Ok(Self { shared, settling, task: Mutex::new(Some(tokio::spawn(task.run()))) })
    }

    /// Waits until something is ready and returns up to `max` of it. Between taking messages and returning them there is no
    /// await, so a dropped future has taken none.
    pub(super) async fn receive(&self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
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

    /// Settles deliveries; what was settled already, or came over an older channel, is answered `Ok` and left alone.
    pub(super) async fn settle(&self, settlements: Vec<Settlement>, topology: &Topology) -> Answers {
        let mut answers = vec![Ok(()); settlements.len()];
        let begun = self.shared.begin(settlements, topology);
        if begun.is_empty() {
            return answers;
        }
        let places: Vec<usize> = begun.iter().map(|begun| begun.place).collect();
        let (answer, answered) = oneshot::channel();
        let outcomes = match self.settling.send(Settling { begun, answer }).await {
            Ok(()) => answered.await.ok(),
            Err(_) => None,
        };
        let lost = Problem::passing("the connection was lost before it could be settled: it comes again");
        let outcomes = outcomes.unwrap_or_else(|| vec![Err(lost.at(&self.shared.endpoint)); places.len()]);
        for (place, outcome) in places.into_iter().zip(outcomes) {
            answers[place] = outcome;
        }
        answers
    }

    /// Why no messages come, if it is known to be so.
    pub(super) fn problem(&self) -> Option<BrokerError> {
        self.shared.state().problem.clone().map(|problem| problem.at(&self.shared.endpoint))
    }

    /// Waits until the task has ended, which was told to.
    pub(super) async fn join(&self) {
        let task = self.task.lock().expect("nothing panics while it holds the task").take();
        if let Some(task) = task {
            let _ = task.await;
        }
    }
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds a consumer's lock")
    }

    fn try_receive(&self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        let mut state = self.state();
        if state.life == Life::Closed {
            return Err(BrokerError::Closed { endpoint: self.endpoint.clone() });
        }
        let deliveries = state.unsettled.take(max, Instant::now() + self.settings.visibility_timeout);
        if deliveries.is_empty()
            && let Some(problem) = &state.problem
        {
            return Err(problem.clone().at(&self.endpoint));
        }
        let is_more_ready = state.unsettled.is_ready();
        drop(state);
        if is_more_ready {
            self.arrived.notify_one();
        }
        self.counters.delivered(deliveries.len());
        Ok(deliveries)
    }

    fn begin(&self, settlements: Vec<Settlement>, topology: &Topology) -> Vec<Begun> {
        let mut state = self.state();
        let mut begun = Vec::with_capacity(settlements.len());
        for (place, Settlement { receipt, verdict }) in settlements.into_iter().enumerate() {
            let Some((serial, message)) = state.unsettled.begin(&receipt) else { continue };
            let what = match &verdict {
                Verdict::Acknowledge => What::Acknowledge,
                Verdict::Retry { after } if after.is_zero() => What::PutBack,
                Verdict::Retry { after } => What::Replace(Box::new(self.retried(message, *after, topology))),
                Verdict::DeadLetter { reason } => What::Replace(Box::new(message.dead(
                    reason,
                    topology.dead_letters(),
                    self.queue(topology),
                ))),
            };
            self.counters.settled(&verdict);
            begun.push(Begun { place, serial, what });
        }
        begun
    }

    fn queue(&self, topology: &Topology) -> ShortString {
        topology.queue(&self.endpoint).expect("the name was checked when the consumer was opened")
    }

    fn retried(&self, message: &Message, after: Duration, topology: &Topology) -> Publication {
        message.retried(after, topology.delay_exchange(after), self.queue(topology))
    }
}

impl NotSent {
    /// The same, as an answer about an endpoint.
    pub(super) fn at(self, endpoint: &EndpointName, capacity: Option<u32>) -> BrokerError {
        let problem = match (self, capacity) {
            (Self::Failed(problem), _) => problem,
            (Self::Refused, Some(capacity)) => {
                let capacity = usize::try_from(capacity).unwrap_or(usize::MAX);
                return BrokerError::Full { endpoint: endpoint.clone(), capacity };
            }
            (Self::Refused, None) => {
                Problem::passing("RabbitMQ refused the message: is the queue without a leader?")
            }
            (Self::Unroutable, _) => Problem::Standing("no queue took the message: there is none".to_owned()),
        };
        problem.at(endpoint)
    }
}

/// The exchange through which a message goes that is to come after a delay.
pub(super) fn exchange_for(delay: Duration, topology: &Topology) -> ShortString {
    if delay.is_zero() { DEFAULT_EXCHANGE.into() } else { topology.delay_exchange(delay) }
}
