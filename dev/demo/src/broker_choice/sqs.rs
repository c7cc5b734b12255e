//! Queues of SQS for the demo, on an emulator. They are made at their first use, since a demo should be one command.

use std::sync::Arc;
use std::time::Duration;

use tollgate_sqs::{Provisioning, SqsBroker};

use super::OutsideBroker;
use crate::error::DemoError;
use crate::queues::{HOLD_MAX, VISIBILITY_TIMEOUT};
use crate::remote::QueueDepth;

/// The shortest timeout that SQS knows is one second, and it has to be extended before it is over.
const SHORTEST: Duration = Duration::from_secs(2);

/// Opens the broker. Its server may be starting still.
pub fn open(url: &str, prefix: &str) -> Result<OutsideBroker, DemoError> {
    let broker = SqsBroker::at_emulator(url)
        .prefix(format!("{prefix}-"))
        .provisioning(Provisioning::OnUse)
        .visibility_timeout(VISIBILITY_TIMEOUT.max(SHORTEST))
        .hold_max(HOLD_MAX)
        .build()
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
