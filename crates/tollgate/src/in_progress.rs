//! Messages and requests that the gate has taken and not settled.
//!
//! A copy of one of them is attached to it instead of being processed apart: it takes no place in the endpoint's window, and its
//! verdict is the first one's. The oldest of them is reported.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio_util::sync::CancellationToken;
use tollgate_proto::{EndpointName, Envelope, MessageId, PartitionKey};

use crate::engine::Engine;
use crate::lanes::AnswerTo;

/// How often the oldest in progress is looked for.
const WATCH_EVERY: Duration = Duration::from_secs(10);

/// The age in seconds from which it is reported as a warning, and again whenever it has grown by as much.
const SLOW_SECS: u64 = 30;

/// The message or request that an endpoint has had in progress for the longest time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OldestInProgress {
    /// The endpoint.
    pub endpoint: EndpointName,
    /// The partition.
    pub partition: PartitionKey,
    /// The message, or the id that stands for a request.
    pub message_id: MessageId,
    /// The message's type; of a request, `request`.
    pub message_type: String,
    /// The time since the gate took it.
    pub age: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    endpoint: usize,
    message_id: MessageId,
    is_request: bool,
}

struct Entry {
    since_ms: u64,
    partition: PartitionKey,
    /// `None` for a request.
    envelope: Option<Arc<Envelope>>,
    copies: Vec<AnswerTo>,
}

/// All that a gate has in progress.
#[derive(Default)]
pub(crate) struct InProgress {
    entries: Mutex<HashMap<Key, Entry, RandomState>>,
}

/// The entry of one message or request. Dropping it removes the entry; copies without a verdict are delivered again.
pub(crate) struct Ticket {
    in_progress: Arc<InProgress>,
    key: Key,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let entry = self.in_progress.lock().remove(&self.key);
        drop(entry);
    }
}

impl Ticket {
    /// Removes the entry, and gives back those who brought copies.
    pub(crate) fn close(self) -> Vec<AnswerTo> {
        let entry = self.in_progress.lock().remove(&self.key);
        entry.map(|entry| entry.copies).unwrap_or_default()
    }
}

impl InProgress {
    /// Enters a message. `None`: it is a copy of one in progress, and shares its verdict. One that has only the id in common with
    /// another gets no ticket.
    pub(crate) fn enter(
        self: &Arc<Self>,
        endpoint: usize,
        envelope: &Arc<Envelope>,
        answer_to: AnswerTo,
        now_ms: u64,
    ) -> Option<(AnswerTo, Option<Ticket>)> {
        let key = Key { endpoint, message_id: envelope.message_id, is_request: false };
        let mut entries = self.lock();
        if let Some(entry) = entries.get_mut(&key) {
            if entry.envelope.as_ref() == Some(envelope) {
                entry.copies.push(answer_to);
                return None;
            }
            return Some((answer_to, None));
        }
        let (partition, envelope) = (envelope.to.partition.clone(), Some(Arc::clone(envelope)));
        entries.insert(key, Entry { since_ms: now_ms, partition, envelope, copies: Vec::new() });
        Some((answer_to, Some(self.ticket(key))))
    }

    /// Enters a request, unless one with the same id is in progress.
    pub(crate) fn enter_request(
        self: &Arc<Self>,
        endpoint: usize,
        message_id: MessageId,
        partition: &PartitionKey,
        now_ms: u64,
    ) -> Option<Ticket> {
        let key = Key { endpoint, message_id, is_request: true };
        let mut entries = self.lock();
        if entries.contains_key(&key) {
            return None;
        }
        let partition = partition.clone();
        entries.insert(key, Entry { since_ms: now_ms, partition, envelope: None, copies: Vec::new() });
        Some(self.ticket(key))
    }

    fn ticket(self: &Arc<Self>, key: Key) -> Ticket {
        Ticket { in_progress: Arc::clone(self), key }
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry, RandomState>> {
        // Every section leaves the map consistent, whatever panics in it.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// The oldest in progress of each endpoint that has something in progress, in the endpoints' order.
    pub(crate) fn oldest_in_progress(&self) -> Vec<OldestInProgress> {
        let now_ms = self.now_ms();
        let mut oldest: Vec<Option<(u64, OldestInProgress)>> = vec![None; self.endpoints.len()];
        for (key, entry) in &*self.in_progress.lock() {
            let place = &mut oldest[key.endpoint];
            // Among those of the same age the same one each time, whatever the order of the map.
            let is_older = place.as_ref().is_none_or(|(since_ms, known)| {
                (entry.since_ms, key.message_id) < (*since_ms, known.message_id)
            });
            if is_older {
                let message_type = entry.envelope.as_ref().map(|envelope| envelope.message_type.to_string());
                let found = OldestInProgress {
                    endpoint: self.endpoints[key.endpoint].name.clone(),
                    partition: entry.partition.clone(),
                    message_id: key.message_id,
                    message_type: message_type.unwrap_or_else(|| "request".to_owned()),
                    age: Duration::from_millis(now_ms.saturating_sub(entry.since_ms)),
                };
                *place = Some((entry.since_ms, found));
            }
        }
        oldest.into_iter().flatten().map(|(_, found)| found).collect()
    }

    /// Logs what is in progress: when a gate is closed that does not come to its end.
    pub(crate) fn warn_of_the_oldest(&self, what: &str) {
        for oldest in self.oldest_in_progress() {
            let OldestInProgress { endpoint, partition, message_id, message_type, age } = oldest;
            tracing::warn!(%endpoint, %partition, %message_id, message_type, age_secs = age.as_secs(), "{what}");
        }
    }
}

/// Reports the oldest in progress until `closing`: as a gauge for each endpoint, and as a warning when it is slow.
pub(crate) async fn watch(engine: Arc<Engine>, closing: CancellationToken) {
    let gauges: Vec<metrics::Gauge> = engine
        .endpoints
        .iter()
        .map(|endpoint| {
            metrics::gauge!("tollgate_oldest_in_progress_seconds", "endpoint" => endpoint.name.to_string())
        })
        .collect();
    let mut reported: HashMap<EndpointName, u64> = HashMap::new();
    while closing.run_until_cancelled(engine.tasks.runtime().sleep(WATCH_EVERY)).await.is_some() {
        let oldest = engine.oldest_in_progress();
        for (endpoint, gauge) in engine.endpoints.iter().zip(&gauges) {
            let found = oldest.iter().find(|found| found.endpoint == endpoint.name);
            gauge.set(found.map_or(0.0, |found| found.age.as_secs_f64()));
            let level = found.map_or(0, |found| found.age.as_secs() / SLOW_SECS);
            let known = reported.insert(endpoint.name.clone(), level).unwrap_or_default();
            if let Some(found) = found.filter(|_| level > known) {
                tracing::warn!(
                    endpoint = %found.endpoint, partition = %found.partition, message_id = %found.message_id,
                    message_type = found.message_type, age_secs = found.age.as_secs(), "message in progress for long"
                );
            }
        }
    }
}
