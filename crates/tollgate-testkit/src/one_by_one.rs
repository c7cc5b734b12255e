//! Messages one after the other, for measuring what each costs the store under test. Their source and the consumers of their
//! outputs keep their states elsewhere, so that all that the store is asked for is the messages' own: their partition's load and
//! commit, and the reads and deletions of the tokens of their outputs. It knows no store and counts nothing itself.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tollgate::proto::{Store, StoreAlias};
use tollgate::{Broker, Endpoint, Gate, HandlerError, Message, Tx};
use tollgate_brokers::InProcessBroker;
use tollgate_embedded::MemoryStore;

/// The endpoint that the measured messages go to.
pub const WORKER: &str = "worker";
/// The endpoint that their outputs go to.
pub const SINK: &str = "sink";

/// Messages that warm the caches.
pub const WARMING: u64 = 5;
/// Messages that are counted after them.
pub const COUNTED: u64 = 50;

/// Time between two looks at what is awaited.
const LOOK_EVERY: Duration = Duration::from_micros(100);
/// The tokens are deleted after the commit, and nobody tells when.
const DELETED_WITHIN: Duration = Duration::from_millis(5);

/// An output of a measured message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Output(pub String);

impl Message for Output {
    const TYPE: &'static str = "test.output";
}

/// Sends messages to `worker`, an endpoint of the name [`WORKER`] on the store `main`, and waits after each until it is processed and its
/// outputs (so many, all to [`SINK`]) are consumed. The answer is what `count` said before and after the [`COUNTED`] ones.
///
/// # Panics
/// If a gate can't be opened or a store refuses.
pub async fn one_by_one<M: Message + Clone + Sync, C>(
    main: Arc<dyn Store>,
    worker: Endpoint,
    outputs: u64,
    message: impl Fn(u64) -> M,
    count: impl Fn() -> C,
) -> (C, C) {
    let [source, elsewhere] = ["source", "elsewhere"].map(|alias| {
        let alias = StoreAlias::new(alias).expect("a constant that is an alias");
        Arc::new(MemoryStore::new(alias)) as Arc<dyn Store>
    });
    let broker = Arc::new(InProcessBroker::builder().visibility_timeout(Duration::from_secs(30)).build());
    let open = async |stores: &[&Arc<dyn Store>], endpoint: Endpoint| {
        let gate = Gate::builder().broker(broker.clone() as Arc<dyn Broker>).sweep_every(None);
        let gate = gate.fold_max(1).flush_after(Duration::from_secs(3600)).endpoint(endpoint);
        let gate = stores.iter().fold(gate, |gate, store| gate.store(Arc::clone(store)));
        gate.open().await.expect("a gate on healthy stores opens")
    };
    let edges = open(&[&source], Endpoint::new("edge")).await;
    let worker = open(&[&main, &source], worker).await;
    let sinks = open(&[&elsewhere, &main], Endpoint::new(SINK).on(take)).await;
    let edge = edges.edge("edge").expect("it was just declared");
    let mut before = count();
    for number in 1..=WARMING + COUNTED {
        let message = message(number);
        let send = move |tx: Tx| {
            let message = message.clone();
            async move { Ok::<_, HandlerError>(tx.send(WORKER, "P", &message).map(drop)?) }
        };
        edge.advance("source", &number.to_string(), send).await.expect("a store in memory takes it");
        let committed = |gate: &Gate| gate.statistics().committed;
        while committed(&worker) < number || committed(&sinks) < number * outputs {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        tokio::time::sleep(DELETED_WITHIN).await;
        if number == WARMING {
            before = count();
        }
    }
    let after = count();
    for gate in [edges, worker, sinks] {
        gate.close().await;
    }
    (before, after)
}

async fn take(tx: Tx, _: Output) -> Result<(), HandlerError> {
    tx.put("last", "one")?;
    Ok(())
}
