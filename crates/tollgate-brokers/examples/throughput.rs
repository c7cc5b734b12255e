//! How many messages a second the in-process broker sends, receives and acknowledges: volatile on one thread,
//! and durable with concurrent senders that share syncs. Prints; judges nothing.
//!
//! `cargo run --release -p tollgate-brokers --example throughput -- [directory for the durable log]`

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tollgate_brokers::InProcessBroker;
use tollgate_proto::{
    Broker, Delivery, EndpointName, MessageId, OutgoingMessage, PartitionKey, Settlement, Verdict,
};

/// What the engine sends and receives at a time.
const BATCH: usize = 128;

/// An envelope with a token and trace headers.
const ENVELOPE_BYTES: usize = 200;

const VOLATILE_MESSAGES: usize = 20_000_000;

/// How long each durable measurement takes.
const DURABLE_TIME: Duration = Duration::from_secs(5);

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let one_thread = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    one_thread.block_on(volatile())?;
    let temporary = tempfile::tempdir()?;
    let directory = std::env::args_os().nth(1).map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let many_threads =
        tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_time().build()?;
    many_threads.block_on(async {
        for (senders, batch) in [(1, 1), (64, 1), (1, BATCH), (8, BATCH), (64, BATCH)] {
            durable(directory.join(format!("{senders}-{batch}")), senders, batch).await?;
        }
        Ok(())
    })
}

async fn volatile() -> Result<(), Failure> {
    let broker = InProcessBroker::builder().build();
    let endpoint = EndpointName::new("orders")?;
    let message = message(&endpoint)?;
    let start = Instant::now();
    for _ in 0..VOLATILE_MESSAGES / BATCH {
        for answer in broker.send(vec![message.clone(); BATCH]).await {
            answer?;
        }
        let deliveries = broker.receive(&endpoint, BATCH).await?;
        acknowledge(&broker, &endpoint, deliveries).await?;
    }
    let name = format!("volatile, 1 task, batches of {BATCH}: send + receive + ack");
    print_rate(&name, VOLATILE_MESSAGES, start.elapsed());
    Ok(())
}

async fn durable(directory: PathBuf, senders: usize, batch: usize) -> Result<(), Failure> {
    let broker = Arc::new(InProcessBroker::builder().durable(&directory).open()?);
    let endpoint = EndpointName::new("orders")?;
    let message = message(&endpoint)?;
    let consumer = tokio::spawn({
        let (broker, endpoint) = (Arc::clone(&broker), endpoint.clone());
        async move {
            let mut received = 0;
            while let Ok(deliveries) = broker.receive(&endpoint, BATCH).await {
                received += deliveries.len();
                acknowledge(&broker, &endpoint, deliveries).await?;
            }
            Ok::<_, Failure>(received)
        }
    });
    let start = Instant::now();
    let tasks: Vec<_> = (0..senders)
        .map(|_| {
            let (broker, message) = (Arc::clone(&broker), message.clone());
            tokio::spawn(async move {
                while start.elapsed() < DURABLE_TIME {
                    for answer in broker.send(vec![message.clone(); batch]).await {
                        answer?;
                    }
                }
                Ok::<_, Failure>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    while broker.depth(&endpoint).total() > 0 {
        tokio::task::yield_now().await;
    }
    let elapsed = start.elapsed();
    broker.close().await?;
    let received = consumer.await??;
    let name = format!("durable, {senders} senders, batches of {batch}: send (synced) + receive + ack");
    print_rate(&name, received, elapsed);
    Ok(())
}

fn message(endpoint: &EndpointName) -> Result<OutgoingMessage, Failure> {
    Ok(OutgoingMessage::without_token(
        endpoint.clone(),
        PartitionKey::new("customer-7")?,
        MessageId::from_name("throughput", "message"),
        Bytes::from(vec![b'e'; ENVELOPE_BYTES]),
    ))
}

async fn acknowledge(
    broker: &InProcessBroker,
    endpoint: &EndpointName,
    deliveries: Vec<Delivery>,
) -> Result<(), Failure> {
    let acknowledge =
        |delivery: Delivery| Settlement { receipt: delivery.receipt, verdict: Verdict::Acknowledge };
    for answer in broker.settle(endpoint, deliveries.into_iter().map(acknowledge).collect()).await {
        answer?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn print_rate(name: &str, messages: usize, elapsed: Duration) {
    let rate = messages as f64 / elapsed.as_secs_f64();
    println!("{name}: {messages} in {elapsed:.1?}, {rate:.0} a second");
}
