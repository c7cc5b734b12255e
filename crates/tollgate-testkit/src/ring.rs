//! Traffic for whole gates on a store under test: messages that go from partition to partition, add to each, and leave an account
//! by which an audit finds every message that was lost or counted twice. It knows no store and injects nothing: what goes
//! wrong is the test's affair.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tollgate::proto::{EndpointName, ItemName, LoadRequest, PartitionKey, Store, codec};
use tollgate::{Broker, Endpoint, Gate, GateBuilder, HandlerError, Message, Tx};
use tollgate_brokers::InProcessBroker;

/// The endpoint that the messages go to.
pub const ENDPOINT: &str = "ring";
/// The endpoint that starts them.
pub const EDGE: &str = "edge";

/// Messages that one commit starts.
const STARTED_TOGETHER: u32 = 50;
/// Partitions in one page of an audit.
const PAGE: usize = 100;
/// Time between two looks at what is awaited.
const LOOK_EVERY: Duration = Duration::from_millis(1);

const ACCOUNT: &str = "account";

/// Adds 1 to a partition's account and goes on to the next partition as often as `hops` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hop {
    /// To how many more partitions it goes.
    pub hops: u32,
    /// How many partitions there are.
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

    /// How many commits it takes, those that start the messages included.
    pub const fn commits(&self) -> u64 {
        self.handled() + self.messages.div_ceil(STARTED_TOGETHER) as u64
    }

    /// Starts all messages, and returns when the broker has them.
    ///
    /// # Panics
    /// If the store refuses.
    pub async fn start(&self, gate: &Gate) {
        let Self { messages, hops, partitions } = *self;
        let edge = gate.edge(EDGE).expect("a ring's gate has this endpoint");
        for first in (0..messages).step_by(STARTED_TOGETHER as usize) {
            let some = move |tx: Tx| async move {
                for number in first..messages.min(first + STARTED_TOGETHER) {
                    let hop = Hop { hops, partitions, stride: 2 * number + 1 };
                    tx.send(ENDPOINT, &partition(number % partitions), &hop)?;
                }
                Ok::<_, HandlerError>(())
            };
            edge.advance(&format!("source/{first}"), "start", some)
                .await
                .expect("the store takes what is started");
        }
        while gate.statistics().published < u64::from(messages) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Compares the accounts with what has to be in them, and looks for what should be gone.
    ///
    /// # Panics
    /// If messages were lost or counted twice, or something is left over.
    pub async fn audit(&self, store: &dyn Store) {
        assert_eq!(self.counted(store).await, self.handled(), "messages were lost or counted twice");
        assert_eq!(left_over(store).await, 0, "deduplication data are left over");
    }
}

impl Ring {
    /// How often handlers have run, as the accounts tell.
    pub async fn counted(&self, store: &dyn Store) -> u64 {
        let mut total = 0;
        for number in 0..self.partitions {
            total += account(store, &partition(number)).await;
        }
        total
    }
}

/// A gate that consumes the ring's messages and can start them.
pub fn ring_gate(store: Arc<dyn Store>, broker: Arc<dyn Broker>, workers: usize) -> GateBuilder {
    Gate::builder()
        .store(store)
        .broker(broker)
        .sweep_every(None)
        .endpoint(Endpoint::new(EDGE))
        .endpoint(Endpoint::new(ENDPOINT).preload(ACCOUNT).concurrency(workers).on(hop))
}

/// A broker that gives a message out again when nobody has settled it for half a minute.
pub fn broker() -> Arc<InProcessBroker> {
    Arc::new(InProcessBroker::builder().visibility_timeout(Duration::from_secs(30)).build())
}

/// Waits until a gate has handled so many messages.
///
/// # Panics
/// If it never comes to that.
pub async fn until_handled(gate: &Gate, messages: u64) {
    for _ in 0..10_000_000 {
        if gate.statistics().committed >= messages {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    panic!("it never came to {messages} messages: {:?}", gate.statistics());
}

/// Waits until the ring's queue is empty: every message has been handled and settled.
///
/// # Panics
/// Never: the endpoint's name is one.
pub async fn until_drained(broker: &InProcessBroker) {
    let endpoint = EndpointName::new(ENDPOINT).expect("a constant that is a name");
    while broker.depth(&endpoint).total() > 0 {
        tokio::time::sleep(LOOK_EVERY).await;
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
        partition: PartitionKey::new(partition).expect("the ring's partitions have short names"),
        items: vec![ItemName::new(ACCOUNT).expect("a constant that is a name")],
        records: vec![],
    };
    let loaded = store.load(vec![request]).await.pop().expect("one request has one answer");
    let loaded = loaded.expect("an audit is made of a healthy store");
    let account = loaded.items.into_iter().next().and_then(|(_, account)| account);
    account.map_or(0, |account| serde_json::from_slice(account.bytes()).expect("an account is a number"))
}

/// Outbox entries, pending markers and registrations in the whole store.
///
/// # Panics
/// If the store can't be scanned.
pub async fn left_over(store: &dyn Store) -> u64 {
    let (mut left, mut cursor) = (0, None);
    loop {
        let page = store.scan(cursor, PAGE).await.expect("an audit is made of a healthy store");
        for scanned in page.partitions {
            left += scanned.entries.len() as u64;
            if let Some(control) = scanned.control {
                let control =
                    codec::decode_control(&control).expect("control records are what the engine wrote");
                left += (control.pending.len() + control.registrations.len()) as u64;
            }
        }
        match page.next {
            Some(next) => cursor = Some(next),
            None => return left,
        }
    }
}
