//! The examples of one's own loop do what they say: duplicates, failures, poison, a caller that goes away.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod harness;

#[path = "../examples/lambda_sqs.rs"]
mod lambda_sqs;
#[path = "../examples/own_loop.rs"]
mod own_loop;
#[path = "../examples/tower_service.rs"]
mod tower_service;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lambda_events::sqs::{SqsEvent, SqsMessage};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use harness::{Add, TOTAL, add, left_over, memory_store, total, until};
use tollgate::proto::{EndpointName, OutgoingMessage};
use tollgate::{Backoff, Endpoint, Gate, GateBuilder, HandlerError, Received, Store, Tx, Verdict};
use tollgate_embedded::MemoryStore;
use tower::{Service, ServiceExt};

/// A gate whose endpoint `adder` is driven by the test, and what it sent to it: one message for each amount.
async fn gate_and_messages(
    store: &Arc<dyn Store>,
    adder: Endpoint,
    amounts: &'static [u64],
) -> (Gate, Vec<OutgoingMessage>) {
    let sent: Arc<Mutex<Vec<OutgoingMessage>>> = Arc::default();
    let outbox = Arc::clone(&sent);
    let gate = Gate::builder()
        .store(Arc::clone(store))
        .sender(move |messages: Vec<OutgoingMessage>| {
            let answers: Vec<_> = messages.iter().map(|_| Ok(())).collect();
            outbox.lock().unwrap().extend(messages);
            std::future::ready(answers)
        })
        .endpoint(Endpoint::new("edge").driven())
        .endpoint(adder)
        .deliveries_max(3)
        .open()
        .await
        .unwrap();
    let handler = move |tx: Tx| async move {
        for amount in amounts {
            tx.send("adder", "P", &Add { amount: *amount, hops: 0 })?;
        }
        Ok::<_, HandlerError>(())
    };
    gate.edge("edge").unwrap().advance("source", "1", handler).await.unwrap();
    until(&gate, |statistics| statistics.published > amounts.len() as u64).await;
    let sent = std::mem::take(&mut *sent.lock().unwrap());
    (gate, sent.into_iter().filter(|message| message.endpoint.as_str() == "adder").collect())
}

/// Refuses 13 for ever, and 7 twice.
fn moody_adder() -> Endpoint {
    let moods = Arc::new(AtomicU32::new(0));
    Endpoint::new("adder").driven().preload(TOTAL).on::<Add, _, _>(move |tx, message: Add| {
        let moods = Arc::clone(&moods);
        async move {
            match message.amount {
                13 => Err(HandlerError::permanent("unlucky")),
                7 if moods.fetch_add(1, Ordering::SeqCst) < 2 => Err(HandlerError::retry("not yet")),
                _ => add(tx, message).await,
            }
        }
    })
}

#[tokio::test(start_paused = true)]
async fn the_loop_over_a_channel_survives_copies_failures_and_poison() {
    let store = Arc::new(MemoryStore::new("main".try_into().unwrap()));
    let (queue, mut deliveries) = own_loop::queue();
    let builder: GateBuilder = own_loop::gate(Arc::clone(&store), queue.clone());
    let gate = builder
        .endpoint(moody_adder())
        .redelivery(Backoff { first: Duration::from_millis(10), cap: Duration::from_millis(100) })
        .open()
        .await
        .unwrap();
    let handler = |tx: Tx| async move {
        for amount in [1, 2, 7, 13, 20] {
            tx.send("adder", "P", &Add { amount, hops: 0 })?;
        }
        Ok::<_, HandlerError>(())
    };
    gate.edge("orders").unwrap().advance("source", "1", handler).await.unwrap();
    until(&gate, |statistics| statistics.published == 6).await;
    // Every message is delivered three times.
    let mut once = Vec::new();
    while let Ok(delivery) = deliveries.try_recv() {
        once.push(delivery);
    }
    for delivery in once.iter().chain(&once).chain(&once) {
        queue.send(delivery.clone()).await.unwrap();
    }
    queue
        .send(own_loop::Delivery { envelope: "nothing that anybody understands".into(), count: 1 })
        .await
        .unwrap();
    let (again, mut dead_letters) = (queue.downgrade(), Vec::new());
    tokio::select! {
        () = own_loop::consume(&gate, &mut deliveries, &again, &mut dead_letters) => panic!("the channel is open"),
        _ = until(&gate, |statistics| statistics.committed == 5 && statistics.dead_letters == 4) => {}
    }
    gate.close().await;
    assert_eq!(total(&*store, "P").await, 1 + 2 + 7 + 20);
    assert_eq!(left_over(&*store).await, 1, "the token of 13");
    let mut reasons: Vec<&str> = dead_letters.iter().map(|(_, reason)| reason.as_str()).collect();
    reasons.sort_unstable();
    assert!(reasons[0].contains("not an envelope"), "{reasons:?}");
    assert_eq!(reasons[1..], ["unlucky"; 3], "each copy of the poison is put aside");
}

