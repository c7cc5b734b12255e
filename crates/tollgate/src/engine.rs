//! The driver of the state machine: it does what [`Processing`] asks for, in order, and nothing of its own accord. The
//! algorithm is in `tollgate-proto`; here are only the calls, the locks and the bookkeeping around it.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{Either, select};
use tokio_util::sync::CancellationToken;
use tollgate_proto::control_record::PENDING_MAX;
use tollgate_proto::processing::{
    Disposition, Failure, HandleStep, HandlerInput, Processing, Settled, Step, Work,
};
use tollgate_proto::{
    AttemptId, Body, Commit, CommitOutcome, EffectKind, Envelope, Incarnation, MessageType, Placement,
    StoreError, Verdict,
};
use tracing::Instrument;

use crate::batch::Batch;
use crate::blob_reference::BLOB_KIND;
use crate::broker_client::BrokerClient;
use crate::cause::{Cause, PutBack};
use crate::claims::Claims;
use crate::completing::Tail;
use crate::edge::Answer;
use crate::error::HandlerError;
use crate::handler::CheckedEndpoint;
use crate::in_progress::{InProgress, Ticket};
use crate::inside::{Inside, run_inside};
use crate::lanes::{Admission, AnswerTo, Job, LaneKey, Lanes, MessageJob, RequestOutcome, Room, RunId, Turn};
use crate::limited::{NoAnswer, caught, panic_text, within};
use crate::negative_cache::NegativeCache;
use crate::partition_cache::{PartitionCache, Place};
use crate::put_backs::{MessageKey, PutBacks};
use crate::retry_policy::{RetryPolicy, UNANSWERED_FACTOR};
use crate::runtime::Tasks;
use crate::settings::Settings;
use crate::side_effects::{GivenUp, SideEffects};
use crate::statistics::Counters;
use crate::store_client::StoreClient;
use crate::topology::Topology;
use crate::transaction::{Ended, Tries, Tx};
use crate::unfinished::UnderWay;

// Futures that are seldom needed are boxed below: all others together are what each message's task allocates and moves.

/// Most messages of a partition that are being finished while its next fold begins.
const PIPELINED_MAX: usize = PENDING_MAX / 2;

/// Everything that the tasks of a gate share.
pub(crate) struct Engine {
    pub(crate) settings: Settings,
    pub(crate) endpoints: Vec<CheckedEndpoint>,
    pub(crate) topology: Topology,
    pub(crate) stores: Vec<StoreClient>,
    pub(crate) broker: BrokerClient,
    pub(crate) effects: SideEffects,
    pub(crate) lanes: Lanes,
    pub(crate) in_progress: Arc<InProgress>,
    /// Cancelled when the time to close is over: handlers that still run are dropped.
    pub(crate) giving_up: CancellationToken,
    pub(crate) cache: PartitionCache,
    pub(crate) consumed: NegativeCache,
    pub(crate) put_backs: PutBacks,
    pub(crate) counters: Arc<Counters>,
    pub(crate) tasks: Tasks,
    pub(crate) claims: Claims,
    /// Drawn at random when the gate was opened.
    pub(crate) process: u64,
    pub(crate) serial: AtomicU64,
}

impl Engine {
    pub(crate) fn store(&self, key: &LaneKey) -> &StoreClient {
        &self.stores[key.store]
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.tasks.runtime().now_ms()
    }

    /// How long to wait before another message of an endpoint is taken, and then one only. `None`: all is well.
    pub(crate) fn pause(&self, endpoint: usize) -> Option<Duration> {
        let store = &self.stores[self.endpoints[endpoint].store];
        let runtime = self.tasks.runtime();
        store.pause().max(self.broker.breaker().pause(runtime))
    }

