//! What exists in Kafka for an endpoint, what it is called, how it is made and how it is looked at.
//!
//! | topic | what for |
//! |---|---|
//! | the endpoint's name | its messages, in the partition that the destination partition's name hashes to |
//! | the same with `.retry.10s` and the like | messages that are to come later; all of one topic wait about equally long |
//! | the same with `.dead` | its dead letters, with the reason in a header |

use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataPartition};
use rdkafka::{ClientConfig, TopicPartitionList};
use tollgate_proto::{BrokerError, EndpointName};

use super::problem::{at, misconfigured};
use tollgate_broker_kit::queue_name::legal;

/// Longest name of a topic, in bytes.
const NAME_BYTES_MAX: usize = 249;

/// Room for what is put behind the endpoint's name.
const ENDING_BYTES_MAX: usize = 32;

/// How long to wait for an answer about topics.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How long topics keep messages that are made here: 14 days. Kafka deletes by age, whether a message was
/// read or not.
const KEPT_MS: &str = "1209600000";

/// For dead letters.
const FOR_EVER: &str = "-1";

/// Topics that keep messages for less than a day are refused: a weekend without consumers would lose them.
const KEPT_MS_MIN: i64 = 24 * 3600 * 1000;

/// Most classes of delays: each is a topic.
pub(super) const CLASSES_MAX: usize = 10;

/// How everything is called and made.
#[derive(Clone, Debug)]
pub(super) struct Topics {
    pub(super) prefix: String,
    /// In ascending order; at least one.
    pub(super) classes: Vec<Duration>,
    /// The longest delay for which a message waits in a consumer's memory instead of a topic.
    pub(super) in_place_max: Duration,
    pub(super) partitions: i32,
    pub(super) replicas: i32,
}

impl Topics {
    pub(super) fn main(&self, endpoint: &EndpointName) -> String {
        let room = NAME_BYTES_MAX.saturating_sub(self.prefix.len() + ENDING_BYTES_MAX);
        format!("{}{}", self.prefix, legal(endpoint, room))
    }

    pub(super) fn dead(&self, endpoint: &EndpointName) -> String {
        format!("{}.dead", self.main(endpoint))
    }

    fn class(&self, endpoint: &EndpointName, class: Duration) -> String {
        let (millis, seconds) = (class.as_millis(), class.as_secs());
        let wait = if millis % 1000 == 0 { format!("{seconds}s") } else { format!("{millis}ms") };
        format!("{}.retry.{wait}", self.main(endpoint))
    }

    /// Those that a consumer reads, with how long their messages wait with it when they are too early.
    pub(super) fn read(&self, endpoint: &EndpointName) -> Vec<(String, Duration)> {
        let classes = self.classes.iter().map(|class| (self.class(endpoint, *class), *class));
        std::iter::once((self.main(endpoint), self.in_place_max)).chain(classes).collect()
    }

    /// Where a message goes that is to come after a delay: to the shortest class that is not shorter; to the
    /// longest one for a delay that is longer than all, which takes several rounds.
    pub(super) fn after(&self, endpoint: &EndpointName, delay: Duration) -> String {
        if delay <= self.in_place_max {
            return self.main(endpoint);
        }
        let longest = *self.classes.last().expect("there is at least one class");
        let class = self.classes.iter().copied().find(|class| *class >= delay).unwrap_or(longest);
        self.class(endpoint, class)
    }

    /// All of an endpoint.
    pub(super) fn all(&self, endpoint: &EndpointName) -> Vec<String> {
        let read = self.read(endpoint).into_iter().map(|(topic, _)| topic);
        read.chain(std::iter::once(self.dead(endpoint))).collect()
    }

    /// Makes the topics that are missing.
    pub(super) async fn provision(
        &self,
        admin: &AdminClient<DefaultClientContext>,
        endpoint: &EndpointName,
    ) -> Result<(), BrokerError> {
        let names = self.all(endpoint);
        let topic = |name| NewTopic::new(name, self.partitions, TopicReplication::Fixed(self.replicas));
        let dead = self.dead(endpoint);
        let topics: Vec<_> = names
            .iter()
            .map(|name| {
                let kept = if *name == dead { FOR_EVER } else { KEPT_MS };
                topic(name).set("cleanup.policy", "delete").set("retention.ms", kept)
            })
            .collect();
        let made = admin.create_topics(&topics, &options()).await.map_err(|error| at(&error, endpoint))?;
        for outcome in made {
            match outcome {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => {
                    return Err(misconfigured(endpoint, &format!("topic {topic} can't be made: {code}")));
                }
            }
        }
        Ok(())
    }

