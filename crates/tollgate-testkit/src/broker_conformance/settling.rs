//! What a verdict does, and what a late or repeated one must not do.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tollgate_proto::{Broker, Verdict};

use super::BrokerConfig;
use super::queue::{acknowledge, assert_quiet, endpoint, send, settle_all, settlement, take};

/// An acknowledgement ends a message for good.
pub async fn an_acknowledged_message_never_comes_again(
    make: impl AsyncFn() -> Arc<dyn Broker>,
    config: &BrokerConfig,
) {
    let broker = make().await;
    let orders = endpoint("acknowledged");
    send(&*broker, &orders, ["a", "b"]).await;
    let deliveries = take(&*broker, &orders, 2, config).await;
    acknowledge(&*broker, &orders, deliveries).await;
    assert_quiet(&*broker, &orders, config.visibility_timeout * 3).await;
}

/// Settling the same delivery twice, in one call or two, with another verdict or the same, is answered and changes
/// nothing.
pub async fn settling_twice_does_no_harm(make: impl AsyncFn() -> Arc<dyn Broker>, config: &BrokerConfig) {
    let broker = make().await;
    let orders = endpoint("twice");
    send(&*broker, &orders, ["a", "b"]).await;
    let deliveries = take(&*broker, &orders, 2, config).await;
    let receipt = deliveries[0].receipt.clone();
    let left = deliveries[1].envelope.clone();
    let acknowledgement = settlement(&receipt, Verdict::Acknowledge);
    let answers = broker.settle(&orders, vec![acknowledgement.clone(), acknowledgement.clone()]).await;
    assert_eq!(answers.len(), 2);
    let retry = settlement(&receipt, Verdict::Retry { after: Duration::ZERO });
    let dead_letter = settlement(&receipt, Verdict::DeadLetter { reason: "settled already".into() });
    let answers = broker.settle(&orders, vec![acknowledgement, retry, dead_letter]).await;
    assert_eq!(answers.len(), 3);
    // The other message is still in flight, and it alone comes again.
    let again = take(&*broker, &orders, 1, config).await;
    assert_eq!(again[0].envelope, left);
    acknowledge(&*broker, &orders, again).await;
    assert_quiet(&*broker, &orders, config.visibility_timeout * 2).await;
}

/// A receiver that stalled and settles after its delivery went to another one harms nobody but, perhaps, itself: no
/// other message is settled by it.
pub async fn settling_after_a_redelivery_does_no_harm_to_other_messages(
    make: impl AsyncFn() -> Arc<dyn Broker>,
    config: &BrokerConfig,
) {
    let broker = make().await;
    let orders = endpoint("late");
    send(&*broker, &orders, ["a"]).await;
    let first = take(&*broker, &orders, 1, config).await;
    let second = take(&*broker, &orders, 1, config).await;
    acknowledge(&*broker, &orders, second).await;
    // What is sent now may get the place that the acknowledged message had.
    send(&*broker, &orders, ["b"]).await;
    let late = settlement(&first[0].receipt, Verdict::Acknowledge);
    assert_eq!(broker.settle(&orders, vec![late.clone()]).await.len(), 1);
    let next = take(&*broker, &orders, 1, config).await;
    assert_eq!(next[0].envelope, "b");
    assert_eq!(broker.settle(&orders, vec![late]).await.len(), 1);
    let again = take(&*broker, &orders, 1, config).await;
    assert_eq!(again[0].envelope, "b", "the late acknowledgement must not have ended this one");
    acknowledge(&*broker, &orders, again).await;
}

/// A retry comes when its delay is over: not before it, and not only after the visibility timeout.
pub async fn a_retried_message_comes_again_and_not_before_its_delay(
    make: impl AsyncFn() -> Arc<dyn Broker>,
    config: &BrokerConfig,
) {
    let broker = make().await;
    let orders = endpoint("retried");
    send(&*broker, &orders, ["a"]).await;
    let first = take(&*broker, &orders, 1, config).await;
    let after = config.visibility_timeout * 2;
    let before = Instant::now();
    settle_all(&*broker, &orders, &first, &Verdict::Retry { after }).await;
    let second = take(&*broker, &orders, 1, config).await;
    assert!(before.elapsed() >= after, "it came again after {:?} instead of {after:?}", before.elapsed());
    assert!(second[0].delivery_count > first[0].delivery_count, "the count did not rise: {second:?}");
    settle_all(&*broker, &orders, &second, &Verdict::Retry { after: Duration::ZERO }).await;
    let third = take(&*broker, &orders, 1, config).await;
    acknowledge(&*broker, &orders, third).await;
}

/// A dead letter is put aside: it comes neither at once nor after the visibility timeout.
pub async fn a_dead_lettered_message_does_not_come_again(
    make: impl AsyncFn() -> Arc<dyn Broker>,
    config: &BrokerConfig,
) {
    let broker = make().await;
    let orders = endpoint("dead");
    send(&*broker, &orders, ["poison"]).await;
    let deliveries = take(&*broker, &orders, 1, config).await;
    settle_all(&*broker, &orders, &deliveries, &Verdict::DeadLetter { reason: "it is poison".into() }).await;
    assert_quiet(&*broker, &orders, config.visibility_timeout * 3).await;
}