    /// Gives a job to its partition's lane, or says that it takes no more requests.
    pub(crate) fn submit(self: &Arc<Self>, key: LaneKey, job: Job) -> bool {
        let none = Room { requests_max: usize::MAX, share: usize::MAX, parked: None };
        let room = match &job {
            Job::Message(message) => {
                let endpoint = &self.endpoints[message.endpoint];
                Room { share: endpoint.share, parked: Some(&endpoint.parked), ..none }
            }
            Job::Request(request) => {
                Room { requests_max: self.endpoints[request.endpoint].partition_requests_max(), ..none }
            }
            Job::Visit(_) => none,
        };
        let admission = self.lanes.push(&key, job, &room);
        if let Admission::StartLane(run_id) = admission {
            let span = tracing::debug_span!(parent: None, "partition", partition = %key.partition);
            let run = Arc::clone(self).run_lane(key.clone()).instrument(span);
            let engine = Arc::clone(self);
            // Combined and not awaited by another future: that would copy this large one whenever a lane starts.
            self.tasks.spawn(AssertUnwindSafe(run).catch_unwind().map(move |ended| {
                if let Err(panic) = ended {
                    engine.give_up_lane(&key, run_id, &panic_text(&*panic));
                }
            }));
        }
        admission != Admission::Refused
    }

    /// The engine itself has panicked; what it calls is guarded at each call. What the lane held is delivered again, and what it had
    /// committed is found by its markers.
    fn give_up_lane(&self, key: &LaneKey, run: RunId, panic: &str) {
        self.counters.panics.add(1);
        tracing::error!(partition = %key.partition, panic, "a lane has panicked and is given up");
        self.cache.forget(key);
        self.lanes.abandon(key, run);
    }

    /// Processes what waits for a partition until nothing does.
    async fn run_lane(self: Arc<Self>, key: LaneKey) {
        let mut next = self.next_turn(&key);
        while let Some(turn) = next {
            // The partition is free before its outputs are out: what follows the commit needs no lock.
            let tail = self.process(&key, turn).await;
            if self.lanes.is_crowded(&key, PIPELINED_MAX).is_none() {
                next = self.next_turn(&key);
                match (tail, &next) {
                    (None, _) => {}
                    (Some(tail), None) => return self.finish_apart(&key, tail).await,
                    (Some(tail), Some(_)) => self.finish_beside(&key, tail),
                }
            } else {
                // Little of the control record is free: the next fold would only get in the way of those
                // being finished.
                if let Some(tail) = tail {
                    self.finish_beside(&key, tail);
                }
                while let Some(ended) = self.lanes.is_crowded(&key, PIPELINED_MAX) {
                    ended.notified().await;
                }
                next = self.next_turn(&key);
            }
        }
    }

    /// The next jobs of a lane, without the requests whose callers have gone.
    fn next_turn(&self, key: &LaneKey) -> Option<Turn> {
        loop {
            let mut turn = self.lanes.next_or_release(key, self.settings.fold_max, self.now_ms())?;
            let count = turn.jobs.len();
            turn.jobs.retain(|job| !matches!(job, Job::Request(request) if request.reply.is_closed()));
            self.counters.requests_shed.add(count - turn.jobs.len());
            if !turn.jobs.is_empty() {
                return Some(turn);
            }
            self.lanes.add_marks(key, turn.marks, self.now_ms());
        }
    }

    fn finish_beside(self: &Arc<Self>, key: &LaneKey, tail: Tail) {
        let (engine, key) = (Arc::clone(self), key.clone());
        self.tasks.spawn(async move { engine.finish_apart(&key, tail).await });
    }

