//! How receivers wait, are woken and go away.

use std::collections::HashSet;
use std::sync::Arc;

use tollgate_proto::Broker;

use super::BrokerConfig;
use super::queue::{acknowledge, assert_quiet, endpoint, envelopes, is_pending, receive, send, take};

/// `max` is a bound, and what is beyond it is for the next receive.
pub async fn no_more_messages_come_than_were_asked_for(
    make: impl AsyncFn() -> Arc<dyn Broker>,
    config: &BrokerConfig,
) {
    let broker = make().await;
    let orders = endpoint("bounded");
    send(&*broker, &orders, (0..7).map(|n| n.to_string())).await;
    let mut seen = HashSet::new();
    while seen.len() < 7 {
        let deliveries = receive(&*broker, &orders, 3, config).await;
        assert!(deliveries.len() <= 3, "3 were asked for and {} came", deliveries.len());
        seen.extend(envelopes(&deliveries));
        acknowledge(&*broker, &orders, deliveries).await;
    }
}

/// A receiver that finds nothing waits, and gets what is sent then.
pub async fn a_receiver_that_waits_is_woken_by_a_send(
    make: impl AsyncFn() -> Arc<dyn Broker>,
    config: &BrokerConfig,
) {
    let broker = make().await;
    let orders = endpoint("woken");
    let receivers: Vec<_> = (0..4)
        .map(|_| {
            let (broker, orders, config) = (Arc::clone(&broker), orders.clone(), *config);
            tokio::spawn(async move {
                let deliveries = take(&*broker, &orders, 1, &config).await;
                acknowledge(&*broker, &orders, deliveries).await;
            })
        })
        .collect();
    // Let them get in line first; a receiver that comes later proves less, but nothing wrong.
    tokio::task::yield_now().await;
    send(&*broker, &orders, (0..4).map(|n| n.to_string())).await;
    for receiver in receivers {
        receiver.await.expect("each receiver got a message");
    }
}

/// A receive whose future is dropped, before it was polled, while it waits, or when it has been woken, loses nothing.
pub async fn dropping_a_receive_loses_nothing(
    make: impl AsyncFn() -> Arc<dyn Broker>,
    config: &BrokerConfig,
) {
    let broker = make().await;
    let orders = endpoint("dropped");
    drop(broker.receive(&orders, 10));
    let mut waiting = broker.receive(&orders, 10);
    assert!(is_pending(&mut waiting).await, "there is nothing to receive yet");
    let mut woken = broker.receive(&orders, 10);
    assert!(is_pending(&mut woken).await, "there is nothing to receive yet");
    drop(waiting);
    send(&*broker, &orders, ["a", "b"]).await;
    drop(woken);
    let deliveries = take(&*broker, &orders, 2, config).await;
    assert_eq!(envelopes(&deliveries), HashSet::from(["a".into(), "b".into()]));
    acknowledge(&*broker, &orders, deliveries).await;
    assert_quiet(&*broker, &orders, config.visibility_timeout * 2).await;
}
