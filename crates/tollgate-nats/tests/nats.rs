//! The broker on NATS against a real `nats-server`, started by `infra/nats/start-nats`; skipped loudly where
//! there is none.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer, in its helpers as well")]

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tollgate_nats::{Deduplication, NatsBroker, NatsBuilder, NatsHealth, Provisioning};
use tollgate_proto::{
    Broker, BrokerError, Delivery, EndpointName, MessageId, OutgoingMessage, PartitionKey, Settlement,
    Verdict,
};
use tollgate_testkit::LocalServer;
use tollgate_testkit::broker_conformance::{self, BrokerConfig};

const CAPACITY: u32 = 200;

const CONFIG: BrokerConfig = BrokerConfig {
    visibility_timeout: Duration::from_secs(2),
    capacity: Some(CAPACITY as usize),
    // The server's default bound of a message is 1 MiB, headers included.
    envelope_bytes_max: 1024 * 1024 - 4096,
};

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/nats/start-nats")
}

/// A call ends so long after its server has come back, however many messages it is about: the time for one
/// answer, and for connecting.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// How long the server takes at most to write what a consumer knows, if nobody disturbs it.
const STATE_WRITTEN_EVERY: Duration = Duration::from_millis(500);

/// For the stories that leave it running. Names begin with the story's own prefix.
static SHARED: LazyLock<Option<LocalServer>> = LazyLock::new(|| LocalServer::start_in_memory(script()));

fn builder(server: &LocalServer) -> NatsBuilder {
    NatsBroker::at(server.address())
        .provisioning(Provisioning::OnUse)
        .visibility_timeout(Duration::from_secs(1))
        .hold_max(CONFIG.visibility_timeout)
        .capacity(CAPACITY)
}

fn orders() -> EndpointName {
    EndpointName::new("orders").unwrap()
}

fn message(name: &str) -> OutgoingMessage {
    let (partition, id) =
        (PartitionKey::new(format!("customer-{name}")).unwrap(), MessageId::from_name("nats", name));
    OutgoingMessage {
        headers: vec![("traceparent".to_owned(), "00-1-2-01".to_owned())],
        ..OutgoingMessage::without_token(orders(), partition, id, Bytes::copy_from_slice(name.as_bytes()))
    }
}

async fn send(broker: &NatsBroker, name: &str) {
    broker.send(vec![message(name)]).await.remove(0).unwrap();
}