    /// The groups that read an endpoint's topics, and which. Delayed messages are read in a group of their
    /// own: a group shares out all its partitions evenly, and might give one process those of the endpoint's
    /// messages and another those of the delayed ones.
    pub(super) fn groups(&self, endpoint: &EndpointName, group: &str) -> [(String, Vec<String>); 2] {
        let main = self.main(endpoint);
        let later = self.read(endpoint).into_iter().skip(1).map(|(topic, _)| topic).collect();
        [(format!("{group}.{main}"), vec![main.clone()]), (format!("{group}.{main}.retry"), later)]
    }

    /// Counts the messages of an endpoint.
    pub(super) async fn depth(
        &self,
        config: &ClientConfig,
        group: &str,
        endpoint: &EndpointName,
    ) -> Result<KafkaDepth, BrokerError> {
        let (groups, dead, config) = (self.groups(endpoint, group), self.dead(endpoint), config.clone());
        let counting = move || {
            let open = |(name, topics): (String, Vec<String>)| {
                let client: BaseConsumer = config.clone().set("group.id", name).create()?;
                Ok((client, topics))
            };
            let groups = groups.into_iter().map(open).collect::<KafkaResult<Vec<_>>>()?;
            count(&groups, &dead)
        };
        let counted = tokio::task::spawn_blocking(counting).await.map_err(|_| KafkaError::Canceled);
        counted.and_then(|depth| depth).map_err(|error| at(&error, endpoint))
    }

    /// Whether all topics exist and will do.
    pub(super) async fn verify(
        &self,
        looking: &Arc<BaseConsumer>,
        admin: &AdminClient<DefaultClientContext>,
        endpoint: &EndpointName,
    ) -> Result<(), BrokerError> {
        let names = self.all(endpoint);
        let replicas = exist(looking, endpoint, names.clone()).await?;
        let dead = self.dead(endpoint);
        let specifiers: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        match admin.describe_configs(&specifiers, &options()).await {
            Ok(answers) => {
                for (topic, name) in answers.into_iter().zip(&names) {
                    let Ok(topic) = topic else { continue };
                    let text = |setting: &str| topic.get(setting).and_then(|found| found.value.clone());
                    if let Some(in_sync) = text("min.insync.replicas").and_then(|text| text.parse().ok()) {
                        check_replicas(endpoint, replicas, in_sync)?;
                    }
                    let kept = Kept {
                        policy: text("cleanup.policy"),
                        milliseconds: text("retention.ms").and_then(|text| text.parse().ok()),
                        bytes: text("retention.bytes").and_then(|text| text.parse().ok()),
                    };
                    let told =
                        kept.told(name, *name == dead).map_err(|what| misconfigured(endpoint, &what))?;
                    for what in told {
                        tracing::warn!(%endpoint, what, "a topic is not as it would have been made");
                    }
                }
            }
            // It is a check of settings only, which not everything that speaks Kafka's protocol answers.
            Err(error) => tracing::debug!(%endpoint, %error, "the settings of the topics can't be read"),
        }
        Ok(())
    }
}

/// Checks that topics exist, and answers how many replicas the worst of them has. Waits for the network on a
/// thread of its own.
pub(super) async fn exist(
    looking: &Arc<BaseConsumer>,
    endpoint: &EndpointName,
    names: Vec<String>,
) -> Result<usize, BrokerError> {
    let looking = Arc::clone(looking);
    let asking = move || {
        let mut replicas = usize::MAX;
        for name in &names {
            let metadata = looking.fetch_metadata(Some(name), ANSWER_WITHIN)?;
            match look(&metadata, name) {
                Ok(found) => replicas = replicas.min(found),
                Err(what) => return Ok(Err(what)),
            }
        }
        Ok(Ok(replicas))
    };
    let asked = tokio::task::spawn_blocking(asking).await.map_err(|_| KafkaError::Canceled);
    let found = asked.and_then(|answer| answer).map_err(|error| at(&error, endpoint))?;
    found.map_err(|what| misconfigured(endpoint, &what))
}

/// What Kafka keeps of a topic.
struct Kept {
    policy: Option<String>,
    /// -1: for ever.
    milliseconds: Option<i64>,
    /// -1: as many as there are.
    bytes: Option<i64>,
}

impl Kept {
    /// What an operator should hear about a topic. `Err`: messages would be lost.
    fn told(&self, topic: &str, is_dead: bool) -> Result<Vec<String>, String> {
        let mut told = Vec::new();
        if self.policy.as_ref().is_some_and(|policy| policy.contains("compact")) {
            return Err(format!(
                "topic {topic} is compacted: of two messages of one partition the first is deleted; let cleanup.policy be delete"
            ));
        }
        if let Some(kept) = self.milliseconds.filter(|kept| *kept >= 0) {
            if kept < KEPT_MS_MIN {
                return Err(format!(
                    "topic {topic} keeps messages for {kept} ms, read or not: raise retention.ms to {KEPT_MS}"
                ));
            }
            if is_dead {
                told.push(format!(
                    "topic {topic} keeps dead letters for {kept} ms: let retention.ms be {FOR_EVER}"
                ));
            }
        }
        if let Some(bytes) = self.bytes.filter(|bytes| *bytes >= 0) {
            told.push(format!(
                "topic {topic} keeps {bytes} bytes of each partition, read or not: retention.bytes"
            ));
        }
        Ok(told)
    }
}

