//! What every broker must do, as tests that run against any implementation of [`Broker`]: the promises of the trait,
//! and what the engine relies on beyond them. No broker of ours is known here; a broker brings itself and its
//! [`BrokerConfig`].
//!
//! Each check is a function of its own; [`broker_conformance_tests!`](crate::broker_conformance_tests) makes one test
//! of each. Checks use endpoints of their own, so that they can share a broker that outlives them.

#![allow(
    clippy::missing_panics_doc,
    reason = "a check says by a panic what a broker does wrong; that is its purpose"
)]

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};
use tollgate_core::{
    Broker, BrokerError, Delivery, EndpointName, MessageId, OutgoingMessage, PartitionKey, Receipt,
    Settlement, Verdict,
};

/// How long a broker may take to deliver what is ready, beyond the time a check is about. On a paused clock it costs
/// nothing; on a real one only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the suite has to know about a broker.
#[derive(Clone, Copy, Debug)]
pub struct BrokerConfig {
    /// After which time an unsettled delivery comes again although its receiver lives: the bound up to which the broker holds
    /// it, extensions of its own included.
    pub visibility_timeout: Duration,
    /// How many messages one endpoint takes before sends are refused. `None`: more than a test would send.
    pub capacity: Option<usize>,
    /// The largest body that one envelope may hold, in bytes.
    pub envelope_bytes_max: usize,
}

/// The one list of the checks.
#[doc(hidden)]
#[macro_export]
macro_rules! with_every_broker_check {
    ($then:ident!($($before:tt)*)) => {
        $crate::$then! { $($before)*
            a_confirmed_message_is_delivered
            a_delivery_holds_the_envelope_as_it_was_sent
            an_unsettled_delivery_comes_again_with_a_higher_count
            a_delivery_that_is_worked_on_is_given_to_nobody_else_and_can_be_settled_late
            an_acknowledged_message_never_comes_again
            settling_twice_does_no_harm
            settling_after_a_redelivery_does_no_harm_to_other_messages
            a_retried_message_comes_again_and_not_before_its_delay
            a_delayed_message_does_not_come_before_its_delay
            a_dead_lettered_message_does_not_come_again
            answers_come_in_the_order_of_the_messages
            no_more_messages_come_than_were_asked_for
            a_receiver_that_waits_is_woken_by_a_send
            dropping_a_receive_loses_nothing
            concurrent_receivers_never_both_hold_one_delivery
            a_big_envelope_arrives_whole
            many_endpoints_do_not_mix
            a_full_queue_refuses_and_takes_again_after_an_acknowledgement
            a_queue_that_works_is_verified
        }
    };
}

