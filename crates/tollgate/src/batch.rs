//! The jobs of one processing, and what the machine is told of them: which message is deduplicated how, which items are
//! wanted, and whether the cached view is good enough. It does nothing with them.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;
use tollgate_proto::completion::CompletionReport;
use tollgate_proto::processing::{Incoming, Maintenance, RequestDeduplication, Tokenless, WakeUpPatience};
use tollgate_proto::{Content, ItemName, Version};

use crate::cause::PutBack;
use crate::engine::{Engine, expiry};
use crate::handler::Deduplicate;
use crate::lanes::{Job, MessageJob, Visit};
use crate::put_backs::MessageKey;

/// After this many deliveries of one wake-up, the attempt that sent it and has still not committed is fenced.
const WAKE_UP_PATIENCE: u32 = 3;

/// The jobs of one processing, and what the machine is told of them.
pub(crate) struct Batch {
    /// By slot; the visits stand behind the last slot.
    pub(crate) jobs: Vec<Option<Job>>,
    pub(crate) incoming: Vec<Incoming>,
    /// What requests are answered, by slot.
    pub(crate) responses: HashMap<usize, Bytes, RandomState>,
    pub(crate) preload: Vec<ItemName>,
    pub(crate) maintenance: Maintenance,
    /// When the processing began.
    pub(crate) now_ms: u64,
    pub(crate) needs_fresh_view: bool,
    /// The versions that the wake-ups among the messages name.
    pub(crate) wake_ups: Vec<Option<Version>>,
    /// The messages whose own handlers have failed, and how. Every other one that is put back is [`PutBack::OUTSIDE`].
    pub(crate) failed: HashMap<MessageKey, PutBack, RandomState>,
    /// Slots whose handlers ran into their time limit.
    pub(crate) timed_out: Vec<usize>,
}

impl Batch {
    pub(crate) fn new(engine: &Engine, mut jobs: Vec<Job>) -> Self {
        let mut batch = Self {
            jobs: Vec::new(),
            incoming: Vec::with_capacity(jobs.len()),
            responses: HashMap::default(),
            preload: Vec::new(),
            maintenance: Maintenance::Leave,
            now_ms: engine.now_ms(),
            needs_fresh_view: false,
            wake_ups: Vec::new(),
            failed: HashMap::default(),
            timed_out: Vec::new(),
        };
        for job in &jobs {
            match job {
                Job::Message(message) => {
                    let incoming = engine.incoming(message, batch.now_ms);
                    if let Incoming::WakeUp { expected, .. } = incoming {
                        batch.wake_ups.push(expected);
                    }
                    batch.want_items(&engine.endpoints[message.endpoint].preload);
                    batch.incoming.push(incoming);
                }
                Job::Request(request) => {
                    let name = &request.request.endpoint;
                    if let Some(endpoint) = engine.endpoints.iter().find(|endpoint| endpoint.name == *name) {
                        batch.want_items(&endpoint.preload);
                    }
                    // Only a load finds the response of an earlier execution before the handler runs again.
                    batch.needs_fresh_view |= request.request.deduplication != RequestDeduplication::ByState;
                    batch.incoming.push(Incoming::Request(request.request.clone()));
                }
                Job::Visit(visit) => {
                    batch.maintenance = Maintenance::Tidy;
                    batch.needs_fresh_view |= visit.visit == Visit::Sweep;
                }
            }
        }
        if batch.incoming.len() < jobs.len() {
            // Stable: the order of the messages is that of their slots.
            jobs.sort_by_key(|job| matches!(job, Job::Visit(_)));
        }
        // In place: there is no other list of jobs.
        batch.jobs = jobs.into_iter().map(Some).collect();
        batch
    }

    /// Messages whose own earlier commit could not be finished come again when the target that they wait for allows it.
    pub(crate) fn put_back_origins(&mut self, report: &CompletionReport, put_back: PutBack) {
        let failed = report.outcomes.iter().filter(|outcome| outcome.result.is_err());
        for message_id in failed.map(|outcome| outcome.pending.origin.message_id()) {
            let jobs = self.jobs.iter().flatten().filter_map(Job::as_message);
            let own = jobs.filter(|job| job.envelope.message_id == message_id).map(MessageJob::key);
            self.failed.extend(own.map(|key| (key, put_back)));
        }
    }

    fn want_items(&mut self, items: &[ItemName]) {
        for item in items {
            if !self.preload.contains(item) {
                self.preload.push(item.clone());
            }
        }
    }
}

impl Engine {
    fn incoming(&self, job: &MessageJob, now_ms: u64) -> Incoming {
        let envelope = &job.envelope;
        if let Content::WakeUp { attempt, expected } = envelope.content {
            let put_back = self.put_backs.get(&MessageKey::of(job.endpoint, envelope)).total();
            let patience = if job.delivery_count.max(put_back + 1) >= WAKE_UP_PATIENCE {
                WakeUpPatience::Fence
            } else {
                WakeUpPatience::Wait
            };
            return Incoming::WakeUp { attempt, expected, patience };
        }
        let handlers = &self.endpoints[job.endpoint].handlers;
        let tokenless = match (envelope.token(), handlers.get(&envelope.message_type)) {
            // What has a token is deduplicated by it, whatever is declared.
            (Some(_), _) => Tokenless::Refused,
            // No handler is run here that could do anything twice: the engine puts it back when it is to be handled.
            (None, None) => Tokenless::Natural,
            (None, Some(handler)) => match handler.tokenless {
                None => Tokenless::Refused,
                Some(Deduplicate::Natural) => Tokenless::Natural,
                Some(Deduplicate::ByIdentity { retention }) => {
                    Tokenless::ByIdentity { expires_at_ms: expiry(now_ms, retention) }
                }
            },
        };
        Incoming::Message { envelope: Arc::clone(envelope), tokenless }
    }
}
