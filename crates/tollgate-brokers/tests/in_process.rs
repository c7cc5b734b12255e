//! What the in-process broker does beyond the trait: dead letters, redrive, depth, closing, and its own
//! bounds.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer, in its helpers as well")]

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tollgate_brokers::{Depth, InProcessBroker};
use tollgate_proto::{Broker, BrokerError, Receipt, Settlement, Verdict};
use tollgate_testkit::broker_story::{acknowledge, message, numbered, orders, receive, send, settle, take};

const TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::test(start_paused = true)]
async fn a_dead_letter_keeps_its_reason_and_a_redrive_delivers_it_as_if_for_the_first_time() {
    let broker = InProcessBroker::builder().visibility_timeout(TIMEOUT).build();
    send(&broker, vec![message("poison")]).await;
    receive(&broker, 1).await;
    let second = receive(&broker, 1).await;
    settle(&broker, &second, Verdict::DeadLetter { reason: "no such customer".into() }).await;
    let dead = broker.dead_letters(&orders());
    assert_eq!(dead.len(), 1);
    assert_eq!(
        (dead[0].envelope.as_ref(), dead[0].reason.as_str(), dead[0].delivery_count),
        (b"poison".as_ref(), "no such customer", 2)
    );
    assert_eq!(broker.redrive(&orders()), 1);
    assert_eq!(broker.dead_letters(&orders()), []);
    let again = receive(&broker, 1).await;
    assert_eq!((again[0].envelope.as_ref(), again[0].delivery_count), (b"poison".as_ref(), 1));
    acknowledge(&broker, &again).await;
    assert_eq!(broker.depth(&orders()), Depth::default());
}

#[tokio::test(start_paused = true)]
async fn a_redrive_wakes_all_receivers_that_wait() {
    let broker = Arc::new(InProcessBroker::builder().build());
    send(&*broker, numbered(3)).await;
    let deliveries = take(&*broker, 3).await;
    settle(&*broker, &deliveries, Verdict::DeadLetter { reason: "all wrong".into() }).await;
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let broker = Arc::clone(&broker);
            tokio::spawn(async move { receive(&*broker, 1).await.len() })
        })
        .collect();
    tokio::task::yield_now().await;
    let start = tokio::time::Instant::now();
    assert_eq!(broker.redrive(&orders()), 3);
    for receiver in waiting {
        assert_eq!(receiver.await.unwrap(), 1);
    }
    // On the paused clock a receiver that nobody woke would have slept until the visibility timeout.
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn the_depth_tells_where_each_message_is() {
    let broker = InProcessBroker::builder().visibility_timeout(TIMEOUT).build();
    let mut messages = numbered(5);
    messages[4].delay = TIMEOUT * 2;
    send(&broker, messages).await;
    assert_eq!(broker.depth(&orders()), Depth { ready: 4, delayed: 1, ..Depth::default() });
    let deliveries = take(&broker, 3).await;
    settle(&broker, &deliveries[..1], Verdict::DeadLetter { reason: "wrong".into() }).await;
    settle(&broker, &deliveries[1..2], Verdict::Retry { after: TIMEOUT }).await;
    let depth = broker.depth(&orders());
    assert_eq!(depth, Depth { ready: 1, delayed: 2, in_flight: 1, dead: 1 });
    assert_eq!(depth.total(), 5);
    tokio::time::advance(TIMEOUT * 2).await;
    assert_eq!(broker.depth(&orders()), Depth { ready: 4, dead: 1, ..Depth::default() });
}

#[tokio::test(start_paused = true)]
async fn with_a_delivery_limit_a_message_that_is_never_settled_ends_as_a_dead_letter() {
    let limit = NonZeroU32::new(3).unwrap();
    let broker = InProcessBroker::builder().visibility_timeout(TIMEOUT).delivery_limit(limit).build();
    send(&broker, vec![message("poison")]).await;
    for count in 1..=3 {
        assert_eq!(receive(&broker, 1).await[0].delivery_count, count);
    }
    tokio::time::advance(TIMEOUT).await;
    let dead = broker.dead_letters(&orders());
    assert_eq!(dead[0].delivery_count, 3);
    assert_eq!(dead[0].reason, "delivered 3 times and not settled within 30s, which is this broker's limit");
}

#[tokio::test(start_paused = true)]
async fn closing_wakes_receivers_and_refuses_everything_afterwards() {
    let broker = Arc::new(InProcessBroker::builder().build());
    let waiting = tokio::spawn({
        let broker = Arc::clone(&broker);
        async move { broker.receive(&orders(), 1).await }
    });
    tokio::task::yield_now().await;
    broker.close().await.unwrap();
    assert!(matches!(waiting.await.unwrap(), Err(BrokerError::Closed { .. })));
    assert!(matches!(broker.receive(&orders(), 1).await, Err(BrokerError::Closed { .. })));
    assert!(matches!(broker.send(vec![message("late")]).await[..], [Err(BrokerError::Closed { .. })]));
    let receipt = Receipt::Number(1);
    let settlement = Settlement { receipt, verdict: Verdict::Acknowledge };
    let answers = broker.settle(&orders(), vec![settlement]).await;
    assert!(matches!(answers[..], [Err(BrokerError::Closed { .. })]));
    broker.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_receipt_of_another_broker_is_refused_in_words() {
    let broker = InProcessBroker::builder().build();
    let settlement = Settlement { receipt: Receipt::Text("AQEB".into()), verdict: Verdict::Acknowledge };
    let answer = broker.settle(&orders(), vec![settlement]).await.remove(0);
    assert!(answer.unwrap_err().to_string().contains("another broker's receipt"));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_waited_before_a_delivery_was_made_gets_it_when_that_times_out() {
    let broker = Arc::new(InProcessBroker::builder().visibility_timeout(TIMEOUT).build());
    let mut first = broker.receive(&orders(), 1);
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut first).await.is_err());
    let second = tokio::spawn({
        let broker = Arc::clone(&broker);
        async move { receive(&*broker, 1).await }
    });
    tokio::task::yield_now().await;
    send(&*broker, vec![message("a")]).await;
    // One of both gets it and never settles; the other one has to wake up by itself.
    let one = first.await.unwrap();
    let other = second.await.unwrap();
    assert_eq!((one[0].delivery_count.min(other[0].delivery_count), one.len() + other.len()), (1, 2));
    assert_eq!(one[0].delivery_count.max(other[0].delivery_count), 2);
}
