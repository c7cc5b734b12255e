//! The task of one endpoint's consumer. It reads from Kafka, pauses and resumes partitions, commits, and
//! moves messages to other topics. Kafka's client calls back into [`Group`] while the task reads: no lock may
//! be held then.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use rdkafka::consumer::{
    BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance, StreamConsumer,
};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::statistics::Statistics;
use rdkafka::{ClientConfig, ClientContext, Message, Offset, TopicPartitionList};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tollgate_broker_kit::consumer::{Begun, Copied, Settling, Shared, Waiting};

use super::consumer::{Deliveries, Settings, What};
use super::held::{Place, TooEarly};
use super::problem::at;
use super::producer::{Producer, Production};
use super::record::Record;
use super::topics::Topics;

/// How often progress is committed: what was finished since comes again after a crash.
const COMMIT_EVERY: Duration = Duration::from_millis(500);

/// How often progress is committed again that Kafka should know: of a commit that is lost after an error of
/// the coordinator the client does not always tell.
const COMMIT_AGAIN_EVERY: Duration = Duration::from_secs(60);

/// How many messages wait for a receiver before no more are read. What is not read stays in the buffer of
/// Kafka's client, from where it comes at once. To pause partitions instead would empty that buffer, which is
/// then fetched again; and the client (librdkafka 2.12) notices that a partition was resumed only when it
/// wakes up for another reason, up to a second later.
pub(super) const READ_AHEAD: usize = 256;

/// After this time one more is read in any case: the client hears of rebalances, and is taken to be alive,
/// only while it is read from.
const READ_EVERY_MAX: Duration = Duration::from_secs(1);

/// When a message comes again that could not be moved to another topic.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// How long to sleep when nothing is due.
const NOTHING_DUE: Duration = Duration::from_secs(3600);

/// What Kafka's client calls.
pub(super) struct Group(pub(super) Arc<Shared<Deliveries>>);

impl ClientContext for Group {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(endpoint = %self.0.endpoint(), %error, reason, "an error of Kafka's client");
        // The client says by itself so that one server of several is gone, and finds another one.
        if !is_informational(&error) {
            fail(&self.0, error);
        }
    }

    fn stats(&self, statistics: Statistics) {
        let is_connected =
            statistics.brokers.values().any(|server| server.nodeid >= 0 && server.state == "UP");
        let mut deliveries = self.0.ledger();
        if is_connected && deliveries.problem.as_ref().is_some_and(is_of_transport) {
            deliveries.problem = None;
        }
    }
}

/// A single connection that is lost or can't be made.
fn is_informational(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::Resolve)
    )
}

/// A failure that is over when a server is connected.
fn is_of_transport(error: &KafkaError) -> bool {
    is_informational(error) || error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown)
}

/// Something went wrong, and a receiver should hear of it. Kafka's client goes on trying.
fn fail(shared: &Shared<Deliveries>, error: KafkaError) {
    tracing::warn!(endpoint = %shared.endpoint(), %error, "consuming from Kafka failed");
    {
        let mut deliveries = shared.ledger();
        deliveries.news = Some(error.clone());
        deliveries.problem = Some(error);
    }
    shared.arrived.notify_one();
}

impl ConsumerContext for Group {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let endpoint = self.0.endpoint();
        match rebalance {
            Rebalance::Assign(list) => {
                let places = places(list);
                tracing::info!(%endpoint, ?places, "partitions were assigned");
                let mut state = self.0.ledger();
                state.held.assign(places);
                state.problem = None;
            }
            Rebalance::Revoke(list) => {
                let places = places(list);
                tracing::info!(%endpoint, ?places, "partitions were taken away");
                let news = self.0.ledger().held.revoke(&places);
                // The client waits for it before it gives the partitions up; if they are lost already, it is
                // in vain.
                if let Err(error) = commit(consumer, news, CommitMode::Async) {
                    tracing::debug!(%endpoint, %error, "finished messages come again to another consumer");
                }
            }
            Rebalance::Error(error) => fail(&self.0, error.clone()),
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        // A partition that was paused when it was taken away begins anew.
        if let Rebalance::Assign(list) = rebalance
            && let Err(error) = consumer.resume(list)
        {
            tracing::debug!(endpoint = %self.0.endpoint(), %error, "partitions could not be resumed");
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        let mut state = self.0.ledger();
        match result {
            Ok(()) => state.problem = None,
            Err(error) => {
                tracing::debug!(endpoint = %self.0.endpoint(), %error, "a commit failed and is repeated");
                state.held.untell();
            }
        }
    }
}

fn places(list: &TopicPartitionList) -> Vec<Place> {
    list.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect()
}

fn commit<C: rdkafka::consumer::Consumer<Group>>(
    consumer: &C,
    news: Vec<(Place, i64)>,
    mode: CommitMode,
) -> KafkaResult<()> {
    if news.is_empty() {
        return Ok(());
    }
    let mut list = TopicPartitionList::with_capacity(news.len());
    for ((topic, partition), below) in news {
        list.add_partition_offset(&topic, partition, Offset::Offset(below))?;
    }
    consumer.commit(&list, mode)
}

fn one(place: &Place) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition(&place.0, place.1);
    list
}

