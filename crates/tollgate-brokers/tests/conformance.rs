//! The testkit's suite against each broker of this crate. What is special to one of them is tested in the other files.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer, in its helpers as well")]

use std::sync::Arc;
use std::time::Duration;

use tollgate_brokers::InProcessBroker;
use tollgate_proto::Broker;
use tollgate_testkit::ChaosBroker;
use tollgate_testkit::broker_conformance::BrokerConfig;

const CAPACITY: usize = 100;

/// On a paused clock it is as good as any other.
const PAUSED: BrokerConfig = BrokerConfig {
    visibility_timeout: Duration::from_secs(30),
    capacity: Some(CAPACITY),
    envelope_bytes_max: 16 * 1024 * 1024,
};

mod volatile {
    use super::*;

    async fn make() -> Arc<dyn Broker> {
        let builder = InProcessBroker::builder().visibility_timeout(PAUSED.visibility_timeout);
        Arc::new(builder.capacity(CAPACITY).build())
    }

    tollgate_testkit::broker_conformance_tests!(paused, make, PAUSED);
}

mod chaos_without_faults {
    use super::*;

    async fn make() -> Arc<dyn Broker> {
        let builder = InProcessBroker::builder().visibility_timeout(PAUSED.visibility_timeout);
        let inner = builder.capacity(CAPACITY).build();
        Arc::new(ChaosBroker::builder(Arc::new(inner)).seed(7).build())
    }

    tollgate_testkit::broker_conformance_tests!(paused, make, PAUSED);
}

#[cfg(feature = "durable")]
mod durable {
    use tempfile::TempDir;
    use tollgate_proto::store::BoxFuture;
    use tollgate_proto::{BrokerError, Delivery, EndpointName, OutgoingMessage, Settlement};

    use super::*;

    /// The log's thread is outside of tokio's time, so the clock is the real one; long enough for a slow disk.
    const REAL_TIME: BrokerConfig = BrokerConfig { visibility_timeout: Duration::from_secs(1), ..PAUSED };

    async fn make() -> Arc<dyn Broker> {
        let directory = tempfile::tempdir().unwrap();
        let builder = InProcessBroker::builder().visibility_timeout(REAL_TIME.visibility_timeout);
        let broker = builder.capacity(CAPACITY).durable(directory.path()).open().unwrap();
        Arc::new(InDirectory { broker, _directory: directory })
    }

    /// A broker that takes its directory along when it goes.
    struct InDirectory {
        broker: InProcessBroker,
        _directory: TempDir,
    }

    impl Broker for InDirectory {
        fn send(&self, messages: Vec<OutgoingMessage>) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
            self.broker.send(messages)
        }

        fn receive(
            &self,
            endpoint: &EndpointName,
            max: usize,
        ) -> BoxFuture<'_, Result<Vec<Delivery>, BrokerError>> {
            self.broker.receive(endpoint, max)
        }

        fn settle(
            &self,
            endpoint: &EndpointName,
            settlements: Vec<Settlement>,
        ) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
            self.broker.settle(endpoint, settlements)
        }
    }

    tollgate_testkit::broker_conformance_tests!(real_time, make, REAL_TIME);
}
