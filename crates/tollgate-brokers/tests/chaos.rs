//! The chaos broker: each fault occurs, the same seed gives the same faults, and whatever happens nothing is
//! lost.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer, in its helpers as well")]

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tollgate_brokers::{Depth, InProcessBroker};
use tollgate_proto::{Broker, BrokerError, Verdict};
use tollgate_testkit::broker_story::{
    acknowledge, message, numbered, orders, receive, send, send_until_confirmed, settle, take, texts,
};
use tollgate_testkit::{ChaosBroker, ChaosBuilder, ChaosCounts};

const TIMEOUT: Duration = Duration::from_secs(30);

fn chaos() -> (Arc<InProcessBroker>, ChaosBuilder) {
    let inner = Arc::new(InProcessBroker::builder().visibility_timeout(TIMEOUT).build());
    let builder = ChaosBroker::builder(Arc::<InProcessBroker>::clone(&inner));
    (inner, builder)
}

#[tokio::test(start_paused = true)]
async fn every_copy_of_a_duplicated_message_is_delivered_and_settled_by_itself() {
    let (inner, builder) = chaos();
    let chaos = builder.seed(1).duplicates(0.5).build();
    send(&chaos, numbered(100)).await;
    let copies = usize::try_from(chaos.counts().duplicates).unwrap();
    assert!(copies > 50, "{copies} copies of 100 messages at a rate of a half");
    let deliveries = take(&chaos, 100 + copies).await;
    assert_eq!(texts(&deliveries).len(), 100);
    let mut times = HashMap::new();
    for delivery in &deliveries {
        *times.entry(delivery.envelope.clone()).or_insert(0) += 1;
    }
    assert!(times.values().any(|times| *times > 2), "some message has more than one extra copy");
    acknowledge(&chaos, &deliveries[1..]).await;
    assert_eq!(inner.depth(&orders()), Depth { in_flight: 1, ..Depth::default() });
}