/// Who reads: [`Topics::groups`] tells why there are two.
pub(super) struct Readers {
    main_topic: String,
    main: StreamConsumer<Group>,
    later: StreamConsumer<Group>,
}

impl Readers {
    /// Joins both groups.
    pub(super) fn subscribe(
        topics: &Topics,
        settings: &Settings,
        shared: &Arc<Shared<Deliveries>>,
        config: &ClientConfig,
    ) -> KafkaResult<Self> {
        let [main, later] = topics.groups(shared.endpoint(), &settings.group);
        let join = |(group, names): (String, Vec<String>)| {
            let mut config = config.clone();
            let context = Group(Arc::clone(shared));
            let reader: StreamConsumer<Group> = config.set("group.id", group).create_with_context(context)?;
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            reader.subscribe(&names)?;
            Ok::<_, KafkaError>(reader)
        };
        Ok(Self { main: join(main)?, later: join(later)?, main_topic: topics.main(shared.endpoint()) })
    }

    fn of(&self, topic: &str) -> &StreamConsumer<Group> {
        if topic == self.main_topic { &self.main } else { &self.later }
    }

    fn commit(&self, news: Vec<(Place, i64)>, mode: CommitMode) -> KafkaResult<()> {
        let is_main = |(place, _): &(Place, i64)| place.0 == self.main_topic;
        let (main, later) = news.into_iter().partition(is_main);
        let done = commit(&self.main, main, mode);
        commit(&self.later, later, mode).and(done)
    }
}

/// The task, and what it alone has.
pub(super) struct Task {
    pub(super) shared: Arc<Shared<Deliveries>>,
    pub(super) readers: Readers,
    pub(super) topics: Arc<Topics>,
    /// How long messages of a topic wait here that are too early.
    pub(super) waits: HashMap<String, Duration>,
    pub(super) producer: Arc<Producer>,
    pub(super) settlings: mpsc::Receiver<Settling<What>>,
    pub(super) closing: CancellationToken,
    pub(super) drain_within: Duration,
    pub(super) moving: FuturesUnordered<BoxFuture<'static, Copied>>,
}

impl Task {
    pub(super) async fn run(mut self) {
        let mut commits = tokio::time::interval(COMMIT_EVERY);
        let mut again = tokio::time::interval(COMMIT_AGAIN_EVERY);
        let mut drained_by: Option<Instant> = None;
        let mut last_read = Instant::now();
        loop {
            let (due, is_enough) = {
                let state = self.shared.ledger();
                (state.held.next_time(), state.held.ready() >= READ_AHEAD)
            };
            let due = due.unwrap_or_else(|| Instant::now() + NOTHING_DUE);
            let rests = is_enough && last_read.elapsed() < READ_EVERY_MAX;
            tokio::select! {
                came = self.readers.main.recv(), if drained_by.is_none() && !rests => {
                    last_read = Instant::now();
                    self.came(came);
                }
                () = self.shared.taken.notified(), if is_enough => {}
                () = sleep_until(last_read + READ_EVERY_MAX), if rests => {}
                came = self.readers.later.recv(), if drained_by.is_none() => self.came(came),
                Some(settling) = self.settlings.recv() => self.settle(settling),
                Some(moved) = self.moving.next(), if !self.moving.is_empty() => self.moved(moved),
                () = sleep_until(due) => self.pass_time(),
                _ = commits.tick() => self.commit_progress(),
                _ = again.tick() => self.shared.ledger().held.untell(),
                () = self.closing.cancelled(), if drained_by.is_none() => {
                    drained_by = Some(Instant::now() + self.drain_within);
                    self.shared.close();
                }
            }
            if drained_by
                .is_some_and(|until| Instant::now() >= until || !self.shared.ledger().held.is_worked_on())
            {
                break;
            }
        }
        self.leave().await;
    }

