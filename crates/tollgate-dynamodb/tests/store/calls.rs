//! How many calls a message takes, counted on the wire.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tollgate::proto::EndpointName;
use tollgate::{Broker, Endpoint, Gate, HandlerError, Tx};
use tollgate_dynamodb_emulator::{FaultPlan, InProcessDynamoDb, Operation};

use crate::tables::fresh_store;
use tollgate_testkit::ring::{Hop, Ring, broker, ring_gate, until_drained, until_handled};

/// A network's round trip.
const LATENCY: Duration = Duration::from_millis(5);

async fn tell_elsewhere(tx: Tx, hop: Hop) -> Result<(), HandlerError> {
    tx.put("state", "told")?;
    tx.send("elsewhere", "Q", &hop)?;
    Ok(())
}

#[tokio::test]
async fn before_a_message_is_dispatched_there_are_two_calls_warm_and_three_cold() {
    use Operation::{BatchGetItem, UpdateItem};

    let dynamodb = InProcessDynamoDb::new();
    let store = Arc::new(fresh_store(dynamodb.client()).await);
    let queues = broker();
    let edge_gate = ring_gate(store.clone(), queues.clone(), 1).open().await.unwrap();
    let gate = Gate::builder()
        .store(store)
        .broker(queues.clone() as Arc<dyn Broker>)
        .sweep_every(None)
        .flush_after(Duration::from_secs(3600))
        .endpoint(Endpoint::new("teller").preload("state").on(tell_elsewhere))
        .open()
        .await
        .unwrap();
    let edge = edge_gate.edge("edge").unwrap();
    let elsewhere = EndpointName::new("elsewhere").unwrap();
    let calls: Arc<Mutex<Vec<(Operation, usize)>>> = Arc::default();
    dynamodb.decide_faults({
        let (calls, queues, elsewhere) = (Arc::clone(&calls), queues.clone(), elsewhere.clone());
        move |call| {
            calls.lock().unwrap().push((call.operation, queues.depth(&elsewhere).ready));
            None
        }
    });
    let tell = async |number: usize| {
        let send = |tx: Tx| async move {
            let hop = Hop { hops: 0, partitions: 1, stride: 1 };
            Ok::<_, HandlerError>(tx.send("teller", "P", &hop).map(drop)?)
        };
        edge.advance(&format!("source/{number}"), "tell", send).await.unwrap();
        while gate.statistics().committed < number as u64 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        std::mem::take(&mut *calls.lock().unwrap())
    };
    let cold = tell(1).await;
    let warm = tell(2).await;
    let names = |calls: &[(Operation, usize)], dispatched: usize| -> Vec<Operation> {
        calls.iter().filter(|(_, ready)| *ready == dispatched).map(|(operation, _)| *operation).collect()
    };
    // The edge loads its own partition and commits the message first.
    let edge_calls = [BatchGetItem, UpdateItem];
    assert_eq!(names(&cold, 0), [&edge_calls[..], &[BatchGetItem, BatchGetItem, UpdateItem]].concat());
    assert_eq!(names(&cold, 1), [UpdateItem], "the consumption");
    assert_eq!(names(&warm, 1), [&edge_calls[..], &[BatchGetItem, UpdateItem]].concat());
    assert_eq!(names(&warm, 2), [UpdateItem]);
    gate.close().await;
    edge_gate.close().await;
}

#[tokio::test(start_paused = true)]
async fn under_load_over_a_thousand_partitions_a_message_with_one_output_takes_at_most_2_2_calls() {
    let ring = Ring { messages: 2000, hops: 9, partitions: 1000 };
    let dynamodb = InProcessDynamoDb::new();
    let store = Arc::new(fresh_store(dynamodb.client()).await);
    let broker = broker();
    dynamodb.set_faults(FaultPlan::none().latency(LATENCY..=LATENCY));
    let gate = ring_gate(store.clone(), broker.clone(), 64).open().await.unwrap();
    ring.start(&gate).await;
    let before = dynamodb.counts();
    let (first, last) = (gate.statistics().committed, u64::from(ring.messages) * 8);
    until_handled(&gate, last).await;
    let (counts, handled) = (dynamodb.counts().since(&before), gate.statistics().committed - first);
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    let calls = counts.item_calls() as f64 / handled as f64;
    println!("{calls:.3} calls a message with one output");
    assert!(calls <= 2.2, "{calls:.3} calls a message: {counts:?}");
    until_drained(&broker).await;
    gate.close().await;
    dynamodb.set_faults(FaultPlan::none());
    ring.audit(&*store).await;
}
