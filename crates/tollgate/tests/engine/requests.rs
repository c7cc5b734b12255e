//! Requests at the edge.

use std::time::Duration;

use tollgate::proto::{AttemptId, Content, Destination, EndpointName, Envelope, MessageId, codec};
use tollgate::{HandlerError, TollgateError, Tx};

use crate::harness::{Add, broker, memory_store, total, until, waiting};
use crate::{adder, gate, send_raw};

#[tokio::test(start_paused = true)]
async fn a_request_made_twice_is_executed_once_and_answered_twice() {
    let (store, broker) = (memory_store(), broker());
    let gate = gate(&store, &broker).endpoint(adder()).open().await.unwrap();
    let edge = gate.edge("edge").unwrap();
    let handler = |tx: Tx| async move {
        let count = tx.get::<u64>("orders").await?.unwrap_or_default() + 1;
        tx.put("orders", &count)?;
        tx.send("adder", "P", &Add { amount: count, hops: 0 })?;
        Ok::<_, HandlerError>(format!("order {count}"))
    };
    let hour = Duration::from_secs(3600);
    let first = edge.execute("shop", "key-1", hour, handler).await.unwrap();
    let (again, other) = tokio::join!(
        edge.execute("shop", "key-1", hour, handler),
        edge.execute("shop", "key-2", hour, handler)
    );
    assert_eq!(first, "order 1");
    assert_eq!(again.unwrap(), "order 1");
    assert_eq!(other.unwrap(), "order 2");
    // Two at a time of one key: one executes, the other gets its response.
    let (one, same) = tokio::join!(
        edge.execute("shop", "key-3", hour, handler),
        edge.execute("shop", "key-3", hour, handler)
    );
    assert_eq!((one.unwrap(), same.unwrap()), ("order 3".to_owned(), "order 3".to_owned()));
    until(&gate, |statistics| statistics.committed == 6).await;
    let statistics = gate.close().await;
    assert_eq!((statistics.requests, statistics.replays), (3, 2));
    assert_eq!(total(&*store, "P").await, 6);
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_says_why_and_changes_nothing() {
    let (store, broker) = (memory_store(), broker());
    let gate = gate(&store, &broker).open().await.unwrap();
    let edge = gate.edge("edge").unwrap();
    let handler = |tx: Tx| async move {
        tx.put("total", &1)?;
        Err::<String, _>(HandlerError::permanent("no credit"))
    };
    let error = edge.execute("P", "key", Duration::from_secs(1), handler).await.unwrap_err();
    assert!(matches!(&error, TollgateError::RequestRefused { reason } if reason == "no credit"), "{error}");
    assert!(!error.is_retryable());
    assert_eq!(total(&*store, "P").await, 0);
    assert!(matches!(gate.edge("nowhere"), Err(TollgateError::Configuration(_))));
    gate.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_wake_up_for_a_commit_that_never_comes_fences_it_before_it_would_be_dead_lettered() {
    let (store, broker) = (memory_store(), broker());
    for deliveries_max in [1, 2, 10] {
        let gate = gate(&store, &broker).deliveries_max(deliveries_max).open().await.unwrap();
        let partition = format!("source {deliveries_max}");
        let envelope = Envelope {
            message_id: MessageId::from_name("wake-up", &partition),
            to: Destination {
                endpoint: "edge".try_into().unwrap(),
                partition: partition.try_into().unwrap(),
            },
            message_type: tollgate::proto::processing::WAKE_UP_TYPE.try_into().unwrap(),
            headers: vec![],
            content: Content::WakeUp { attempt: AttemptId::new(1, 1), expected: None },
        };
        send_raw(&broker, "edge", codec::encode_envelope(&envelope)).await;
        until(&gate, |_| waiting(&broker, "edge") == 0).await;
        gate.close().await;
        assert!(broker.dead_letters(&EndpointName::new("edge").unwrap()).is_empty());
    }
    let page = store.scan(None, 10).await.unwrap();
    assert_eq!(
        page.partitions.len(),
        3,
        "each partition has a control record now, which the stalled commit did not expect"
    );
}
