//! Endpoints that share a partition: each has its own messages and requests, whatever ids they have.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod harness;

use std::sync::Arc;
use std::time::Duration;

use harness::{broker, memory_store, waiting};
use tollgate::proto::{Content, Destination, EndpointName, Envelope, MessageId, OutgoingMessage, codec};
use tollgate::{Broker, Deduplicate, Endpoint, Gate, HandlerError, Message, Tx};

const RETENTION: Duration = Duration::from_secs(24 * 3600);

#[derive(serde::Serialize, serde::Deserialize)]
struct Ordered {
    amount: u64,
}

impl Message for Ordered {
    const TYPE: &'static str = "test.ordered";
}

/// Adds to an item that is named after the endpoint.
async fn book(tx: Tx, message: Ordered) -> Result<(), HandlerError> {
    let item = tx.endpoint().to_string();
    let sum: u64 = tx.get(&item).await?.unwrap_or_default();
    Ok(tx.put(&item, &(sum + message.amount))?)
}

fn ordered(endpoint: &str, amount: u64) -> OutgoingMessage {
    let to = Destination {
        endpoint: EndpointName::new(endpoint).unwrap(),
        partition: "customer/1".try_into().unwrap(),
    };
    let id = MessageId::from_name("shop", "order-7");
    let envelope = Envelope {
        message_id: id,
        to: to.clone(),
        message_type: Ordered::TYPE.try_into().unwrap(),
        headers: Vec::new(),
        content: Content::Body(format!(r#"{{"amount":{amount}}}"#).into()),
    };
    OutgoingMessage::without_token(to.endpoint, to.partition, id, codec::encode_envelope(&envelope))
}

#[tokio::test(start_paused = true)]
async fn two_endpoints_on_one_partition_do_not_eat_each_others_messages() {
    let (queues, deduplicate) = (broker(), Deduplicate::ByIdentity { retention: RETENTION });
    let gate = Gate::builder()
        .store(memory_store())
        .broker(Arc::clone(&queues) as Arc<dyn Broker>)
        .endpoint(Endpoint::new("billing").on_tokenless(deduplicate, book))
        .endpoint(Endpoint::new("shipping").on_tokenless(deduplicate, book))
        .open()
        .await
        .unwrap();
    // One event, which its producer sends to both; twice.
    for _ in 0..2 {
        queues.send(vec![ordered("billing", 7), ordered("shipping", 7)]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    for endpoint in ["billing", "shipping"] {
        let booked = gate.edge(endpoint).unwrap().read("customer/1", endpoint).await.unwrap();
        assert_eq!(booked.as_deref(), Some(&b"7"[..]), "{endpoint}");
        assert_eq!(waiting(&queues, endpoint), 0);
    }
    gate.close().await;
}

#[tokio::test(start_paused = true)]
async fn two_endpoints_on_one_partition_do_not_answer_each_others_requests() {
    let gate = Gate::builder()
        .store(memory_store())
        .broker(broker() as Arc<dyn Broker>)
        .endpoint(Endpoint::new("orders"))
        .endpoint(Endpoint::new("payments"))
        .open()
        .await
        .unwrap();
    for endpoint in ["orders", "payments", "orders"] {
        let edge = gate.edge(endpoint).unwrap();
        let answer = edge
            .execute("customer/1", "key-1", RETENTION, |tx: Tx| async move {
                let item = tx.endpoint().to_string();
                tx.put(&item, &(tx.get::<u64>(&item).await?.unwrap_or_default() + 1))?;
                Ok::<_, HandlerError>(item)
            })
            .await;
        assert_eq!(answer.unwrap(), endpoint);
        let executed = edge.read("customer/1", endpoint).await.unwrap();
        assert_eq!(executed.as_deref(), Some(&b"1"[..]), "{endpoint}");
    }
    gate.close().await;
}

#[tokio::test(start_paused = true)]
async fn natural_messages_of_one_id_are_all_handled_in_a_burst() {
    let queues = broker();
    for amount in [20, 21, 25] {
        queues.send(vec![ordered("billing", amount)]).await;
    }
    let gate = Gate::builder()
        .store(memory_store())
        .broker(Arc::clone(&queues) as Arc<dyn Broker>)
        .endpoint(Endpoint::new("billing").on_tokenless(Deduplicate::Natural, book))
        .open()
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let booked = gate.edge("billing").unwrap().read("customer/1", "billing").await.unwrap();
    assert_eq!(booked.as_deref(), Some(&b"66"[..]));
    gate.close().await;
}
