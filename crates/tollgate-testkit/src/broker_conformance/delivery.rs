//! What is delivered, to whom, and how often: the checks of deliveries that nobody or somebody works on.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tollgate_proto::{Broker, Verdict};

use super::BrokerConfig;
use super::queue::{
    acknowledge, assert_quiet, confirm, endpoint, envelopes, message, send, settle_all, take,
};

/// A message that was confirmed is delivered, without anybody's doing more.
pub async fn a_confirmed_message_is_delivered(
    make: impl AsyncFn() -> Arc<dyn Broker>,
    config: &BrokerConfig,
) {
    let broker = make().await;
    let orders = endpoint("confirmed");
    send(&*broker, &orders, ["a", "b", "c"]).await;
    let deliveries = take(&*broker, &orders, 3, config).await;
    assert_eq!(envelopes(&deliveries), HashSet::from(["a".into(), "b".into(), "c".into()]));
    acknowledge(&*broker, &orders, deliveries).await;
}

/// Not a byte is changed, none is looked at: an envelope need not be text.
pub async fn a_delivery_holds_the_envelope_as_it_was_sent(
    make: impl AsyncFn() -> Arc<dyn Broker>,
    config: &BrokerConfig,
) {
    let broker = make().await;
    let orders = endpoint("bytes");
    let every_byte: Bytes = (0..=u8::MAX).collect();
    send(&*broker, &orders, [every_byte.clone()]).await;
    let deliveries = take(&*broker, &orders, 1, config).await;
    assert_eq!(deliveries[0].envelope, every_byte);
    acknowledge(&*broker, &orders, deliveries).await;
}

/// The largest envelope that the broker says it takes arrives whole.
pub async fn a_big_envelope_arrives_whole(make: impl AsyncFn() -> Arc<dyn Broker>, config: &BrokerConfig) {
    let broker = make().await;
    let orders = endpoint("big");
    let mut rng = fastrand::Rng::with_seed(1);
    let mut big = vec![0; config.envelope_bytes_max];
    rng.fill(&mut big);
    let big = Bytes::from(big);
    send(&*broker, &orders, [big.clone()]).await;
    let deliveries = take(&*broker, &orders, 1, config).await;
    assert!(deliveries[0].envelope == big, "the envelope came back changed");
    acknowledge(&*broker, &orders, deliveries).await;
}

/// Messages sent together to many endpoints come out of the right queues, and only there.
pub async fn many_endpoints_do_not_mix(make: impl AsyncFn() -> Arc<dyn Broker>, config: &BrokerConfig) {
    let broker = make().await;
    let endpoints: Vec<_> = (0..20).map(|n| endpoint(&format!("many-{n}"))).collect();
    let for_each = |round: usize| endpoints.iter().map(move |e| message(e, format!("{e} {round}")));
    confirm(broker.send((0..3).flat_map(for_each).collect()).await);
    for endpoint in &endpoints {
        let deliveries = take(&*broker, endpoint, 3, config).await;
        let expected = (0..3).map(|round| format!("{endpoint} {round}").into_bytes().into());
        assert_eq!(envelopes(&deliveries), expected.collect());
        acknowledge(&*broker, endpoint, deliveries).await;
    }
}

/// A delivery that nobody settles comes again after the visibility timeout, not before, and says so.
pub async fn an_unsettled_delivery_comes_again_with_a_higher_count(
    make: impl AsyncFn() -> Arc<dyn Broker>,
    config: &BrokerConfig,
) {
    let broker = make().await;
    let orders = endpoint("unsettled");
    send(&*broker, &orders, ["a"]).await;
    let before = Instant::now();
    let first = take(&*broker, &orders, 1, config).await;
    let second = take(&*broker, &orders, 1, config).await;
    assert!(before.elapsed() >= config.visibility_timeout, "it came again after {:?}", before.elapsed());
    assert_eq!(second[0].envelope, first[0].envelope);
    assert!(second[0].delivery_count > first[0].delivery_count, "the count did not rise: {second:?}");
    let third = take(&*broker, &orders, 1, config).await;
    assert!(third[0].delivery_count > second[0].delivery_count, "the count did not rise: {third:?}");
    acknowledge(&*broker, &orders, third).await;
}

/// A delivery that takes nearly as long as the broker allows stays with its receiver, and the receipt is good to the end: whatever
/// the broker does to hold it.
pub async fn a_delivery_that_is_worked_on_is_given_to_nobody_else_and_can_be_settled_late(
    make: impl AsyncFn() -> Arc<dyn Broker>,
    config: &BrokerConfig,
) {
    let broker = make().await;
    let orders = endpoint("held");
    send(&*broker, &orders, ["slow", "retried"]).await;
    let deliveries = take(&*broker, &orders, 2, config).await;
    assert_quiet(&*broker, &orders, config.visibility_timeout * 3 / 4).await;
    let (slow, retried): (Vec<_>, Vec<_>) =
        deliveries.into_iter().partition(|delivery| delivery.envelope == "slow");
    acknowledge(&*broker, &orders, slow).await;
    settle_all(&*broker, &orders, &retried, &Verdict::Retry { after: Duration::ZERO }).await;
    let again = take(&*broker, &orders, 1, config).await;
    assert_eq!(again[0].envelope, "retried");
    acknowledge(&*broker, &orders, again).await;
    assert_quiet(&*broker, &orders, config.visibility_timeout * 2).await;
}

/// Of receivers that race for one queue, two never hold the same delivery within the visibility timeout.
pub async fn concurrent_receivers_never_both_hold_one_delivery(
    make: impl AsyncFn() -> Arc<dyn Broker>,
    config: &BrokerConfig,
) {
    const MESSAGES: usize = 60;
    const RECEIVERS: usize = 6;
    let broker = make().await;
    let orders = endpoint("raced");
    let mut sent = 0;
    while sent < MESSAGES {
        // A small queue is filled as often as it takes; each filling is raced for.
        let count = config.capacity.unwrap_or(MESSAGES).min(MESSAGES - sent);
        send(&*broker, &orders, (sent..sent + count).map(|n| n.to_string())).await;
        let start = Instant::now();
        let receivers: Vec<_> = (0..RECEIVERS)
            .map(|_| {
                let (broker, orders) = (Arc::clone(&broker), orders.clone());
                let until = start + config.visibility_timeout / 2;
                tokio::spawn(async move {
                    let mut held = Vec::new();
                    while let Ok(deliveries) =
                        tokio::time::timeout_at(until, broker.receive(&orders, 2)).await
                    {
                        held.extend(deliveries.expect("the broker is open"));
                    }
                    held
                })
            })
            .collect();
        let mut held = Vec::new();
        for receiver in receivers {
            held.extend(receiver.await.expect("no receiver panics"));
        }
        assert!(
            start.elapsed() < config.visibility_timeout,
            "too slow a machine to tell: {:?}",
            start.elapsed()
        );
        assert_eq!(envelopes(&held).len(), held.len(), "two receivers held one delivery");
        assert_eq!(held.len(), count, "each message was held by somebody");
        acknowledge(&*broker, &orders, held).await;
        sent += count;
    }
}
