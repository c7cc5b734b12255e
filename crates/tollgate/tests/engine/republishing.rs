//! Republication: the repair of lost queues and restored stores, harmless beside everything else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tollgate::proto::{
    BoxFuture, BrokerError, DeduplicationId, Delivery, EndpointName, EntryRead, LoadRequest, LoadedPartition,
    OutgoingMessage, SessionMark, Settlement, StoreAlias, StoreError, StoreWrapper, TokenRef,
};
use tollgate::{Broker, Gate, Store};

use crate::harness::{Add, broker, left_over, memory_store, total, until, waiting};
use crate::{adder, gate, send};

/// Commits messages to partition `P` of `adder` that lie in the broker's queue afterwards.
async fn publish(store: &Arc<dyn Store>, messages: usize) -> Arc<tollgate_brokers::InProcessBroker> {
    let queues = broker();
    let source = gate(store, &queues).open().await.unwrap();
    send(&source, "some", vec![Add { amount: 1, hops: 0 }; messages]).await;
    until(&source, |_| waiting(&queues, "adder") == messages).await;
    source.close().await;
    queues
}

async fn handled(consumer: &Gate, messages: u64) {
    until(consumer, |statistics| statistics.committed == messages).await;
}

#[tokio::test(start_paused = true)]
async fn messages_that_their_queue_has_lost_are_sent_again_and_processed_once() {
    let store = memory_store();
    drop(publish(&store, 3).await);
    let queues = broker();
    let consumer = gate(&store, &queues).endpoint(adder()).open().await.unwrap();
    assert_eq!(consumer.sweep().await.unwrap(), 0, "a sweep looks for what is not published");
    let republished = consumer.republish(Duration::ZERO).await.unwrap();
    assert_eq!((republished.sent, republished.failed), (3, 0));
    handled(&consumer, 3).await;
    until(&consumer, |_| waiting(&queues, "adder") == 0).await;
    assert_eq!(consumer.republish(Duration::ZERO).await.unwrap().sent, 0, "no token is left");
    consumer.close().await;
    assert_eq!((total(&*store, "P").await, left_over(&*store).await), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn republication_of_what_is_still_in_its_queue_processes_nothing_twice() {
    let store = memory_store();
    let queues = publish(&store, 5).await;
    let sender = gate(&store, &queues).open().await.unwrap();
    assert_eq!(sender.republish(Duration::ZERO).await.unwrap().sent, 5);
    assert_eq!(waiting(&queues, "adder"), 10);
    sender.close().await;
    let consumer = gate(&store, &queues).endpoint(adder()).open().await.unwrap();
    until(&consumer, |_| waiting(&queues, "adder") == 0).await;
    consumer.close().await;
    assert_eq!((total(&*store, "P").await, left_over(&*store).await), (5, 0));
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_is_consumed_before_it_is_old_enough_is_not_sent() {
    let store = memory_store();
    let queues = publish(&store, 4).await;
    let consumer = gate(&store, &queues).endpoint(adder()).open().await.unwrap();
    let published = consumer.statistics().published;
    let republished = consumer.republish(Duration::from_secs(60)).await.unwrap();
    assert_eq!((republished.sent, republished.failed), (0, 0));
    assert_eq!(consumer.statistics().published, published);
    consumer.close().await;
    assert_eq!(total(&*store, "P").await, 4);
}

/// A broker that sends nothing, and notes the ids that it is given.
#[derive(Default)]
struct Ids(Mutex<Vec<DeduplicationId>>);

impl Broker for Ids {
    fn send(&self, messages: Vec<OutgoingMessage>) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        let answers = vec![Ok(()); messages.len()];
        self.0.lock().unwrap().extend(messages.into_iter().map(|message| message.deduplication_id));
        Box::pin(std::future::ready(answers))
    }

    fn receive(&self, _: &EndpointName, _: usize) -> BoxFuture<'_, Result<Vec<Delivery>, BrokerError>> {
        Box::pin(std::future::pending())
    }

    fn settle(
        &self,
        _: &EndpointName,
        settlements: Vec<Settlement>,
    ) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        Box::pin(std::future::ready(vec![Ok(()); settlements.len()]))
    }

    fn verify(&self, _: &EndpointName) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

#[tokio::test(start_paused = true)]
async fn each_republication_has_an_id_that_no_broker_remembers() {
    let store = memory_store();
    drop(publish(&store, 2).await);
    let ids = Arc::new(Ids::default());
    let sender = Gate::builder().store(Arc::clone(&store)).broker(Arc::clone(&ids) as Arc<dyn Broker>);
    let sender = sender.open().await.unwrap();
    for _ in 0..2 {
        assert_eq!(sender.republish(Duration::ZERO).await.unwrap().sent, 2);
    }
    sender.close().await;
    let scanned = store.scan(None, 10).await.unwrap().partitions;
    let mut used: Vec<DeduplicationId> = ids.0.lock().unwrap().clone();
    for partition in scanned {
        let store = StoreAlias::new("main").unwrap();
        let token = |entry| TokenRef { store: store.clone(), partition: partition.partition.clone(), entry };
        used.extend(partition.entries.iter().map(|entry| DeduplicationId::of_token(&token(*entry))));
    }
    used.sort();
    used.dedup();
    assert_eq!(used.len(), 2 * 2 + 2);
}

/// A store with session marks, whose loads show a partition as it was when `lags` was set.
struct Replicated {
    inner: Arc<dyn Store>,
    lags: AtomicBool,
    seen: Mutex<Option<Bytes>>,
    presented: Mutex<Vec<SessionMark>>,
}

fn mark() -> SessionMark {
    let store = StoreAlias::new("main").unwrap();
    SessionMark { store, scope: "all".into(), position: 7, token: "7".into() }
}

impl StoreWrapper for Replicated {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    fn load(&self, requests: Vec<LoadRequest>) -> BoxFuture<'_, Vec<Result<LoadedPartition, StoreError>>> {
        Box::pin(async move {
            let mut answers = self.inner.load(requests).await;
            for loaded in answers.iter_mut().flatten() {
                loaded.session = Some(mark());
                if self.lags.load(Ordering::Relaxed) {
                    loaded.control.clone_from(&self.seen.lock().unwrap());
                } else {
                    self.seen.lock().unwrap().clone_from(&loaded.control);
                }
            }
            answers
        })
    }

    fn read_entries(&self, reads: Vec<EntryRead>) -> BoxFuture<'_, Vec<Result<Option<Bytes>, StoreError>>> {
        self.presented.lock().unwrap().extend(reads.iter().flat_map(|read| read.sessions.clone()));
        self.inner.read_entries(reads)
    }
}