    /// Steps 1 to 5 for some jobs of one partition. What is left to do afterwards is returned.
    async fn process(self: &Arc<Self>, key: &LaneKey, turn: Turn) -> Option<Tail> {
        let Turn { jobs, marks, deferred } = turn;
        let mut batch = Batch::new(self, jobs);
        let (view, place) = self.cache.take(key);
        if !batch.needs_fresh_view {
            let looked_up =
                if view.is_some() { &self.counters.cache_hits } else { &self.counters.cache_misses };
            looked_up.add(1);
        }
        let view = view.filter(|_| !batch.needs_fresh_view);
        // What an edge was about to commit may not be in a view from before.
        let view = view
            .filter(|view| batch.wake_ups.iter().all(|expected| view.is_settled_after(*expected, &marks)));
        let now_ms = batch.now_ms;
        let mut step = Processing::begin(Work {
            store: self.store(key).alias().clone(),
            partition: key.partition.clone(),
            limits: self.store(key).limits(),
            preload: std::mem::take(&mut batch.preload),
            view,
            marks,
            deferred,
            attempt: AttemptId::new(self.process, self.serial.fetch_add(1, Ordering::Relaxed)),
            incarnation: Incarnation(self.tasks.runtime().random()),
            now_ms,
            messages: std::mem::take(&mut batch.incoming),
            maintenance: batch.maintenance,
        });
        let settled = loop {
            step = match step {
                Step::Load(load) => {
                    let loaded = Box::pin(self.store(key).load(load.request())).await;
                    load.answer(loaded)
                }
                Step::Recover(recover) => {
                    self.counters.recoveries.add(recover.pending_count());
                    let (recovering, completion) = recover.start();
                    match Box::pin(self.recover(key, completion)).await {
                        Some((report, put_back)) => {
                            batch.put_back_origins(&report, put_back);
                            recovering.answer(report)
                        }
                        None => recovering.leave_under_way(),
                    }
                }
                Step::ReadTokens(read) => {
                    let entries = self.read_tokens(read.requests()).await;
                    self.blame_foreign_tokens(&entries, &mut batch);
                    read.answer(entries)
                }
                Step::Handle(handle) => self.handle(key, handle, &mut batch).await,
                Step::WakeUp(wake_up) => {
                    let delay = self.settings.wake_up_after;
                    let sent = Box::pin(self.broker.publish_later(wake_up.publication(), delay)).await;
                    wake_up.answer(sent.map_err(|error| error.to_string()))
                }
                Step::Commit(mut commit) => {
                    let mut request = commit.request();
                    let placement = self.placement(key, &request);
                    if placement != Placement::Together {
                        commit = commit.placed(placement);
                        request = commit.request();
                    }
                    let answer = self.store(key).commit(request, || commit.request()).await;
                    match &answer {
                        Ok(CommitOutcome::Committed { .. }) if commit.message_count() > 0 => {
                            self.counters.commits.add(1);
                            self.counters.committed.add(commit.message_count());
                        }
                        Ok(CommitOutcome::Conflict) | Err(StoreError::OutcomeUnknown { .. }) => {
                            self.counters.conflicts.add(1);
                        }
                        _ => {}
                    }
                    commit.answer(answer)
                }
                Step::Settled(settled) => break settled,
            }
        };
        self.settle(key, settled, place, batch)
    }

    /// Lets the store say where the outgoing messages are to lie.
    fn placement(&self, key: &LaneKey, commit: &Commit) -> Placement {
        if commit.entries.is_empty() {
            return Placement::Together;
        }
        self.store(key).store().placement(commit)
    }

    /// Messages whose token names a store that the gate doesn't have: it is for their sender or a person to mend.
    fn blame_foreign_tokens(&self, entries: &[Result<Option<Bytes>, StoreError>], batch: &mut Batch) {
        for error in entries.iter().filter_map(|entry| entry.as_ref().err()) {
            let StoreError::ForeignToken { token, .. } = error else { continue };
            let jobs = batch.jobs.iter().flatten().filter_map(Job::as_message);
            let of_token = |job: &&MessageJob| job.envelope.token() == Some(token);
            for key in jobs.filter(of_token).map(MessageJob::key).collect::<Vec<_>>() {
                self.blame(batch, key, PutBack::MESSAGE);
            }
        }
    }

