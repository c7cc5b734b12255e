//! Loops of one's own in several processes on one store that fails, with a queue that copies and reorders, and callers that go away in
//! the middle: by seed. Whatever happens, each message is applied once and nothing is left.
//!
//! `SEED=7 cargo test -p tollgate --test own_loop_storm -- --nocapture` runs one seed again.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod harness;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness::{Add, Log, SlowStore, TOTAL, add, left_over, memory_store, total};
use tollgate::proto::{BrokerError, OutgoingMessage};
use tollgate::{Backoff, Endpoint, Gate, GateBuilder, HandlerError, Received, Store, Tx, Verdict};
use tollgate_testkit::{FaultRates, FaultyStore};

const SEEDS: u64 = 40;
const GATES: usize = 3;
const REQUESTS: u64 = 12;
const PARTITIONS: u64 = 4;

/// A queue without manners: it copies, reorders, and now and then says that a message was not sent when it was.
#[derive(Clone)]
struct Queue(Arc<Mutex<State>>);

struct State {
    random: fastrand::Rng,
    messages: Vec<(OutgoingMessage, u32)>,
    /// Taken and not settled.
    taken: usize,
    dead: Vec<String>,
}

impl Queue {
    fn new(seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self(Arc::new(Mutex::new(State { random, messages: Vec::new(), taken: 0, dead: Vec::new() })))
    }

    fn send(&self, messages: Vec<OutgoingMessage>) -> Vec<Result<(), BrokerError>> {
        let mut state = self.0.lock().unwrap();
        let mut answers = Vec::new();
        for message in messages {
            for _ in 0..=state.random.usize(..2) {
                state.messages.push((message.clone(), 1));
            }
            answers.push(match state.random.usize(..10) {
                0 => Err(BrokerError::Unavailable {
                    endpoint: message.endpoint,
                    reason: "injected: the answer was lost".into(),
                }),
                _ => Ok(()),
            });
        }
        answers
    }

    /// Takes up to four messages, any of them.
    fn take(&self) -> Vec<(OutgoingMessage, u32)> {
        let mut state = self.0.lock().unwrap();
        let mut taken = Vec::new();
        while taken.len() < 4 && !state.messages.is_empty() {
            let waiting = state.messages.len();
            let place = state.random.usize(..waiting);
            let taken_message = state.messages.swap_remove(place);
            taken.push(taken_message);
        }
        state.taken += taken.len();
        taken
    }

    fn settle(&self, (message, count): (OutgoingMessage, u32), verdict: Option<Verdict>) {
        let mut state = self.0.lock().unwrap();
        state.taken -= 1;
        match verdict {
            // A tenth of the acknowledgements is lost.
            Some(Verdict::Acknowledge) if state.random.usize(..10) > 0 => {}
            Some(Verdict::DeadLetter { reason }) => state.dead.push(reason),
            Some(Verdict::Acknowledge | Verdict::Retry { .. }) | None => {
                state.messages.push((message, count + 1));
            }
        }
    }

    fn is_done(&self) -> bool {
        let state = self.0.lock().unwrap();
        state.messages.is_empty() && state.taken == 0
    }

    fn random(&self, below: u64) -> u64 {
        self.0.lock().unwrap().random.u64(..below)
    }
}

fn gate(store: Arc<dyn Store>, queue: &Queue) -> GateBuilder {
    let queue = queue.clone();
    Gate::builder()
        .store(store)
        .sender(move |messages| std::future::ready(queue.send(messages)))
        .endpoint(Endpoint::new("edge").driven())
        .endpoint(Endpoint::new("adder").driven().concurrency(6).preload(TOTAL).on::<Add, _, _>(add))
        .deliveries_max(10_000)
        .redelivery(Backoff { first: Duration::from_millis(1), cap: Duration::from_millis(20) })
}