    /// Tells Kafka what is finished, and leaves the group. Both wait for the network.
    async fn leave(self) {
        let Self { shared, readers, .. } = self;
        let leaving = tokio::task::spawn_blocking(move || {
            let news = shared.ledger().held.take_news();
            if let Err(error) = readers.commit(news, CommitMode::Sync) {
                tracing::warn!(endpoint = %shared.endpoint(), %error, "finished messages come again");
            }
            drop(readers);
        });
        let _ = leaving.await;
    }

    fn came(&self, came: KafkaResult<BorrowedMessage<'_>>) {
        match came {
            Ok(message) => self.arrive(&message),
            Err(error) => fail(&self.shared, error),
        }
    }

    fn arrive(&self, message: &BorrowedMessage<'_>) {
        let place = (message.topic().to_owned(), message.partition());
        let wait_max = self.waits.get(&place.0).copied().unwrap_or_default();
        let record = Record::read(message);
        let pause = {
            let mut state = self.shared.ledger();
            state.recovered();
            state.held.arrive(place.clone(), message.offset(), record, wait_max, Instant::now())
        };
        self.shared.arrived.notify_one();
        if pause && let Err(error) = self.readers.of(&place.0).pause(&one(&place)) {
            tracing::debug!(endpoint = %self.shared.endpoint(), %error, "a partition could not be paused");
        }
    }

    fn settle(&mut self, settling: Settling<What>) {
        let (begun, waiting) = settling.split();
        let (mut which, mut copies) = (Vec::new(), Vec::new());
        for (index, Begun { number, action, .. }) in begun.into_iter().enumerate() {
            match action {
                What::Acknowledge => self.finish(number),
                What::Again { after } => self.shared.ledger().held.again(number, Instant::now() + after),
                What::Move(copy) => {
                    which.push((index, number));
                    copies.push(*copy);
                }
            }
        }
        if copies.is_empty() {
            waiting.answer();
        } else {
            self.produce(which, copies, Some(waiting));
        }
    }

    fn finish(&self, number: u64) {
        let resume = self.shared.ledger().held.finish(number);
        if let Some(place) = resume
            && let Err(error) = self.readers.of(&place.0).resume(&one(&place))
        {
            tracing::debug!(endpoint = %self.shared.endpoint(), %error, "a partition could not be resumed");
        }
    }

    fn produce(&mut self, which: Vec<(usize, u64)>, copies: Vec<Production>, waiting: Option<Waiting>) {
        let (producer, endpoint) = (Arc::clone(&self.producer), self.shared.endpoint().clone());
        self.moving.push(Box::pin(async move {
            let answers = producer.produce(&copies).await.into_iter();
            Copied::new(which, answers.map(|answer| answer.map_err(|error| at(&error, &endpoint))), waiting)
        }));
    }

    fn moved(&self, copied: Copied) {
        let (done, failed, waiting) = copied.split();
        for (number, error) in failed {
            tracing::warn!(endpoint = %self.shared.endpoint(), %error, "a message could not be moved: it comes again");
            self.shared.ledger().held.again(number, Instant::now() + AGAIN_AFTER);
        }
        for number in done {
            self.finish(number);
        }
        if let Some(waiting) = waiting {
            waiting.answer();
        }
    }

    fn pass_time(&mut self) {
        let (overdue, too_early) = self.shared.ledger().held.pass_time(Instant::now());
        self.shared.arrived.notify_one();
        if overdue > 0 {
            tracing::warn!(endpoint = %self.shared.endpoint(), overdue, "deliveries were not settled in time and come again");
        }
        if !too_early.is_empty() {
            let (topics, endpoint) = (Arc::clone(&self.topics), self.shared.endpoint().clone());
            let copy = |TooEarly { number, record, left }| {
                ((0, number), Production { topic: topics.after(&endpoint, left), record, reason: None })
            };
            let (which, copies) = too_early.into_iter().map(copy).unzip();
            self.produce(which, copies, None);
        }
    }

    fn commit_progress(&self) {
        let news = self.shared.ledger().held.take_news();
        if let Err(error) = self.readers.commit(news, CommitMode::Async) {
            tracing::debug!(endpoint = %self.shared.endpoint(), %error, "a commit failed and is repeated");
            self.shared.ledger().held.untell();
        }
    }
}
