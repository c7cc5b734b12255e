//! Handlers that wait no longer for the registration of a blob, on a store that answers late: nothing is
//! answered or acknowledged before it is stored, and nothing that others did is taken for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tollgate::proto::{
    BoxFuture, Commit, CommitOutcome, Content, Destination, Envelope, MessageId, StoreError, StoreWrapper,
    codec,
};
use tollgate::{Blobs, Deduplicate, Endpoint, Gate, HandlerError, Message, Store, TollgateError, Tx};
use tollgate_brokers::InProcessBroker;
use tollgate_embedded::MemoryBlobs;

use crate::harness::{Add, Latency, TOTAL, add, broker, left_over, memory_store, total, until, waiting};
use crate::{gate, send_raw};

/// A store whose commits happen at once and are answered after a while, also if nobody waits for the answer.
struct LateAnswers {
    inner: Arc<dyn Store>,
    latency: Latency,
}

impl StoreWrapper for LateAnswers {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, StoreError>> {
        Box::pin(async move {
            let answer = self.inner.commit(commit).await;
            tokio::time::sleep(self.latency.now()).await;
            answer
        })
    }
}

/// Everything that may be slow.
struct Outside {
    store: Arc<dyn Store>,
    broker: Arc<InProcessBroker>,
    blobs: Arc<MemoryBlobs>,
    commits: Latency,
}

impl Outside {
    fn new() -> Self {
        let commits = Latency::from(Duration::ZERO);
        let store = LateAnswers { inner: memory_store(), latency: commits.clone() };
        Self { store: Arc::new(store), broker: broker(), blobs: Arc::new(MemoryBlobs::new()), commits }
    }

    async fn open(&self, endpoint: Endpoint) -> Gate {
        gate(&self.store, &self.broker)
            .blobs(Arc::clone(&self.blobs) as Arc<dyn Blobs>)
            .attempt_max(Duration::from_secs(10))
            .under_way_max(Duration::from_secs(10))
            .endpoint(endpoint)
            .open()
            .await
            .unwrap()
    }

    /// Nothing is left but what handlers have stored.
    async fn assert_quiet(&self, gate: Gate, blobs: usize) {
        tokio::time::sleep(Duration::from_secs(60)).await;
        gate.sweep().await.unwrap();
        gate.sweep().await.unwrap();
        gate.close().await;
        assert_eq!(left_over(&*self.store).await, 0);
        assert_eq!(self.blobs.list("").await.unwrap().len(), blobs);
    }
}

/// Places an order, with a thumbnail if that can be made within a second.
async fn place_order(tx: Tx) -> Result<String, HandlerError> {
    let thumbnail = timeout(Duration::from_secs(1), tx.put_blob("thumb/", "pixels")).await;
    let has_thumbnail = matches!(thumbnail, Ok(Ok(_)));
    tx.put(TOTAL, &1)?;
    Ok(format!("placed, thumbnail: {has_thumbnail}"))
}

async fn order(gate: &Gate) -> Result<String, TollgateError> {
    gate.edge("edge").unwrap().execute("P", "order", Duration::from_secs(3_600), place_order).await
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_registration_was_dropped_is_not_answered_before_it_is_stored() {
    let outside = Outside::new();
    let gate = outside.open(Endpoint::new("other")).await;
    outside.commits.set(Duration::from_secs(2));
    let answer = order(&gate).await;
    assert!(matches!(answer, Err(TollgateError::RequestFailed { .. })), "{answer:?}");
    assert_eq!(total(&*outside.store, "P").await, 0);
    outside.commits.set(Duration::ZERO);
    assert_eq!(order(&gate).await.unwrap(), "placed, thumbnail: true");
    assert_eq!(total(&*outside.store, "P").await, 1);
    outside.assert_quiet(gate, 1).await;
}

/// An [`Add`] of a producer that knows no tokens.
fn tokenless(amount: u64) -> bytes::Bytes {
    let body = serde_json::to_vec(&Add { amount, hops: 0 }).unwrap();
    codec::encode_envelope(&Envelope {
        message_id: MessageId::from_name("legacy", &amount.to_string()),
        to: Destination { endpoint: "adder".try_into().unwrap(), partition: "P".try_into().unwrap() },
        message_type: Add::TYPE.try_into().unwrap(),
        headers: vec![],
        content: Content::Body(body.into()),
    })
}

/// The handler of the message of 1 wants a receipt within a second, and goes on without or refuses.
fn impatient(refuses: bool) -> Endpoint {
    let retention = Duration::from_secs(3_600);
    let by_identity = Deduplicate::ByIdentity { retention };
    Endpoint::new("adder").preload(TOTAL).on_tokenless::<Add, _, _>(
        by_identity,
        move |tx: Tx, message: Add| async move {
            if message.amount == 1 {
                let receipt = timeout(Duration::from_secs(1), tx.put_blob("receipts/", "paper")).await;
                if receipt.is_err() && refuses {
                    return Err(HandlerError::retry("no receipt"));
                }
            }
            add(tx, message).await
        },
    )
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_registration_was_dropped_is_not_acknowledged_before_it_is_applied() {
    let outside = Outside::new();
    let gate = outside.open(impatient(false)).await;
    outside.commits.set(Duration::from_secs(2));
    send_raw(&outside.broker, "adder", tokenless(1)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    outside.commits.set(Duration::ZERO);
    until(&gate, |_| waiting(&outside.broker, "adder") == 0).await;
    assert_eq!(total(&*outside.store, "P").await, 1);
    outside.assert_quiet(gate, 1).await;
}

#[tokio::test(start_paused = true)]
async fn messages_beside_one_that_drops_its_registration_are_applied() {
    let outside = Outside::new();
    outside.commits.set(Duration::from_secs(2));
    for amount in [1, 10, 100] {
        send_raw(&outside.broker, "adder", tokenless(amount)).await;
    }
    let gate = outside.open(impatient(true)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(total(&*outside.store, "P").await, 110, "they do not wait for it to succeed");
    outside.commits.set(Duration::ZERO);
    until(&gate, |_| waiting(&outside.broker, "adder") == 0).await;
    assert_eq!(total(&*outside.store, "P").await, 111);
    outside.assert_quiet(gate, 1).await;
}
