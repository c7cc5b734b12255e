//! RabbitMQ on a server of its own: the suite of all brokers, and what is special to this one.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer, in its helpers as well")]

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use lapin::options::BasicGetOptions;
use lapin::types::AMQPValue;
use lapin::{Connection, ConnectionProperties};
use tokio::time::Instant;
use tollgate_proto::{Broker, BrokerError, EndpointName, OutgoingMessage, Verdict};
use tollgate_rabbitmq::{Queues, RabbitMqBroker, RabbitMqBuilder};
use tollgate_testkit::LocalServer;
use tollgate_testkit::broker_conformance::{self, BrokerConfig};
use tollgate_testkit::broker_story::{
    self, acknowledge, message, numbered, orders, send, settle, take, texts,
};

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/rabbitmq/start-rabbitmq")
}

const CONFIG: BrokerConfig = BrokerConfig {
    visibility_timeout: Duration::from_secs(1),
    capacity: None,
    envelope_bytes_max: 16 * 1024 * 1024,
};

/// For the stories that leave it running. Names begin with the story's own prefix.
static SERVER: LazyLock<Option<LocalServer>> = LazyLock::new(|| LocalServer::start_in_memory(script()));

fn builder(server: &LocalServer, prefix: &str) -> RabbitMqBuilder {
    RabbitMqBroker::builder(server.address()).prefix(prefix).queues(Queues::MadeAtFirstUse)
}

#[tokio::test]
async fn rabbitmq_keeps_the_promises_of_a_broker() {
    let Some(server) = &*SERVER else { return };
    let make = async || {
        let broker = builder(server, "").visibility_timeout(CONFIG.visibility_timeout).open().unwrap();
        Arc::new(broker) as Arc<dyn Broker>
    };
    broker_conformance::run(make, &CONFIG).await;
}

#[tokio::test]
async fn a_message_that_no_queue_takes_is_told_from_its_companions() {
    let Some(server) = &*SERVER else { return };
    let broker = builder(server, "unroutable-").queues(Queues::Exist).open().unwrap();
    broker.provision(&orders()).await.unwrap();
    let lost = |text: &str| OutgoingMessage {
        endpoint: EndpointName::new("nobody").unwrap(),
        ..message(text.to_owned())
    };
    let mut batch = numbered(50);
    batch[7] = lost("7");
    batch[31] = lost("31");
    let answers = broker.send(batch).await;
    for (place, answer) in answers.iter().enumerate() {
        match answer {
            Ok(()) => assert!(place != 7 && place != 31, "message {place} has no queue"),
            Err(BrokerError::Misconfigured { endpoint, .. }) => {
                assert_eq!(endpoint.as_str(), "nobody");
                assert!(place == 7 || place == 31, "message {place} has a queue");
            }
            Err(other) => panic!("message {place}: {other}"),
        }
    }
    let deliveries = take(&broker, 48).await;
    acknowledge(&broker, &deliveries).await;
}

#[tokio::test]
async fn what_a_dead_consumer_held_comes_again_to_another_with_a_higher_count() {
    let Some(server) = &*SERVER else { return };
    let dead = builder(server, "dead-").open().unwrap();
    send(&dead, numbered(10)).await;
    let held = take(&dead, 10).await;
    assert!(held.iter().all(|delivery| delivery.delivery_count == 1));
    drop(dead);
    let other = builder(server, "dead-").open().unwrap();
    let again = take(&other, 10).await;
    assert_eq!(texts(&again), texts(&held));
    assert!(again.iter().all(|delivery| delivery.delivery_count == 2), "{again:?}");
    acknowledge(&other, &again).await;
}

