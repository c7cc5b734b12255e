//! Tokens, identities and natural idempotence side by side: one endpoint, one partition, one commit, each message type recognised
//! in its own way, under duplicates, lost answers and processes that die.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod harness;

use std::sync::Arc;
use std::time::Duration;

use harness::{Add, TOTAL, add, left_over, total, waiting};
use serde::{Deserialize, Serialize};
use tollgate::proto::{EndpointName, LoadRequest, MessageId, OutgoingMessage, StoreAlias};
use tollgate::{Backoff, Broker, Deduplicate, Endpoint, Foreign, Gate, HandlerError, Message, Store, Tx};
use tollgate_brokers::InProcessBroker;
use tollgate_embedded::MemoryStore;
use tollgate_testkit::ChaosBroker;
use tollgate_testkit::{FaultRates, FaultyStore};

/// Something that was delivered: counted, and told to another partition. Known by its id where it comes from outside.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Delivered {
    amount: u64,
}

impl Message for Delivered {
    const TYPE: &'static str = "test.delivered";
}

/// Sets and does not add: it may be handled as often as it comes.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Temperature {
    degrees: u64,
}

impl Message for Temperature {
    const TYPE: &'static str = "test.temperature";
}

async fn delivered(tx: Tx, message: Delivered) -> Result<(), HandlerError> {
    let sum: u64 = tx.get("delivered").await?.unwrap_or_default();
    tx.put("delivered", &(sum + message.amount))?;
    // What a message causes goes on by tokens, however it came in.
    tx.send("house", "book", &Add { amount: message.amount, hops: 1 })?;
    Ok(())
}

async fn temperature(tx: Tx, message: Temperature) -> Result<(), HandlerError> {
    tx.put("temperature", &message.degrees)?;
    Ok(())
}

const RETENTION: Duration = Duration::from_secs(24 * 3600);

