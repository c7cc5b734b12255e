//! How a broker on Kafka is made. Defaults are named here and nowhere else.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use tokio_util::sync::CancellationToken;

use super::consumer::Settings;
use super::held::Bounds;
use super::producer::Producer;
use super::topics::{CLASSES_MAX, Topics};
use super::{Endpoints, KafkaBroker};
use tollgate_broker_kit::BrokerSetupError;

/// Messages of one partition that are begun and not finished. It is more than what an engine has at a time
/// (256, and as many that are committed and not settled) and what waits for it (256), so that partitions are
/// paused only when something is stuck.
const WINDOW_DEFAULT: usize = 1_024;

/// Messages of one partition that a crash may bring again because one before them is unfinished. Each of them
/// costs a read of a token that is not there.
const REPLAYED_MAX_DEFAULT: u64 = 10_000;

/// How long a delivery may stay unsettled. Nothing else watches over it as long as the process lives.
const VISIBILITY_TIMEOUT_DEFAULT: Duration = Duration::from_secs(15 * 60);

/// How long to wait for settlements when the broker is closed.
const DRAIN_WITHIN_DEFAULT: Duration = Duration::from_secs(10);

/// After which silence a consumer counts as dead. Kafka's own default is 45 s.
const SESSION_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Delays up to which a message waits in memory, holding back its partition's committed offset.
const IN_PLACE_MAX_DEFAULT: Duration = Duration::from_secs(1);

/// The delays that have a topic.
const CLASSES_DEFAULT: [Duration; 3] =
    [Duration::from_secs(10), Duration::from_secs(60), Duration::from_secs(600)];

/// Partitions of a topic that is made: several processes have something to do, and none has too many to
/// watch.
const PARTITIONS_DEFAULT: i32 = 12;

/// How long the client tries to send a message before the send has failed.
const SEND_WITHIN: Duration = Duration::from_secs(30);

/// How long to wait for others to send in one request.
const LINGER: Duration = Duration::from_millis(1);

/// How often the client tells which servers it is connected to.
const STATISTICS_EVERY: Duration = Duration::from_secs(5);

/// Topics and partitions that appear are noticed within this time. The client's own default is 5 minutes.
const LOOK_FOR_TOPICS_EVERY: Duration = Duration::from_secs(30);

/// Who makes topics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopicsMade {
    /// They exist, by [`KafkaBroker::provision`] or by other tools. Using one that doesn't is an error.
    #[default]
    Before,
    /// They are provisioned when this process uses an endpoint for the first time. For tests and small
    /// systems.
    AtFirstUse,
}

/// Makes a [`KafkaBroker`].
#[derive(Clone, Debug)]
#[must_use]
pub struct KafkaBuilder {
    servers: ClientConfig,
    topics_made: TopicsMade,
    topics: Topics,
    settings: Settings,
    session_timeout: Duration,
}

impl KafkaBuilder {
    pub(super) fn new(servers: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", servers).set("client.id", "tollgate");
        Self {
            servers: config,
            topics_made: TopicsMade::default(),
            topics: Topics {
                prefix: String::new(),
                classes: CLASSES_DEFAULT.to_vec(),
                in_place_max: IN_PLACE_MAX_DEFAULT,
                partitions: PARTITIONS_DEFAULT,
                // That of the servers.
                replicas: -1,
            },
            settings: Settings {
                group: "tollgate".to_owned(),
                bounds: Bounds { window: WINDOW_DEFAULT, replayed_max: REPLAYED_MAX_DEFAULT },
                visibility_timeout: VISIBILITY_TIMEOUT_DEFAULT,
                drain_within: DRAIN_WITHIN_DEFAULT,
            },
            session_timeout: SESSION_TIMEOUT_DEFAULT,
        }
    }