    /// Takes down that a message has failed, and counts it if it is to blame.
    fn blame(&self, batch: &mut Batch, key: MessageKey, put_back: PutBack) {
        if put_back.cause == Cause::Message {
            self.put_backs.count_failure(&key);
        }
        batch.failed.insert(key, put_back);
    }

    /// Runs one handler and tells the machine how it went.
    async fn handle(self: &Arc<Self>, key: &LaneKey, handle: HandleStep, batch: &mut Batch) -> Step {
        let input = Arc::clone(handle.input());
        let slot = handle.slot();
        let message = batch.jobs[slot].as_ref().and_then(Job::as_message);
        let message_key = message.map(MessageJob::key);
        let tries = match message {
            Some(job) => match self.tries(job) {
                Ok(tries) => tries,
                Err(reason) => return handle.failed(Failure::Permanent { reason }),
            },
            None => Tries::default(),
        };
        let (body, carried) = match Box::pin(self.bring(&input)).await {
            Ok(brought) => brought,
            Err(given_up) => {
                if let Some(key) = message_key {
                    let put_back = if given_up.is_outside { PutBack::OUTSIDE } else { PutBack::MESSAGE };
                    self.blame(batch, key, put_back.leaving_alone(given_up.retry_after));
                }
                return handle.failed(failure(given_up));
            }
        };
        // Not of the whole processing: the handlers of a fold run one after the other.
        let deadline_ms = expiry(self.now_ms(), self.settings.attempt_max);
        let tx = Tx::new(Arc::clone(self), key.clone(), handle, carried, deadline_ms, tries);
        let result = self.run_handler(key, slot, &tx, &body, batch).await;
        // Bodies that are too large are moved only when the handler has nothing more to send.
        let result = match result {
            Ok(()) => match caught(tx.store_large_bodies()).await {
                Ok(stored) => stored.map_err(HandlerError::from),
                Err(panicked) => Err(HandlerError::retry(format!("storing a large body: {panicked}"))),
            },
            failed => failed,
        };
        let outside = tx.outside_failure();
        match tx.end(result) {
            Ended::Overtaken(step) => step.lost(),
            Ended::Replayed(step, response) => step.replayed(response),
            Ended::Succeeded(mut step) => {
                if let Some(Job::Request(_)) = &batch.jobs[slot] {
                    batch.responses.insert(slot, step.unit_of_work().response().clone());
                }
                step.succeeded()
            }
            Ended::Failed(step, HandlerError::Permanent { reason, .. }) => {
                step.failed(Failure::Permanent { reason })
            }
            Ended::Failed(step, error) => {
                if let Some(key) = message_key {
                    self.blame(batch, key, PutBack::of_handler(&error, outside));
                }
                step.failed(Failure::Passing { reason: error.into_reason() })
            }
        }
    }

    /// How often the handler of a message has failed; or why it is not run again: too many deliveries had no answer, so it
    /// may be the message that ends the processes that handle it.
    fn tries(&self, job: &MessageJob) -> Result<Tries, String> {
        let deliveries_max = self.retry_policy(job).deliveries_max;
        let counts = self.put_backs.get(&job.key());
        let unanswered = job.delivery_count.saturating_sub(1).saturating_sub(counts.total());
        if unanswered >= deliveries_max.saturating_mul(UNANSWERED_FACTOR) {
            let count = job.delivery_count;
            return Err(format!(
                "delivered {count} times, and {unanswered} deliveries ended without an answer: its handler may end its process"
            ));
        }
        Ok(Tries { failures: counts.failures, failures_max: Some(deliveries_max) })
    }

    /// The policy of a message's type, or of its endpoint, or of the gate.
    fn retry_policy(&self, job: &MessageJob) -> RetryPolicy {
        let endpoint = &self.endpoints[job.endpoint];
        let of_type = endpoint.handlers.get(&job.envelope.message_type).and_then(|handler| handler.retry);
        of_type.or(endpoint.retry).unwrap_or(self.settings.retry)
    }

