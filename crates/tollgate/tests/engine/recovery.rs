//! What others have left unfinished, and what is tidied when nobody comes.

use std::sync::Arc;
use std::time::Duration;

use tollgate::{Endpoint, Gate};

use crate::harness::{Add, OddBroker, Sends, broker, left_over, memory_store, total, until, waiting};
use crate::{adder, gate, send};

#[tokio::test(start_paused = true)]
async fn what_a_process_had_committed_when_it_died_is_published_by_the_next_visitor() {
    let (store, queues) = (memory_store(), broker());
    // A process dies between commit and publication: its broker never answers, but for the wake-up.
    let dies = std::thread::spawn({
        let (store, queues) = (Arc::clone(&store), Arc::clone(&queues));
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            runtime.block_on(async {
                let gate = Gate::builder()
                    .store(store)
                    .broker(Arc::new(OddBroker { inner: queues, sends: Sends::OnlyDelayed }))
                    .endpoint(Endpoint::new("edge"))
                    .open()
                    .await
                    .unwrap();
                send(&gate, "one", vec![Add { amount: 1, hops: 0 }]).await;
            });
        }
    });
    dies.join().unwrap();
    assert_eq!(waiting(&queues, "adder"), 0);
    assert_eq!(left_over(&*store).await, 2, "the outbox entry and its marker");
    let next = gate(&store, &queues).endpoint(adder()).open().await.unwrap();
    until(&next, |statistics| statistics.committed == 1).await;
    next.close().await;
    assert_eq!(total(&*store, "P").await, 1);
    assert_eq!(left_over(&*store).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_sweep_finishes_a_partition_that_nobody_visits() {
    let (store, queues) = (memory_store(), broker());
    let source = gate(&store, &queues).flush_after(Duration::from_secs(1_000_000)).open().await.unwrap();
    send(&source, "one", vec![Add { amount: 1, hops: 0 }]).await;
    until(&source, |_| waiting(&queues, "adder") == 1).await;
    // It is forgotten without being closed: its marker stays.
    drop(source);
    let sweeper = gate(&store, &queues).endpoint(adder()).open().await.unwrap();
    until(&sweeper, |statistics| statistics.committed == 1).await;
    sweeper.sweep().await.unwrap();
    sweeper.close().await;
    assert_eq!(left_over(&*store).await, 0);
}

#[tokio::test(start_paused = true)]
async fn finished_markers_are_flushed_when_a_partition_has_been_idle_for_a_while() {
    let (store, broker) = (memory_store(), broker());
    let gate =
        gate(&store, &broker).endpoint(adder()).flush_after(Duration::from_secs(2)).open().await.unwrap();
    send(&gate, "one", vec![Add { amount: 1, hops: 0 }]).await;
    until(&gate, |statistics| statistics.committed == 2).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(left_over(&*store).await, 0, "and the gate was not closed");
    gate.close().await;
}
