//! A consumer loop that was there before Tollgate: it takes messages from a channel, as many as there are, has them processed and does
//! what the verdicts say. The channel delivers some messages twice, as queues do; each point is counted once.
//!
//! `cargo run -p tollgate --example own_loop`

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tollgate::proto::{BrokerError, OutgoingMessage};
use tollgate::{Endpoint, Gate, GateBuilder, HandlerError, Message, Received, Tx, Verdict};
use tollgate_embedded::MemoryStore;

/// How many messages the channel holds. A sender that finds it full is told so, and its message is sent again later.
const QUEUE_MAX: usize = 1000;

/// How many messages are processed together.
const BATCH_MAX: usize = 32;

#[derive(serde::Serialize, serde::Deserialize)]
struct Earned(u64);

impl Message for Earned {
    const TYPE: &'static str = "shop.earned";
}

async fn add_points(tx: Tx, Earned(points): Earned) -> Result<(), HandlerError> {
    let before: u64 = tx.get("points").await?.unwrap_or(0);
    tx.put("points", &(before + points))?;
    Ok(())
}

/// What the channel carries: a message, and which delivery of it this is.
#[derive(Clone)]
pub struct Delivery {
    /// The message, as it was sent.
    pub envelope: Bytes,
    /// Counted from 1.
    pub count: u32,
}

/// A message that will never be processed, and why.
pub type DeadLetter = (Bytes, String);

/// A queue in memory. A real one outlives the process: then nothing that was sent is ever lost.
pub fn queue() -> (mpsc::Sender<Delivery>, mpsc::Receiver<Delivery>) {
    mpsc::channel(QUEUE_MAX)
}

/// A gate whose messages go into the queue, and come to it by somebody's loop.
pub fn gate(store: Arc<MemoryStore>, queue: mpsc::Sender<Delivery>) -> GateBuilder {
    let send = move |messages: Vec<OutgoingMessage>| {
        let put = |message: OutgoingMessage| {
            let delivery = Delivery { envelope: message.envelope, count: 1 };
            queue
                .try_send(delivery)
                .map_err(|_| BrokerError::Full { endpoint: message.endpoint, capacity: QUEUE_MAX })
        };
        std::future::ready(messages.into_iter().map(put).collect::<Vec<_>>())
    };
    let customers = Endpoint::new("customers").driven().preload("points").on(add_points);
    Gate::builder().store(store).sender(send).endpoint(Endpoint::new("orders").driven()).endpoint(customers)
}

/// The loop: ends when the channel is closed and empty.
pub async fn consume(
    gate: &Gate,
    queue: &mut mpsc::Receiver<Delivery>,
    again: &mpsc::WeakSender<Delivery>,
    dead_letters: &mut Vec<DeadLetter>,
) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while queue.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let received = batch.iter().map(|d| Received::new(d.envelope.clone()).delivery_count(d.count));
        let verdicts = gate.process_all(received.collect()).await;
        for (delivery, verdict) in batch.drain(..).zip(verdicts) {
            match verdict {
                Verdict::Acknowledge => {}
                Verdict::Retry { after } => {
                    if let Some(again) = again.upgrade() {
                        tokio::spawn(async move {
                            tokio::time::sleep(after).await;
                            let next = Delivery { count: delivery.count + 1, ..delivery };
                            // If nobody receives any more, a queue that outlives the process would keep it.
                            let _ = again.send(next).await;
                        });
                    }
                }
                Verdict::DeadLetter { reason } => dead_letters.push((delivery.envelope, reason)),
            }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
#[allow(dead_code, reason = "the test of this example has a main function of its own")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = Arc::new(MemoryStore::new("main".try_into()?));
    let (sent, mut to_copy) = queue();
    let (copied, mut received) = queue();
    let gate = gate(Arc::clone(&store), sent).open().await?;
    // Every message is delivered twice.
    tokio::spawn({
        let copied = copied.clone();
        async move {
            while let Some(delivery) = to_copy.recv().await {
                let _ = copied.send(delivery.clone()).await;
                let _ = copied.send(delivery).await;
            }
        }
    });
    for order in 0..10 {
        let place_order = |tx: Tx| async move {
            tx.send("customers", "customer/ada", &Earned(10))?;
            Ok("thank you".to_owned())
        };
        let day = Duration::from_secs(24 * 3600);
        let orders = gate.edge("orders")?;
        orders.execute(&format!("order/{order}"), "request-1", day, place_order).await?;
    }
    let (again, mut dead_letters) = (copied.downgrade(), Vec::new());
    drop(copied);
    let points = tokio::select! {
        () = consume(&gate, &mut received, &again, &mut dead_letters) => return Err("the channel was closed".into()),
        points = all_points(&gate) => points?,
    };
    let done = gate.close().await;
    println!(
        "ada has {points} points, after {} deliveries of 10 messages and some wake-ups",
        done.deliveries
    );
    Ok(())
}

/// Waits until all ten orders have earned their points.
#[allow(dead_code, reason = "the test of this example looks for itself")]
async fn all_points(gate: &Gate) -> Result<u64, Box<dyn std::error::Error>> {
    let customers = gate.edge("customers")?;
    loop {
        let points = customers.read("customer/ada", "points").await?;
        let points: u64 = points.map_or(Ok(0), |bytes| serde_json::from_slice(&bytes))?;
        if points >= 100 {
            return Ok(points);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
