//! Sources that are restarted, run twice, or give all their steps one name, on a broker that drops publications whose ids it
//! remembers, as `JetStream` and SQS FIFO do.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod harness;

use std::sync::Arc;
use std::time::Duration;

use harness::{Add, add, broker, left_over, memory_store, total, waiting};
use tollgate::proto::{Content, Destination, Envelope, MessageId, codec};
use tollgate::proto::{EndpointName, OutgoingMessage};
use tollgate::{Broker, Deduplicate, Edge, Endpoint, Gate, HandlerError, Message, Store, TollgateError, Tx};
use tollgate_brokers::InProcessBroker;
use tollgate_testkit::ChaosBroker;

const LINES: usize = 160;
const CHUNK: usize = 16;
const PARTITIONS: usize = 5;

/// Longer than any test takes on its paused clock.
const WINDOW: Duration = Duration::from_secs(100 * 24 * 3600);

/// One store and one broker, for any number of processes.
struct Ground {
    store: Arc<dyn Store>,
    queues: Arc<InProcessBroker>,
    chaos: Arc<ChaosBroker>,
}

impl Ground {
    fn new(seed: u64) -> Self {
        let queues = broker();
        let chaos = ChaosBroker::builder(Arc::clone(&queues) as Arc<dyn Broker>)
            .seed(seed)
            .duplicates(0.2)
            .reorder(8)
            .lose_acks(0.1)
            .failing_sends(0.02)
            .deduplicates_for(WINDOW);
        Self { store: memory_store(), queues, chaos: Arc::new(chaos.build()) }
    }

    async fn gate(&self) -> Gate {
        Gate::builder()
            .store(Arc::clone(&self.store))
            .broker(Arc::clone(&self.chaos) as Arc<dyn Broker>)
            .sweep_every(Some(Duration::from_secs(60)))
            .endpoint(Endpoint::new("source"))
            .endpoint(Endpoint::new("lines").on(add).on_tokenless(Deduplicate::Natural, ring))
            .open()
            .await
            .unwrap()
    }

    /// Waits until nothing is left to do, and counts the lines that were handled.
    async fn handled(&self) -> u64 {
        for _ in 0..1000 {
            tokio::time::sleep(Duration::from_secs(10)).await;
            if waiting(&self.queues, "lines") + waiting(&self.queues, "source") == 0
                && left_over(&*self.store).await == 0
            {
                break;
            }
        }
        assert_eq!(left_over(&*self.store).await, 0, "a token is left and no message that would bring it");
        let mut handled = 0;
        for partition in 0..PARTITIONS {
            handled += total(&*self.store, &format!("P{partition}")).await;
        }
        handled
    }
}

/// Rings for each run: what it sends is sent for each run, under the same message id.
async fn ring(tx: Tx, _: Bell) -> Result<(), HandlerError> {
    tx.put("rung", &(tx.get::<u64>("rung").await?.unwrap_or_default() + 1))?;
    tx.send("lines", "P0", &Add { amount: 1, hops: 0 })
        .map(drop)
        .map_err(|error| HandlerError::permanent(error.to_string()))
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Bell {}

impl Message for Bell {
    const TYPE: &'static str = "test.bell";
}

/// One step of the guide's source. The position in the partition decides, not the caller.
async fn step(edge: &Edge, name: &str) -> Result<usize, TollgateError> {
    let step = |tx: Tx| async move {
        let from: usize = tx.get("position").await?.unwrap_or(0);
        let end = LINES.min(from + CHUNK);
        for line in from..end {
            tx.send("lines", &format!("P{}", line % PARTITIONS), &Add { amount: 1, hops: 0 })?;
        }
        tx.put("position", &end)?;
        Ok::<_, HandlerError>(end)
    };
    edge.advance("source/flights", name, step).await
}

/// The guide's loop: it begins at 0, whatever was sent before the restart.
async fn run_source(edge: Edge, until: usize) {
    let mut sent = 0;
    while sent < until {
        // On a failure the guide's caller tries again.
        if let Ok(end) = step(&edge, &format!("from-{sent}")).await {
            sent = end;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_restarted_within_the_brokers_window_loses_no_line() {
    let mut dropped = 0;
    for seed in 0..50 {
        let ground = Ground::new(seed);
        for until in [LINES / 2, LINES] {
            let gate = ground.gate().await;
            run_source(gate.edge("source").unwrap(), until).await;
            gate.close().await;
        }
        let gate = ground.gate().await;
        assert_eq!(ground.handled().await, LINES as u64, "seed {seed}");
        gate.close().await;
        dropped += ground.chaos.counts().dropped_as_known;
    }
    assert!(dropped > 0, "the broker has dropped nothing, so this test shows nothing");
}

#[tokio::test(start_paused = true)]
async fn two_processes_that_run_the_same_source_lose_no_line() {
    for seed in 0..50 {
        let ground = Ground::new(seed);
        let (first, second) = (ground.gate().await, ground.gate().await);
        let sources = [&first, &second].map(|gate| run_source(gate.edge("source").unwrap(), LINES));
        let [one, other] = sources;
        tokio::join!(one, other);
        assert_eq!(ground.handled().await, LINES as u64, "seed {seed}");
        first.close().await;
        second.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_whose_steps_have_one_name_loses_nothing() {
    let ground = Ground::new(1);
    let gate = ground.gate().await;
    let edge = gate.edge("source").unwrap();
    while !matches!(step(&edge, "poll").await, Ok(LINES)) {}
    assert_eq!(ground.handled().await, LINES as u64);
    gate.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_natural_handler_sends_twice_arrives_twice() {
    let ground = Ground::new(1);
    let gate = ground.gate().await;
    let to =
        Destination { endpoint: EndpointName::new("lines").unwrap(), partition: "bell".try_into().unwrap() };
    let id = MessageId::from_name("door", "bell");
    let envelope = Envelope {
        message_id: id,
        to: to.clone(),
        message_type: Bell::TYPE.try_into().unwrap(),
        headers: Vec::new(),
        content: Content::Body("{}".into()),
    };
    let message =
        OutgoingMessage::without_token(to.endpoint, to.partition, id, codec::encode_envelope(&envelope));
    for _ in 0..3 {
        // Past the broker's memory: copies that the broker itself has made.
        ground.queues.send(vec![message.clone()]).await.pop().unwrap().unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let handled = ground.handled().await;
    let rung = gate.edge("lines").unwrap().read("bell", "rung").await.unwrap().unwrap();
    assert_eq!(handled.to_string(), std::str::from_utf8(&rung).unwrap());
    assert!(handled >= 3, "rung {handled} times");
    gate.close().await;
}
