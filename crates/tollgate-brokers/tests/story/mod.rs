//! Short words for what the stories of this crate's tests do with a broker.
#![allow(dead_code, reason = "each story uses its own part")]

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use tollgate_proto::{
    Broker, BrokerError, Delivery, EndpointName, MessageId, OutgoingMessage, PartitionKey, Settlement,
    Verdict,
};

pub fn orders() -> EndpointName {
    EndpointName::new("orders").unwrap()
}

pub fn message(envelope: impl Into<Bytes>) -> OutgoingMessage {
    let envelope = envelope.into();
    OutgoingMessage {
        endpoint: orders(),
        partition: PartitionKey::new("customer-7").unwrap(),
        message_id: MessageId::from_name(
            "story",
            &String::from_utf8_lossy(&envelope[..envelope.len().min(99)]),
        ),
        envelope,
        headers: Vec::new(),
        delay: Duration::ZERO,
    }
}

pub fn numbered(count: usize) -> Vec<OutgoingMessage> {
    (0..count).map(|number| message(number.to_string())).collect()
}

pub async fn send(broker: &dyn Broker, messages: Vec<OutgoingMessage>) {
    for answer in broker.send(messages).await {
        answer.unwrap();
    }
}

/// Sends until confirmed, as the engine does.
pub async fn send_until_confirmed(broker: &dyn Broker, mut messages: Vec<OutgoingMessage>) {
    while !messages.is_empty() {
        let answers = broker.send(messages.clone()).await;
        assert_eq!(answers.len(), messages.len());
        let mut answers = answers.into_iter();
        messages.retain(|_| answers.next().unwrap().is_err());
    }
}

pub async fn receive(broker: &dyn Broker, max: usize) -> Vec<Delivery> {
    tokio::time::timeout(Duration::from_secs(60), broker.receive(&orders(), max)).await.unwrap().unwrap()
}

pub async fn take(broker: &dyn Broker, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.extend(receive(broker, count - taken.len()).await);
    }
    taken
}

pub async fn settle(
    broker: &dyn Broker,
    deliveries: &[Delivery],
    verdict: Verdict,
) -> Vec<Result<(), BrokerError>> {
    let settlement =
        |delivery: &Delivery| Settlement { receipt: delivery.receipt.clone(), verdict: verdict.clone() };
    broker.settle(&orders(), deliveries.iter().map(settlement).collect()).await
}

pub async fn acknowledge(broker: &dyn Broker, deliveries: &[Delivery]) {
    for answer in settle(broker, deliveries, Verdict::Acknowledge).await {
        answer.unwrap();
    }
}

pub fn texts(deliveries: &[Delivery]) -> HashSet<String> {
    deliveries.iter().map(|delivery| String::from_utf8(delivery.envelope.to_vec()).unwrap()).collect()
}
