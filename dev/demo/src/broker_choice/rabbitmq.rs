//! A server of RabbitMQ for the demo. Queues are made at their first use, since a demo should be one command.

use std::sync::Arc;

use tollgate_rabbitmq::{Queues, RabbitMqBroker};

use super::OutsideBroker;
use crate::error::DemoError;
use crate::queues::HOLD_MAX;
use crate::remote::QueueDepth;

/// Opens the broker. Its server may be starting still.
pub fn open(url: &str, prefix: &str) -> Result<OutsideBroker, DemoError> {
    let broker = RabbitMqBroker::builder(url)
        .prefix(format!("{prefix}-"))
        .queues(Queues::MadeAtFirstUse)
        .visibility_timeout(HOLD_MAX)
        .open()
        .map_err(|error| DemoError::Open(error.to_string()))?;
    let broker = Arc::new(broker);
    let asked = Arc::clone(&broker);
    let depth = move |endpoint| {
        let broker = Arc::clone(&asked);
        Box::pin(async move {
            // What consumers hold is not counted: it is ready again once they have ended, which the last look waits for.
            let depth = broker.depth(&endpoint).await?;
            let count = |messages| usize::try_from(messages).unwrap_or(usize::MAX);
            Ok(QueueDepth { left: count(depth.ready + depth.delayed), dead: count(depth.dead) })
        }) as _
    };
    Ok(OutsideBroker { broker, depth: Arc::new(depth) })
}
