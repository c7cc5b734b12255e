//! Consumers that only acknowledge, each by its broker's own client, as that client's documentation has it: the ceiling of what the server
//! and the client can do. Acknowledgements are not confirmed where the protocol does not confirm them by itself.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_nats::jetstream;
use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_sqs::types::DeleteMessageBatchRequestEntry;
use futures_util::{StreamExt, TryStreamExt};
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use rdkafka::{ClientConfig, Message};
use tokio::task::JoinSet;
use tollgate_bench::ENDPOINT;

use crate::Failure;
use crate::brokers::{FETCH_WAIT_MS, Kind, kafka_servers};
use crate::meter::Meter;

/// What the adapters have by default.
const PREFETCH: u16 = 512;
const RECEIVERS: usize = 4;

/// Most messages of one answer: a limit of SQS.
const SQS_MESSAGES_MAX: i32 = 10;
/// How long SQS waits for a message, in seconds.
const SQS_POLL: i32 = 1;

/// Messages that a bare consumer has seen.
#[derive(Default)]
struct Seen(Mutex<HashSet<u64>>);

impl Seen {
    fn note(&self, body: &[u8]) {
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(hasher.finish());
    }

    fn count(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len() as u64
    }
}

/// Consumes until the meter has ended, and tells how many different messages it has seen.
pub async fn consume(kind: Kind, address: &str, prefix: &str, meter: &Arc<Meter>) -> Result<u64, Failure> {
    let seen = Arc::new(Seen::default());
    match kind {
        Kind::Nats => nats(address, prefix, meter, &seen).await?,
        Kind::Sqs => sqs(address, prefix, meter, &seen).await?,
        Kind::RabbitMq => rabbitmq(address, prefix, meter, &seen).await?,
        Kind::Kafka => kafka(address, prefix, meter, &seen).await?,
    }
    Ok(seen.count())
}

async fn nats(address: &str, prefix: &str, meter: &Meter, seen: &Seen) -> Result<(), Failure> {
    let client = async_nats::connect(address).await?;
    let context = jetstream::new(client.clone());
    let consumer: jetstream::consumer::PullConsumer =
        context.get_consumer_from_stream("slice-0", format!("{prefix}-{ENDPOINT}")).await?;
    let mut messages = consumer.stream().max_messages_per_batch(PREFETCH.into()).messages().await?;
    let mut ended = std::pin::pin!(meter.until_ended());
    loop {
        tokio::select! {
            biased;
            () = &mut ended => break,
            message = messages.next() => {
                let message = message.ok_or("the stream of messages has ended")??;
                let since = Instant::now();
                seen.note(&message.payload);
                message.ack().await?;
                meter.note(since.elapsed());
            }
        }
    }
    client.flush().await?;
    Ok(())
}

async fn rabbitmq(address: &str, prefix: &str, meter: &Meter, seen: &Seen) -> Result<(), Failure> {
    let connection = lapin::Connection::connect(address, lapin::ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let queue = format!("{prefix}{ENDPOINT}");
    let mut messages = channel
        .basic_consume(queue.into(), "bare".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await?;
    let mut ended = std::pin::pin!(meter.until_ended());
    loop {
        tokio::select! {
            biased;
            () = &mut ended => break,
            message = messages.try_next() => {
                let message = message?.ok_or("the consumer was cancelled")?;
                let since = Instant::now();
                seen.note(&message.data);
                message.ack(BasicAckOptions::default()).await?;
                meter.note(since.elapsed());
            }
        }
    }
    connection.close(200, "done".into()).await?;
    Ok(())
}

async fn kafka(address: &str, prefix: &str, meter: &Meter, seen: &Seen) -> Result<(), Failure> {
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka_servers(address))
        .set("group.id", format!("{prefix}bare"))
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.offset.store", "false")
        .set("fetch.wait.max.ms", FETCH_WAIT_MS)
        .create()?;
    consumer.subscribe(&[&format!("{prefix}{ENDPOINT}")])?;
    let mut ended = std::pin::pin!(meter.until_ended());
    loop {
        tokio::select! {
            biased;
            () = &mut ended => break,
            message = consumer.recv() => {
                let message = message?;
                let since = Instant::now();
                seen.note(message.payload().unwrap_or_default());
                consumer.store_offset_from_message(&message)?;
                meter.note(since.elapsed());
            }
        }
    }
    consumer.commit_consumer_state(CommitMode::Sync)?;
    Ok(())
}

async fn sqs(address: &str, prefix: &str, meter: &Arc<Meter>, seen: &Arc<Seen>) -> Result<(), Failure> {
    const NOBODY: &str = "nobody";
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new(NOBODY, NOBODY, None, None, NOBODY))
        .endpoint_url(address)
        .http_client(aws_smithy_http_client::Builder::new().build_http());
    let client = aws_sdk_sqs::Client::from_conf(config.build());
    let found = client.get_queue_url().queue_name(format!("{prefix}{ENDPOINT}")).send().await?;
    let url = found.queue_url.ok_or("the queue has no address")?;
    let mut receivers = JoinSet::new();
    for _ in 0..RECEIVERS {
        let (client, url) = (client.clone(), url.clone());
        let (meter, seen) = (Arc::clone(meter), Arc::clone(seen));
        receivers.spawn(async move { receive(&client, &url, &meter, &seen).await });
    }
    tokio::select! {
        () = meter.until_ended() => {}
        Some(ended) = receivers.join_next() => ended??,
    }
    receivers.shutdown().await;
    Ok(())
}

async fn receive(client: &aws_sdk_sqs::Client, url: &str, meter: &Meter, seen: &Seen) -> Result<(), Failure> {
    loop {
        let call = client.receive_message().queue_url(url).max_number_of_messages(SQS_MESSAGES_MAX);
        let received = call.wait_time_seconds(SQS_POLL).send().await?.messages.unwrap_or_default();
        if received.is_empty() {
            continue;
        }
        let since = Instant::now();
        let mut entries = Vec::with_capacity(received.len());
        for (place, message) in received.iter().enumerate() {
            seen.note(message.body().unwrap_or_default().as_bytes());
            let receipt = message.receipt_handle().ok_or("a message has no receipt")?;
            let entry = DeleteMessageBatchRequestEntry::builder().id(place.to_string());
            entries.push(entry.receipt_handle(receipt).build()?);
        }
        let deleted = client.delete_message_batch().queue_url(url).set_entries(Some(entries)).send().await?;
        if !deleted.failed.is_empty() {
            return Err(format!("{} messages could not be deleted", deleted.failed.len()).into());
        }
        for _ in received {
            meter.note(since.elapsed());
        }
    }
}
