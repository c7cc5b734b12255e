//! The streams and consumers of an endpoint: how they are made, whether they will do, and how much is in
//! them.

use std::fmt;

use async_nats::jetstream::consumer::{self, AckPolicy, PullConsumer, pull};
use async_nats::jetstream::context::{ConsumerInfoErrorKind, CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use tollgate_proto::{BrokerError, EndpointName};

use super::NatsBroker;
use super::failure::{misconfigured, unavailable};
use super::names::Names;

/// A consumer that lets fewer be unsettled than one engine's window takes slows it down.
const IN_FLIGHT_LOW: i64 = 256;

/// How many messages of an endpoint are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NatsDepth {
    /// To be delivered, or delivered and not settled, as the consumers know it.
    pub left: u64,
    /// Stored in the stream. More than `left` for a moment after acknowledgements; and after nats-server
    /// (2.9.10) was killed, when it finds messages again on its disk that its consumers know to be
    /// acknowledged. They are never delivered again; they do count against the stream's bounds until it is
    /// purged.
    pub stored: u64,
    /// Messages that were put aside.
    pub dead: u64,
}

/// Something that is not as [`NatsBroker::provision`] would have made it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// What it is, and what follows from it.
    pub what: String,
    /// What it costs.
    pub weight: Weight,
}