/// Makes a test of each check of [`crate::broker_conformance`].
///
/// `paused` runs them on tokio's paused clock, for brokers that live in this process and keep to tokio's time;
/// `real_time` on the real one. Then come an `async fn() -> Arc<dyn Broker>` and a [`BrokerConfig`].
///
/// ```ignore
/// broker_conformance_tests!(paused, make_broker, CONFIG);
/// ```
#[macro_export]
macro_rules! broker_conformance_tests {
    (paused, $make:expr, $config:expr) => {
        $crate::with_every_broker_check!(define_broker_tests!((start_paused = true), $make, $config;));
    };
    (real_time, $make:expr, $config:expr) => {
        $crate::with_every_broker_check!(define_broker_tests!((), $make, $config;));
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! define_broker_tests {
    ($clock:tt, $make:expr, $config:expr; $($check:ident)*) => {
        $(
            #[tokio::test $clock]
            async fn $check() {
                $crate::broker_conformance::$check($make, &$config).await;
            }
        )*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! run_broker_checks {
    ($make:ident, $config:ident; $($check:ident)*) => {
        $(
            let start = Instant::now();
            $check(&$make, $config).await;
            println!("{}: {:.1?}", stringify!($check), start.elapsed());
        )*
    };
}

/// Runs all checks one after the other, for brokers whose server may not be startable on a machine: the test around it says
/// so, and does not run this.
pub async fn run<F, Made>(make: F, config: &BrokerConfig)
where
    F: Fn() -> Made,
    Made: Future<Output = Arc<dyn Broker>>,
{
    with_every_broker_check!(run_broker_checks!(make, config;));
}

/// A message that was confirmed is delivered, without anybody's doing more.
pub async fn a_confirmed_message_is_delivered<F, Made>(make: F, config: &BrokerConfig)
where
    F: Fn() -> Made,
    Made: Future<Output = Arc<dyn Broker>>,
{
    let broker = make().await;
    let orders = endpoint("confirmed");
    send(&*broker, &orders, ["a", "b", "c"]).await;
    let deliveries = take(&*broker, &orders, 3, config).await;
    assert_eq!(envelopes(&deliveries), HashSet::from(["a".into(), "b".into(), "c".into()]));
    acknowledge(&*broker, &orders, deliveries).await;
}

/// Not a byte is changed, none is looked at: an envelope need not be text.
pub async fn a_delivery_holds_the_envelope_as_it_was_sent<F, Made>(make: F, config: &BrokerConfig)
where
    F: Fn() -> Made,
    Made: Future<Output = Arc<dyn Broker>>,
{
    let broker = make().await;
    let orders = endpoint("bytes");
    let every_byte: Bytes = (0..=u8::MAX).collect();
    send(&*broker, &orders, [every_byte.clone()]).await;
    let deliveries = take(&*broker, &orders, 1, config).await;
    assert_eq!(deliveries[0].envelope, every_byte);
    acknowledge(&*broker, &orders, deliveries).await;
}

/// A delivery that nobody settles comes again after the visibility timeout, not before, and says so.
pub async fn an_unsettled_delivery_comes_again_with_a_higher_count<F, Made>(make: F, config: &BrokerConfig)
where
    F: Fn() -> Made,
    Made: Future<Output = Arc<dyn Broker>>,
{
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
pub async fn a_delivery_that_is_worked_on_is_given_to_nobody_else_and_can_be_settled_late<F, Made>(
    make: F,
    config: &BrokerConfig,
) where
    F: Fn() -> Made,
    Made: Future<Output = Arc<dyn Broker>>,
{
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

/// An acknowledgement ends a message for good.
pub async fn an_acknowledged_message_never_comes_again<F, Made>(make: F, config: &BrokerConfig)
where
    F: Fn() -> Made,
    Made: Future<Output = Arc<dyn Broker>>,
{
    let broker = make().await;
    let orders = endpoint("acknowledged");
    send(&*broker, &orders, ["a", "b"]).await;
    let deliveries = take(&*broker, &orders, 2, config).await;
    acknowledge(&*broker, &orders, deliveries).await;
    assert_quiet(&*broker, &orders, config.visibility_timeout * 3).await;
}

/// Settling the same delivery twice, in one call or two, with another verdict or the same, is answered and changes
/// nothing.
pub async fn settling_twice_does_no_harm<F, Made>(make: F, config: &BrokerConfig)
where
    F: Fn() -> Made,
    Made: Future<Output = Arc<dyn Broker>>,
{
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
pub async fn settling_after_a_redelivery_does_no_harm_to_other_messages<F, Made>(
    make: F,
    config: &BrokerConfig,
) where
    F: Fn() -> Made,
    Made: Future<Output = Arc<dyn Broker>>,
{
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
pub async fn a_retried_message_comes_again_and_not_before_its_delay<F, Made>(make: F, config: &BrokerConfig)
where
    F: Fn() -> Made,
    Made: Future<Output = Arc<dyn Broker>>,
{
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

/// The delay of a send is kept, and messages behind it don't wait for it.
pub async fn a_delayed_message_does_not_come_before_its_delay<F, Made>(make: F, config: &BrokerConfig)
where
    F: Fn() -> Made,
    Made: Future<Output = Arc<dyn Broker>>,
{
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

/// A dead letter is put aside: it comes neither at once nor after the visibility timeout.
pub async fn a_dead_lettered_message_does_not_come_again<F, Made>(make: F, config: &BrokerConfig)
where
    F: Fn() -> Made,
    Made: Future<Output = Arc<dyn Broker>>,
{
    let broker = make().await;
    let orders = endpoint("dead");
    send(&*broker, &orders, ["poison"]).await;
    let deliveries = take(&*broker, &orders, 1, config).await;
    settle_all(&*broker, &orders, &deliveries, &Verdict::DeadLetter { reason: "it is poison".into() }).await;
    assert_quiet(&*broker, &orders, config.visibility_timeout * 3).await;
}

/// One answer for each message and each settlement, in their order: here, told apart by what is refused.
pub async fn answers_come_in_the_order_of_the_messages<F, Made>(make: F, config: &BrokerConfig)
where
    F: Fn() -> Made,
    Made: Future<Output = Arc<dyn Broker>>,
{
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

/// `max` is a bound, and what is beyond it is for the next receive.
pub async fn no_more_messages_come_than_were_asked_for<F, Made>(make: F, config: &BrokerConfig)
where
    F: Fn() -> Made,
    Made: Future<Output = Arc<dyn Broker>>,
{
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
pub async fn a_receiver_that_waits_is_woken_by_a_send<F, Made>(make: F, config: &BrokerConfig)
where
    F: Fn() -> Made,
    Made: Future<Output = Arc<dyn Broker>>,
{
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
pub async fn dropping_a_receive_loses_nothing<F, Made>(make: F, config: &BrokerConfig)
where
    F: Fn() -> Made,
    Made: Future<Output = Arc<dyn Broker>>,
{
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

/// Of receivers that race for one queue, two never hold the same delivery within the visibility timeout.
pub async fn concurrent_receivers_never_both_hold_one_delivery<F, Made>(make: F, config: &BrokerConfig)
where
    F: Fn() -> Made,
    Made: Future<Output = Arc<dyn Broker>>,
{
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

/// The largest envelope that the broker says it takes arrives whole.
pub async fn a_big_envelope_arrives_whole<F, Made>(make: F, config: &BrokerConfig)
where
    F: Fn() -> Made,
    Made: Future<Output = Arc<dyn Broker>>,
{
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
pub async fn many_endpoints_do_not_mix<F, Made>(make: F, config: &BrokerConfig)
where
    F: Fn() -> Made,
    Made: Future<Output = Arc<dyn Broker>>,
{
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

/// A queue that is full says so, with an error that invites to try again, and takes messages again when there is room.
pub async fn a_full_queue_refuses_and_takes_again_after_an_acknowledgement<F, Made>(
    make: F,
    config: &BrokerConfig,
) where
    F: Fn() -> Made,
    Made: Future<Output = Arc<dyn Broker>>,
{
    let Some(capacity) = config.capacity else { return };
    let broker = make().await;
    let orders = endpoint("full");
    send(&*broker, &orders, (0..capacity).map(|n| n.to_string())).await;
    let answer = broker.send(vec![message(&orders, "too much")]).await.remove(0);
    let error = answer.expect_err("the queue is full");
    assert!(matches!(&error, BrokerError::Full { capacity: said, .. } if *said == capacity), "{error}");
    assert!(error.is_retryable(), "back-off helps against a full queue");
    let mut deliveries = take(&*broker, &orders, capacity, config).await;
    let answer = broker.send(vec![message(&orders, "too much")]).await.remove(0);
    answer.expect_err("messages in flight take room too");
    acknowledge(&*broker, &orders, vec![deliveries.remove(0)]).await;
    send(&*broker, &orders, ["fits again"]).await;
    deliveries.extend(take(&*broker, &orders, 1, config).await);
    acknowledge(&*broker, &orders, deliveries).await;
}

/// A queue that takes and gives messages passes the broker's own examination, before and after it is used.
pub async fn a_queue_that_works_is_verified<F, Made>(make: F, config: &BrokerConfig)
where
    F: Fn() -> Made,
    Made: Future<Output = Arc<dyn Broker>>,
{
    let broker = make().await;
    let orders = endpoint("verified");
    send(&*broker, &orders, ["a"]).await;
    broker.verify(&orders).await.expect("a queue that takes messages is in order");
    let deliveries = take(&*broker, &orders, 1, config).await;
    acknowledge(&*broker, &orders, deliveries).await;
    broker.verify(&orders).await.expect("a queue that gives messages is in order");
}

fn endpoint(name: &str) -> EndpointName {
    EndpointName::new(format!("conformance-{name}")).expect("the suite's names are short")
}

fn message(endpoint: &EndpointName, envelope: impl Into<Bytes>) -> OutgoingMessage {
    let envelope = envelope.into();
    OutgoingMessage {
        endpoint: endpoint.clone(),
        partition: PartitionKey::new("conformance").expect("the suite's names are short"),
        // Unique to endpoint and content: a broker that deduplicates by id must find nothing to do.
        message_id: MessageId::from_name(
            endpoint.as_str(),
            &format!("{:?}", envelope.slice(..envelope.len().min(300))),
        ),
        envelope,
        headers: Vec::new(),
        delay: Duration::ZERO,
    }
}

async fn send<E: Into<Bytes>>(
    broker: &dyn Broker,
    endpoint: &EndpointName,
    envelopes: impl IntoIterator<Item = E>,
) {
    confirm(broker.send(envelopes.into_iter().map(|envelope| message(endpoint, envelope)).collect()).await);
}

fn confirm(answers: Vec<Result<(), BrokerError>>) {
    for answer in answers {
        answer.expect("a broker in order confirms");
    }
}

/// One receive that brings something, within the time that a timeout or delay of the checks takes.
async fn receive(
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
async fn take(
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

fn envelopes(deliveries: &[Delivery]) -> HashSet<Bytes> {
    deliveries.iter().map(|delivery| delivery.envelope.clone()).collect()
}

fn settlement(receipt: &Receipt, verdict: Verdict) -> Settlement {
    Settlement { receipt: receipt.clone(), verdict }
}

async fn settle_all(
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

async fn acknowledge(broker: &dyn Broker, endpoint: &EndpointName, deliveries: Vec<Delivery>) {
    settle_all(broker, endpoint, &deliveries, &Verdict::Acknowledge).await;
}

/// Nothing is delivered for so long.
async fn assert_quiet(broker: &dyn Broker, endpoint: &EndpointName, quiet: Duration) {
    let until = Instant::now() + quiet;
    while let Ok(deliveries) = tokio::time::timeout_at(until, broker.receive(endpoint, 10)).await {
        let deliveries = deliveries.expect("a broker in order waits");
        assert!(deliveries.is_empty(), "nothing should come, and this came: {deliveries:?}");
    }
}

/// Whether a future is not ready when it is polled for the first time, and some time after that.
async fn is_pending<T>(future: &mut (impl Future<Output = T> + Unpin)) -> bool {
    timeout(Duration::from_millis(1), future).await.is_err()
}
