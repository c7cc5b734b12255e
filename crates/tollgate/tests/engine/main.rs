//! Stories of the whole engine on the in-memory store and the in-process broker, on a paused clock. Here is only what they share.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod blobs;
mod dead_letters;
mod dropped_preparations;
mod fairness;
#[path = "../harness/mod.rs"]
mod harness;
mod impatient_handlers;
mod judgements;
mod messages;
mod opening_and_closing;
mod panics;
mod recovery;
mod republishing;
mod requests;
mod time_limits;

use std::sync::Arc;
use std::time::Duration;

use tollgate::proto::{EndpointName, MessageId, OutgoingMessage};
use tollgate::{Backoff, Broker, Endpoint, Gate, GateBuilder, HandlerError, Store, Tx};
use tollgate_brokers::InProcessBroker;

use harness::{Add, TOTAL, add};

fn gate(store: &Arc<dyn Store>, broker: &Arc<InProcessBroker>) -> GateBuilder {
    Gate::builder()
        .store(Arc::clone(store))
        .broker(Arc::clone(broker) as Arc<dyn Broker>)
        .endpoint(Endpoint::new("edge"))
        .redelivery(Backoff { first: Duration::from_millis(10), cap: Duration::from_millis(100) })
}

fn adder() -> Endpoint {
    Endpoint::new("adder").preload(TOTAL).on::<Add, _, _>(add)
}

/// Sends messages to partition `P` of endpoint `adder`, exactly once for each name.
async fn send(gate: &Gate, name: &str, messages: Vec<Add>) {
    let messages = Arc::new(messages);
    let handler = move |tx: Tx| {
        let messages = Arc::clone(&messages);
        async move {
            for message in messages.iter() {
                tx.send("adder", "P", message)?;
            }
            Ok::<_, HandlerError>(messages.len())
        }
    };
    gate.edge("edge").unwrap().execute("requests", name, Duration::from_secs(1), handler).await.unwrap();
}

/// Copies of whatever a queue holds are sent again by a broker with no manners.
async fn send_raw(broker: &InProcessBroker, endpoint: &str, envelope: impl Into<bytes::Bytes>) {
    let message = OutgoingMessage::without_token(
        EndpointName::new(endpoint).unwrap(),
        "P".try_into().unwrap(),
        MessageId::from_bytes([0; 16]),
        envelope.into(),
    );
    broker.send(vec![message]).await.pop().unwrap().unwrap();
}

async fn dead_letter_reason(broker: &InProcessBroker, endpoint: &str) -> String {
    let endpoint = EndpointName::new(endpoint).unwrap();
    for _ in 0..100_000 {
        if let Some(letter) = broker.dead_letters(&endpoint).into_iter().next() {
            return letter.reason;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("nothing was dead-lettered")
}
