//! A server of NATS for the demo. Streams are made at their first use, since a demo should be one command.

use std::sync::Arc;

use tollgate_nats::{Deduplication, NatsBroker, Provisioning};

use super::OutsideBroker;
use crate::error::DemoError;
use crate::queues::{HOLD_MAX, VISIBILITY_TIMEOUT};
use crate::remote::QueueDepth;

/// Opens the broker. Its server may be starting still.
pub async fn open(url: &str, prefix: &str) -> Result<OutsideBroker, DemoError> {
    let broker = NatsBroker::at(url)
        .prefix(prefix)
        .provisioning(Provisioning::OnUse)
        .visibility_timeout(VISIBILITY_TIMEOUT)
        .hold_max(HOLD_MAX)
        // The demo's copies have the id of their original: the server would not let one of them through.
        .deduplication(Deduplication::Off)
        .connect()
        .await
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
