//! What can never be processed is put aside with a reason, its token intact.

use serde::{Deserialize, Serialize};
use tollgate::proto::{Content, Destination, EndpointName, Envelope, MessageId, codec};
use tollgate::{Endpoint, HandlerError, Message, Tx};

use crate::harness::{Add, broker, memory_store, total, until};
use crate::{adder, dead_letter_reason, gate, send, send_raw};

#[tokio::test(start_paused = true)]
async fn a_message_that_keeps_failing_is_dead_lettered_with_its_token_and_a_replay_is_processed_once() {
    let (store, broker) = (memory_store(), broker());
    let failing = gate(&store, &broker).deliveries_max(3).endpoint(
        Endpoint::new("adder").on::<Add, _, _>(|_, _| async { Err(HandlerError::retry("the moon is full")) }),
    );
    let failing = failing.open().await.unwrap();
    send(&failing, "one", vec![Add { amount: 1, hops: 0 }]).await;
    let reason = dead_letter_reason(&broker, "adder").await;
    assert_eq!(reason, "the moon is full (after 3 failures)");
    failing.close().await;

    assert_eq!(broker.redrive(&EndpointName::new("adder").unwrap()), 1);
    let mended = gate(&store, &broker).endpoint(adder()).open().await.unwrap();
    until(&mended, |statistics| statistics.committed == 1).await;
    mended.close().await;
    assert_eq!(total(&*store, "P").await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_poison_message_is_dead_lettered_at_once_with_its_reason() {
    let (store, broker) = (memory_store(), broker());
    let gate = gate(&store, &broker).endpoint(
        Endpoint::new("adder")
            .on::<Add, _, _>(|_, _| async { Err(HandlerError::permanent("no such account")) }),
    );
    let gate = gate.open().await.unwrap();
    send(&gate, "one", vec![Add { amount: 1, hops: 0 }]).await;
    assert_eq!(dead_letter_reason(&broker, "adder").await, "no such account");
    gate.close().await;
}

#[tokio::test(start_paused = true)]
async fn garbage_strays_and_unknown_types_are_dead_lettered_with_a_reason_each() {
    let (store, broker) = (memory_store(), broker());
    let gate = gate(&store, &broker).endpoint(adder()).endpoint(Endpoint::new("other")).open().await.unwrap();
    send_raw(&broker, "adder", "not an envelope at all").await;
    let reason = dead_letter_reason(&broker, "adder").await;
    assert!(reason.starts_with("the broker message is not an envelope"), "{reason}");

    let envelope = Envelope {
        message_id: MessageId::from_bytes([1; 16]),
        to: Destination { endpoint: "adder".try_into().unwrap(), partition: "P".try_into().unwrap() },
        message_type: Add::TYPE.try_into().unwrap(),
        headers: vec![],
        content: Content::Body("{}".into()),
    };
    send_raw(&broker, "other", codec::encode_envelope(&envelope)).await;
    let reason = dead_letter_reason(&broker, "other").await;
    assert!(reason.contains("addressed to endpoint adder"), "{reason}");
    gate.close().await;
}

#[derive(Serialize, Deserialize)]
struct Unheard {}

impl Message for Unheard {
    const TYPE: &'static str = "test.unheard";
}

#[tokio::test(start_paused = true)]
async fn a_message_without_a_handler_is_dead_lettered_at_the_limit_and_names_its_type() {
    let (store, broker) = (memory_store(), broker());
    let gate = gate(&store, &broker).endpoint(adder()).open().await.unwrap();
    let handler =
        |tx: Tx| async move { Ok::<_, HandlerError>(tx.send("adder", "P", &Unheard {})?.to_string()) };
    gate.edge("edge").unwrap().advance("source", "1", handler).await.unwrap();
    let reason = dead_letter_reason(&broker, "adder").await;
    assert_eq!(reason, "endpoint adder has no handler for message type test.unheard (after 10 failures)");
    gate.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_not_the_declared_type_is_dead_lettered_at_the_limit() {
    #[derive(Serialize, Deserialize)]
    struct Impostor(String);
    impl Message for Impostor {
        const TYPE: &'static str = Add::TYPE;
    }
    let (store, broker) = (memory_store(), broker());
    let gate = gate(&store, &broker).endpoint(adder()).open().await.unwrap();
    let handler = |tx: Tx| async move {
        Ok::<_, HandlerError>(tx.send("adder", "P", &Impostor("I am no number".into()))?.to_string())
    };
    gate.edge("edge").unwrap().advance("source", "1", handler).await.unwrap();
    let reason = dead_letter_reason(&broker, "adder").await;
    assert!(reason.starts_with("the body is not a test.add"), "{reason}");
    gate.close().await;
}
