//! A broker inside the process: a queue per endpoint, in memory, with an optional recovery log. This file is
//! its face; what a queue does is in `queue` and `messages`, what the disk does in `crate::log`.

mod builder;
pub(crate) mod messages;
pub(crate) mod queue;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use tollgate_proto::store::BoxFuture;
use tollgate_proto::{Broker, BrokerError, Delivery, EndpointName, OutgoingMessage, Settlement};

#[cfg(feature = "durable")]
pub use builder::DurableBuilder;
pub use builder::InProcessBuilder;
use messages::QueueLimits;
#[cfg(feature = "durable")]
use messages::{Arrival, LogNumber};
use queue::{Journal, Queue};

use crate::error::RecoveryLogError;
#[cfg(feature = "durable")]
use crate::log::{Append, Log};

/// Most endpoints that one broker makes queues for. Names come from configuration; thousands of them are a
/// mistake that would otherwise show as memory that grows.
pub const ENDPOINTS_MAX: usize = 10_000;

/// A broker inside the process.
///
/// Each endpoint has a queue of its own, made when it is first used. A delivery that is not settled within
/// the visibility timeout is delivered again, with a higher count: this is the bound up to which the broker
/// holds a delivery, and nothing extends it. Timing follows `tokio::time`, so tests can pause it.
///
/// **Volatile** (`build()`): messages are gone with the process. **Durable** (`durable(directory).open()`): a
/// send is confirmed after its message was synced to disk, together with all sends that arrived meanwhile;
/// acknowledgements are written soon after, unsynced. After a crash every message without a recorded
/// acknowledgement is delivered again and counts the crash as one delivery, so that a message which kills its
/// process still reaches its limit; after [`InProcessBroker::close`] counts are exact. A delay given to
/// `send` survives a restart, one given to a retry does not.
pub struct InProcessBroker {
    limits: QueueLimits,
    queues: RwLock<Queues>,
    #[cfg(feature = "durable")]
    log: Option<Log>,
}

struct Queues {
    by_endpoint: HashMap<EndpointName, Arc<Queue>>,
    life: Life,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Open,
    Closed,
}

/// A message that was put aside, with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The encoded envelope.
    pub envelope: Bytes,
    /// Why, as the one who settled it said.
    pub reason: String,
    /// How often it had been delivered.
    pub delivery_count: u32,
}

/// How many messages of an endpoint are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Waiting for a receiver.
    pub ready: usize,
    /// Waiting for their time.
    pub delayed: usize,
    /// Delivered and not settled.
    pub in_flight: usize,
    /// Messages that were put aside.
    pub dead: usize,
}

impl Depth {
    /// All messages that the queue holds, dead ones included.
    pub const fn total(&self) -> usize {
        self.ready + self.delayed + self.in_flight + self.dead
    }
}

/// What the log has kept.
#[cfg(feature = "durable")]
#[derive(Debug)]
pub(crate) enum Recovered {
    Message(Arrival),
    Dead(DeadLetter, LogNumber),
}

impl InProcessBroker {
    /// A broker with bounds of your own.
    pub fn builder() -> InProcessBuilder {
        InProcessBuilder::default()
    }

    /// How many messages of an endpoint are where.
    pub fn depth(&self, endpoint: &EndpointName) -> Depth {
        self.existing(endpoint).map_or_else(Depth::default, |queue| queue.depth())
    }

    /// The messages of an endpoint that were put aside, oldest first.
    pub fn dead_letters(&self, endpoint: &EndpointName) -> Vec<DeadLetter> {
        self.existing(endpoint).map_or_else(Vec::new, |queue| queue.dead_letters())
    }

    /// Puts all dead letters of an endpoint back into its queue, as if they had never been delivered, and
    /// tells how many there were.
    pub fn redrive(&self, endpoint: &EndpointName) -> usize {
        let count = self.existing(endpoint).map_or(0, |queue| queue.redrive());
        tracing::info!(%endpoint, count, "dead letters were put back into their queue");
        count
    }

    /// Ends all giving and taking: receivers that wait get [`BrokerError::Closed`], and so does every later
    /// call. A durable broker's log is written to its end, made small, and its directory is free for the next
    /// opener.
    ///
    /// # Errors
    /// The log could not be written; what was confirmed is safe all the same.
    #[cfg_attr(not(feature = "durable"), expect(clippy::unused_async, reason = "only a log makes it wait"))]
    pub async fn close(&self) -> Result<(), RecoveryLogError> {
        self.close_queues();
        #[cfg(feature = "durable")]
        if let Some(log) = &self.log {
            log.close().await?;
        }
        Ok(())
    }

    fn close_queues(&self) {
        let mut queues = self.queues.write().expect("nothing panics while it holds the map of queues");
        queues.life = Life::Closed;
        for queue in queues.by_endpoint.values() {
            queue.close();
        }
    }

    fn existing(&self, endpoint: &EndpointName) -> Option<Arc<Queue>> {
        let queues = self.queues.read().expect("nothing panics while it holds the map of queues");
        queues.by_endpoint.get(endpoint).cloned()
    }

