//! Side effects through the whole engine, on a virtual clock: large bodies, kinds of one's own, streams, and messages of
//! producers that know no tokens.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod harness;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use harness::{Add, TOTAL, add, broker, left_over, memory_store, total, until, waiting};
use serde::{Deserialize, Serialize};
use tollgate::proto::blobs::BlobStream;
use tollgate::proto::{
    AttachedEffect, BoxFuture, EffectError, EffectKind, EffectName, EndpointName, MessageId, OutgoingMessage,
};
use tollgate::{
    BlobReference, Blobs, Broker, Deduplicate, Endpoint, Foreign, Gate, GateBuilder, HandlerError, Message,
    SideEffect, Store, Tx,
};
use tollgate_brokers::InProcessBroker;
use tollgate_embedded::MemoryBlobs;

fn gate(store: &Arc<dyn Store>, broker: &Arc<InProcessBroker>) -> GateBuilder {
    Gate::builder()
        .store(Arc::clone(store))
        .broker(Arc::clone(broker) as Arc<dyn Broker>)
        .endpoint(Endpoint::new("edge"))
}

/// Sends one message from the edge.
async fn send<M: Message + Clone + Sync>(gate: &Gate, endpoint: &'static str, message: M) {
    let edge = gate.edge("edge").unwrap();
    edge.execute("clients", "request", Duration::from_secs(60), move |tx: Tx| {
        let message = message.clone();
        async move {
            tx.send(endpoint, "P", &message)?;
            Ok(())
        }
    })
    .await
    .unwrap();
}

#[derive(Clone, Serialize, Deserialize)]
struct Letter {
    text: String,
}

impl Message for Letter {
    const TYPE: &'static str = "test.letter";
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_large_for_an_item_becomes_a_blob_until_its_token_is_consumed() {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let (store, broker) = (memory_store(), broker());
    let blobs = Arc::new(MemoryBlobs::new());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let reader = {
        let (seen, blobs) = (Arc::clone(&seen), Arc::clone(&blobs));
        move |tx: Tx, letter: Letter| {
            let (seen, blobs) = (Arc::clone(&seen), Arc::clone(&blobs));
            async move {
                let stored = blobs.list("bodies/").await.unwrap().len();
                seen.lock().unwrap().push((letter.text.len(), stored));
                if RUNS.fetch_add(1, Ordering::SeqCst) == 0 {
                    return Err(HandlerError::retry("not yet"));
                }
                tx.put(TOTAL, &letter.text.len())?;
                Ok(())
            }
        }
    };
    let gate = gate(&store, &broker)
        .blobs(Arc::clone(&blobs) as Arc<dyn Blobs>)
        .inline_bytes_max(1_000)
        .endpoint(Endpoint::new("reader").on(reader))
        .open()
        .await
        .unwrap();
    send(&gate, "reader", Letter { text: "x".repeat(50_000) }).await;
    until(&gate, |statistics| statistics.committed == 2).await;
    until(&gate, |_| waiting(&broker, "reader") == 0).await;
    let statistics = gate.close().await;
    assert_eq!(*seen.lock().unwrap(), [(50_000, 1), (50_000, 1)], "the handler sees no difference");
    assert_eq!(total(&*store, "P").await, 50_000);
    assert_eq!(blobs.list("").await.unwrap(), [], "the body goes with its token");
    assert_eq!(left_over(&*store).await, 0);
    assert_eq!(statistics.bodies_stored, 1);
}

#[tokio::test(start_paused = true)]
async fn the_large_body_of_a_poison_message_stays_with_its_token() {
    let (store, broker) = (memory_store(), broker());
    let blobs = Arc::new(MemoryBlobs::new());
    let gate = gate(&store, &broker)
        .blobs(Arc::clone(&blobs) as Arc<dyn Blobs>)
        .inline_bytes_max(1_000)
        .endpoint(
            Endpoint::new("reader")
                .on(|_: Tx, _: Letter| async { Err(HandlerError::permanent("I do not like it")) }),
        )
        .open()
        .await
        .unwrap();
    send(&gate, "reader", Letter { text: "x".repeat(50_000) }).await;
    until(&gate, |statistics| statistics.dead_letters == 1).await;
    gate.close().await;
    assert_eq!(blobs.list("bodies/").await.unwrap().len(), 1);
    assert_eq!(left_over(&*store).await, 1, "the token is in place, for a replay");
}

/// A kind of side effect that takes down its life, and fails as told.
#[derive(Default)]
struct Transfers {
    /// By name: what has happened so far.
    log: Mutex<BTreeMap<String, Vec<&'static str>>>,
    /// How many more calls fail, after their effect.
    failures: AtomicUsize,
}

impl Transfers {
    fn step(&self, name: &EffectName, step: &'static str) -> Result<(), EffectError> {
        self.log.lock().unwrap().entry(name.to_string()).or_default().push(step);
        if self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
        {
            let reason = "the connection broke".to_owned();
            return Err(EffectError::Unavailable { name: name.clone(), reason, retry_after: None });
        }
        Ok(())
    }

