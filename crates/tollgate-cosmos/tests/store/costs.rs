//! What a message costs: requests and request units, as the store counts them from the answers, and by the published charges.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tollgate::{Endpoint, HandlerError, Message, Tx};
use tollgate_brokers::InProcessBroker;
use tollgate_cosmos::charges::{ReadStrength, message_charge};
use tollgate_cosmos_emulator::CosmosEmulator;
use tollgate_testkit::one_by_one::{COUNTED, Output, SINK, WORKER, one_by_one};
use tollgate_testkit::ring::{Ring, ring_gate, until_drained, until_handled};

use crate::accounts::{CONTAINER, DATABASE, account, store};

const KILOBYTE: usize = 1024;
#[derive(Clone, Serialize, Deserialize)]
struct Work {
    outputs: u32,
}

impl Message for Work {
    const TYPE: &'static str = "test.work";
}

async fn work(tx: Tx, work: Work) -> Result<(), HandlerError> {
    let number: u64 = tx.get::<(u64, String)>("state").await?.map_or(0, |(number, _)| number);
    tx.put("state", &(number + 1, "s".repeat(KILOBYTE - 300)))?;
    for output in 0..work.outputs {
        tx.send(SINK, &format!("sink-{output}"), &Output("m".repeat(KILOBYTE / 2)))?;
    }
    Ok(())
}

/// Request units and requests a message: its partition's load and commit, and for each output the read and the deletion of its token.
async fn cost(outputs: u32) -> (f64, f64) {
    let emulator = account().start().unwrap();
    let cosmos = Arc::new(store(&emulator).await);
    let worker = Endpoint::new(WORKER).preload("state").on(work);
    let count = || cosmos.statistics().total();
    let (before, after) =
        one_by_one(cosmos.clone(), worker, u64::from(outputs), |_| Work { outputs }, count).await;
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    let (requests, messages) = ((after.requests - before.requests) as f64, COUNTED as f64);
    ((after.request_units - before.request_units) / messages, requests / messages)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_message_costs() {
    println!(
        "| outputs | RU by the published charges | RU the emulator reports | requests |\n|---|---|---|---|"
    );
    for (outputs, requests_max) in [(0, 1.0), (1, 3.0), (3, 7.0)] {
        let (units, requests) = cost(outputs).await;
        let published = message_charge(outputs as usize, ReadStrength::Session);
        println!("| {outputs} | {published:.1} | {units:.1} | {requests:.2} |");
        assert!(units > 0.0 && requests <= requests_max, "{outputs} outputs: {requests} requests");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_over_a_thousand_partitions_a_message_with_one_output_takes_fewer_than_four_requests() {
    let ring = Ring { messages: 600, hops: 9, partitions: 1000 };
    let emulator = CosmosEmulator::builder().container(DATABASE, CONTAINER, &["/pk"]).start().unwrap();
    let cosmos = Arc::new(store(&emulator).await);
    let broker = Arc::new(InProcessBroker::builder().visibility_timeout(Duration::from_secs(30)).build());
    let gate = ring_gate(cosmos.clone(), broker.clone(), 64).open().await.unwrap();
    ring.start(&gate).await;
    let (before, handled) = (emulator.counts(), gate.statistics().committed);
    until_handled(&gate, u64::from(ring.messages) * 8).await;
    let (requests, handled) =
        (emulator.counts().since(&before).items(), gate.statistics().committed - handled);
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    let requests = requests as f64 / handled as f64;
    println!("{requests:.3} requests a message with one output");
    assert!(requests < 4.0, "{requests:.3} requests a message");
    until_drained(&broker).await;
    gate.close().await;
    ring.audit(&*cosmos).await;
}
