//! What the checks say to a broker: send these, take so many, settle them, nothing comes. No check is here.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};
use tollgate_proto::{
    Broker, BrokerError, Delivery, EndpointName, MessageId, OutgoingMessage, PartitionKey, Receipt,
    Settlement, Verdict,
};

use super::BrokerConfig;

/// How long a broker may take to deliver what is ready, beyond the time a check is about. On a paused clock it costs
/// nothing; on a real one only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn endpoint(name: &str) -> EndpointName {
    EndpointName::new(format!("conformance-{name}")).expect("the suite's names are short")
}

pub(super) fn message(endpoint: &EndpointName, envelope: impl Into<Bytes>) -> OutgoingMessage {
    let envelope = envelope.into();
    // Unique to endpoint and content: a broker that deduplicates by id must find nothing to do.
    let name = format!("{:?}", envelope.slice(..envelope.len().min(300)));
    OutgoingMessage::without_token(
        endpoint.clone(),
        PartitionKey::new("conformance").expect("the suite's names are short"),
        MessageId::from_name(endpoint.as_str(), &name),
        envelope,
    )
}

pub(super) async fn send<E: Into<Bytes>>(
    broker: &dyn Broker,
    endpoint: &EndpointName,
    envelopes: impl IntoIterator<Item = E>,
) {
    confirm(broker.send(envelopes.into_iter().map(|envelope| message(endpoint, envelope)).collect()).await);
}

pub(super) fn confirm(answers: Vec<Result<(), BrokerError>>) {
    for answer in answers {
        answer.expect("a broker in order confirms");
    }
}

/// One receive that brings something, within the time that a timeout or delay of the checks takes.
pub(super) async fn receive(
    broker: &dyn Broker,
    endpoint: &EndpointName,
    max: usize,
    config: &BrokerConfig,
) -> Vec<Delivery> {
    let deadline = Instant::now() + config.visibility_timeout * 3 + PATIENCE;
    loop {
        let deliveries = tokio::time::timeout_at(deadline, broker.receive(endpoint, max))
            .await
            .expect("something is delivered in time")
            .expect("a broker in order delivers");
        if !deliveries.is_empty() {
            return deliveries;
        }
    }
}

/// Receives until there are `count` different messages; none of them is settled.
pub(super) async fn take(
    broker: &dyn Broker,
    endpoint: &EndpointName,
    count: usize,
    config: &BrokerConfig,
) -> Vec<Delivery> {
    let mut taken: HashMap<Bytes, Delivery> = HashMap::new();
    while taken.len() < count {
        for delivery in receive(broker, endpoint, count - taken.len(), config).await {
            // Of a message that came again meanwhile only the last receipt is good.
            taken.insert(delivery.envelope.clone(), delivery);
        }
    }
    taken.into_values().collect()
}

pub(super) fn envelopes(deliveries: &[Delivery]) -> HashSet<Bytes> {
    deliveries.iter().map(|delivery| delivery.envelope.clone()).collect()
}

pub(super) fn settlement(receipt: &Receipt, verdict: Verdict) -> Settlement {
    Settlement { receipt: receipt.clone(), verdict }
}

pub(super) async fn settle_all(
    broker: &dyn Broker,
    endpoint: &EndpointName,
    deliveries: &[Delivery],
    verdict: &Verdict,
) {
    let settlements = deliveries.iter().map(|delivery| settlement(&delivery.receipt, verdict.clone()));
    let answers = broker.settle(endpoint, settlements.collect()).await;
    assert_eq!(answers.len(), deliveries.len(), "one answer for each settlement");
    confirm(answers);
}

pub(super) async fn acknowledge(broker: &dyn Broker, endpoint: &EndpointName, deliveries: Vec<Delivery>) {
    settle_all(broker, endpoint, &deliveries, &Verdict::Acknowledge).await;
}

/// Nothing is delivered for so long.
pub(super) async fn assert_quiet(broker: &dyn Broker, endpoint: &EndpointName, quiet: Duration) {
    let until = Instant::now() + quiet;
    while let Ok(deliveries) = tokio::time::timeout_at(until, broker.receive(endpoint, 10)).await {
        let deliveries = deliveries.expect("a broker in order waits");
        assert!(deliveries.is_empty(), "nothing should come, and this came: {deliveries:?}");
    }
}

/// Whether a future is not ready when it is polled for the first time, and some time after that.
pub(super) async fn is_pending<T>(future: &mut (impl Future<Output = T> + Unpin)) -> bool {
    timeout(Duration::from_millis(1), future).await.is_err()
}
