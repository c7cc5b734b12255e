//! Whose failure a failure is: what a store, blob storage, a target or another process could not do dead-letters no
//! message, and what a handler could not do does, at the limit of its own retry policy.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod harness;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use harness::{Add, TOTAL, add, memory_store};
use serde::{Deserialize, Serialize};
use tollgate::proto::blobs::BlobStream;
use tollgate::proto::{
    AttachedEffect, BlobError, BoxFuture, Content, EffectError, EffectKind, EffectName, Envelope, MessageId,
    OutgoingMessage, codec,
};
use tollgate::{
    Backoff, Blobs, Deduplicate, Endpoint, Foreign, Gate, GateBuilder, HandlerError, Message, Received,
    RetryPolicy, SideEffect, Store, TollgateError, Tx, Verdict,
};
use tollgate_embedded::MemoryBlobs;
use tollgate_testkit::{CountingStore, FaultRates, FaultyStore};

const RETENTION: Duration = Duration::from_secs(3600);

const GONE: FaultRates = FaultRates {
    unavailable: 1.0,
    throttled: 0.0,
    lost_commit: 0.0,
    lost_commit_answer: 0.0,
    lost_deletion_answer: 0.0,
};

fn gate(store: &Arc<dyn Store>) -> GateBuilder {
    Gate::builder()
        .store(Arc::clone(store))
        .sender(|messages: Vec<OutgoingMessage>| {
            std::future::ready(messages.iter().map(|_| Ok(())).collect())
        })
        .deliveries_max(3)
        .redelivery(Backoff { first: Duration::from_millis(10), cap: Duration::from_millis(100) })
}

/// A message without a token, which is deduplicated by its id.
fn message(n: u8, partition: &str, message_type: &str, body: impl Into<Bytes>) -> Received {
    let envelope = Envelope {
        message_id: MessageId::from_bytes([n; 16]),
        to: tollgate::proto::Destination {
            endpoint: "adder".try_into().unwrap(),
            partition: partition.try_into().unwrap(),
        },
        message_type: message_type.try_into().unwrap(),
        headers: vec![],
        content: Content::Body(body.into()),
    };
    Received::new(codec::encode_envelope(&envelope))
}