/// One endpoint, three ways. The legacy producers write `ID AMOUNT` or `DEGREES`.
fn house() -> Endpoint {
    Endpoint::new("house")
        .on(add)
        .on_tokenless(Deduplicate::ByIdentity { retention: RETENTION }, delivered)
        .on_tokenless(Deduplicate::Natural, temperature)
        .foreign(|bytes| {
            let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
            let (id, message_type, body) = match text.split_once(' ') {
                Some((id, amount)) => (id, Delivered::TYPE, format!(r#"{{"amount":{amount}}}"#)),
                None => ("any", Temperature::TYPE, format!(r#"{{"degrees":{text}}}"#)),
            };
            Ok(Foreign {
                id: id.to_owned(),
                partition: "P".to_owned(),
                message_type: message_type.to_owned(),
                body: body.into(),
            })
        })
}

struct Ground {
    faults: Arc<FaultyStore>,
    queues: Arc<InProcessBroker>,
    seed: u64,
}

impl Ground {
    fn new(seed: u64) -> Self {
        let store = MemoryStore::new(StoreAlias::new("main").unwrap());
        Self {
            faults: Arc::new(FaultyStore::new(Arc::new(store), seed, FaultRates::default())),
            queues: Arc::new(
                InProcessBroker::builder().visibility_timeout(Duration::from_millis(300)).build(),
            ),
            seed,
        }
    }

    async fn gate(&self) -> Gate {
        let chaos = ChaosBroker::builder(Arc::clone(&self.queues) as Arc<dyn Broker>)
            .seed(self.seed)
            .duplicates(0.3)
            .reorder(20)
            .lose_acks(0.2)
            .build();
        Gate::builder()
            .store(Arc::clone(&self.faults) as Arc<dyn Store>)
            .broker(Arc::new(chaos))
            .deliveries_max(10_000)
            .redelivery(Backoff { first: Duration::from_millis(5), cap: Duration::from_millis(50) })
            .wake_up_after(Duration::from_millis(20))
            .sweep_every(Some(Duration::from_millis(300)))
            .endpoint(Endpoint::new("edge"))
            .endpoint(house())
            .open()
            .await
            .unwrap()
    }

    fn is_quiet(&self) -> bool {
        waiting(&self.queues, "house") + waiting(&self.queues, "edge") == 0
    }

    async fn send_foreign(&self, text: String) {
        let message = OutgoingMessage::without_token(
            EndpointName::new("house").unwrap(),
            "P".try_into().unwrap(),
            MessageId::from_bytes([0; 16]),
            text.into(),
        );
        self.queues.send(vec![message]).await.pop().unwrap().unwrap();
    }

    async fn number(&self, item: &str) -> u64 {
        let request = LoadRequest {
            partition: "P".try_into().unwrap(),
            items: vec![item.try_into().unwrap()],
            records: vec![],
        };
        let loaded = self.faults.load(vec![request]).await.pop().unwrap().unwrap();
        let value = loaded.items.into_iter().next().unwrap().1;
        value.map_or(0, |value| serde_json::from_slice(value.bytes()).unwrap())
    }
}

/// Messages of each kind.
const MESSAGES: u64 = 30;

/// Everything that comes in: thirty of each kind, those without a token three times over.
async fn traffic(ground: &Ground, gate: &Gate) {
    let edge = gate.edge("edge").unwrap();
    for number in 0..MESSAGES {
        for _ in 0..3 {
            ground.send_foreign(format!("legacy-{number} 100")).await;
            ground.send_foreign("21".to_owned()).await;
        }
        let send = |tx: Tx| async move {
            tx.send("house", "P", &Add { amount: 1, hops: 0 })?;
            // A type that is known by its id outside, and by its token where it has one.
            tx.send("house", "P", &Delivered { amount: 1 })?;
            Ok(())
        };
        loop {
            let answer = edge.execute("clients", &number.to_string(), RETENTION, send).await;
            if answer.is_ok() {
                break;
            }
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn three_ways_of_deduplication_in_one_endpoint_hold_under_duplicates_faults_and_crashes() {
    for seed in 0..4 {
        println!("seed {seed}");
        let ground = Ground::new(seed);
        ground.faults.set_rates(FaultRates {
            unavailable: 0.02,
            lost_commit_answer: 0.05,
            ..FaultRates::default()
        });
        // Processes that die in the middle of it: their runtime is taken away, wherever their tasks are.
        for life in 0..4 {
            let dying = runtime();
            dying.block_on(async {
                let gate = ground.gate().await;
                if life == 0 {
                    traffic(&ground, &gate).await;
                }
                let begun = gate.statistics().commits;
                while gate.statistics().commits < begun + 8 && !ground.is_quiet() {
                    tokio::task::yield_now().await;
                }
                std::mem::forget(gate);
            });
            dying.shutdown_background();
        }
        ground.faults.set_rates(FaultRates::default());
        runtime().block_on(async {
            let gate = ground.gate().await;
            let done = async {
                while !ground.is_quiet() || left_over(&*ground.faults).await > 0 {
                    gate.flush().await;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(60), done).await.expect("it never came to rest");
            gate.close().await;
            assert_eq!(total(&*ground.faults, "P").await, MESSAGES, "{TOTAL} by token");
            assert_eq!(
                ground.number("delivered").await,
                MESSAGES * 101,
                "by id, and by token where there is one"
            );
            assert_eq!(ground.number("temperature").await, 21, "naturally");
            for book in ["book", "book+"] {
                assert_eq!(total(&*ground.faults, book).await, MESSAGES * 101, "{book}: what they caused");
            }
            let dead = ground.queues.dead_letters(&EndpointName::new("house").unwrap());
            assert!(dead.is_empty(), "{:?}", dead.iter().map(|letter| &letter.reason).collect::<Vec<_>>());
            assert_eq!(
                ground.faults.expire(u64::MAX).await.unwrap(),
                2 * MESSAGES,
                "ids and keys, nothing else"
            );
        });
    }
}

#[tokio::test(start_paused = true)]
async fn an_id_is_forgotten_after_its_retention_and_nothing_else_is() {
    let ground = Ground::new(0);
    let gate = Gate::builder()
        .store(Arc::clone(&ground.faults) as Arc<dyn Store>)
        .broker(Arc::clone(&ground.queues) as Arc<dyn Broker>)
        .endpoint(Endpoint::new("edge"))
        .endpoint(house())
        .open()
        .await
        .unwrap();
    let after = |copies: u64| {
        let ground = &ground;
        async move {
            ground.send_foreign("legacy-1 100".to_owned()).await;
            while !ground.is_quiet() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(ground.number("delivered").await, copies * 100);
        }
    };
    after(1).await;
    let nearly = RETENTION.checked_sub(Duration::from_secs(60)).unwrap();
    tokio::time::advance(nearly).await;
    gate.sweep().await.unwrap();
    after(1).await;
    tokio::time::advance(Duration::from_secs(120)).await;
    gate.sweep().await.unwrap();
    after(2).await;
    gate.close().await;
}
