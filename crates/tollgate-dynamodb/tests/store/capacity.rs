//! What a message costs in capacity units, as the emulator reports them: 1 KB of state changed, messages of 1 KB. Its source
//! and the consumers of its outputs keep their states elsewhere, so that all that is counted is the message's own: its partition's
//! load and commit, and the reads and the consumption of the tokens of its outputs.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tollgate::{Endpoint, HandlerError, Message, Store, Tx};
use tollgate_dynamodb_emulator::InProcessDynamoDb;
use tollgate_testkit::one_by_one::{COUNTED, Output, SINK, WORKER, one_by_one};

use crate::tables::fresh_store;

const KILOBYTE: usize = 1024;
#[derive(Clone, Serialize, Deserialize)]
struct Work {
    outputs: u32,
    state: State,
    number: u64,
    body: String,
}

/// What a partition consists of, and what messages change.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum State {
    /// One item of 1 KB.
    Small,
    /// 40 items of 1 KB each, of which always the same one is changed.
    LargeWithHotItem,
    /// 40 items of 1 KB each, which are changed in turn.
    LargeInTurn,
}

const ITEMS: u64 = 40;

impl Message for Work {
    const TYPE: &'static str = "test.work";
}

async fn work(tx: Tx, work: Work) -> Result<(), HandlerError> {
    let changed = match work.state {
        State::Small | State::LargeWithHotItem => 0,
        State::LargeInTurn => work.number % ITEMS,
    };
    if work.number == 1 && !matches!(work.state, State::Small) {
        for item in (0..ITEMS).filter(|item| *item != changed) {
            tx.put(&format!("item-{item}"), &"o".repeat(KILOBYTE - 20))?;
        }
    }
    tx.put(&format!("item-{changed}"), &(work.number, "s".repeat(KILOBYTE - 20)))?;
    for output in 0..work.outputs {
        // The body of 1 KB includes its quotation marks.
        tx.send(SINK, &format!("sink-{output}"), &Output("m".repeat(KILOBYTE - 2)))?;
    }
    Ok(())
}

/// Write and read units and calls, a message.
#[derive(Debug)]
struct Cost {
    writes: f64,
    reads: f64,
    calls: f64,
}

async fn cost(outputs: u32, state: State) -> Cost {
    let dynamodb = InProcessDynamoDb::new();
    let main: Arc<dyn Store> = Arc::new(fresh_store(dynamodb.client()).await);
    let message = |number| Work { outputs, state, number, body: "b".repeat(KILOBYTE) };
    let worker = Endpoint::new(WORKER).on(work);
    let (before, after) = one_by_one(main, worker, u64::from(outputs), message, || dynamodb.counts()).await;
    let counts = after.since(&before);
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    let (calls, messages) = (counts.item_calls() as f64, COUNTED as f64);
    Cost {
        writes: counts.write_units().as_f64() / messages,
        reads: counts.read_units().as_f64() / messages,
        calls: calls / messages,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_message_costs() {
    println!("| partition | outputs | write units | read units | calls |\n|---|---|---|---|---|");
    // At most, in write units: the commit, and the consumption of each output for itself.
    let at_most = [
        (State::Small, [2.0, 3.0 + 3.0, 6.0 + 6.0 + 5.0 + 3.0]),
        (State::LargeWithHotItem, [2.0, 3.0 + 3.0, 6.0 + 6.0 + 5.0 + 3.0]),
        (State::LargeInTurn, [2.0 * 3.0, 2.0 * 4.0 + 2.0, 2.0 * 7.0 + 5.0 + 4.0 + 2.0]),
    ];
    for (state, writes_max) in at_most {
        for (outputs, writes_max) in [0, 1, 3].into_iter().zip(writes_max) {
            let cost = cost(outputs, state).await;
            let Cost { writes, reads, calls } = cost;
            println!("| {state:?} | {outputs} | {writes:.2} | {reads:.2} | {calls:.2} |");
            assert!(writes <= writes_max, "{state:?} with {outputs} outputs: {cost:?}");
            assert!(reads <= f64::from(outputs), "{state:?} with {outputs} outputs: {cost:?}");
        }
    }
}
