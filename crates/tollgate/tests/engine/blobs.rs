//! Blobs of attempts that commit, and of those that do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tollgate::{Blobs, Endpoint, HandlerError, Tx};
use tollgate_embedded::MemoryBlobs;

use crate::harness::{Add, add, broker, left_over, memory_store, until};
use crate::{gate, send};

#[tokio::test(start_paused = true)]
async fn the_blob_of_the_attempt_that_commits_stays_and_those_of_failed_ones_go() {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let (store, broker) = (memory_store(), broker());
    let blobs = Arc::new(MemoryBlobs::new());
    let gate = gate(&store, &broker)
        .blobs(Arc::clone(&blobs) as Arc<dyn Blobs>)
        .endpoint(Endpoint::new("adder").on::<Add, _, _>(|tx: Tx, message| async move {
            let name = tx.put_blob("invoices/", "paper").await?;
            tx.put("invoice", name.as_str())?;
            if RUNS.fetch_add(1, Ordering::SeqCst) < 2 {
                return Err(HandlerError::retry("not yet"));
            }
            add(tx, message).await
        }))
        .open()
        .await
        .unwrap();
    send(&gate, "one", vec![Add { amount: 1, hops: 0 }]).await;
    until(&gate, |statistics| statistics.committed == 2).await;
    gate.close().await;
    let names = blobs.list("invoices/").await.unwrap();
    assert_eq!(names.len(), 1, "{names:?}");
    assert_eq!(left_over(&*store).await, 0);
}

#[tokio::test(start_paused = true)]
async fn messages_of_one_burst_have_blobs_of_their_own_and_a_failing_one_takes_only_its_own_along() {
    let (store, broker) = (memory_store(), broker());
    let blobs = Arc::new(MemoryBlobs::new());
    let gate = gate(&store, &broker)
        .blobs(Arc::clone(&blobs) as Arc<dyn Blobs>)
        .endpoint(Endpoint::new("adder").on::<Add, _, _>(|tx: Tx, message| async move {
            let name = tx.put_blob("invoices/", message.amount.to_string()).await?;
            if message.amount == 2 {
                return Err(HandlerError::permanent("no invoice for two"));
            }
            tx.put(&format!("invoice {}", message.amount), name.as_str())?;
            add(tx, message).await
        }))
        .open()
        .await
        .unwrap();
    send(&gate, "one", (0..5).map(|amount| Add { amount, hops: 0 }).collect()).await;
    until(&gate, |statistics| statistics.committed == 5 && statistics.dead_letters == 1).await;
    let statistics = gate.close().await;
    assert!(statistics.commits < 5, "the burst must have been folded: {statistics:?}");
    let mut contents = Vec::new();
    for name in blobs.list("invoices/").await.unwrap() {
        let content = blobs.get(&name).await.unwrap().unwrap();
        contents.push(tollgate::proto::blobs::collect(&name, content, 100).await.unwrap());
    }
    contents.sort();
    assert_eq!(contents, ["0", "1", "3", "4"]);
}