async fn receive_one(broker: &NatsBroker) -> Delivery {
    loop {
        match broker.receive(&orders(), 1).await {
            Ok(deliveries) if deliveries.is_empty() => {}
            Ok(mut deliveries) => return deliveries.remove(0),
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    }
}

async fn settle(broker: &NatsBroker, delivery: Delivery, verdict: Verdict) -> Result<(), BrokerError> {
    broker.settle(&orders(), vec![Settlement { receipt: delivery.receipt, verdict }]).await.remove(0)
}

/// What is acknowledged leaves the stream soon, not at once.
async fn until_empty(broker: &NatsBroker) {
    let empty = async { while broker.depth(&orders()).await.unwrap().left > 0 {} };
    tokio::time::timeout(Duration::from_secs(10), empty)
        .await
        .expect("acknowledged messages leave the stream");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_keeps_the_promises_of_a_broker() {
    let Some(server) = SHARED.as_ref() else { return };
    let make = async || Arc::new(builder(server).connect().await.unwrap()) as Arc<dyn Broker>;
    broker_conformance::run(make, &CONFIG).await;
}

#[tokio::test]
async fn a_delivery_that_is_worked_on_is_not_delivered_again() {
    let Some(server) = SHARED.as_ref() else { return };
    let builder = builder(server).prefix("held");
    let broker = builder.hold_max(Duration::from_secs(60)).connect().await.unwrap();
    send(&broker, "a").await;
    let delivery = receive_one(&broker).await;
    let nothing = tokio::time::timeout(Duration::from_secs(4), receive_one(&broker)).await;
    assert!(
        nothing.is_err(),
        "four visibility timeouts have passed, and signs of life were sent: {nothing:?}"
    );
    settle(&broker, delivery, Verdict::Acknowledge).await.unwrap();
    until_empty(&broker).await;
    broker.close().await;
}

#[tokio::test]
async fn a_message_that_is_sent_again_within_the_window_is_stored_once_unless_that_is_off() {
    let Some(server) = SHARED.as_ref() else { return };
    for (deduplication, stored) in [(Deduplication::On, 1), (Deduplication::Off, 2)] {
        let builder = builder(server).prefix(format!("twice-{stored}")).deduplication(deduplication);
        let broker = builder.connect().await.unwrap();
        send(&broker, "a").await;
        send(&broker, "a").await;
        assert_eq!(broker.depth(&orders()).await.unwrap().left, stored, "{deduplication:?}");
    }
}

#[tokio::test]
async fn a_message_that_is_put_aside_twice_is_there_twice() {
    let Some(server) = SHARED.as_ref() else { return };
    let broker = builder(server).prefix("aside-twice").connect().await.unwrap();
    let poison = message("poison");
    let replayed = OutgoingMessage { deduplication_id: poison.deduplication_id.renewed(1), ..poison.clone() };
    for (copy, dead) in [(poison, 1), (replayed, 2)] {
        broker.send(vec![copy]).await.remove(0).unwrap();
        let delivery = receive_one(&broker).await;
        settle(&broker, delivery, Verdict::DeadLetter { reason: "poison".to_owned() }).await.unwrap();
        until_empty(&broker).await;
        assert_eq!(broker.depth(&orders()).await.unwrap().dead, dead);
    }
}

#[tokio::test]
async fn a_dead_letter_is_put_aside_with_its_reason() {
    let Some(server) = SHARED.as_ref() else { return };
    let broker = builder(server).prefix("aside").connect().await.unwrap();
    send(&broker, "poison").await;
    let delivery = receive_one(&broker).await;
    let reason = "it is poison,\nline after line".to_owned();
    settle(&broker, delivery, Verdict::DeadLetter { reason }).await.unwrap();
    until_empty(&broker).await;
    assert_eq!(broker.depth(&orders()).await.unwrap().dead, 1);
    let client = async_nats::connect(server.address()).await.unwrap();
    let dead = async_nats::jetstream::new(client).get_stream("aside-orders-dead").await.unwrap();
    let letter = dead.get_raw_message(1).await.unwrap();
    assert_eq!(letter.payload, "poison");
    assert_eq!(letter.headers.get("traceparent").unwrap().as_str(), "00-1-2-01");
    assert_eq!(
        letter.headers.get("Tollgate-Dead-Letter-Reason").unwrap().as_str(),
        "it is poison, line after line"
    );
    assert_eq!(letter.headers.get("Tollgate-Deliveries").unwrap().as_str(), "1");
}

#[tokio::test]
async fn a_message_that_is_never_settled_is_put_aside_in_the_end() {
    let Some(server) = SHARED.as_ref() else { return };
    let builder = builder(server).prefix("kills").deliveries_max(2).hold_max(Duration::ZERO);
    let broker = builder.visibility_timeout(Duration::from_millis(300)).connect().await.unwrap();
    send(&broker, "kills whoever takes it").await;
    assert_eq!(receive_one(&broker).await.delivery_count, 1);
    assert_eq!(receive_one(&broker).await.delivery_count, 2);
    send(&broker, "harmless").await;
    let next = loop {
        let next = receive_one(&broker).await;
        if broker.depth(&orders()).await.unwrap().dead == 1 {
            break next;
        }
    };
    assert_eq!(next.envelope, "harmless");
}

#[tokio::test]
async fn closing_gives_back_what_nobody_has_seen() {
    let Some(server) = SHARED.as_ref() else { return };
    let slow = || builder(server).prefix("drained").visibility_timeout(Duration::from_secs(600));
    let broker = slow().connect().await.unwrap();
    for n in 0..10 {
        send(&broker, &n.to_string()).await;
    }
    let seen = receive_one(&broker).await;
    while broker.held(&orders()).waiting < 9 {
        tokio::task::yield_now().await;
    }
    broker.close().await;
    assert!(matches!(broker.receive(&orders(), 1).await, Err(BrokerError::Closed { .. })));
    settle(&broker, seen, Verdict::Acknowledge).await.unwrap();
    let other = slow().connect().await.unwrap();
    let mut again = HashSet::new();
    while again.len() < 9 {
        let delivery = receive_one(&other).await;
        again.insert(delivery.envelope.clone());
        settle(&other, delivery, Verdict::Acknowledge).await.unwrap();
    }
    until_empty(&other).await;
}

#[tokio::test]
async fn partitions_stay_in_their_slice() {
    let Some(server) = SHARED.as_ref() else { return };
    let sliced = || builder(server).prefix("sliced").slices(4);
    let (low, high) = (
        sliced().own_slices(0..2).connect().await.unwrap(),
        sliced().own_slices(2..4).connect().await.unwrap(),
    );
    let (mut of_low, mut of_high) = (Vec::new(), Vec::new());
    for round in 0..3 {
        for n in 0..20 {
            let first = message(&n.to_string());
            let again =
                OutgoingMessage { deduplication_id: first.deduplication_id.renewed(round as u64), ..first };
            low.send(vec![again]).await.remove(0).unwrap();
        }
        while of_low.len() + of_high.len() < 20 * (round + 1) {
            let (broker, of) = tokio::select! {
                delivery = receive_one(&low) => { of_low.push(delivery.envelope.clone()); (&low, delivery) }
                delivery = receive_one(&high) => { of_high.push(delivery.envelope.clone()); (&high, delivery) }
            };
            settle(broker, of, Verdict::Acknowledge).await.unwrap();
        }
    }
    assert!(!of_low.is_empty() && !of_high.is_empty());
    assert!(of_low.iter().all(|partition| !of_high.contains(partition)), "{of_low:?} {of_high:?}");
}

#[tokio::test]
async fn what_is_missing_or_different_is_told() {
    let Some(server) = SHARED.as_ref() else { return };
    let named = || NatsBroker::at(server.address()).prefix("told");
    let broker = named().connect().await.unwrap();
    let missing = broker.differences(&orders()).await.unwrap_err();
    assert!(matches!(missing, BrokerError::Misconfigured { .. }), "{missing}");
    let unanswered = broker.send(vec![message("a")]).await.remove(0).unwrap_err();
    assert!(unanswered.is_retryable(), "it might be an election: {unanswered}");
    let nobody = broker.receive(&orders(), 1).await.unwrap_err();
    assert!(matches!(nobody, BrokerError::Misconfigured { .. }), "{nobody}");
    broker.provision(&orders()).await.unwrap();
    broker.provision(&orders()).await.unwrap();
    assert_eq!(broker.differences(&orders()).await.unwrap(), []);
    let other = named().visibility_timeout(Duration::from_secs(7)).connect().await.unwrap();
    let differences = other.differences(&orders()).await.unwrap();
    assert!(differences.len() == 1 && differences[0].what.contains("7s"), "{differences:?}");
}

async fn context(server: &LocalServer) -> async_nats::jetstream::Context {
    async_nats::jetstream::new(async_nats::connect(server.address()).await.unwrap())
}

#[tokio::test]
async fn a_stream_or_consumer_that_would_lose_messages_is_not_verified() {
    use async_nats::jetstream::{consumer, stream};

    let Some(server) = SHARED.as_ref() else { return };
    let jetstream = context(server).await;
    let broker = NatsBroker::at(server.address()).prefix("unfit").connect().await.unwrap();
    let told = async |expected: &str| {
        let error = broker.verify(&orders()).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    };
    broker.provision(&orders()).await.unwrap();
    broker.verify(&orders()).await.unwrap();
    let fit = jetstream.get_stream("unfit-orders").await.unwrap().cached_info().config.clone();
    let forgetful =
        stream::Config { max_messages_per_subject: 1, discard: stream::DiscardPolicy::Old, ..fit.clone() };
    jetstream.update_stream(&forgetful).await.unwrap();
    told("discards old messages").await;
    jetstream.update_stream(stream::Config { no_ack: true, ..fit.clone() }).await.unwrap();
    told("no_ack").await;
    jetstream.update_stream(&fit).await.unwrap();
    for (expected, change) in [
        ("headers_only", consumer::pull::Config { headers_only: true, ..Default::default() }),
        (
            "messages never come",
            consumer::pull::Config { filter_subject: "unfit.queue.orders.7".into(), ..Default::default() },
        ),
    ] {
        let stream = jetstream.get_stream("unfit-orders").await.unwrap();
        stream.delete_consumer("slice-0").await.unwrap();
        let filter_subject = if change.filter_subject.is_empty() {
            "unfit.queue.orders.0".into()
        } else {
            change.filter_subject.clone()
        };
        let unfit = consumer::pull::Config { durable_name: Some("slice-0".into()), filter_subject, ..change };
        stream.create_consumer(unfit).await.unwrap();
        told(expected).await;
    }
}

#[tokio::test]
async fn messages_of_slices_that_there_were_once_are_not_overlooked() {
    let Some(server) = SHARED.as_ref() else { return };
    let with = |slices| NatsBroker::at(server.address()).prefix("fewer").slices(slices);
    let many = with(2).connect().await.unwrap();
    many.provision(&orders()).await.unwrap();
    for n in 0..10 {
        send(&many, &n.to_string()).await;
    }
    let few = with(1).connect().await.unwrap();
    let error = few.verify(&orders()).await.unwrap_err().to_string();
    assert!(error.contains("more slices once"), "{error}");
}

#[tokio::test]
async fn a_dead_letter_that_was_moved_back_and_put_aside_again_is_kept() {
    let Some(server) = SHARED.as_ref() else { return };
    let broker = builder(server).prefix("again").connect().await.unwrap();
    let jetstream = context(server).await;
    send(&broker, "poison").await;
    for round in 1..=2 {
        let delivery = receive_one(&broker).await;
        let reason = "it is poison".to_owned();
        settle(&broker, delivery, Verdict::DeadLetter { reason }).await.unwrap();
        until_empty(&broker).await;
        let dead = jetstream.get_stream("again-orders-dead").await.unwrap();
        assert_eq!(dead.cached_info().state.messages, 1, "round {round}");
        let letter = dead.get_last_raw_message_by_subject("again.dead.orders").await.unwrap();
        dead.delete_message(letter.sequence).await.unwrap();
        let moved = jetstream.publish_with_headers("again.queue.orders.0", letter.headers, letter.payload);
        moved.await.unwrap().await.unwrap();
        if round == 2 {
            assert_eq!(receive_one(&broker).await.envelope, "poison");
        }
    }
}

#[tokio::test]
async fn settling_what_came_from_a_stream_that_is_gone_deletes_nothing_of_the_new_one() {
    let Some(server) = SHARED.as_ref() else { return };
    let broker = builder(server).prefix("anew").hold_max(Duration::from_secs(60)).connect().await.unwrap();
    send(&broker, "old").await;
    let old = receive_one(&broker).await;
    broker.delete(&orders()).await.unwrap();
    let noticed = async {
        while broker.held(&orders()).unsettled > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), noticed)
        .await
        .expect("the pull that was under way is told");
    broker.provision(&orders()).await.unwrap();
    let other = builder(server).prefix("anew").connect().await.unwrap();
    send(&other, "new").await;
    let new = receive_one(&other).await;
    settle(&broker, old, Verdict::Acknowledge).await.unwrap();
    assert_eq!(other.depth(&orders()).await.unwrap().stored, 1);
    settle(&other, new, Verdict::Acknowledge).await.unwrap();
}

#[tokio::test]
async fn a_message_that_can_not_be_dead_lettered_holds_up_no_other() {
    let Some(server) = SHARED.as_ref() else { return };
    let builder = builder(server).prefix("nowhere").deliveries_max(1).hold_max(Duration::ZERO);
    let broker = builder.visibility_timeout(Duration::from_millis(300)).prefetch(0).connect().await.unwrap();
    send(&broker, "kills").await;
    assert_eq!(receive_one(&broker).await.envelope, "kills");
    context(server).await.delete_stream("nowhere-orders-dead").await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    let mut seen = HashSet::new();
    for n in 0..20 {
        send(&broker, &n.to_string()).await;
    }
    let all = async {
        while seen.len() < 20 {
            let delivery = receive_one(&broker).await;
            seen.insert(delivery.envelope.clone());
            settle(&broker, delivery, Verdict::Acknowledge).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all).await.expect("the good ones come");
}

#[tokio::test]
async fn a_server_that_was_killed_loses_nothing_and_is_found_again() {
    let Some(mut server) = LocalServer::start(script()) else { return };
    let builder = builder(&server).prefix("killed").hold_max(Duration::from_secs(60));
    let broker = builder.connect().await.unwrap();
    for n in 0..50 {
        send(&broker, &n.to_string()).await;
    }
    let taken = receive_one(&broker).await;
    server.kill();
    let refused = broker.send(vec![message("while it is gone")]).await.remove(0).unwrap_err();
    assert!(refused.is_retryable(), "{refused}");
    // It may have its effect all the same: what could not be sent is sent when there is a connection again.
    let mut seen = HashSet::from([taken.envelope.clone()]);
    settle(&broker, taken, Verdict::Acknowledge).await.unwrap_err();
    assert_eq!(broker.health().await, NatsHealth::Reconnecting);
    server.restart();
    while seen.len() < 50 {
        let delivery = receive_one(&broker).await;
        seen.insert(delivery.envelope.clone());
        settle(&broker, delivery, Verdict::Acknowledge).await.unwrap();
    }
    assert!(matches!(broker.health().await, NatsHealth::Connected { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_while_a_batch_awaits_its_confirmations_keeps_nobody_waiting_for_each_of_them() {
    let Some(mut server) = LocalServer::start(script()) else { return };
    let broker = builder(&server).prefix("unanswered").connect().await.unwrap();
    send(&broker, "first").await;
    server.freeze();
    let batch: Vec<_> = (0..50).map(|n| message(&n.to_string())).collect();
    let mut sending = pin!(broker.send(batch.clone()));
    assert!(sending.as_mut().now_or_never().is_none(), "nobody answers");
    // It flushes what the client has written.
    assert!(matches!(broker.health().await, NatsHealth::Connected { .. }));
    server.restart();
    let sent = tokio::time::timeout(ENDS_WITHIN, sending).await.expect("the time of one answer is enough");
    assert_eq!(sent.len(), 50);
    assert!(sent.iter().all(|answer| answer.as_ref().map_or_else(BrokerError::is_retryable, |()| true)));
    for answer in broker.send(batch).await {
        answer.unwrap();
    }
}

/// As `nats-server` does it ten times a second: what it writes in between is lost when it is killed. Here it
/// is lost for certain.
#[tokio::test]
async fn a_server_that_was_killed_and_forgot_acknowledgements_waits_for_none_of_them() {
    let Some(mut server) = LocalServer::start(script()) else { return };
    let builder = builder(&server).prefix("forgetful").hold_max(Duration::from_secs(600));
    let broker = builder.connect().await.unwrap();
    for n in 0..10 {
        send(&broker, &n.to_string()).await;
    }
    let mut deliveries = Vec::new();
    while deliveries.len() < 10 {
        deliveries.push(receive_one(&broker).await);
    }
    let state = server.file("jetstream/$G/streams/forgetful-orders/obs/slice-0/o.dat");
    let mut before = Vec::new();
    let written = async {
        // Only the times of the ten deliveries change any more, with each sign of life: so it holds all of
        // them, and as a whole, when it keeps its length.
        loop {
            tokio::time::sleep(STATE_WRITTEN_EVERY).await;
            let now = std::fs::read(&state).unwrap_or_default();
            let is_whole = !now.is_empty() && now.len() == before.len();
            before = now;
            if is_whole {
                return;
            }
        }
    };
    tokio::time::timeout(ENDS_WITHIN, written).await.expect("the server writes what its consumers know");
    // The oldest stays: the server forgets what is before it.
    let oldest = deliveries.remove(0);
    for delivery in deliveries {
        settle(&broker, delivery, Verdict::Acknowledge).await.unwrap();
    }
    server.kill();
    std::fs::write(&state, before).unwrap();
    server.restart();
    let left = async {
        loop {
            if let Ok(depth) = broker.depth(&orders()).await
                && depth.left == 1
            {
                return;
            }
            // What it has forgotten to delete as well comes again.
            let again = tokio::time::timeout(Duration::from_millis(100), receive_one(&broker)).await;
            if let Ok(again) = again {
                let _ = settle(&broker, again, Verdict::Acknowledge).await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), left).await.expect("only the oldest is left");
    settle(&broker, oldest, Verdict::Acknowledge).await.unwrap();
    send(&broker, "afterwards").await;
    let afterwards = receive_one(&broker).await;
    assert_eq!(afterwards.envelope, "afterwards");
    settle(&broker, afterwards, Verdict::Acknowledge).await.unwrap();
    until_empty(&broker).await;
}