    fn lives(&self) -> Vec<Vec<&'static str>> {
        self.log.lock().unwrap().values().cloned().collect()
    }
}

struct Transfer(Arc<Transfers>, EffectKind);

impl Transfer {
    fn kind_of(transfers: &Arc<Transfers>) -> Arc<dyn SideEffect> {
        Arc::new(Self(Arc::clone(transfers), EffectKind::new("transfer").unwrap()))
    }
}

impl SideEffect for Transfer {
    fn kind(&self) -> &EffectKind {
        &self.1
    }

    fn register(&self, unique: &str, intent: &Bytes) -> Result<EffectName, EffectError> {
        if intent.is_empty() {
            let reason = "nothing is to be transferred".to_owned();
            return Err(EffectError::Invalid { kind: self.1.clone(), reason });
        }
        Ok(EffectName::new(format!("transfer/{unique}")).unwrap())
    }

    fn prepare<'a>(
        &'a self,
        name: &'a EffectName,
        intent: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, EffectError>> {
        Box::pin(async move { self.0.step(name, "prepared").map(|()| intent) })
    }

    fn publish<'a>(&'a self, effect: &'a AttachedEffect) -> BoxFuture<'a, Result<(), EffectError>> {
        Box::pin(async move { self.0.step(&effect.name, "published") })
    }

    fn fetch<'a>(&'a self, effect: &'a AttachedEffect) -> BoxFuture<'a, Result<Bytes, EffectError>> {
        Box::pin(async move { self.0.step(&effect.name, "fetched").map(|()| effect.detail.clone()) })
    }

