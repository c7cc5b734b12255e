//! What a send promises: its delay, its answers in order, its refusal when there is no room.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::time::Instant;
use tollgate_proto::{Broker, BrokerError, OutgoingMessage};

use super::BrokerConfig;
use super::queue::{acknowledge, confirm, endpoint, envelopes, message, send, take};

/// The delay of a send is kept, and messages behind it don't wait for it.
pub async fn a_delayed_message_does_not_come_before_its_delay(
    make: impl AsyncFn() -> Arc<dyn Broker>,
    config: &BrokerConfig,
) {
    let broker = make().await;
    let orders = endpoint("delayed");
    let delay = config.visibility_timeout * 2;
    let before = Instant::now();
    let slow = OutgoingMessage { delay, ..message(&orders, "slow") };
    confirm(broker.send(vec![slow, message(&orders, "quick")]).await);
    let first = take(&*broker, &orders, 1, config).await;
    assert_eq!(first[0].envelope, "quick");
    acknowledge(&*broker, &orders, first).await;
    let second = take(&*broker, &orders, 1, config).await;
    assert!(before.elapsed() >= delay, "it came after {:?} instead of {delay:?}", before.elapsed());
    assert_eq!(second[0].envelope, "slow");
    acknowledge(&*broker, &orders, second).await;
}

/// A broker that deduplicates does so by the id that it is given for it: a message id may stand for several messages.
pub async fn different_messages_with_one_message_id_are_all_delivered(
    make: impl AsyncFn() -> Arc<dyn Broker>,
    config: &BrokerConfig,
) {
    let broker = make().await;
    let orders = endpoint("one-id");
    let first = message(&orders, "first");
    let same_id = |text| OutgoingMessage { message_id: first.message_id, ..message(&orders, text) };
    let (second, third) = (same_id("second"), same_id("third"));
    confirm(broker.send(vec![first.clone(), second]).await);
    let deliveries = take(&*broker, &orders, 2, config).await;
    assert_eq!(envelopes(&deliveries), HashSet::from(["first".into(), "second".into()]));
    acknowledge(&*broker, &orders, deliveries).await;
    // One that is remembered by a broker must not swallow the next one either.
    confirm(broker.send(vec![third]).await);
    let deliveries = take(&*broker, &orders, 1, config).await;
    assert_eq!(deliveries[0].envelope, "third");
    acknowledge(&*broker, &orders, deliveries).await;
}

/// One answer for each message and each settlement, in their order: here, told apart by what is refused.
pub async fn answers_come_in_the_order_of_the_messages(
    make: impl AsyncFn() -> Arc<dyn Broker>,
    config: &BrokerConfig,
) {
    let broker = make().await;
    let (full, roomy) = (endpoint("answers-full"), endpoint("answers-roomy"));
    assert!(broker.send(Vec::new()).await.is_empty(), "no message, no answer");
    assert!(broker.settle(&roomy, Vec::new()).await.is_empty(), "no settlement, no answer");
    let Some(capacity) = config.capacity else {
        let messages = (0..5).map(|n| message(&roomy, n.to_string())).collect();
        assert_eq!(broker.send(messages).await.len(), 5);
        let deliveries = take(&*broker, &roomy, 5, config).await;
        acknowledge(&*broker, &roomy, deliveries).await;
        return;
    };
    let as_many_as_fit = (0..capacity).map(|n| message(&full, n.to_string())).collect();
    confirm(broker.send(as_many_as_fit).await);
    let mixed = vec![
        message(&roomy, "a"),
        message(&full, "too much"),
        message(&roomy, "b"),
        message(&full, "too much"),
        message(&roomy, "c"),
    ];
    let answers = broker.send(mixed).await;
    let confirmed: Vec<bool> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(confirmed, [true, false, true, false, true]);
    let deliveries = take(&*broker, &roomy, 3, config).await;
    assert_eq!(envelopes(&deliveries), HashSet::from(["a".into(), "b".into(), "c".into()]));
    acknowledge(&*broker, &roomy, deliveries).await;
    let deliveries = take(&*broker, &full, capacity, config).await;
    acknowledge(&*broker, &full, deliveries).await;
}

/// A queue that is full says so, with an error that invites to try again, and takes messages again when there is room.
pub async fn a_full_queue_refuses_and_takes_again_after_an_acknowledgement(
    make: impl AsyncFn() -> Arc<dyn Broker>,
    config: &BrokerConfig,
) {
    let Some(capacity) = config.capacity else { return };
    let broker = make().await;
    let orders = endpoint("full");
    send(&*broker, &orders, (0..capacity).map(|n| n.to_string())).await;
    let answer = broker.send(vec![message(&orders, "too much")]).await.remove(0);
    let error = answer.expect_err("the queue is full");
    assert!(matches!(&error, BrokerError::Full { capacity: said, .. } if *said == capacity), "{error}");
    assert!(error.is_retryable(), "back-off helps against a full queue");
    let mut deliveries = take(&*broker, &orders, capacity, config).await;
    // Brokers differ in whether a message in flight takes room: some count it, others leave its place to what it causes.
    acknowledge(&*broker, &orders, vec![deliveries.remove(0)]).await;
    send(&*broker, &orders, ["fits again"]).await;
    deliveries.extend(take(&*broker, &orders, 1, config).await);
    acknowledge(&*broker, &orders, deliveries).await;
}

/// A queue that takes and gives messages passes the broker's own examination, before and after it is used.
pub async fn a_queue_that_works_is_verified(make: impl AsyncFn() -> Arc<dyn Broker>, config: &BrokerConfig) {
    let broker = make().await;
    let orders = endpoint("verified");
    send(&*broker, &orders, ["a"]).await;
    broker.verify(&orders).await.expect("a queue that takes messages is in order");
    let deliveries = take(&*broker, &orders, 1, config).await;
    acknowledge(&*broker, &orders, deliveries).await;
    broker.verify(&orders).await.expect("a queue that gives messages is in order");
}