#[tokio::test]
async fn a_crash_of_rabbitmq_loses_nothing_and_receipts_from_before_it_do_no_harm() {
    let Some(mut server) = LocalServer::start(script()) else { return };
    let broker = builder(&server, "").open().unwrap();
    send(&broker, numbered(20)).await;
    let before = take(&broker, 10).await;
    server.kill();
    let waiting = Instant::now();
    let error = loop {
        match broker.receive(&orders(), 100).await {
            // Those that had come already.
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(error.is_retryable(), "{error}");
    assert!(broker.health(&orders()).is_err(), "it is down");
    let answer = broker.send(vec![message("meanwhile")]).await.remove(0);
    assert!(answer.unwrap_err().is_retryable(), "it is down");
    assert!(waiting.elapsed() < Duration::from_secs(60), "nobody waits for ever: {:?}", waiting.elapsed());
    server.restart();
    for answer in settle(&broker, &before, Verdict::Acknowledge).await {
        answer.unwrap();
    }
    broker_story::send_until_confirmed(&broker, vec![message("afterwards")]).await;
    let mut seen = HashSet::new();
    while seen.len() < 21 {
        // Confirmed and counted though not answered: it may be there as well.
        match broker.receive(&orders(), 100).await {
            Ok(deliveries) => {
                seen.extend(texts(&deliveries));
                acknowledge(&broker, &deliveries).await;
            }
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        seen.remove("meanwhile");
    }
    broker.health(&orders()).unwrap();
    let depth = broker.depth(&orders()).await.unwrap();
    assert_eq!((depth.ready, depth.delayed, depth.dead), (0, 0, 0));
    broker.close().await;
}

#[tokio::test]
async fn a_dead_letter_lies_in_its_queue_with_its_reason_its_id_and_its_trace() {
    let Some(server) = &*SERVER else { return };
    let broker = builder(server, "letters-").open().unwrap();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let poison = OutgoingMessage { headers: vec![("traceparent".into(), trace.into())], ..message("poison") };
    let id = poison.message_id;
    send(&broker, vec![poison]).await;
    let deliveries = take(&broker, 1).await;
    settle(&broker, &deliveries, Verdict::Retry { after: Duration::from_millis(1) }).await;
    let deliveries = take(&broker, 1).await;
    assert_eq!(deliveries[0].delivery_count, 2);
    settle(&broker, &deliveries, Verdict::DeadLetter { reason: "it is poison".into() })
        .await
        .remove(0)
        .unwrap();
    let connection = Connection::connect(server.address(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let dead =
        channel.basic_get("letters-orders.dead".into(), BasicGetOptions::default()).await.unwrap().unwrap();
    assert_eq!(dead.data, b"poison");
    assert_eq!(dead.properties.message_id().as_ref().unwrap().as_str(), id.to_string());
    let headers = dead.properties.headers().clone().unwrap();
    let text = |name: &str| match headers.inner().get(name) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(text("tollgate-dead-letter-reason"), "it is poison");
    assert_eq!(text("traceparent"), trace);
    assert_eq!(headers.inner().get("tollgate-deliveries"), Some(&AMQPValue::LongUInt(2)));
}

#[tokio::test]
async fn a_short_delay_does_not_wait_behind_a_long_one() {
    let Some(server) = &*SERVER else { return };
    let broker = builder(server, "classes-").open().unwrap();
    let delayed = |text: &'static str, seconds| OutgoingMessage {
        delay: Duration::from_secs(seconds),
        ..message(text)
    };
    send(&broker, vec![delayed("long", 4), delayed("short", 1)]).await;
    for expected in ["short", "long"] {
        let delivery = take(&broker, 1).await;
        assert_eq!(delivery[0].envelope, expected);
        acknowledge(&broker, &delivery).await;
    }
}

#[tokio::test]
async fn a_delay_beyond_all_classes_is_kept_in_several_rounds_that_count_for_nothing() {
    let Some(server) = &*SERVER else { return };
    let broker =
        builder(server, "rounds-").delay_classes([Duration::from_millis(300)]).unwrap().open().unwrap();
    let (delay, start) = (Duration::from_secs(2), Instant::now());
    send(&broker, vec![OutgoingMessage { delay, ..message("late") }]).await;
    let delivery = take(&broker, 1).await;
    assert!(start.elapsed() >= delay, "it came after {:?}", start.elapsed());
    assert_eq!(delivery[0].delivery_count, 1);
    acknowledge(&broker, &delivery).await;
}

#[tokio::test]
async fn verifying_tells_what_is_missing_and_what_is_different() {
    let Some(server) = &*SERVER else { return };
    let plain = builder(server, "verify-").queues(Queues::Exist).open().unwrap();
    let missing = plain.verify(&orders()).await.unwrap_err();
    assert!(matches!(missing, BrokerError::Misconfigured { .. }), "{missing}");
    assert!(missing.to_string().contains("verify-orders"), "{missing}");
    let error = plain.receive(&orders(), 1).await.unwrap_err();
    assert!(matches!(error, BrokerError::Misconfigured { .. }), "{error}");
    plain.provision(&orders()).await.unwrap();
    plain.provision(&orders()).await.unwrap();
    plain.verify(&orders()).await.unwrap();
    let bounded = builder(server, "verify-").queues(Queues::Exist).capacity(5).open().unwrap();
    let different = bounded.verify(&orders()).await.unwrap_err();
    assert!(different.to_string().contains("x-max-length"), "{different}");
}

#[tokio::test]
async fn a_queue_with_a_capacity_refuses_what_is_too_much_and_takes_again() {
    let Some(server) = &*SERVER else { return };
    let broker = builder(server, "full-").capacity(5).open().unwrap();
    let error = loop {
        let answer = broker.send(vec![message("one more")]).await.remove(0);
        if let Err(error) = answer {
            break error;
        }
    };
    assert!(matches!(error, BrokerError::Full { capacity: 5, .. }), "{error}");
    let deliveries = take(&broker, 5).await;
    acknowledge(&broker, &deliveries).await;
    broker_story::send_until_confirmed(&broker, vec![message("fits again")]).await;
}

#[tokio::test]
async fn closing_gives_back_what_nobody_has_got_and_waits_for_what_is_worked_on() {
    let Some(server) = &*SERVER else { return };
    let broker = Arc::new(builder(server, "closed-").open().unwrap());
    send(&*broker, numbered(5)).await;
    let worked_on = take(&*broker, 1).await;
    let closing = tokio::spawn({
        let broker = Arc::clone(&broker);
        async move { broker.close().await }
    });
    while broker.health(&orders()).is_ok() {
        tokio::task::yield_now().await;
    }
    let error = broker.receive(&orders(), 1).await.unwrap_err();
    assert!(matches!(error, BrokerError::Closed { .. }), "{error}");
    let other = builder(server, "closed-").open().unwrap();
    let given_back = take(&other, 4).await;
    assert!(!closing.is_finished(), "a message is being worked on");
    acknowledge(&*broker, &worked_on).await;
    closing.await.unwrap();
    assert!(texts(&given_back).is_disjoint(&texts(&worked_on)));
    acknowledge(&other, &given_back).await;
    let answer = broker.send(vec![message("too late")]).await.remove(0);
    assert!(matches!(answer, Err(BrokerError::Closed { .. })), "{answer:?}");
    let nothing = tokio::time::timeout(Duration::from_secs(1), other.receive(&orders(), 1)).await;
    assert!(nothing.is_err(), "the message was settled while the broker was closing: {nothing:?}");
}

#[tokio::test]
async fn an_address_that_is_none_is_refused_without_its_password() {
    let error = RabbitMqBroker::builder("http://user:secret@host").open().unwrap_err();
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[tokio::test]
async fn a_message_that_is_too_large_takes_none_of_its_companions_along() {
    let Some(server) = &*SERVER else { return };
    let broker = builder(server, "large-").open().unwrap();
    let mut batch = numbered(5);
    batch[2] = message(vec![b'x'; 21_000_000]);
    let refused: Vec<bool> = broker.send(batch).await.iter().map(Result::is_err).collect();
    assert_eq!(refused, [false, false, true, false, false]);
    let deliveries = take(&broker, 4).await;
    acknowledge(&broker, &deliveries).await;
}

#[tokio::test]
async fn delayed_messages_of_a_deleted_endpoint_hold_up_nobody() {
    let Some(server) = &*SERVER else { return };
    let broker = builder(server, "bystander-").open().unwrap();
    let gone = EndpointName::new("gone").unwrap();
    let delay = Duration::from_secs(2);
    let to_gone = |n: usize| OutgoingMessage { endpoint: gone.clone(), delay, ..message(n.to_string()) };
    send(&broker, (0..100).map(to_gone).collect()).await;
    let connection = Connection::connect(server.address(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel
        .queue_delete("bystander-gone".into(), lapin::options::QueueDeleteOptions::default())
        .await
        .unwrap();
    // So that what is stuck is stuck already.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let begin = Instant::now();
    send(&broker, vec![OutgoingMessage { delay, ..message("delayed") }, message("retried")]).await;
    let retried = take(&broker, 1).await;
    assert_eq!(retried[0].envelope, "retried");
    settle(&broker, &retried, Verdict::Retry { after: Duration::from_millis(1500) }).await.remove(0).unwrap();
    let both = take(&broker, 2).await;
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    acknowledge(&broker, &both).await;
}

#[tokio::test]
async fn a_process_that_asks_for_nothing_leaves_the_messages_to_an_idle_one() {
    let Some(server) = &*SERVER else { return };
    let named = || builder(server, "hostage-").waiting_max(Duration::from_secs(1)).open().unwrap();
    let sick = named();
    send(&sick, numbered(100)).await;
    let first = take(&sick, 1).await;
    let idle = named();
    // It goes on asking for one message now and then, as an engine does whose store is gone.
    let asking = async {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let taken = sick.receive(&orders(), 1).await.unwrap();
            settle(&sick, &taken, Verdict::Retry { after: Duration::from_secs(1) }).await;
        }
    };
    let taking = async {
        let mut seen = HashSet::new();
        while seen.len() < 95 {
            let deliveries = broker_story::receive(&idle, 100).await;
            seen.extend(texts(&deliveries));
            acknowledge(&idle, &deliveries).await;
        }
    };
    tokio::select! {
        () = asking => {}
        done = tokio::time::timeout(Duration::from_secs(20), taking) => done.expect("it gets nearly all"),
    }
    acknowledge(&sick, &first).await;
    // When it asks for many again, it gets its share, and what it had kept.
    send(&idle, numbered(10)).await;
    drop(idle);
    let mut left = HashSet::new();
    while left.len() < 10 {
        let deliveries = broker_story::receive(&sick, 100).await;
        left.extend(texts(&deliveries));
        acknowledge(&sick, &deliveries).await;
    }
}

#[tokio::test]
async fn the_nodes_of_a_cluster_are_tried_in_turns() {
    let Some(server) = &*SERVER else { return };
    let addresses = format!("amqp://127.0.0.1:1, {}", server.address());
    for round in 0..3 {
        let broker = RabbitMqBroker::builder(&addresses).prefix("turns-").queues(Queues::MadeAtFirstUse);
        let broker = broker.open().unwrap();
        broker_story::send_until_confirmed(&broker, vec![message(round.to_string())]).await;
        broker.close().await;
    }
}
