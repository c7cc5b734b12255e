//! A gate as a `tower::Service`: a message in, a verdict out. So a consumer that is a stack of layers (rate limit, timeout, tracing)
//! gets its innermost one. It may be dropped at any time, by a timeout for instance: the message comes again and is recognised.
//!
//! `cargo run -p tollgate --example tower_service`

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use tollgate::proto::OutgoingMessage;
use tollgate::{Endpoint, Gate, HandlerError, Message, Received, Tx, Verdict};
use tollgate_embedded::MemoryStore;
use tower::{Service, ServiceExt};

/// Processes messages. Clones share the gate.
#[derive(Clone)]
pub struct Process {
    gate: Arc<Gate>,
}

impl Process {
    /// Messages go through this gate.
    pub fn new(gate: Arc<Gate>) -> Self {
        Self { gate }
    }
}

impl Service<Received> for Process {
    type Response = Verdict;
    // What goes wrong is a verdict: there is nothing that a retry layer should repeat.
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Verdict, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Back-pressure is in the call, which waits while the endpoint's window is full; a concurrency limit in front of it makes
        // it visible here.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, message: Received) -> Self::Future {
        let gate = Arc::clone(&self.gate);
        Box::pin(async move { Ok(gate.process(message).await) })
    }
}

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

#[tokio::main(flavor = "current_thread")]
#[allow(dead_code, reason = "the test of this example has a main function of its own")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sent: Arc<Mutex<Vec<OutgoingMessage>>> = Arc::default();
    let outbox = Arc::clone(&sent);
    let gate = Gate::builder()
        .store(Arc::new(MemoryStore::new("main".try_into()?)))
        .sender(move |messages: Vec<OutgoingMessage>| {
            let answers: Vec<_> = messages.iter().map(|_| Ok(())).collect();
            outbox.lock().expect("nobody panics while he holds the list").extend(messages);
            std::future::ready(answers)
        })
        .endpoint(Endpoint::new("orders").driven())
        .endpoint(Endpoint::new("customers").driven().preload("points").on(add_points))
        .open()
        .await?;
    let place_order =
        |tx: Tx| async move { Ok(tx.send("customers", "customer/ada", &Earned(10))?.to_string()) };
    gate.edge("orders")?.advance("order/4711", "1", place_order).await?;

    let gate = Arc::new(gate);
    // Any layer goes around it; this one says what became of a message.
    let mut consumer = Process::new(Arc::clone(&gate)).map_response(|verdict| format!("{verdict:?}"));
    loop {
        let message = sent.lock().expect("nobody panics while he holds the list").pop();
        let Some(message) = message.filter(|message| message.endpoint.as_str() == "customers") else {
            tokio::task::yield_now().await;
            continue;
        };
        for delivery in 1..=2 {
            let received = Received::new(message.envelope.clone()).delivery_count(delivery);
            println!("delivery {delivery}: {}", consumer.ready().await?.call(received).await?);
        }
        break;
    }
    drop(consumer);
    let gate = Arc::into_inner(gate).ok_or("somebody still uses the gate")?;
    println!("{} message was committed, besides the order", gate.close().await.committed - 1);
    Ok(())
}