/// What a difference costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Weight {
    /// Messages may be lost: a gate is not opened on such a queue.
    LosesMessages,
    /// Time or room.
    Notable,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl NatsBroker {
    /// Makes what an endpoint needs and is not there: its stream (work-queue retention, on disk), a durable
    /// consumer for each slice, and a stream for dead letters. What is there stays as it is: see
    /// [`NatsBroker::differences`].
    ///
    /// # Errors
    /// [`BrokerError::Misconfigured`] if the server refuses, [`BrokerError::Unavailable`] if it can't be
    /// reached.
    pub async fn provision(&self, endpoint: &EndpointName) -> Result<(), BrokerError> {
        let names = Names::new(&self.settings.prefix, endpoint);
        let dead = Config {
            name: names.dead_stream(),
            description: Some(format!("dead letters of Tollgate's endpoint {endpoint}")),
            subjects: vec![names.dead_subject()],
            storage: StorageType::File,
            num_replicas: self.settings.replicas,
            ..Config::default()
        };
        self.make(endpoint, dead).await?;
        self.make(endpoint, self.stream(endpoint, &names)).await?;
        for slice in 0..self.settings.slices {
            let consumer = self.consumer(&names, slice);
            let made = self.jetstream.create_consumer_on_stream(consumer, &names.stream).await;
            made.map_err(|error| match error.kind() {
                async_nats::jetstream::stream::ConsumerErrorKind::JetStream(said) => misconfigured(
                    endpoint,
                    format!("the server refuses consumer {}: {said}", Names::consumer(slice)),
                ),
                _ => unavailable(endpoint, &error),
            })?;
        }
        Ok(())
    }

    /// What of an endpoint's stream and consumers is not as [`NatsBroker::provision`] would have made it,
    /// each with what follows from it. None: all is well.
    ///
    /// # Errors
    /// [`BrokerError::Misconfigured`] if something is missing, [`BrokerError::Unavailable`] if the server
    /// can't be reached.
    pub async fn differences(&self, endpoint: &EndpointName) -> Result<Vec<Difference>, BrokerError> {
        let names = Names::new(&self.settings.prefix, endpoint);
        let stream = self.stream_of(endpoint, &names.stream).await?;
        self.stream_of(endpoint, &names.dead_stream()).await?;
        let mut differences = self.differences_of_stream(&names, &stream.cached_info().config);
        differences.extend(self.slices_left_over(endpoint, &stream).await?);
        for slice in 0..self.settings.slices {
            let name = Names::consumer(slice);
            let consumer: Result<PullConsumer, _> = stream.get_consumer(&name).await;
            let consumer = consumer.map_err(|error| {
                let stream = &names.stream;
                misconfigured(
                    endpoint,
                    format!("consumer {name} of stream {stream}: {error}; make it with `provision`"),
                )
            })?;
            let subject = names.subject(slice);
            differences.extend(self.differences_of_consumer(&name, &subject, &consumer.cached_info().config));
        }
        Ok(differences)
    }

    /// A consumer beyond the slices that there are now may have messages that no process pulls any more.
    async fn slices_left_over(
        &self,
        endpoint: &EndpointName,
        stream: &async_nats::jetstream::stream::Stream,
    ) -> Result<Option<Difference>, BrokerError> {
        let name = Names::consumer(self.settings.slices);
        let found = match stream.consumer_info(&name).await {
            Ok(found) => found,
            Err(error) if matches!(error.kind(), ConsumerInfoErrorKind::NotFound) => return Ok(None),
            Err(error) => return Err(unavailable(endpoint, &error)),
        };
        let left = found.num_pending + found.num_ack_pending as u64;
        let what = format!(
            "there were more slices once: consumer {name} has {left} messages, which nothing pulls; use as many slices as before, or drain and delete it"
        );
        let weight = if left > 0 { Weight::LosesMessages } else { Weight::Notable };
        Ok(Some(Difference { what, weight }))
    }

    fn differences_of_stream(&self, names: &Names, found: &Config) -> Vec<Difference> {
        use Weight::{LosesMessages, Notable};

        let is_bounded = found.max_messages > 0 || found.max_bytes > 0;
        let window = self.settings.duplicate_window;
        let checks = [
            (
                found.discard != DiscardPolicy::New && is_bounded,
                LosesMessages,
                "the stream is bounded and discards old messages, which nobody may have processed: discard new ones".to_owned(),
            ),
            (
                found.max_messages_per_subject > 0 && found.discard != DiscardPolicy::New,
                LosesMessages,
                "the stream is bounded for each subject and discards old messages: set no max_msgs_per_subject".to_owned(),
            ),
            (
                found.no_ack,
                LosesMessages,
                "the stream does not confirm messages: set no no_ack".to_owned(),
            ),
            (
                !found.subjects.contains(&names.all_subjects()),
                LosesMessages,
                format!("the stream takes {:?} and not {}", found.subjects, names.all_subjects()),
            ),
            (
                !found.max_age.is_zero(),
                LosesMessages,
                format!("the stream forgets messages after {:?}: set no max_age", found.max_age),
            ),
            (
                found.storage != StorageType::File,
                Notable,
                "the stream is in memory: a restart of the server loses it".to_owned(),
            ),
            (
                found.retention != RetentionPolicy::WorkQueue,
                Notable,
                format!("retention is {:?}: acknowledged messages stay; make it work-queue", found.retention),
            ),
            (
                found.duplicate_window != window,
                Notable,
                format!("ids are remembered for {:?} and not {window:?}", found.duplicate_window),
            ),
            (
                found.num_replicas != self.settings.replicas,
                Notable,
                format!("it has {} replicas and not {}", found.num_replicas, self.settings.replicas),
            ),
        ];
        differing(checks)
    }

    fn differences_of_consumer(
        &self,
        name: &str,
        subject: &str,
        found: &consumer::Config,
    ) -> Vec<Difference> {
        use Weight::{LosesMessages, Notable};

        let timeout = self.settings.inbox.visibility_timeout;
        let checks = [
            (
                found.ack_policy != AckPolicy::Explicit,
                LosesMessages,
                format!(
                    "consumer {name} wants {:?} acknowledgements: it must be explicit ones",
                    found.ack_policy
                ),
            ),
            (
                found.max_deliver > 0,
                LosesMessages,
                format!(
                    "consumer {name} delivers {} times and then leaves a message where nobody finds it: set no max_deliver",
                    found.max_deliver
                ),
            ),
            (
                found.headers_only,
                LosesMessages,
                format!("consumer {name} delivers headers without messages: set no headers_only"),
            ),
            (
                found.filter_subject != subject,
                LosesMessages,
                format!(
                    "consumer {name} has the subject {:?} and not {subject}: messages never come",
                    found.filter_subject
                ),
            ),
            (
                !found.inactive_threshold.is_zero(),
                LosesMessages,
                format!(
                    "consumer {name} is deleted when it was idle for {:?}: set no inactive_threshold",
                    found.inactive_threshold
                ),
            ),
            (
                found.max_batch > 0 || (found.max_ack_pending > 0 && found.max_ack_pending < IN_FLIGHT_LOW),
                Notable,
                format!(
                    "consumer {name} gives {} messages at a time and {} unsettled ones at most: work may wait for that",
                    found.max_batch, found.max_ack_pending
                ),
            ),
            (
                found.ack_wait != timeout,
                Notable,
                format!(
                    "consumer {name} waits {:?} for a sign of life and not {timeout:?}: signs may come too late",
                    found.ack_wait
                ),
            ),
        ];
        differing(checks)
    }

    /// How many messages of an endpoint are in its streams.
    ///
    /// # Errors
    /// As [`NatsBroker::differences`].
    pub async fn depth(&self, endpoint: &EndpointName) -> Result<NatsDepth, BrokerError> {
        let names = Names::new(&self.settings.prefix, endpoint);
        let stream = self.stream_of(endpoint, &names.stream).await?;
        let mut left = 0;
        for slice in 0..self.settings.slices {
            let consumer = stream.consumer_info(Names::consumer(slice)).await;
            let consumer = consumer.map_err(|error| unavailable(endpoint, &error))?;
            left += consumer.num_pending + consumer.num_ack_pending as u64;
        }
        let stored = stream.cached_info().state.messages;
        let dead = self.stream_of(endpoint, &names.dead_stream()).await?.cached_info().state.messages;
        Ok(NatsDepth { left, stored, dead })
    }

    /// Deletes the streams of an endpoint with all that is in them. For tests and trials.
    ///
    /// # Errors
    /// As [`NatsBroker::differences`].
    pub async fn delete(&self, endpoint: &EndpointName) -> Result<(), BrokerError> {
        let names = Names::new(&self.settings.prefix, endpoint);
        for stream in [names.dead_stream(), names.stream] {
            self.jetstream.delete_stream(stream).await.map_err(|error| unavailable(endpoint, &error))?;
        }
        Ok(())
    }

    fn stream(&self, endpoint: &EndpointName, names: &Names) -> Config {
        Config {
            name: names.stream.clone(),
            description: Some(format!("Tollgate's endpoint {endpoint}")),
            subjects: vec![names.all_subjects()],
            retention: RetentionPolicy::WorkQueue,
            storage: StorageType::File,
            discard: DiscardPolicy::New,
            max_messages: self.settings.capacity.unwrap_or(-1),
            duplicate_window: self.settings.duplicate_window,
            num_replicas: self.settings.replicas,
            ..Config::default()
        }
    }

    fn consumer(&self, names: &Names, slice: u16) -> pull::Config {
        let name = Names::consumer(slice);
        pull::Config {
            durable_name: Some(name.clone()),
            name: Some(name),
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.settings.inbox.visibility_timeout,
            filter_subject: names.subject(slice),
            // Bounded by the processes, each by itself.
            max_ack_pending: -1,
            ..pull::Config::default()
        }
    }

    async fn make(&self, endpoint: &EndpointName, config: Config) -> Result<(), BrokerError> {
        let name = config.name.clone();
        match self.jetstream.get_or_create_stream(config).await {
            Ok(_) => Ok(()),
            Err(error) => Err(match error.kind() {
                CreateStreamErrorKind::JetStream(said) => {
                    misconfigured(endpoint, format!("the server refuses stream {name}: {said}"))
                }
                CreateStreamErrorKind::InvalidStreamName | CreateStreamErrorKind::EmptyStreamName => {
                    misconfigured(endpoint, format!("{name} can't be a stream's name: choose another prefix"))
                }
                _ => unavailable(endpoint, &error),
            }),
        }
    }

    async fn stream_of(
        &self,
        endpoint: &EndpointName,
        name: &str,
    ) -> Result<async_nats::jetstream::stream::Stream, BrokerError> {
        self.jetstream.get_stream(name).await.map_err(|error| match error.kind() {
            GetStreamErrorKind::JetStream(said) => {
                misconfigured(endpoint, format!("stream {name}: {said}; make it with `provision`"))
            }
            _ => unavailable(endpoint, &error),
        })
    }
}

fn differing<const N: usize>(checks: [(bool, Weight, String); N]) -> Vec<Difference> {
    let differing = checks.into_iter().filter(|(is_different, ..)| *is_different);
    differing.map(|(_, weight, what)| Difference { what, weight }).collect()
}
