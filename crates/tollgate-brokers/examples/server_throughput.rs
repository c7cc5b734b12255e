//! How many messages a second go through a server and a bare consumer, which does nothing but acknowledge, and how long each takes from
//! before it is sent until it is received. Prints; judges nothing.
//!
//! `cargo run --release -p tollgate-brokers --features rabbitmq,kafka --example server_throughput -- rabbitmq amqp://127.0.0.1:5672`
//! `... -- kafka 127.0.0.1:9092`

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tollgate_brokers::kafka::TopicsMade;
use tollgate_brokers::rabbitmq::Queues;
use tollgate_brokers::{KafkaBroker, RabbitMqBroker};
use tollgate_core::{
    Broker, BrokerError, Delivery, EndpointName, MessageId, OutgoingMessage, PartitionKey, Settlement,
    Verdict,
};

/// What the engine sends and receives at a time.
const BATCH: usize = 128;

/// Batches that are on their way to the server at the same time.
const SENDERS: usize = 4;

/// An envelope with a token and trace headers.
const ENVELOPE_BYTES: usize = 200;

const MESSAGES: usize = 100_000;

/// Messages that are not counted: a group is formed, channels are opened.
const WARM_UP: usize = 10_000;

const PARTITIONS: usize = 1_000;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (kind, address) = (arguments.next(), arguments.next());
    // A name of its own, so that nothing of an earlier run is in it.
    let prefix = format!("throughput-{}-", nanos());
    match (kind.as_deref(), address) {
        (Some("rabbitmq"), Some(address)) => {
            let builder = RabbitMqBroker::builder(address).prefix(prefix).queues(Queues::MadeAtFirstUse);
            let broker = Arc::new(builder.open()?);
            measure("rabbitmq", Arc::clone(&broker) as Arc<dyn Broker>).await?;
            broker.close().await;
        }
        (Some("kafka"), Some(address)) => {
            let builder = KafkaBroker::builder(&address).prefix(prefix).topics_made(TopicsMade::AtFirstUse);
            let broker =
                builder.replicas(std::num::NonZeroU16::MIN).setting("fetch.wait.max.ms", "20").open()?;
            let broker = Arc::new(broker);
            measure("kafka", Arc::clone(&broker) as Arc<dyn Broker>).await?;
            broker.close().await;
        }
        _ => eprintln!("usage: server_throughput rabbitmq|kafka ADDRESS"),
    }
    Ok(())
}

async fn measure(name: &str, broker: Arc<dyn Broker>) -> Result<(), Failure> {
    let endpoint = EndpointName::new("orders")?;
    round(&broker, &endpoint, WARM_UP).await?;
    let start = Instant::now();
    let mut waits = round(&broker, &endpoint, MESSAGES).await?;
    let elapsed = start.elapsed();
    waits.sort_unstable();
    let at = |part: usize| waits[(waits.len() - 1) * part / 1000];
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = MESSAGES as f64 / elapsed.as_secs_f64();
    println!("{name}, at full speed: {rate:.0} messages/s; p50 {:.1?}, p99 {:.1?}", at(500), at(990));
    // One at a time: what a message takes where nothing waits.
    let mut alone = Vec::new();
    for _ in 0..500 {
        alone.extend(round(&broker, &endpoint, 1).await?);
    }
    alone.sort_unstable();
    println!(
        "{name}, one at a time: p50 {:.1?}, p99 {:.1?}",
        alone[alone.len() / 2],
        alone[alone.len() * 99 / 100]
    );
    Ok(())
}

/// Sends so many messages and acknowledges as many. Tells how long each was on its way.
async fn round(
    broker: &Arc<dyn Broker>,
    endpoint: &EndpointName,
    count: usize,
) -> Result<Vec<Duration>, Failure> {
    let senders: Vec<_> = (0..SENDERS.min(count))
        .map(|sender| {
            let (broker, endpoint) = (Arc::clone(broker), endpoint.clone());
            tokio::spawn(async move {
                let mine: Vec<usize> = (sender..count).step_by(SENDERS).collect();
                for some in mine.chunks(BATCH) {
                    let messages =
                        some.iter().map(|n| message(&endpoint, *n)).collect::<Result<Vec<_>, _>>()?;
                    for answer in broker.send(messages).await {
                        answer?;
                    }
                }
                Ok::<_, Failure>(())
            })
        })
        .collect();
    let mut waits = Vec::with_capacity(count);
    while waits.len() < count {
        match broker.receive(endpoint, BATCH).await {
            Ok(deliveries) => {
                let now = nanos();
                let wait = |delivery: &Delivery| Some(now.saturating_sub(sent_at(&delivery.envelope)?));
                waits.extend(deliveries.iter().filter_map(wait).map(Duration::from_nanos));
                acknowledge(broker, endpoint, deliveries).await?;
            }
            Err(error) if error.is_retryable() => {}
            Err(error) => return Err(error.into()),
        }
    }
    for sender in senders {
        sender.await??;
    }
    Ok(waits)
}

async fn acknowledge(
    broker: &Arc<dyn Broker>,
    endpoint: &EndpointName,
    deliveries: Vec<Delivery>,
) -> Result<(), BrokerError> {
    let done = |delivery: Delivery| Settlement { receipt: delivery.receipt, verdict: Verdict::Acknowledge };
    broker.settle(endpoint, deliveries.into_iter().map(done).collect()).await.into_iter().collect()
}

fn message(endpoint: &EndpointName, n: usize) -> Result<OutgoingMessage, Failure> {
    let mut envelope = vec![b'e'; ENVELOPE_BYTES];
    envelope[..8].copy_from_slice(&nanos().to_le_bytes());
    Ok(OutgoingMessage {
        endpoint: endpoint.clone(),
        partition: PartitionKey::new(format!("customer-{}", n % PARTITIONS))?,
        message_id: MessageId::from_name("throughput", &n.to_string()),
        envelope: Bytes::from(envelope),
        headers: Vec::new(),
        delay: Duration::ZERO,
    })
}

fn sent_at(envelope: &Bytes) -> Option<u64> {
    Some(u64::from_le_bytes(envelope.get(..8)?.try_into().ok()?))
}

fn nanos() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