    /// Reads what a message refers to: its body, if it was moved to blob storage, and what its side effects have to say.
    async fn bring(&self, input: &HandlerInput) -> Result<(Bytes, Vec<(EffectKind, Bytes)>), GivenUp> {
        let body = match &input.body {
            Body::Inline(body) => body.clone(),
            Body::Blob(name) => {
                let effect = input.effects.iter().find(|effect| effect.name == *name);
                self.effects.fetch_body(effect, name, self.settings.body_bytes_max).await?
            }
        };
        let mut carried = Vec::new();
        for effect in input.effects.iter().filter(|effect| effect.kind.as_str() != BLOB_KIND) {
            carried.push((effect.kind.clone(), self.effects.fetch(effect).await?));
        }
        Ok((body, carried))
    }

    /// Runs what the user wrote, within its time limit. Everything of the user's is called in here, where a panic is caught.
    async fn run_handler(
        &self,
        key: &LaneKey,
        slot: usize,
        tx: &Tx,
        body: &Bytes,
        batch: &mut Batch,
    ) -> Result<(), HandlerError> {
        let input = &tx.shared.input;
        let (endpoint, outer) = match &batch.jobs[slot] {
            Some(Job::Message(job)) => (job.endpoint, None),
            Some(Job::Request(job)) => (job.endpoint, job.caller.clone()),
            Some(Job::Visit(_)) | None => unreachable!("the machine handles only messages and requests"),
        };
        let limit = self.endpoints[endpoint].handler_time_max;
        let span = tracing::debug_span!("handle", message_id = %input.message_id, endpoint = %input.endpoint);
        let handler = async {
            match &batch.jobs[slot] {
                Some(Job::Message(job)) => {
                    let message_type = &job.envelope.message_type;
                    let Some(checked) = self.endpoints[endpoint].handlers.get(message_type) else {
                        return Err(unknown_type(job));
                    };
                    checked.handler.handle(tx.clone(), body).await
                }
                Some(Job::Request(job)) => Ok(tx.answer((job.run)(tx.clone()).await?)?),
                Some(Job::Visit(_)) | None => unreachable!("visits have no handler"),
            }
        };
        let inside = Inside { process: self.process, key: key.clone(), outer };
        let handler = run_inside(Some(Arc::new(inside)), handler.instrument(span));
        // The handler first: one that does not wait is not given up.
        let (handler, giving_up) = (pin!(handler), pin!(self.giving_up.cancelled()));
        let handler = select(handler, giving_up);
        let why = match within(self.tasks.runtime(), limit, handler).await {
            Ok(Either::Left((result, _))) => return result,
            Ok(Either::Right(_)) => {
                // The message is not to blame.
                tx.note_outside(None);
                return Err(HandlerError::retry("the gate was closed before the handler ended"));
            }
            Err(why) => why,
        };
        let message_type = input.message_type.as_ref().map_or("request", MessageType::as_str);
        let reason = match why {
            NoAnswer::Late(_) => {
                self.counters.handlers_timed_out.add(1);
                batch.timed_out.push(slot);
                format!("the handler was dropped at its time limit of {} s", limit.as_secs_f64())
            }
            NoAnswer::Panicked(text) => {
                self.counters.panics.add(1);
                format!("the handler panicked: {text}")
            }
        };
        tracing::warn!(
            message_id = %input.message_id, message_type, endpoint = %input.endpoint, partition = %key.partition, reason,
            "handler ended without a result"
        );
        Err(HandlerError::retry(reason))
    }