#[tokio::test(start_paused = true)]
async fn an_entry_is_only_sent_with_a_session_mark_that_shows_it() {
    let replicated = Arc::new(Replicated {
        inner: memory_store(),
        lags: AtomicBool::new(false),
        seen: Mutex::default(),
        presented: Mutex::default(),
    });
    let store: Arc<dyn Store> = Arc::clone(&replicated) as Arc<dyn Store>;
    drop(publish(&store, 2).await);
    let queues = broker();
    let sender = gate(&store, &queues).open().await.unwrap();
    // The replica shows the sender's partition as it was before it had any commit.
    replicated.seen.lock().unwrap().take();
    replicated.lags.store(true, Ordering::Relaxed);
    replicated.presented.lock().unwrap().clear();
    let republished = sender.republish(Duration::ZERO).await.unwrap();
    assert_eq!((republished.sent, republished.failed), (0, 2), "its tokens stay");
    assert_eq!(waiting(&queues, "adder"), 0);
    replicated.lags.store(false, Ordering::Relaxed);
    assert_eq!(sender.republish(Duration::ZERO).await.unwrap().sent, 2);
    assert_eq!(*replicated.presented.lock().unwrap(), vec![mark(); 2]);
    sender.close().await;
    let consumer = gate(&store, &queues).endpoint(adder()).open().await.unwrap();
    handled(&consumer, 2).await;
    assert!(replicated.presented.lock().unwrap().len() >= 4, "the messages carry the mark");
    consumer.close().await;
}
