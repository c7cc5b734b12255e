//! Traffic for the store's tests: messages that go from partition to partition, add to each, and leave an account by which an
//! audit finds every message that was lost or counted twice.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tollgate::core::{EndpointName, ItemName, LoadRequest, PartitionKey, Store, codec};
use tollgate::{Broker, Edge, Endpoint, Gate, GateBuilder, HandlerError, Message, Tx};
use tollgate_brokers::InProcessBroker;

pub const ENDPOINT: &str = "ring";
const ACCOUNT: &str = "account";

/// Adds 1 to a partition's account and goes on to the next partition as often as `hops` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hop {
    pub hops: u32,
    pub partitions: u32,
    /// How far the next partition is.
    pub stride: u32,
}

impl Message for Hop {
    const TYPE: &'static str = "test.hop";
}

/// How messages go round.
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    /// How many messages start.
    pub messages: u32,
    /// To how many partitions each goes after its first.
    pub hops: u32,
    /// How many partitions there are.
    pub partitions: u32,
}

impl Ring {
    /// How often a handler has to run, exactly.
    pub const fn handled(&self) -> u64 {
        self.messages as u64 * (self.hops as u64 + 1)
    }

    /// Starts all messages.
    pub async fn start(&self, edge: &Edge) {
        let Self { messages, hops, partitions } = *self;
        for first in (0..messages).step_by(50) {
            let some = move |tx: Tx| async move {
                for number in first..messages.min(first + 50) {
                    let hop = Hop { hops, partitions, stride: 2 * number + 1 };
                    tx.send(ENDPOINT, &partition(number % partitions), &hop)?;
                }
                Ok::<_, HandlerError>(())
            };
            edge.advance(&format!("source/{first}"), "start", some).await.unwrap();
        }
    }

    /// Compares the accounts with what has to be in them, and looks for what should be gone.
    pub async fn audit(&self, store: &dyn Store) {
        let mut total = 0;
        for number in 0..self.partitions {
            total += account(store, &partition(number)).await;
        }
        assert_eq!(total, self.handled(), "messages were lost or counted twice");
        assert_eq!(left_over(store).await, 0, "deduplication data are left over");
    }
}

/// A gate that consumes the ring's messages and can start them.
pub fn ring_gate(store: Arc<dyn Store>, broker: &Arc<InProcessBroker>, workers: usize) -> GateBuilder {
    Gate::builder()
        .store(store)
        .broker(Arc::clone(broker) as Arc<dyn Broker>)
        .sweep_every(None)
        .endpoint(Endpoint::new("edge"))
        .endpoint(Endpoint::new(ENDPOINT).preload(ACCOUNT).concurrency(workers).on(hop))
}

/// A broker that gives a message out again when nobody has settled it for half a minute.
pub fn broker() -> Arc<InProcessBroker> {
    Arc::new(InProcessBroker::builder().visibility_timeout(Duration::from_secs(30)).build())
}

/// Waits until so many messages have been handled.
pub async fn until_handled(gate: &Gate, messages: u64) {
    for _ in 0..10_000_000 {
        if gate.statistics().committed >= messages {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it never came to {messages} messages: {:?}", gate.statistics());
}

/// Waits until the ring's queue is empty: every message has been handled and settled.
pub async fn until_drained(broker: &InProcessBroker) {
    let endpoint = EndpointName::new(ENDPOINT).unwrap();
    while broker.depth(&endpoint).total() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn hop(tx: Tx, Hop { hops, partitions, stride }: Hop) -> Result<(), HandlerError> {
    let account: u64 = tx.get(ACCOUNT).await?.unwrap_or_default();
    tx.put(ACCOUNT, &(account + 1))?;
    if hops > 0 {
        let here: u32 = tx
            .partition()
            .as_str()
            .trim_start_matches('P')
            .parse()
            .expect("the ring's partitions have numbers");
        let hop = Hop { hops: hops - 1, partitions, stride };
        tx.send(ENDPOINT, &partition((here + stride) % partitions), &hop)?;
    }
    Ok(())
}

fn partition(number: u32) -> String {
    format!("P{number}")
}

async fn account(store: &dyn Store, partition: &str) -> u64 {
    let request = LoadRequest {
        partition: PartitionKey::new(partition).unwrap(),
        items: vec![ItemName::new(ACCOUNT).unwrap()],
        records: vec![],
    };
    let loaded = store.load(vec![request]).await.pop().unwrap().unwrap();
    let account = loaded.items.into_iter().next().unwrap().1;
    account.map_or(0, |account| serde_json::from_slice(account.bytes()).unwrap())
}

/// Outbox entries, pending markers and registrations in the whole store.
pub async fn left_over(store: &dyn Store) -> u64 {
    let (mut left, mut cursor) = (0, None);
    loop {
        let page = store.scan(cursor, 100).await.unwrap();
        for scanned in page.partitions {
            left += scanned.entries;
            if let Some(control) = scanned.control {
                let control = codec::decode_control(&control).unwrap();
                left += (control.pending.len() + control.registrations.len()) as u64;
            }
        }
        match page.next {
            Some(next) => cursor = Some(next),
            None => return left,
        }
    }
}
