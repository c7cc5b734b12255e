//! A cluster of Kafka for the demo. Topics are made at their first use, since a demo should be one command.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use tollgate_kafka::{KafkaBroker, TopicsMade};

use super::OutsideBroker;
use crate::error::DemoError;
use crate::queues::HOLD_MAX;
use crate::remote::QueueDepth;

/// Each of some consumers has some to do.
const PARTITIONS: NonZeroU16 = NonZeroU16::new(6).expect("it is not zero");

/// The shortest that servers allow by default: consumers are killed in the demo, and nobody should wait for it.
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

/// The demo's servers may be ones that no message wakes.
const FETCH_WAIT_MS: &str = "50";

/// Opens the broker. Its servers may be starting still.
pub fn open(servers: &str, prefix: &str) -> Result<OutsideBroker, DemoError> {
    let broker = KafkaBroker::builder(servers)
        .prefix(format!("{prefix}-"))
        .group(prefix)
        .topics_made(TopicsMade::AtFirstUse)
        .partitions(PARTITIONS)
        .replicas(NonZeroU16::MIN)
        .session_timeout(SESSION_TIMEOUT)
        .visibility_timeout(HOLD_MAX)
        .setting("fetch.wait.max.ms", FETCH_WAIT_MS)
        .open()
        .map_err(|error| DemoError::Open(error.to_string()))?;
    let broker = Arc::new(broker);
    let asked = Arc::clone(&broker);
    let depth = move |endpoint| {
        let broker = Arc::clone(&asked);
        Box::pin(async move {
            let depth = broker.depth(&endpoint).await?;
            let count = |messages| usize::try_from(messages).unwrap_or(usize::MAX);
            Ok(QueueDepth { left: count(depth.left), dead: count(depth.dead) })
        }) as _
    };
    Ok(OutsideBroker { broker, depth: Arc::new(depth) })
}