    /// A setting of librdkafka, for all clients: how to log on, certificates. Settings that the broker needs
    /// for its promises are set after it.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.servers.set(name, value);
        self
    }

    /// What the names of all topics begin with. If not given, a topic is called like its endpoint.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.topics.prefix = prefix.into();
        self
    }

    /// What the consumer groups are called, one for each endpoint: `tollgate`, and the endpoint's topic
    /// behind it, if not given. All processes of a system must say the same.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.settings.group = group.into();
        self
    }

    /// Who makes topics: somebody else, if not given.
    pub const fn topics_made(mut self, made: TopicsMade) -> Self {
        self.topics_made = made;
        self
    }

    /// How many partitions a topic gets that is made: 12 if not given. At most so many processes share the
    /// work of an endpoint.
    pub const fn partitions(mut self, partitions: std::num::NonZeroU16) -> Self {
        self.topics.partitions = partitions.get() as i32;
        self
    }

    /// How many replicas a topic gets that is made: what the servers do by default, if not given.
    pub const fn replicas(mut self, replicas: std::num::NonZeroU16) -> Self {
        self.topics.replicas = replicas.get() as i32;
        self
    }

    /// How many messages of one partition are held at most, unfinished: 1,024 if not given. The partition is
    /// paused then, until half of them are finished.
    pub const fn window(mut self, messages: std::num::NonZeroUsize) -> Self {
        self.settings.bounds.window = messages.get();
        self
    }

    /// How many messages of one partition a crash may bring again because an older one is unfinished: 10,000
    /// if not given. The partition is paused then, until the older one is finished.
    pub const fn replayed_max(mut self, messages: std::num::NonZeroU64) -> Self {
        self.settings.bounds.replayed_max = messages.get();
        self
    }

    /// How long a delivery may stay unsettled before it is given out again, by this process: 15 minutes if
    /// not given.
    pub const fn visibility_timeout(mut self, timeout: Duration) -> Self {
        self.settings.visibility_timeout = timeout;
        self
    }

    /// After which silence of this process its partitions go to others: 10 s if not given. The servers allow
    /// 6 s at least by default.
    pub const fn session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = timeout;
        self
    }

    /// The delays that have a topic, in whole milliseconds, 10 at most: 10 s, 1 min and 10 min if not given.
    /// Shorter ones than `in_place_max` wait in memory.
    ///
    /// # Errors
    /// If there are none or too many.
    pub fn delay_classes(
        mut self,
        in_place_max: Duration,
        classes: impl IntoIterator<Item = Duration>,
    ) -> Result<Self, BrokerSetupError> {
        let mut classes: Vec<Duration> = classes.into_iter().filter(|class| !class.is_zero()).collect();
        classes.sort_unstable();
        classes.dedup();
        if classes.is_empty() || classes.len() > CLASSES_MAX {
            let reason = format!("there must be between 1 and {CLASSES_MAX} classes of delays");
            return Err(BrokerSetupError::Settings { reason });
        }
        self.topics.classes = classes;
        self.topics.in_place_max = in_place_max;
        Ok(self)
    }

    /// How long [`KafkaBroker::close`] waits for deliveries that are being worked on: 10 s if not given.
    pub const fn drain_within(mut self, wait: Duration) -> Self {
        self.settings.drain_within = wait;
        self
    }

    /// Begins to connect, and does not wait for it. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// If librdkafka does not take the settings.
    pub fn open(self) -> Result<KafkaBroker, BrokerSetupError> {
        let wrong =
            |error: KafkaError| BrokerSetupError::Settings { reason: format!("Kafka's client: {error}") };
        let admin: AdminClient<_> = self.servers.create().map_err(wrong)?;
        // A consumer's client, since asking for a topic must not make it.
        let mut looking = self.servers.clone();
        looking.set("allow.auto.create.topics", "false");
        let looking: BaseConsumer = looking.create().map_err(wrong)?;
        let producer = Producer::open(self.producer_config()).map_err(wrong)?;
        let consumer_config = self.consumer_config();
        Ok(KafkaBroker {
            topics: Arc::new(self.topics),
            settings: self.settings,
            topics_made: self.topics_made,
            consumer_config,
            producer,
            admin: Arc::new(admin),
            looking: Arc::new(looking),
            endpoints: Mutex::new(Endpoints::default()),
            closing: CancellationToken::new(),
        })
    }

    fn producer_config(&self) -> ClientConfig {
        let mut config = self.servers.clone();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", LINGER.as_millis().to_string())
            .set("message.timeout.ms", SEND_WITHIN.as_millis().to_string())
            // The same partition for the same key as Kafka's own clients choose.
            .set("partitioner", "murmur2_random");
        config
    }

    fn consumer_config(&self) -> ClientConfig {
        let mut config = self.servers.clone();
        config
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // What was sent before the group existed has been confirmed, so it is delivered.
            .set("auto.offset.reset", "earliest")
            .set("partition.assignment.strategy", "cooperative-sticky")
            // By which `health` learns that servers are back.
            .set("statistics.interval.ms", STATISTICS_EVERY.as_millis().to_string())
            .set("session.timeout.ms", self.session_timeout.as_millis().to_string())
            .set("heartbeat.interval.ms", (self.session_timeout.as_millis() / 4).max(1).to_string())
            .set("topic.metadata.refresh.interval.ms", LOOK_FOR_TOPICS_EVERY.as_millis().to_string());
        config
    }
}