fn an_add(n: u8) -> Received {
    message(n, "P", Add::TYPE, r#"{"amount":1,"hops":0}"#)
}

fn by_identity() -> Deduplicate {
    Deduplicate::ByIdentity { retention: RETENTION }
}

fn adder<F>(handler: impl Fn(Tx, Add) -> F + Send + Sync + 'static) -> Endpoint
where
    F: Future<Output = Result<(), HandlerError>> + Send + 'static,
{
    Endpoint::new("adder").driven().on_tokenless::<Add, _, _>(by_identity(), handler)
}

/// Processes a message `times` times, with `count` as the broker's; every verdict is to put it back.
async fn put_back(gate: &Gate, message: &Received, times: u32) -> Duration {
    let mut last = Duration::ZERO;
    for delivery in 1..=times {
        match gate.process(message.clone().delivery_count(delivery)).await {
            Verdict::Retry { after } => last = after,
            verdict => panic!("delivery {delivery}: {verdict:?}"),
        }
    }
    last
}

/// A store that the handler of [`Add`] makes unavailable for the calls that follow, as long as it is told to.
async fn with_a_store_that_goes_away<F>(handler: fn(Tx, Add) -> F) -> (Gate, Faults)
where
    F: Future<Output = Result<(), HandlerError>> + Send + 'static,
{
    let store = Arc::new(FaultyStore::new(memory_store(), 1, FaultRates::default()));
    let counting = Arc::new(CountingStore::new(Arc::clone(&store) as Arc<dyn Store>));
    let faults = Faults { store, counting, is_refusing: Arc::new(AtomicBool::new(true)) };
    let own = faults.clone();
    let gated: Arc<dyn Store> = Arc::clone(&faults.counting) as Arc<dyn Store>;
    let gate = gate(&gated)
        .blobs(Arc::new(MemoryBlobs::new()))
        .endpoint(adder(move |tx, message| {
            if own.is_refusing.load(Ordering::SeqCst) {
                own.store.set_rates(GONE);
            }
            handler(tx, message)
        }))
        .open()
        .await
        .unwrap();
    (gate, faults)
}

#[derive(Clone)]
struct Faults {
    store: Arc<FaultyStore>,
    counting: Arc<CountingStore>,
    is_refusing: Arc<AtomicBool>,
}

impl Faults {
    /// The message is put back, again and again, and processed when the store is back.
    async fn survives(&self, gate: &Gate, message: &Received) {
        self.is_refusing.store(true, Ordering::SeqCst);
        for _ in 0..20 {
            self.store.set_rates(FaultRates::default());
            let before = self.counting.counts().calls();
            put_back(gate, message, 1).await;
            let calls = self.counting.counts().calls() - before;
            assert!(calls <= 8, "one load, and one other call with its repetitions: {calls} calls");
        }
        self.is_refusing.store(false, Ordering::SeqCst);
        self.store.set_rates(FaultRates::default());
        assert_eq!(gate.process(message.clone()).await, Verdict::Acknowledge);
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_can_not_read_an_item_because_the_store_is_gone_is_not_to_blame_whatever_it_says() {
    let (gate, faults) = with_a_store_that_goes_away(|tx: Tx, message: Add| async move {
        let other: Option<u64> = match message.hops {
            0 => tx.get("other").await?,
            _ => tx.get("other").await.map_err(|_| HandlerError::retry("no rate today"))?,
        };
        tx.put(TOTAL, &(other.unwrap_or_default() + message.amount))?;
        Ok(())
    })
    .await;
    for hops in [0, 1] {
        let body = format!(r#"{{"amount":1,"hops":{hops}}}"#);
        faults.survives(&gate, &message(hops, &format!("P{hops}"), Add::TYPE, body)).await;
    }
    gate.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_the_store_refuses_is_neither_the_messages_fault_nor_repeated_eight_times() {
    let (gate, faults) = with_a_store_that_goes_away(|tx: Tx, message: Add| async move {
        tx.put_blob("thumb/", "picture").await?;
        tx.put(TOTAL, &message.amount)?;
        Ok(())
    })
    .await;
    faults.survives(&gate, &an_add(1)).await;
    gate.close().await;
}

/// The error that blob storage answers instead of doing anything.
type Failure = fn(EffectName) -> BlobError;

/// Blob storage that can be gone, or refuse everyone.
#[derive(Default)]
struct Mortal {
    inner: MemoryBlobs,
    failure: Mutex<Option<Failure>>,
}

impl Mortal {
    fn check(&self, name: &EffectName) -> Result<(), BlobError> {
        self.failure.lock().unwrap().map_or(Ok(()), |failure| Err(failure(name.clone())))
    }
}

impl Blobs for Mortal {
    fn put(&self, name: &EffectName, content: BlobStream) -> BoxFuture<'_, Result<(), BlobError>> {
        let (checked, name) = (self.check(name), name.clone());
        Box::pin(async move {
            checked?;
            self.inner.put(&name, content).await
        })
    }

    fn get(&self, name: &EffectName) -> BoxFuture<'_, Result<Option<BlobStream>, BlobError>> {
        let (checked, name) = (self.check(name), name.clone());
        Box::pin(async move {
            checked?;
            self.inner.get(&name).await
        })
    }

    fn delete(&self, name: &EffectName) -> BoxFuture<'_, Result<(), BlobError>> {
        let (checked, name) = (self.check(name), name.clone());
        Box::pin(async move {
            checked?;
            self.inner.delete(&name).await
        })
    }

    fn list(&self, prefix: &str) -> BoxFuture<'_, Result<Vec<EffectName>, BlobError>> {
        self.inner.list(prefix)
    }
}

#[tokio::test(start_paused = true)]
async fn blob_storage_that_is_gone_or_refuses_the_credentials_dead_letters_nothing() {
    let store = memory_store();
    let blobs = Arc::new(Mortal::default());
    let handler = |tx: Tx, message: Add| async move {
        tx.put_blob("thumb/", "picture").await?;
        tx.put(TOTAL, &message.amount)?;
        Ok(())
    };
    let gate = gate(&store)
        .blobs(Arc::clone(&blobs) as Arc<dyn Blobs>)
        .endpoint(adder(handler))
        .open()
        .await
        .unwrap();
    let failures: [fn(EffectName) -> BlobError; 2] = [
        |name| BlobError::Unavailable { name, reason: "connection refused".into() },
        |name| BlobError::Misconfigured { name, reason: "the credentials are refused".into() },
    ];
    for failure in failures {
        *blobs.failure.lock().unwrap() = Some(failure);
        put_back(&gate, &an_add(1), 20).await;
    }
    *blobs.failure.lock().unwrap() = None;
    assert_eq!(gate.process(an_add(1)).await, Verdict::Acknowledge);
    assert_eq!(gate.statistics().dead_letters, 0);
    gate.close().await;
}

/// A kind of side effect that asks to be left alone for an hour.
struct Busy(EffectKind);

impl SideEffect for Busy {
    fn kind(&self) -> &EffectKind {
        &self.0
    }

    fn register(&self, unique: &str, _: &Bytes) -> Result<EffectName, EffectError> {
        Ok(EffectName::new(unique).unwrap())
    }

    fn prepare<'a>(&'a self, name: &'a EffectName, _: Bytes) -> BoxFuture<'a, Result<Bytes, EffectError>> {
        let retry_after = Some(Duration::from_secs(3600));
        let reason = "503 Service Unavailable".to_owned();
        Box::pin(std::future::ready(Err(EffectError::Unavailable {
            name: name.clone(),
            reason,
            retry_after,
        })))
    }

    fn publish<'a>(&'a self, _: &'a AttachedEffect) -> BoxFuture<'a, Result<(), EffectError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn fetch<'a>(&'a self, _: &'a AttachedEffect) -> BoxFuture<'a, Result<Bytes, EffectError>> {
        Box::pin(std::future::ready(Ok(Bytes::new())))
    }

    fn clean_up<'a>(&'a self, _: &'a EffectName) -> BoxFuture<'a, Result<(), EffectError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_target_asks_of_one_message_delays_that_message_only() {
    let store = memory_store();
    let handler = |tx: Tx, message: Add| async move {
        if message.hops > 0 {
            let call = tx.prepare("call", "pay").await?;
            tx.perform(call).await?;
        }
        Err(HandlerError::retry("not today"))
    };
    let busy = Arc::new(Busy(EffectKind::new("call").unwrap()));
    let gate = gate(&store).side_effect(busy).endpoint(adder(handler)).open().await.unwrap();
    let calls = message(1, "P", Add::TYPE, r#"{"amount":1,"hops":1}"#);
    let verdicts = gate.process_all(vec![an_add(2), calls.clone(), an_add(3)]).await;
    let waits: Vec<Duration> = verdicts
        .iter()
        .map(|verdict| match verdict {
            Verdict::Retry { after } => *after,
            verdict => panic!("{verdict:?}"),
        })
        .collect();
    assert!(waits[0] < Duration::from_secs(1) && waits[2] < Duration::from_secs(1), "{waits:?}");
    assert!(waits[1] >= Duration::from_secs(3600), "{waits:?}");
    put_back(&gate, &calls, 20).await;
    gate.close().await;
}

#[tokio::test(start_paused = true)]
async fn deliveries_that_no_handler_saw_dead_letter_nothing_at_the_first_failure() {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let store = memory_store();
    let endpoint = adder(|tx, message| async move {
        if RUNS.fetch_add(1, Ordering::SeqCst) == 0 {
            return Err(HandlerError::retry("a dependency is not up yet"));
        }
        add(tx, message).await
    });
    let gate = gate(&store).endpoint(endpoint).open().await.unwrap();
    let verdict = gate.process(an_add(1).delivery_count(19)).await;
    assert!(matches!(verdict, Verdict::Retry { .. }), "{verdict:?}");
    assert_eq!(gate.process(an_add(1).delivery_count(20)).await, Verdict::Acknowledge);
    gate.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_no_process_survives_is_dead_lettered_before_its_handler_runs_again() {
    let store = memory_store();
    let endpoint = adder(|_, _| async { panic!("it would end the process") });
    let gate = gate(&store).endpoint(endpoint).open().await.unwrap();
    let verdict = gate.process(an_add(1).delivery_count(31)).await;
    assert!(
        matches!(&verdict, Verdict::DeadLetter { reason } if reason.contains("may end its process")),
        "{verdict:?}"
    );
    assert_eq!(gate.close().await.panics, 0);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_always_fails_is_dead_lettered_even_if_nobody_counts_deliveries() {
    let store = memory_store();
    let endpoint = adder(|tx, _| async move {
        Err(HandlerError::retry(format!("{} before, last try: {}", tx.failures(), tx.is_last_try())))
    });
    let gate = gate(&store).endpoint(endpoint).open().await.unwrap();
    for _ in 0..2 {
        assert!(matches!(gate.process(an_add(1)).await, Verdict::Retry { .. }));
    }
    let reason = "2 before, last try: true (after 3 failures)".to_owned();
    assert_eq!(gate.process(an_add(1)).await, Verdict::DeadLetter { reason });
    // A replay begins anew.
    assert!(matches!(gate.process(an_add(1)).await, Verdict::Retry { .. }));
    gate.close().await;
}

#[derive(Serialize, Deserialize)]
struct Rare;

impl Message for Rare {
    const TYPE: &'static str = "test.rare";
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_and_a_message_type_have_policies_of_their_own_and_a_handler_says_when_to_come_again() {
    let store = memory_store();
    let hours = Backoff { first: Duration::from_secs(3600), cap: Duration::from_secs(3600) };
    let endpoint = adder(|_, _| async {
        Err(HandlerError::retry_after(Duration::from_secs(7), "the other side is busy"))
    });
    let endpoint = endpoint
        .on_tokenless::<Rare, _, _>(by_identity(), |_, _| async { Err(HandlerError::retry("no")) })
        .retry(RetryPolicy::new(2, Backoff::REDELIVERY))
        .retry_of::<Rare>(RetryPolicy::new(1000, hours));
    let gate = self::gate(&store).endpoint(endpoint).open().await.unwrap();
    let rare = message(2, "P", Rare::TYPE, "null");
    assert!(put_back(&gate, &rare, 20).await >= hours.first / 2);
    assert_eq!(put_back(&gate, &an_add(1), 1).await, Duration::from_secs(7));
    let verdict = gate.process(an_add(1)).await;
    assert!(matches!(verdict, Verdict::DeadLetter { .. }), "the endpoint's limit is 2: {verdict:?}");
    gate.close().await;

    let never = RetryPolicy::new(0, Backoff::REDELIVERY);
    let wrong = [
        self::gate(&store).deliveries_max(0),
        self::gate(&store).endpoint(adder(add).retry(never)),
        self::gate(&store).endpoint(adder(add).retry_of::<Rare>(RetryPolicy::DEFAULT)),
    ];
    for builder in wrong {
        assert!(matches!(builder.open().await.err(), Some(TollgateError::Configuration(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_later_release_may_understand_is_put_back_up_to_the_limit_before_it_is_dead_lettered() {
    let store = memory_store();
    let foreign = |bytes: &Bytes| match &bytes[..] {
        b"known" => Ok(Foreign {
            id: "1".into(),
            partition: "P".into(),
            message_type: Add::TYPE.into(),
            body: Bytes::from_static(br#"{"amount":1,"hops":0}"#),
        }),
        _ => Err("it is of a kind that is not known yet".to_owned()),
    };
    let gate = gate(&store)
        .endpoint(adder(add))
        .endpoint(
            Endpoint::new("outsiders")
                .driven()
                .on_tokenless::<Add, _, _>(by_identity(), add)
                .foreign(foreign),
        )
        .open()
        .await
        .unwrap();
    let newer = Received::new(Bytes::from_static(&[codec::FORMAT + 1, 1, 2, 3]));
    for (what, message) in [
        ("its type", message(1, "P", "test.unheard", "{}")),
        ("its body", message(2, "P", Add::TYPE, r#"{"amount":"much"}"#)),
        ("its format", newer.clone()),
        ("its format, from a queue", newer.from_queue_of("adder".try_into().unwrap())),
        ("its bytes", Received::new("unknown").from_queue_of("outsiders".try_into().unwrap())),
    ] {
        for delivery in 1..=2 {
            let verdict = gate.process(message.clone()).await;
            assert!(matches!(verdict, Verdict::Retry { .. }), "{what}, delivery {delivery}: {verdict:?}");
        }
        let verdict = gate.process(message).await;
        assert!(matches!(verdict, Verdict::DeadLetter { .. }), "{what}: {verdict:?}");
    }
    let known = Received::new("known").from_queue_of("outsiders".try_into().unwrap());
    assert_eq!(gate.process(known).await, Verdict::Acknowledge);
    let garbage = gate.process(Received::new("nothing that any release understands")).await;
    assert!(matches!(garbage, Verdict::DeadLetter { .. }), "{garbage:?}");
    gate.close().await;
}