    /// The queue of an endpoint, made now if it is used for the first time.
    fn queue(&self, endpoint: &EndpointName) -> Result<Arc<Queue>, BrokerError> {
        if let Some(queue) = self.existing(endpoint) {
            return Ok(queue);
        }
        let mut queues = self.queues.write().expect("nothing panics while it holds the map of queues");
        if queues.life == Life::Closed {
            return Err(BrokerError::Closed { endpoint: endpoint.clone() });
        }
        if queues.by_endpoint.len() >= ENDPOINTS_MAX && !queues.by_endpoint.contains_key(endpoint) {
            let reason = format!(
                "this broker has queues for {ENDPOINTS_MAX} endpoints and makes no more: are names made up from data?"
            );
            return Err(BrokerError::Misconfigured { endpoint: endpoint.clone(), reason });
        }
        let make = || Arc::new(Queue::new(endpoint.clone(), self.limits, self.journal()));
        Ok(Arc::clone(queues.by_endpoint.entry(endpoint.clone()).or_insert_with(make)))
    }

    #[cfg(feature = "durable")]
    fn journal(&self) -> Option<Arc<dyn Journal>> {
        self.log.as_ref().map(Log::journal)
    }

    #[cfg(not(feature = "durable"))]
    #[expect(clippy::unused_self, reason = "with the feature `durable` it has a log to ask")]
    fn journal(&self) -> Option<Arc<dyn Journal>> {
        None
    }

    fn send_volatile(&self, messages: Vec<OutgoingMessage>) -> Vec<Result<(), BrokerError>> {
        let mut answers = Vec::with_capacity(messages.len());
        let mut messages = messages.into_iter().peekable();
        while let Some(first) = messages.peek() {
            match self.queue(&first.endpoint) {
                Ok(queue) => queue.send(&mut messages, &mut answers),
                Err(error) => {
                    messages.next();
                    answers.push(Err(error));
                }
            }
        }
        answers
    }
}

#[cfg(feature = "durable")]
impl InProcessBroker {
    /// Rewrites the recovery log with what it still needs and deletes the rest. The broker does so by itself
    /// when it is idle and when it is closed; sends wait meanwhile. Without a log there is nothing to do.
    ///
    /// # Errors
    /// The log could not be rewritten; the old one is still in use.
    pub async fn compact(&self) -> Result<(), RecoveryLogError> {
        match &self.log {
            Some(log) => log.compact().await,
            None => Ok(()),
        }
    }

    async fn send_durable(&self, log: &Log, messages: Vec<OutgoingMessage>) -> Vec<Result<(), BrokerError>> {
        // Room in the log before room in the queues: what waits here holds nothing that others need.
        let permits = log.admit(messages.len()).await;
        let mut places = Vec::with_capacity(messages.len());
        let mut appends = Vec::with_capacity(messages.len());
        for message in messages {
            let place = self.queue(&message.endpoint).and_then(|queue| queue.reserve().map(|()| queue));
            if let Ok(queue) = &place {
                let queue = Arc::clone(queue);
                appends.push(Append { queue, envelope: message.envelope, delay: message.delay });
            }
            places.push(place);
        }
        // From here on the log's writer puts the messages into their queues, whether anybody waits for it or
        // not.
        let outcome = if appends.is_empty() { Ok(()) } else { log.append(appends, permits).await };
        let answer = |queue: Arc<Queue>| {
            let unavailable =
                |reason| BrokerError::Unavailable { endpoint: queue.endpoint().clone(), reason };
            outcome.clone().map_err(unavailable)
        };
        places.into_iter().map(|place| place.and_then(answer)).collect()
    }

    /// Takes in what a log has kept.
    fn restore(&self, recovered: Vec<(EndpointName, Recovered)>) -> Result<(), BrokerError> {
        for (endpoint, what) in recovered {
            self.queue(&endpoint)?.restore(what);
        }
        Ok(())
    }
}

impl Broker for InProcessBroker {
    fn send(&self, messages: Vec<OutgoingMessage>) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        Box::pin(async move {
            #[cfg(feature = "durable")]
            if let Some(log) = &self.log {
                return self.send_durable(log, messages).await;
            }
            self.send_volatile(messages)
        })
    }

    fn receive(
        &self,
        endpoint: &EndpointName,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<Delivery>, BrokerError>> {
        let queue = self.queue(endpoint);
        Box::pin(async move { queue?.receive(max).await })
    }

    fn settle(
        &self,
        endpoint: &EndpointName,
        settlements: Vec<Settlement>,
    ) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        let queue = self.queue(endpoint);
        Box::pin(async move {
            match queue {
                Ok(queue) => queue.settle(settlements),
                Err(error) => settlements.iter().map(|_| Err(error.clone())).collect(),
            }
        })
    }

    fn verify(&self, endpoint: &EndpointName) -> BoxFuture<'_, Result<(), BrokerError>> {
        // A queue is made when it is first used; whether there is room for one more and the broker is open is
        // what can go wrong.
        let queue = self.queue(endpoint).and_then(|queue| queue.verify());
        Box::pin(std::future::ready(queue))
    }
}

impl Drop for InProcessBroker {
    fn drop(&mut self) {
        // Before the log's writer is joined, so that it hears of the delivery counts.
        self.close_queues();
    }
}

impl fmt::Debug for InProcessBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcessBroker").field("limits", &self.limits).finish_non_exhaustive()
    }
}
