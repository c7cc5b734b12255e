//! Short words for what the stories of brokers' tests do with one endpoint, `orders`. Each panics where a
//! broker answers an error.
#![allow(clippy::missing_panics_doc, reason = "in a test a panic is the answer, in its helpers as well")]
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer, in its helpers as well")]

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use tollgate_proto::{
    Broker, BrokerError, Delivery, EndpointName, MessageId, OutgoingMessage, PartitionKey, Settlement,
    Verdict,
};

/// The endpoint of the stories.
pub fn orders() -> EndpointName {
    EndpointName::new("orders").unwrap()
}

/// A message to `orders`, with an id made from its envelope.
pub fn message(envelope: impl Into<Bytes>) -> OutgoingMessage {
    let envelope = envelope.into();
    let name = String::from_utf8_lossy(&envelope[..envelope.len().min(99)]).into_owned();
    OutgoingMessage::without_token(
        orders(),
        PartitionKey::new("customer-7").unwrap(),
        MessageId::from_name("story", &name),
        envelope,
    )
}

/// Messages `0`, `1` and so on.
pub fn numbered(count: usize) -> Vec<OutgoingMessage> {
    (0..count).map(|number| message(number.to_string())).collect()
}

/// Sends messages, all of which must be confirmed.
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

/// Receives once, within a minute.
pub async fn receive(broker: &dyn Broker, max: usize) -> Vec<Delivery> {
    tokio::time::timeout(Duration::from_secs(60), broker.receive(&orders(), max)).await.unwrap().unwrap()
}

/// Receives until so many deliveries have come.
pub async fn take(broker: &dyn Broker, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.extend(receive(broker, count - taken.len()).await);
    }
    taken
}

/// Settles deliveries with one verdict, and returns the answers.
pub async fn settle(
    broker: &dyn Broker,
    deliveries: &[Delivery],
    verdict: Verdict,
) -> Vec<Result<(), BrokerError>> {
    let settlement =
        |delivery: &Delivery| Settlement { receipt: delivery.receipt.clone(), verdict: verdict.clone() };
    broker.settle(&orders(), deliveries.iter().map(settlement).collect()).await
}

/// Acknowledges deliveries, all of which must be confirmed.
pub async fn acknowledge(broker: &dyn Broker, deliveries: &[Delivery]) {
    for answer in settle(broker, deliveries, Verdict::Acknowledge).await {
        answer.unwrap();
    }
}

/// The envelopes of deliveries, as texts.
pub fn texts(deliveries: &[Delivery]) -> HashSet<String> {
    deliveries.iter().map(|delivery| String::from_utf8(delivery.envelope.to_vec()).unwrap()).collect()
}
