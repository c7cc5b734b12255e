//! Gates that make no sense, and the end of those that do.

use std::sync::Arc;
use std::time::Duration;

use tollgate::{Broker, Endpoint, Gate, GateBuilder, HandlerError, TollgateError, Tx};

use crate::harness::{Add, TOTAL, add, broker, left_over, memory_store, total, until, waiting};
use crate::{adder, gate};

#[tokio::test(start_paused = true)]
async fn a_gate_that_makes_no_sense_does_not_open_and_says_why() {
    let problem = async |builder: GateBuilder| match builder.open().await {
        Err(TollgateError::Configuration(problem)) => problem,
        Err(other) => other.to_string(),
        Ok(_) => panic!("it opened"),
    };
    let (store, broker) = (memory_store(), broker());
    assert_eq!(
        problem(Gate::builder().store(Arc::clone(&store))).await,
        "it has no broker, and no sender for what its handlers send"
    );
    assert_eq!(
        problem(Gate::builder().broker(Arc::clone(&broker) as Arc<dyn Broker>)).await,
        "it has no store"
    );
    let gate = || gate(&store, &broker);
    assert!(problem(gate().store(Arc::clone(&store))).await.contains("two stores have the alias main"));
    assert!(problem(gate().endpoint(Endpoint::new("edge"))).await.contains("declared twice"));
    assert!(problem(gate().endpoint(Endpoint::new(""))).await.contains("it is empty"));
    assert!(problem(gate().endpoint(adder().on::<Add, _, _>(add))).await.contains("two handlers"));
    assert!(problem(gate().endpoint(adder().store("moon"))).await.contains("store moon"));
    assert!(problem(gate().endpoint(adder().concurrency(0))).await.contains("concurrency of 0"));
    assert!(problem(gate().fold_max(65)).await.contains("from 1 to 64"));
    assert!(problem(gate().subscribe::<Add>("", |_| String::new())).await.contains("it is empty"));
}

#[tokio::test(start_paused = true)]
async fn closing_finishes_what_was_taken_and_takes_no_more() {
    let (store, broker) = (memory_store(), broker());
    let endpoint = Endpoint::new("adder").concurrency(10).on::<Add, _, _>(|tx: Tx, message| async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        add(tx, message).await
    });
    let gate = gate(&store, &broker).endpoint(endpoint).open().await.unwrap();
    let handler = |tx: Tx| async move {
        for n in 0..100 {
            tx.send("adder", &format!("P{n}"), &Add { amount: 1, hops: 0 })?;
        }
        Ok::<_, HandlerError>(())
    };
    gate.edge("edge").unwrap().advance("source", "1", handler).await.unwrap();
    until(&gate, |statistics| statistics.committed >= 11).await;
    let statistics = gate.close().await;
    assert!(statistics.committed < 101, "it did not wait for the whole queue");
    let done = statistics.committed - 1;
    assert_eq!(waiting(&broker, "adder") as u64, 100 - done, "each is either done or still in the queue");
    assert_eq!(left_over(&*store).await, 100 - done, "and holds its token");
}

#[tokio::test(start_paused = true)]
async fn a_closed_gate_takes_no_requests_either() {
    let (store, broker) = (memory_store(), broker());
    let gate = gate(&store, &broker).open().await.unwrap();
    let edge = gate.edge("edge").unwrap();
    gate.close().await;
    let late =
        edge.execute("P", "late", Duration::from_secs(60), |tx: Tx| async move { Ok(tx.put(TOTAL, &1)?) });
    assert!(matches!(late.await, Err(TollgateError::Closed)));
    assert_eq!(total(&*store, "P").await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_outlives_its_handler_is_of_no_use() {
    static LEAKED: std::sync::Mutex<Option<Tx>> = std::sync::Mutex::new(None);
    let (store, broker) = (memory_store(), broker());
    let gate = gate(&store, &broker).open().await.unwrap();
    let handler = |tx: Tx| async move {
        *LEAKED.lock().unwrap() = Some(tx);
        Ok::<_, HandlerError>(())
    };
    gate.edge("edge").unwrap().advance("source", "1", handler).await.unwrap();
    let tx = LEAKED.lock().unwrap().take().unwrap();
    assert!(matches!(tx.put("total", &1), Err(TollgateError::Ended)));
    drop(tx);
    gate.close().await;
    assert_eq!(total(&*store, "source").await, 0);
}
