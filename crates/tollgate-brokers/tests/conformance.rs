//! The testkit's suite against each broker of this crate. What is special to one of them is tested in the
//! other files.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer, in its helpers as well")]

use std::sync::Arc;
use std::time::Duration;

use tollgate_brokers::InProcessBroker;
use tollgate_proto::{Broker, BrokerError, EndpointName};
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

    #[tokio::test]
    async fn what_is_wrong_with_the_broker_inside_is_said_by_the_one_around_it() {
        let inner = Arc::new(InProcessBroker::builder().build());
        let around: Arc<dyn Broker> =
            Arc::new(ChaosBroker::builder(Arc::clone(&inner) as Arc<dyn Broker>).seed(7).build());
        let orders = EndpointName::new("orders").unwrap();
        around.verify(&orders).await.unwrap();
        inner.close().await.unwrap();
        let closed = around.verify(&orders).await;
        assert!(matches!(closed, Err(BrokerError::Closed { .. })), "{closed:?}");
    }
}

#[cfg(feature = "durable")]
mod durable {
    use tempfile::TempDir;
    use tollgate_proto::BrokerWrapper;

    use super::*;

    /// The log's thread is outside of tokio's time, so the clock is the real one; long enough for a slow
    /// disk.
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

    impl BrokerWrapper for InDirectory {
        fn inner(&self) -> &dyn Broker {
            &self.broker
        }
    }

    tollgate_testkit::broker_conformance_tests!(real_time, make, REAL_TIME);
}
