//! One endpoint's consumer as receivers and settlers see it. What is held is in `held`; Kafka's client belongs to the task in
//! `consumer_task`.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tollgate_proto::{BrokerError, Delivery, EndpointName, Settlement, Verdict};

use super::consumer_task::{READ_AHEAD, Readers, Task};
use super::held::{Bounds, Held};
use super::problem::{at, unavailable};
use super::producer::{Producer, Production};
use super::topics::Topics;
use tollgate_broker_kit::EndpointCounters;

/// How long a receiver waits for a message before it is told that there is none.
const RECEIVE_WAIT: Duration = Duration::from_secs(20);

/// Most calls of `settle` that wait for the task.
const SETTLE_CALLS_MAX: usize = 64;

/// What a consumer is told about itself.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// What the names of consumer groups begin with.
    pub(super) group: String,
    pub(super) bounds: Bounds,
    pub(super) visibility_timeout: Duration,
    pub(super) drain_within: Duration,
}

/// The consumer of one endpoint.
pub(super) struct EndpointConsumer {
    shared: Arc<Shared>,
    settling: mpsc::Sender<Settling>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What receivers, settlers, the task and Kafka's callbacks share.
pub(super) struct Shared {
    pub(super) endpoint: EndpointName,
    pub(super) settings: Settings,
    pub(super) counters: Arc<EndpointCounters>,
    state: Mutex<State>,
    pub(super) arrived: Notify,
    /// Rung when so few messages are left that more may be read.
    pub(super) taken: Notify,
}

pub(super) struct State {
    pub(super) held: Held,
    pub(super) life: Life,
    /// What went wrong last, until a receiver was told.
    pub(super) news: Option<KafkaError>,
    /// What went wrong last, until something went right.
    pub(super) problem: Option<KafkaError>,
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

/// One of them: its place in the call, and what is to be done.
pub(super) struct Begun {
    place: usize,
    pub(super) number: u64,
    pub(super) what: What,
}

pub(super) enum What {
    Acknowledge,
    /// Give it out again after a while, from memory.
    Again {
        after: Duration,
    },
    /// Produce a copy, then be done with it.
    Move(Box<Production>),
}

impl EndpointConsumer {
    pub(super) fn open(
        endpoint: EndpointName,
        settings: Settings,
        topics: Arc<Topics>,
        config: &ClientConfig,
        producer: Arc<Producer>,
        counters: Arc<EndpointCounters>,
        closing: CancellationToken,
    ) -> Result<Self, BrokerError> {
        let held = Held::new(settings.bounds);
        let state = State { held, life: Life::Open, news: None, problem: None };
        let shared = Arc::new(Shared {
            endpoint,
            settings,
            counters,
            state: Mutex::new(state),
            arrived: Notify::new(),
            taken: Notify::new(),
        });
        let readers = Readers::subscribe(&topics, &shared, config);
        let readers = readers.map_err(|error| at(&error, &shared.endpoint))?;
        let (settling, settlings) = mpsc::channel(SETTLE_CALLS_MAX);
        let task = Task::new(Arc::clone(&shared), readers, topics, producer, settlings, closing);
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

    /// Settles deliveries; what was settled already, or is of a partition that was taken away, is answered `Ok` and left
    /// alone.
    pub(super) async fn settle(
        &self,
        settlements: Vec<Settlement>,
        topics: &Topics,
    ) -> Vec<Result<(), BrokerError>> {
        let mut answers = vec![Ok(()); settlements.len()];
        let begun = self.shared.begin(settlements, topics);
        if begun.is_empty() {
            return answers;
        }
        let places: Vec<usize> = begun.iter().map(|begun| begun.place).collect();
        let (answer, answered) = oneshot::channel();
        let outcomes = match self.settling.send(Settling { begun, answer }).await {
            Ok(()) => answered.await.ok(),
            Err(_) => None,
        };
        let closed =
            || Err(unavailable(&self.shared.endpoint, "the consumer was closed: the message comes again"));
        let outcomes = outcomes.unwrap_or_else(|| vec![closed(); places.len()]);
        for (place, outcome) in places.into_iter().zip(outcomes) {
            answers[place] = outcome;
        }
        answers
    }

    /// Why no messages come, if it is known to be so.
    pub(super) fn problem(&self) -> Option<BrokerError> {
        self.shared.state().problem.as_ref().map(|problem| at(problem, &self.shared.endpoint))
    }

    pub(super) fn partitions(&self) -> usize {
        self.shared.state().held.partitions()
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

    /// Something went wrong, and a receiver should hear of it. Kafka's client goes on trying.
    pub(super) fn fail(&self, error: KafkaError) {
        tracing::warn!(endpoint = %self.endpoint, %error, "consuming from Kafka failed");
        {
            let mut state = self.state();
            state.news = Some(error.clone());
            state.problem = Some(error);
        }
        self.arrived.notify_one();
    }

    fn try_receive(&self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        let mut state = self.state();
        if state.life == Life::Closed {
            return Err(BrokerError::Closed { endpoint: self.endpoint.clone() });
        }
        let deliveries = state.held.take(max, Instant::now() + self.settings.visibility_timeout);
        if deliveries.is_empty()
            && let Some(error) = state.news.take()
        {
            return Err(at(&error, &self.endpoint));
        }
        let left = state.held.ready();
        drop(state);
        if left < READ_AHEAD {
            self.taken.notify_one();
        }
        if left > 0 {
            self.arrived.notify_one();
        }
        self.counters.delivered(deliveries.len());
        Ok(deliveries)
    }

    fn begin(&self, settlements: Vec<Settlement>, topics: &Topics) -> Vec<Begun> {
        let mut state = self.state();
        let mut begun = Vec::with_capacity(settlements.len());
        for (place, Settlement { receipt, verdict }) in settlements.into_iter().enumerate() {
            let Some((number, record)) = state.held.begin(&receipt) else { continue };
            self.counters.settled(&verdict);
            let what = match verdict {
                Verdict::Acknowledge => What::Acknowledge,
                Verdict::Retry { after } if after <= topics.in_place_max => What::Again { after },
                Verdict::Retry { after } => What::Move(Box::new(Production {
                    topic: topics.after(&self.endpoint, after),
                    record: record.clone().due_after(after),
                    reason: None,
                })),
                Verdict::DeadLetter { reason } => What::Move(Box::new(Production {
                    topic: topics.dead(&self.endpoint),
                    record: record.clone().due_after(Duration::ZERO),
                    reason: Some(reason),
                })),
            };
            begun.push(Begun { place, number, what });
        }
        begun
    }
}