    fn clean_up<'a>(&'a self, name: &'a EffectName) -> BoxFuture<'a, Result<(), EffectError>> {
        Box::pin(async move { self.0.step(name, "cleaned up") })
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct Start {
    perform: bool,
}

impl Message for Start {
    const TYPE: &'static str = "test.start";
}

/// Prepares a transfer, and lets the message to `follower` carry it or nobody.
async fn start(tx: Tx, message: Start) -> Result<(), HandlerError> {
    let transfer = tx.prepare("transfer", "5 crowns").await?;
    if message.perform {
        tx.perform(transfer).await?;
    } else {
        tx.send_with("follower", "Q", &Add { amount: 5, hops: 0 }, vec![transfer]).await?;
    }
    Ok(())
}

async fn follow(tx: Tx, message: Add) -> Result<(), HandlerError> {
    assert_eq!(tx.carried("transfer").unwrap(), "5 crowns");
    assert_eq!(tx.carried("another"), None);
    add(tx, message).await
}

async fn transfer(message: Start, failures: usize) -> (Vec<Vec<&'static str>>, Arc<dyn Store>) {
    let (store, broker) = (memory_store(), broker());
    let transfers = Arc::new(Transfers { failures: failures.into(), ..Transfers::default() });
    let expected = if message.perform { 2 } else { 3 };
    let gate = gate(&store, &broker)
        .side_effect(Transfer::kind_of(&transfers))
        .endpoint(Endpoint::new("starter").on(start))
        .endpoint(Endpoint::new("follower").on(follow))
        .open()
        .await
        .unwrap();
    send(&gate, "starter", message).await;
    until(&gate, |statistics| statistics.committed == expected).await;
    until(&gate, |_| waiting(&broker, "starter") + waiting(&broker, "follower") == 0).await;
    nothing_left(&*store).await;
    gate.close().await;
    (transfers.lives(), store)
}

/// Waits until the sweeps have dropped what may have been under way when its attempt failed.
async fn nothing_left(store: &dyn Store) {
    for _ in 0..1_000 {
        if left_over(store).await == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("there is left {}", left_over(store).await);
}

/// A preparation that failed may take effect later: it is cleaned up at once, and once more when it can't any more.
fn assert_cleaned_up_more_than_once(life: &[&str]) {
    assert_eq!(life[0], "prepared");
    assert!(life.len() > 2 && life[1..].iter().all(|step| *step == "cleaned up"), "{life:?}");
}

#[tokio::test(start_paused = true)]
async fn a_side_effect_is_prepared_published_fetched_and_cleaned_up_in_this_order() {
    let (lives, store) = transfer(Start { perform: false }, 0).await;
    assert_eq!(lives, [["prepared", "published", "fetched", "cleaned up"]]);
    assert_eq!(total(&*store, "Q").await, 5);
}

#[tokio::test(start_paused = true)]
async fn a_side_effect_that_no_message_depends_on_is_prepared_and_published() {
    let (lives, _) = transfer(Start { perform: true }, 0).await;
    assert_eq!(lives, [["prepared", "published"]]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_preparation_is_cleaned_up_and_another_attempt_prepares_its_own() {
    let (lives, store) = transfer(Start { perform: false }, 1).await;
    assert_eq!(lives.len(), 2, "{lives:?}");
    assert_cleaned_up_more_than_once(&lives[0]);
    assert_eq!(lives[1], ["prepared", "published", "fetched", "cleaned up"]);
    assert_eq!(total(&*store, "Q").await, 5);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_swallows_the_error_of_a_side_effect_or_forgets_one_does_not_commit() {
    for swallows in [true, false] {
        let (store, broker) = (memory_store(), broker());
        let transfers =
            Arc::new(Transfers { failures: usize::from(swallows).into(), ..Transfers::default() });
        let gate = gate(&store, &broker)
            .side_effect(Transfer::kind_of(&transfers))
            .deliveries_max(2)
            .endpoint(Endpoint::new("starter").on(move |tx: Tx, _: Start| async move {
                let prepared = tx.prepare("transfer", "5 crowns").await;
                assert!(
                    tx.prepare("transfer", "").await.is_err(),
                    "nothing is registered for a wrong intent"
                );
                tx.put(TOTAL, &1)?;
                if let (Ok(transfer), true) = (prepared, swallows) {
                    tx.perform(transfer).await?;
                }
                Ok(())
            }))
            .open()
            .await
            .unwrap();
        send(&gate, "starter", Start { perform: true }).await;
        until(&gate, |s| s.dead_letters == 1 || s.committed == 2).await;
        until(&gate, |_| waiting(&broker, "starter") == 0).await;
        gate.close().await;
        if swallows {
            let lives = transfers.lives();
            assert_cleaned_up_more_than_once(&lives[0]);
            assert_eq!(lives[1..], [["prepared", "published"]]);
        } else {
            assert_eq!(total(&*store, "P").await, 0, "a handler that forgets an effect is wrong, for ever");
            assert_eq!(transfers.lives(), [["prepared", "cleaned up"]]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_kinds_of_one_name_and_blobs_under_another_are_refused() {
    let (store, broker) = (memory_store(), broker());
    let transfers = Arc::new(Transfers::default());
    let twice = gate(&store, &broker)
        .side_effect(Transfer::kind_of(&transfers))
        .side_effect(Transfer::kind_of(&transfers))
        .open()
        .await;
    assert!(twice.err().unwrap().to_string().contains("two kinds of side effects with the name transfer"));
    let blob: Arc<dyn SideEffect> = Arc::new(Transfer(transfers, EffectKind::new("blob").unwrap()));
    assert!(gate(&store, &broker).side_effect(blob).open().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_streamed_blob_is_named_with_its_checksum_and_read_back_verified() {
    let (store, broker) = (memory_store(), broker());
    let blobs = Arc::new(MemoryBlobs::new());
    let gate = gate(&store, &broker)
        .blobs(Arc::clone(&blobs) as Arc<dyn Blobs>)
        .blob_bytes_max(10_000)
        .open()
        .await
        .unwrap();
    let edge = gate.edge("edge").unwrap();
    let keep = Duration::from_secs(60);
    let stored: BlobReference = edge
        .execute("P", "1", keep, |tx: Tx| async move {
            let pieces: BlobStream = Box::pin(stream::iter((0..9).map(|_| Ok(Bytes::from(vec![7; 1_000])))));
            let blob = tx.put_blob("films/", pieces).await?;
            assert_eq!(tx.get_blob(&blob).await?.unwrap().len(), 9_000);
            tx.put("film", &blob)?;
            Ok(blob)
        })
        .await
        .unwrap();
    assert_eq!(stored.bytes(), 9_000);
    assert!(stored.as_str().starts_with("films/"));
    // Somebody alters it.
    blobs.put(stored.name(), tollgate::proto::blobs::whole(vec![8; 9_000])).await.unwrap();
    let read = edge.execute("P", "2", keep, {
        let stored = stored.clone();
        move |tx: Tx| {
            let stored = stored.clone();
            async move { Ok(tx.get_blob(&stored).await.unwrap_err().to_string()) }
        }
    });
    assert!(read.await.unwrap().contains("its checksum is wrong"));
    let too_long = edge.execute("P", "3", keep, |tx: Tx| async move {
        tx.put_blob("films/", vec![0; 10_001]).await?;
        Ok(())
    });
    assert!(too_long.await.unwrap_err().to_string().contains("more than 10000 bytes"));
    gate.close().await;
    assert_eq!(blobs.list("").await.unwrap(), [stored.name().clone()], "what failed is gone");
}

/// A legacy producer's message: no envelope, no token. It enters by its id, and everything that it causes is token-based.
#[tokio::test(start_paused = true)]
async fn a_foreign_message_enters_by_its_id_and_what_it_causes_goes_on_by_tokens() {
    let (store, broker) = (memory_store(), broker());
    let retention = Duration::from_secs(600);
    let legacy =
        Endpoint::new("adder").on_tokenless(Deduplicate::ByIdentity { retention }, add).foreign(|bytes| {
            let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
            let (id, amount) = text.split_once(' ').ok_or("it has no amount")?;
            Ok(Foreign {
                id: id.to_owned(),
                partition: "P".to_owned(),
                message_type: Add::TYPE.to_owned(),
                body: format!(r#"{{"amount":{amount},"hops":2}}"#).into(),
            })
        });
    let gate = gate(&store, &broker).endpoint(legacy).open().await.unwrap();
    let copies = ["17 5", "17 5", "18 1", "17 5", "nonsense"].map(|text| {
        OutgoingMessage::without_token(
            EndpointName::new("adder").unwrap(),
            "anything".try_into().unwrap(),
            MessageId::from_bytes([0; 16]),
            text.into(),
        )
    });
    for answer in broker.send(copies.to_vec()).await {
        answer.unwrap();
    }
    until(&gate, |statistics| statistics.committed == 6 && statistics.dead_letters == 1).await;
    until(&gate, |_| waiting(&broker, "adder") == 0).await;
    gate.close().await;
    for partition in ["P", "P+", "P++"] {
        assert_eq!(total(&*store, partition).await, 6, "{partition}");
    }
    assert_eq!(left_over(&*store).await, 0);
}