    /// Takes down what the machine has decided, and tells everybody who waits for nothing else.
    fn settle(
        &self,
        key: &LaneKey,
        settled: Settled,
        place: Option<Arc<Place>>,
        batch: Batch,
    ) -> Option<Tail> {
        self.lanes.add_marks(key, settled.marks, batch.now_ms);
        match settled.view {
            Some(view) => self.cache.put(key, place, view),
            None => self.cache.forget(key),
        }
        let Batch { mut jobs, responses, failed, timed_out, .. } = batch;
        let waits = |slot| {
            settled
                .completion
                .as_ref()
                .is_some_and(|completion| completion.slots().any(|waiting| waiting == slot))
        };
        let mut postponed = Vec::new();
        for (slot, disposition) in settled.dispositions.into_iter().enumerate() {
            if let Some(Job::Message(job)) = &mut jobs[slot]
                && waits(slot)
                && matches!(disposition, Disposition::Committed | Disposition::CommittedBefore)
            {
                if disposition == Disposition::CommittedBefore {
                    self.counters.duplicates_by_marker.add(1);
                }
                self.make_room(job);
                continue;
            }
            let Some(job) = jobs[slot].take() else { continue };
            if disposition == Disposition::Postponed {
                postponed.push(job);
                continue;
            }
            match job {
                Job::Message(job) => {
                    let put_back = failed.get(&job.key()).copied().unwrap_or(PutBack::OUTSIDE);
                    self.settle_message(job, disposition, put_back);
                }
                Job::Request(job) => {
                    let response = responses.get(&slot).cloned().unwrap_or_default();
                    let outcome = match self.request_outcome(disposition, response) {
                        RequestOutcome::Failed { reason } if timed_out.contains(&slot) => {
                            RequestOutcome::TimedOut { reason }
                        }
                        outcome => outcome,
                    };
                    // A caller that has gone away will ask again.
                    let _ = job.reply.send(outcome);
                }
                Job::Visit(_) => unreachable!("visits have no slot"),
            }
        }
        // Visits stand behind the messages; they end with the processing, or with the completion if there is one.
        self.lanes.put_back(key, postponed);
        settled.completion.map(|completion| {
            let under_way = UnderWay::begin(&self.lanes, key, completion.pending_ids().collect());
            Tail { completion, jobs, under_way }
        })
    }

    /// A message that only waits for its completion makes room for another to be processed, as long as not too many wait.
    fn make_room(&self, job: &mut MessageJob) {
        if let Ok(permit) = Arc::clone(&self.endpoints[job.endpoint].finishing).try_acquire_owned() {
            job.permit = permit;
        }
    }

    fn request_outcome(&self, disposition: Disposition, response: Bytes) -> RequestOutcome {
        match disposition {
            Disposition::Committed | Disposition::CommittedBefore => {
                self.counters.requests.add(1);
                RequestOutcome::Answered(Answer::Executed(response))
            }
            Disposition::Replayed(response) => {
                self.counters.replays.add(1);
                RequestOutcome::Answered(Answer::Replayed(response))
            }
            Disposition::Retry { reason } | Disposition::Blocked { reason } => {
                RequestOutcome::Failed { reason }
            }
            Disposition::DeadLetter { reason } => RequestOutcome::Refused { reason },
            Disposition::Duplicate | Disposition::Visited | Disposition::Postponed => {
                unreachable!("requests are committed, replayed, retried or refused")
            }
        }
    }

    /// Whether the broker or one of the stores is out of order just now.
    pub(crate) fn is_failing(&self) -> bool {
        self.broker.breaker().is_open(self.now_ms()) || self.stores.iter().any(StoreClient::is_failing)
    }

    /// Tells whoever brought a message what is to become of it.
    pub(crate) fn answer(&self, endpoint: usize, to: AnswerTo, verdict: Verdict) {
        match to {
            AnswerTo::Broker(receipt) => self.broker.settle(endpoint, receipt, verdict),
            // A caller that has gone away will bring the message again.
            AnswerTo::Caller(caller) => drop(caller.send(verdict)),
        }
    }