/// One loop: takes some, has them processed, and is impatient with a third of its batches.
async fn run_loop(gate: Arc<Gate>, queue: Queue) {
    loop {
        let batch = queue.take();
        if batch.is_empty() {
            if queue.is_done() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        let received =
            batch.iter().map(|(m, count)| Received::new(m.envelope.clone()).delivery_count(*count)).collect();
        let patience = match queue.random(3) {
            0 => Duration::from_millis(queue.random(20)),
            _ => Duration::from_secs(3600),
        };
        let verdicts = tokio::time::timeout(patience, gate.process_all(received)).await;
        let verdicts: Vec<Option<Verdict>> = match verdicts {
            Ok(verdicts) => verdicts.into_iter().map(Some).collect(),
            Err(_) => vec![None; batch.len()],
        };
        let wait = verdicts.iter().flatten().filter_map(|verdict| match verdict {
            Verdict::Retry { after } => Some(*after),
            _ => None,
        });
        let wait = wait.max().unwrap_or_default();
        for (message, verdict) in batch.into_iter().zip(verdicts) {
            queue.settle(message, verdict);
        }
        tokio::time::sleep(wait).await;
    }
}

async fn storm(seed: u64) {
    let (inner, queue) = (memory_store(), Queue::new(seed));
    let mut gates = Vec::new();
    for process in 0..GATES as u64 {
        let slow = SlowStore {
            inner: Arc::clone(&inner),
            latency: Duration::from_millis(3).into(),
            log: Log::default(),
        };
        let faulty = FaultyStore::new(Arc::new(slow), seed * 31 + process, FaultRates::all(0.03));
        gates.push(Arc::new(gate(Arc::new(faulty), &queue).open().await.unwrap()));
    }
    for request in 0..REQUESTS {
        let handler = move |tx: Tx| async move {
            for n in 0..5 {
                let partition = format!("P{}", (request + n) % PARTITIONS);
                tx.send("adder", &partition, &Add { amount: 1, hops: 1 })?;
            }
            Ok::<_, HandlerError>(())
        };
        let day = Duration::from_secs(24 * 3600);
        let name = format!("request {request}");
        let edge = gates[usize::try_from(request).unwrap() % GATES].edge("edge").unwrap();
        // A client that asks until it is answered.
        while edge.execute("requests", &name, day, handler).await.is_err() {}
    }
    let loops: Vec<_> =
        gates.iter().map(|gate| tokio::spawn(run_loop(Arc::clone(gate), queue.clone()))).collect();
    for one in loops {
        one.await.unwrap();
    }
    for gate in gates {
        Arc::into_inner(gate).expect("every loop has ended").close().await;
    }
    assert!(queue.0.lock().unwrap().dead.is_empty(), "{:?}", queue.0.lock().unwrap().dead);
    // What was sent by a completion after the loops had ended, or left by one that failed, is finished by another process.
    let cleaner = Arc::new(gate(Arc::clone(&inner), &queue).open().await.unwrap());
    for _ in 0..3 {
        cleaner.sweep().await.unwrap();
        run_loop(Arc::clone(&cleaner), queue.clone()).await;
    }
    Arc::into_inner(cleaner).unwrap().close().await;
    inner.expire(u64::MAX).await.unwrap();
    let mut sum = 0;
    for partition in 0..PARTITIONS {
        let (own, next) =
            (total(&*inner, &format!("P{partition}")).await, total(&*inner, &format!("P{partition}+")).await);
        assert_eq!(own, next, "what went on from partition {partition}");
        sum += own;
    }
    assert_eq!(sum, REQUESTS * 5);
    assert_eq!(left_over(&*inner).await, 0);
}

#[test]
fn whatever_happens_to_loops_queues_and_stores_each_message_is_applied_once() {
    let seeds: Vec<u64> = match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..SEEDS).collect(),
    };
    for seed in seeds {
        println!("seed {seed}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let limit = Duration::from_secs(3600);
            tokio::time::timeout(limit, storm(seed))
                .await
                .unwrap_or_else(|_| panic!("seed {seed} never ends"));
        });
    }
}
