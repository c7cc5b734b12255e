//! The testkit's suites through a connection, and what only a connection can do: break.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tollgate::proto::StoreAlias;
use tollgate::{Broker, Store};
use tollgate_brokers::InProcessBroker;
use tollgate_embedded::MemoryStore;

use super::{Address, Connection, QueueDepth, RemoteBroker, RemoteStore, Served, serve};

const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(1);
const CAPACITY: usize = 100;

fn memory_store() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new(StoreAlias::new("main").unwrap()))
}

fn queues() -> Arc<dyn Broker> {
    let builder = InProcessBroker::builder().visibility_timeout(VISIBILITY_TIMEOUT);
    Arc::new(builder.capacity(CAPACITY).build())
}

/// A running server.
struct Host {
    closing: CancellationToken,
    serving: JoinHandle<()>,
}

impl Host {
    async fn start(address: &Path, store: Arc<dyn Store>, broker: Arc<dyn Broker>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let secret = fastrand::u64(..);
        Address { socket: listener.local_addr().unwrap(), secret }.write(address).unwrap();
        let served = Served { store: Some(store), broker, depth: Arc::new(|_| QueueDepth::default()) };
        let closing = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, secret, served, closing.clone()));
        Self { closing, serving }
    }

    async fn stop(self) {
        self.closing.cancel();
        self.serving.await.unwrap();
    }
}

mod store {
    use tollgate_testkit::store_conformance::Subject;

    use super::*;

    async fn make() -> Subject {
        let directory = tempfile::tempdir().unwrap();
        let address = directory.path().join("host");
        let host = Host::start(&address, memory_store(), queues()).await;
        let store = RemoteStore::open(Arc::new(Connection::open(&address))).await.unwrap();
        Subject::new(store).keeping((host, directory))
    }

    tollgate_testkit::store_conformance_tests!(make);
}

mod broker {
    use tollgate_testkit::broker_conformance::BrokerConfig;

    use super::*;

    const CONFIG: BrokerConfig = BrokerConfig {
        visibility_timeout: VISIBILITY_TIMEOUT,
        capacity: Some(CAPACITY),
        envelope_bytes_max: 16 * 1024 * 1024,
    };

    async fn make() -> Arc<dyn Broker> {
        let directory = tempfile::tempdir().unwrap();
        let address = directory.path().join("host");
        // The server ends with the test's runtime.
        Host::start(&address, memory_store(), queues()).await;
        let connection = Arc::new(Connection::open(&address));
        let broker = RemoteBroker::new(Arc::clone(&connection));
        // The address is read before its directory goes.
        RemoteStore::open(connection).await.unwrap();
        Arc::new(broker)
    }

    tollgate_testkit::broker_conformance_tests!(real_time, make, CONFIG);
}

mod breaks {
    use bytes::Bytes;
    use tokio::sync::Notify;
    use tollgate::proto::{
        BoxFuture, BrokerError, Commit, CommitOutcome, EndpointName, Incarnation, LoadRequest, MessageId,
        OutgoingMessage, PartitionKey, Settlement, StoreError, StoreWrapper, Verdict, Version,
    };

    use super::*;

    /// A store that commits and then never answers; it rings when it has committed.
    struct Silent {
        inner: Arc<dyn Store>,
        committed: Arc<Notify>,
    }

    impl StoreWrapper for Silent {
        fn inner(&self) -> &dyn Store {
            &*self.inner
        }

        fn verify(&self) -> BoxFuture<'_, Result<(), StoreError>> {
            Box::pin(std::future::pending())
        }

        fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, StoreError>> {
            Box::pin(async move {
                self.inner.commit(commit).await.unwrap();
                self.committed.notify_one();
                std::future::pending().await
            })
        }
    }

    fn first_commit(partition: &PartitionKey) -> Commit {
        Commit {
            partition: partition.clone(),
            expected: None,
            version: Version::first(Incarnation(1)),
            control: Bytes::from_static(b"control"),
            items: vec![],
            entries: vec![],
            deleted_entries: vec![],
            records: vec![],
            now_ms: 0,
        }
    }

    #[tokio::test]
    async fn a_commit_whose_answer_is_lost_may_have_happened_and_the_client_finds_the_host_again() {
        let directory = tempfile::tempdir().unwrap();
        let address = directory.path().join("host");
        let (inner, committed) = (memory_store(), Arc::new(Notify::new()));
        let silent = Silent { inner: Arc::clone(&inner), committed: Arc::clone(&committed) };
        let host = Host::start(&address, Arc::new(silent), queues()).await;
        let connection = Arc::new(Connection::open(&address));
        let store = RemoteStore::open(Arc::clone(&connection)).await.unwrap();
        let broker = RemoteBroker::new(connection);
        let partition = PartitionKey::new("order/1").unwrap();
        let orders = EndpointName::new("orders").unwrap();

        let lost = store.commit(first_commit(&partition));
        let unanswered = store.verify();
        let waiting = broker.receive(&orders, 1);
        let breaking = async {
            committed.notified().await;
            host.stop().await;
        };
        let (lost, unanswered, waiting, ()) = tokio::join!(lost, unanswered, waiting, breaking);
        assert!(matches!(lost, Err(StoreError::OutcomeUnknown { .. })), "{lost:?}");
        assert!(matches!(unanswered, Err(StoreError::Unavailable { .. })), "{unanswered:?}");
        assert!(matches!(waiting, Err(BrokerError::Unavailable { .. })), "{waiting:?}");

        // Nobody is there: nothing was sent, so nothing happened.
        let not_sent = store.commit(first_commit(&partition)).await;
        assert!(matches!(not_sent, Err(StoreError::Unavailable { .. })), "{not_sent:?}");

        let host = Host::start(&address, inner, queues()).await;
        let request = LoadRequest { partition: partition.clone(), items: vec![], records: vec![] };
        let loaded = loop {
            match store.load(vec![request.clone()]).await.pop().unwrap() {
                Err(StoreError::Unavailable { .. }) => {}
                loaded => break loaded.unwrap(),
            }
        };
        assert_eq!(loaded.control.as_deref(), Some(&b"control"[..]), "the lost commit had happened");
        assert_eq!(store.commit(first_commit(&partition)).await.unwrap(), CommitOutcome::Conflict);
        host.stop().await;
    }

    #[tokio::test]
    async fn a_receipt_of_a_host_that_was_killed_does_not_end_a_message_of_the_next_one() {
        let directory = tempfile::tempdir().unwrap();
        let address = directory.path().join("host");
        let orders = EndpointName::new("orders").unwrap();
        let message = |name: &'static str| {
            let id = MessageId::from_name("test", name);
            let envelope = Bytes::from_static(name.as_bytes());
            OutgoingMessage::without_token(
                orders.clone(),
                PartitionKey::new("order/1").unwrap(),
                id,
                envelope,
            )
        };
        let host = Host::start(&address, memory_store(), queues()).await;
        let connection = Arc::new(Connection::open(&address));
        let broker = RemoteBroker::new(Arc::clone(&connection));
        broker.send(vec![message("before")]).await.pop().unwrap().unwrap();
        let before = broker.receive(&orders, 1).await.unwrap().pop().unwrap();
        host.stop().await;

        // The first delivery of a new broker in memory has the number that the first one of the old broker had.
        let next_queues = queues();
        let host = Host::start(&address, memory_store(), Arc::clone(&next_queues)).await;
        while broker.send(vec![message("after")]).await.pop().unwrap().is_err() {}
        let after = broker.receive(&orders, 1).await.unwrap().pop().unwrap();
        let late = Settlement { receipt: before.receipt, verdict: Verdict::Acknowledge };
        let refused = broker.settle(&orders, vec![late]).await.pop().unwrap();
        assert!(matches!(refused, Err(BrokerError::Unavailable { .. })), "{refused:?}");
        let again = tokio::time::timeout(VISIBILITY_TIMEOUT * 20, next_queues.receive(&orders, 1)).await;
        let again = again.expect("the message is still to be processed").unwrap().pop().unwrap();
        assert_eq!(again.envelope, after.envelope);
        host.stop().await;
    }

    #[tokio::test]
    async fn a_client_without_the_secret_is_not_let_in() {
        let directory = tempfile::tempdir().unwrap();
        let address = directory.path().join("host");
        let host = Host::start(&address, memory_store(), queues()).await;
        let right = Address::read(&address).unwrap();
        Address { secret: !right.secret, ..right }.write(&address).unwrap();
        let connection = Arc::new(Connection::open(&address));
        assert!(RemoteStore::open(Arc::clone(&connection)).await.is_err());
        right.write(&address).unwrap();
        while RemoteStore::open(Arc::clone(&connection)).await.is_err() {}
        host.stop().await;
    }
}