    pub(crate) fn settle_message(&self, job: MessageJob, disposition: Disposition, put_back: PutBack) {
        let verdict = match disposition {
            Disposition::Committed | Disposition::CommittedBefore | Disposition::Visited => {
                Verdict::Acknowledge
            }
            Disposition::Duplicate => {
                self.counters.duplicates_by_store.add(1);
                if let Some(token) = job.envelope.token() {
                    self.consumed.insert(job.envelope.message_id, token);
                }
                Verdict::Acknowledge
            }
            Disposition::Retry { reason } => {
                self.counters.retries.add(1);
                self.put_back(&job, &reason, put_back)
            }
            // However often: what was committed is finished in the end, and the messages that wait for it have not failed.
            Disposition::Blocked { reason } => {
                self.counters.blocked.add(1);
                self.put_back(&job, &reason, PutBack { cause: Cause::Outside, ..put_back })
            }
            Disposition::DeadLetter { reason } => self.dead_letter(&job, reason),
            Disposition::Replayed(_) | Disposition::Postponed => {
                unreachable!("requests are replayed, and postponed messages go back to their lane")
            }
        };
        if !matches!(verdict, Verdict::Retry { .. }) {
            self.put_backs.forget(&job.key());
        }
        let MessageJob { endpoint, answer_to, permit, ticket, .. } = job;
        // Of a message that was delivered again the broker may accept the latest receipt only, so each is answered.
        let copies = ticket.map(Ticket::close).unwrap_or_default();
        match verdict {
            Verdict::Acknowledge => {}
            Verdict::Retry { .. } => self.counters.retries.add(copies.len()),
            Verdict::DeadLetter { .. } => self.counters.dead_letters.add(copies.len()),
        }
        for copy in copies {
            self.answer(endpoint, copy, verdict.clone());
        }
        self.answer(endpoint, answer_to, verdict);
        drop(permit);
    }

    /// Puts a message back, or dead-letters it if it has failed too often.
    fn put_back(&self, job: &MessageJob, reason: &str, put_back: PutBack) -> Verdict {
        let (policy, key) = (self.retry_policy(job), job.key());
        let counts = match put_back.cause {
            // Counted when the handler failed.
            Cause::Message => self.put_backs.get(&key),
            Cause::Outside => self.put_backs.excuse(&key),
        };
        if put_back.cause == Cause::Message && counts.failures >= policy.deliveries_max {
            return self.dead_letter(job, format!("{reason} (after {} failures)", counts.failures));
        }
        let MessageJob { envelope, delivery_count, .. } = job;
        tracing::debug!(
            message_id = %envelope.message_id, partition = %envelope.to.partition, reason, cause = ?put_back.cause,
            "put back"
        );
        let times = counts.total().max(*delivery_count);
        Verdict::Retry { after: policy.wait(put_back.again, times, self.tasks.runtime()) }
    }

    fn dead_letter(&self, job: &MessageJob, reason: String) -> Verdict {
        self.counters.dead_letters.add(1);
        let Envelope { message_id, message_type, to, .. } = &*job.envelope;
        tracing::warn!(
            %message_id, %message_type, endpoint = %to.endpoint, partition = %to.partition, reason, "message dead-lettered"
        );
        Verdict::DeadLetter { reason }
    }
}

/// The failure of a message that no handler here knows: another process may know its type, or this one after an upgrade.
fn unknown_type(job: &MessageJob) -> HandlerError {
    let Envelope { message_id, message_type, to, .. } = &*job.envelope;
    tracing::warn!(%message_id, %message_type, endpoint = %to.endpoint, "message type unknown; put back");
    HandlerError::retry(format!("endpoint {} has no handler for message type {message_type}", to.endpoint))
}

/// What is said of a message that could not be given what it carries.
fn failure(GivenUp { reason, is_retryable, .. }: GivenUp) -> Failure {
    if is_retryable { Failure::Passing { reason } } else { Failure::Permanent { reason } }
}

/// When something that is remembered from now on for a retention may be forgotten.
pub(crate) fn expiry(now_ms: u64, retention: Duration) -> u64 {
    now_ms.saturating_add(u64::try_from(retention.as_millis()).unwrap_or(u64::MAX))
}