#[tokio::test(start_paused = true)]
async fn held_back_messages_leave_in_another_order_and_none_stays() {
    let (inner, builder) = chaos();
    let chaos = builder.seed(2).reorder(16).build();
    send(&chaos, numbered(100)).await;
    let deliveries = take(&chaos, 100).await;
    let order: Vec<u32> =
        deliveries.iter().map(|d| String::from_utf8_lossy(&d.envelope).parse().unwrap()).collect();
    assert!(!order.is_sorted(), "they came in the order they were sent");
    assert!(chaos.counts().reordered > 20, "{:?}", chaos.counts());
    assert_eq!(texts(&deliveries).len(), 100);
    acknowledge(&chaos, &deliveries).await;
    assert_eq!(inner.depth(&orders()).total(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_message_in_a_big_window_is_not_held_until_the_window_is_full() {
    let (_inner, builder) = chaos();
    let chaos = builder.reorder(1000).build();
    send(&chaos, vec![message("alone")]).await;
    let start = tokio::time::Instant::now();
    let deliveries = receive(&chaos, 10).await;
    assert_eq!((deliveries.len(), deliveries[0].delivery_count), (1, 1));
    assert!(start.elapsed() < Duration::from_millis(10), "it was held for {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_a_dropped_receiver_held_back_is_given_to_one_that_waits() {
    let (_inner, builder) = chaos();
    let chaos = Arc::new(builder.reorder(8).linger(Duration::from_secs(1)).build());
    // One receiver holds a message back and goes away; another one was waiting for the inner broker all the
    // time.
    let mut lingering = chaos.receive(&orders(), 1);
    assert!(tokio::time::timeout(Duration::from_millis(1), &mut lingering).await.is_err());
    let mut waiting = chaos.receive(&orders(), 1);
    assert!(tokio::time::timeout(Duration::from_millis(1), &mut waiting).await.is_err());
    send(&*chaos, vec![message("held")]).await;
    assert!(tokio::time::timeout(Duration::from_millis(1), &mut lingering).await.is_err());
    drop(lingering);
    let start = tokio::time::Instant::now();
    let deliveries = waiting.await.unwrap();
    assert_eq!(texts(&deliveries), HashSet::from(["held".into()]));
    assert_eq!(deliveries[0].delivery_count, 1);
    assert!(start.elapsed() < TIMEOUT / 2, "only the visibility timeout brought it back");
}

#[tokio::test(start_paused = true)]
async fn held_back_messages_come_again_from_the_inner_broker_if_the_process_forgets_them() {
    let (inner, builder) = chaos();
    let chaos = builder.reorder(8).linger(Duration::from_secs(1)).build();
    send(&chaos, numbered(5)).await;
    let held = tokio::time::timeout(Duration::from_millis(1), chaos.receive(&orders(), 1)).await;
    assert!(held.is_err(), "they are held back");
    assert_eq!(inner.depth(&orders()).in_flight, 5);
    drop(chaos);
    let deliveries = take(&*inner, 5).await;
    assert_eq!(texts(&deliveries).len(), 5);
    assert!(deliveries.iter().all(|delivery| delivery.delivery_count == 2));
}

#[tokio::test(start_paused = true)]
async fn a_lost_acknowledgement_brings_the_message_back_after_the_visibility_timeout() {
    let (inner, builder) = chaos();
    let chaos = builder.seed(3).lose_acks(0.5).build();
    send(&chaos, numbered(100)).await;
    let deliveries = take(&chaos, 100).await;
    let answers = settle(&chaos, &deliveries, Verdict::Acknowledge).await;
    let ChaosCounts { acks_lost_silently, acks_lost_with_an_error, .. } = chaos.counts();
    assert!(acks_lost_silently > 10 && acks_lost_with_an_error > 10, "{:?}", chaos.counts());
    let errors = answers.iter().filter(|answer| answer.is_err()).count();
    assert_eq!(errors as u64, acks_lost_with_an_error);
    let lost = usize::try_from(acks_lost_silently + acks_lost_with_an_error).unwrap();
    assert_eq!(inner.depth(&orders()), Depth { in_flight: lost, ..Depth::default() });
    let again = take(&*inner, lost).await;
    assert!(again.iter().all(|delivery| delivery.delivery_count == 2));
}

#[tokio::test(start_paused = true)]
async fn a_failing_send_had_its_effect_or_had_none_and_both_occur() {
    let (inner, builder) = chaos();
    let chaos = builder.seed(4).failing_sends(1.0).build();
    let answers = chaos.send(numbered(100)).await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_err_and(BrokerError::is_retryable)));
    let ChaosCounts { sends_failed_before, sends_failed_after, .. } = chaos.counts();
    assert!(sends_failed_before > 20 && sends_failed_after > 20, "{:?}", chaos.counts());
    assert_eq!(sends_failed_before + sends_failed_after, 100);
    assert_eq!(inner.depth(&orders()).ready as u64, sends_failed_after);
}

#[tokio::test(start_paused = true)]
async fn answers_stay_with_their_messages_when_some_have_copies_and_some_fail() {
    let (inner, builder) = chaos();
    let chaos = builder.seed(5).failing_sends(0.5).duplicates(0.5).build();
    let answers = chaos.send(numbered(200)).await;
    assert_eq!(answers.len(), 200);
    let arrived = texts(&take(&*inner, inner.depth(&orders()).ready).await);
    for (number, answer) in answers.iter().enumerate() {
        assert!(
            answer.is_err() || arrived.contains(&number.to_string()),
            "{number} was confirmed and is not there"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn delays_are_added_to_the_messages_own() {
    let (inner, builder) = chaos();
    let chaos = builder.seed(6).delay(TIMEOUT).build();
    send(&chaos, numbered(50)).await;
    assert_eq!(chaos.counts().delayed, 50);
    assert!(inner.depth(&orders()).delayed > 40);
    tokio::time::advance(TIMEOUT / 2).await;
    let Depth { ready, delayed, .. } = inner.depth(&orders());
    assert!(ready > 5 && delayed > 5, "half of them should be due: {ready} are, {delayed} are not");
    assert_eq!(texts(&take(&chaos, 50).await).len(), 50);
}

/// A run under all faults at once: which messages were delivered, in which order, and the faults.
async fn run_under_all_faults(seed: u64, messages: usize) -> (Vec<String>, ChaosCounts) {
    let (inner, builder) = chaos();
    let chaos = builder
        .seed(seed)
        .duplicates(0.2)
        .reorder(10)
        .lose_acks(0.2)
        .failing_sends(0.2)
        .delay(Duration::from_secs(5))
        .build();
    for batch in numbered(messages).chunks(32) {
        send_until_confirmed(&chaos, batch.to_vec()).await;
    }
    let mut order = Vec::new();
    while inner.depth(&orders()).total() > 0 {
        let deliveries = receive(&chaos, 7).await;
        order.extend(
            deliveries.iter().map(|delivery| String::from_utf8_lossy(&delivery.envelope).into_owned()),
        );
        settle(&chaos, &deliveries, Verdict::Acknowledge).await;
    }
    (order, chaos.counts())
}

#[tokio::test(start_paused = true)]
async fn under_all_faults_at_once_every_confirmed_message_is_delivered_and_the_queue_runs_dry() {
    for seed in 0..20 {
        let (order, counts) = run_under_all_faults(seed, 300).await;
        let delivered: HashSet<_> = order.iter().collect();
        assert_eq!(delivered.len(), 300, "seed {seed}: {counts:?}");
        let ChaosCounts { duplicates, reordered, acks_lost_silently, acks_lost_with_an_error, .. } = counts;
        let ChaosCounts { sends_failed_before, sends_failed_after, delayed, .. } = counts;
        let all = [
            duplicates,
            reordered,
            acks_lost_silently,
            acks_lost_with_an_error,
            sends_failed_before,
            sends_failed_after,
            delayed,
        ];
        assert!(all.iter().all(|count| *count > 0), "seed {seed}: {counts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_seed_gives_one_story_and_another_seed_another() {
    let first = run_under_all_faults(42, 100).await;
    assert_eq!(run_under_all_faults(42, 100).await, first);
    assert_ne!(run_under_all_faults(43, 100).await, first);
}