/// How many messages of an endpoint are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KafkaDepth {
    /// Not committed yet: those that wait, are delayed, are being worked on, or were finished just now.
    pub left: u64,
    /// Messages that were put aside.
    pub dead: u64,
}

/// Compares what was sent with what a group has committed. Waits for the network: not to be called by tasks.
fn count(groups: &[(BaseConsumer, Vec<String>)], dead: &str) -> KafkaResult<KafkaDepth> {
    let mut depth = KafkaDepth::default();
    for (group, topics) in groups {
        for topic in topics {
            let partitions = partitions(group, topic)?;
            let mut asked = TopicPartitionList::with_capacity(partitions.len());
            for partition in &partitions {
                asked.add_partition(topic, *partition);
            }
            for committed in group.committed_offsets(asked, ANSWER_WITHIN)?.elements() {
                let (first, next) = group.fetch_watermarks(topic, committed.partition(), ANSWER_WITHIN)?;
                let done = committed.offset().to_raw().filter(|offset| *offset >= 0).unwrap_or(first);
                depth.left += u64::try_from(next - done).unwrap_or(0);
            }
        }
    }
    if let Some((any, _)) = groups.first() {
        for partition in partitions(any, dead)? {
            let (first, next) = any.fetch_watermarks(dead, partition, ANSWER_WITHIN)?;
            depth.dead += u64::try_from(next - first).unwrap_or(0);
        }
    }
    Ok(depth)
}

fn partitions(client: &BaseConsumer, topic: &str) -> KafkaResult<Vec<i32>> {
    let metadata = client.fetch_metadata(Some(topic), ANSWER_WITHIN)?;
    Ok(metadata
        .topics()
        .iter()
        .flat_map(|topic| topic.partitions().iter().map(MetadataPartition::id))
        .collect())
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ANSWER_WITHIN)).operation_timeout(Some(ANSWER_WITHIN))
}

/// Answers how many replicas a topic has, or what is wrong with it.
fn look(metadata: &Metadata, name: &str) -> Result<usize, String> {
    let topic = metadata.topics().iter().find(|topic| topic.name() == name);
    let topic = topic.ok_or_else(|| format!("topic {name} does not exist"))?;
    match topic.error().map(RDKafkaErrorCode::from) {
        None => {}
        Some(RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition) => {
            return Err(format!("topic {name} does not exist"));
        }
        Some(code) => return Err(format!("topic {name}: {code}")),
    }
    let replicas = topic.partitions().iter().map(|partition| partition.replicas().len()).min();
    replicas.ok_or_else(|| format!("topic {name} has no partitions"))
}

fn check_replicas(endpoint: &EndpointName, replicas: usize, in_sync: usize) -> Result<(), BrokerError> {
    if in_sync > replicas {
        let what = format!(
            "min.insync.replicas is {in_sync} and there are {replicas} replicas: nothing can be sent"
        );
        return Err(misconfigured(endpoint, &what));
    }
    if in_sync < 2 {
        tracing::warn!(%endpoint, replicas, in_sync, "a confirmed message may be on one machine only");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_deletes_what_was_not_read_is_refused_or_told() {
        let kept = |policy: &str, milliseconds, bytes| Kept {
            policy: Some(policy.to_owned()),
            milliseconds: Some(milliseconds),
            bytes: Some(bytes),
        };
        assert!(kept("compact,delete", -1, -1).told("orders", false).is_err());
        assert!(kept("delete", 60_000, -1).told("orders", false).is_err());
        assert_eq!(kept("delete", -1, -1).told("orders", true), Ok(Vec::new()));
        assert_eq!(kept("delete", 1_209_600_000, -1).told("orders", false), Ok(Vec::new()));
        assert_eq!(kept("delete", 1_209_600_000, 1024).told("orders", true).unwrap().len(), 2);
    }

    #[test]
    fn a_delay_goes_to_the_shortest_topic_that_is_long_enough_or_waits_in_place() {
        let topics = Topics {
            prefix: "shop.".to_owned(),
            classes: [1_500, 10_000].map(Duration::from_millis).to_vec(),
            in_place_max: Duration::from_secs(1),
            partitions: 1,
            replicas: 1,
        };
        let orders = EndpointName::new("orders").unwrap();
        let after = |millis| topics.after(&orders, Duration::from_millis(millis));
        assert_eq!(after(1_000), "shop.orders");
        assert_eq!(after(1_001), "shop.orders.retry.1500ms");
        assert_eq!(after(2_000), "shop.orders.retry.10s");
        assert_eq!(after(60_000), "shop.orders.retry.10s");
        assert_eq!(topics.dead(&orders), "shop.orders.dead");
    }
}