#[tokio::test(start_paused = true)]
async fn the_tower_service_gives_verdicts_and_may_be_dropped_by_a_timeout() {
    let store = memory_store();
    let endpoint = Endpoint::new("adder").driven().on::<Add, _, _>(|tx, message| async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        add(tx, message).await
    });
    let (gate, messages) = gate_and_messages(&store, endpoint, &[5]).await;
    let gate = Arc::new(gate);
    let mut service = tower_service::Process::new(Arc::clone(&gate));
    let received = |count| Received::new(messages[0].envelope.clone()).delivery_count(count);
    let call = service.ready().await.unwrap().call(received(1));
    assert!(tokio::time::timeout(Duration::from_millis(100), call).await.is_err());
    let (again, copy) =
        tokio::join!(service.clone().oneshot(received(2)), service.clone().oneshot(received(3)));
    assert_eq!((again.unwrap(), copy.unwrap()), (Verdict::Acknowledge, Verdict::Acknowledge));
    let garbage = service.oneshot(Received::new("garbage")).await.unwrap();
    assert!(matches!(garbage, Verdict::DeadLetter { .. }), "{garbage:?}");
    Arc::into_inner(gate).unwrap().close().await;
    assert_eq!(total(&*store, "P").await, 5);
    assert_eq!(left_over(&*store).await, 0);
}

/// An event of the documented shape, of these bodies with the numbers of their deliveries.
fn event(bodies: &[(String, u32)]) -> SqsEvent {
    let records: Vec<_> = bodies
        .iter()
        .enumerate()
        .map(|(place, (body, count))| {
            serde_json::json!({
                "messageId": format!("m{place}"),
                "receiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a...",
                "body": body,
                "attributes": {
                    "ApproximateReceiveCount": count.to_string(),
                    "SentTimestamp": "1545082649183",
                    "SenderId": "AIDAIENQZJOLO23YVJ4VO",
                    "ApproximateFirstReceiveTimestamp": "1545082649185"
                },
                "messageAttributes": {},
                "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:us-east-2:123456789012:adder",
                "awsRegion": "us-east-2"
            })
        })
        .collect();
    serde_json::from_value(serde_json::json!({ "Records": records })).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_lambda_function_reports_what_failed_and_nothing_else() {
    let store = memory_store();
    let (gate, messages) = gate_and_messages(&store, moody_adder(), &[1, 7, 13, 20]).await;
    let body = |place: usize| STANDARD.encode(&messages[place].envelope);
    let adder = EndpointName::new("adder").unwrap();
    let parked: Mutex<Vec<(String, String)>> = Mutex::default();
    let park = async |message: SqsMessage, reason: String| {
        let id = message.message_id.unwrap();
        if id == "m5" {
            return Err("no dead-letter queue for strays");
        }
        parked.lock().unwrap().push((id, reason));
        Ok(())
    };
    // 1, a copy of it, 7, 13, 20, and something else.
    let bodies =
        [(body(0), 1), (body(0), 2), (body(1), 1), (body(2), 1), (body(3), 1), ("{\"a\":1}".to_owned(), 1)];
    let response = lambda_sqs::handle(&gate, &adder, event(&bodies), park).await;
    let failures = serde_json::to_value(&response).unwrap();
    let expected = serde_json::json!({ "batchItemFailures": [
        { "itemIdentifier": "m2" }, { "itemIdentifier": "m5" }
    ] });
    assert_eq!(failures, expected);
    assert_eq!(*parked.lock().unwrap(), [("m3".to_owned(), "unlucky".to_owned())]);
    assert_eq!(total(&*store, "P").await, 21);

    // What failed comes again; the third time is the last that the gate gives it, and it succeeds.
    for count in [2, 3] {
        let response = lambda_sqs::handle(&gate, &adder, event(&[(body(1), count)]), park).await;
        assert_eq!(response.batch_item_failures.len(), usize::from(count == 2), "delivery {count}");
    }
    // The whole batch once more, as after a time-out of the function.
    let all = [(body(0), 9), (body(1), 9), (body(3), 9)];
    let response = lambda_sqs::handle(&gate, &adder, event(&all), park).await;
    assert!(response.batch_item_failures.is_empty());
    gate.close().await;
    assert_eq!(total(&*store, "P").await, 28);
}
