//! The driver of the machine in a world: what the engine does around it, in steps that can be interleaved. A
//! worker takes messages, does what the machine asks for, and tells it what came of it; between any two steps
//! others may move.
//!
//! One process handles one processing of a partition at a time, as the engine's lanes do; what follows a
//! commit runs beside the next processing. Everything that a process knows (views, marks, consumed tokens) is
//! shared by its workers.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tollgate_proto::completion::{CompletionReport, CompletionStep};
use tollgate_proto::control_record::PendingId;
use tollgate_proto::processing::{
    Deferred, Disposition, HandleStep, Incoming, Lookup, Maintenance, Processing, RecoveringStep, Request,
    RequestDeduplication, Settled, Step, Tokenless, WakeUpPatience, Work,
};
use tollgate_proto::{
    AttemptId, Content, DeduplicationKey, EffectName, EntryRead, Envelope, Incarnation, TokenRef, codec,
};

use super::effects::Freshness;
use super::mutant::DriverMutation;
use super::scene::{EffectPhase, Job, Scene, Task, Worker};
use super::stage::{blob_item, mirror_item, number_of};
use super::world::{Blob, ConsumedTokens, TICK_MS, World};

/// A scene after a step, or what is wrong with the step.
pub(super) type Moved = Result<Scene, String>;

impl World {
    /// An idle worker takes messages of one partition from the broker.
    pub(super) fn take(
        &self,
        before: &Scene,
        worker: usize,
        process: usize,
        messages: &[Bytes],
        patience: WakeUpPatience,
    ) -> Moved {
        let mut scene = before.clone();
        let mut jobs = Vec::with_capacity(messages.len());
        let mut incoming = Vec::with_capacity(messages.len());
        let mut partition = 0;
        let mut expected_by_wake_ups = Vec::new();
        for bytes in messages {
            let envelope = codec::decode_envelope(bytes).expect("only the world makes envelopes");
            let broker = Arc::make_mut(&mut scene.broker);
            take_one(&mut broker.available, bytes);
            let deliveries = broker.deliveries.get(bytes).copied().unwrap_or(0) + 1;
            if let Some(token) = envelope.token()
                && scene.processes[process].consumed.contains(token)
            {
                continue;
            }
            if self.has(DriverMutation::AcknowledgesOnReceipt) {
                // What comes of it is nobody's business any more.
                jobs.push(None);
            } else {
                jobs.push(Some(Job::Message(bytes.clone())));
            }
            partition = self.receiving_partition(&envelope, deliveries);
            match &envelope.content {
                Content::WakeUp { attempt, expected } => {
                    expected_by_wake_ups.push(*expected);
                    incoming.push(Incoming::WakeUp { attempt: *attempt, expected: *expected, patience });
                }
                Content::Token { .. } | Content::Body(_) => {
                    if let Some(limit) = self.deliveries_max {
                        count_delivery(&mut scene, bytes, limit);
                    }
                    if self.has(DriverMutation::ReceiverChoosesPartition) {
                        count_delivery(&mut scene, bytes, 2);
                    }
                    let tokenless = if self.is_natural(envelope.message_id) {
                        Tokenless::Natural
                    } else {
                        Tokenless::ByIdentity { expires_at_ms: u64::MAX }
                    };
                    incoming.push(Incoming::Message { envelope: envelope.into(), tokenless });
                }
            }
        }
        if incoming.is_empty() {
            // All of them were known to be consumed.
            return Ok(scene);
        }
        let lane = &scene.processes[process].lanes[partition];
        // What an edge was about to commit may not be in a view from before.
        let old_views_will_not_do = lane.view.as_ref().is_some_and(|view| {
            !expected_by_wake_ups.iter().all(|expected| view.is_settled_after(*expected, &lane.marks))
        });
        let fresh = if old_views_will_not_do { View::Fresh } else { View::Cached };
        let kept_reads = if self.has(DriverMutation::ReadsTokensAhead) {
            incoming
                .iter()
                .filter_map(|incoming| match incoming {
                    Incoming::Message { envelope, .. } => envelope.token().cloned(),
                    _ => None,
                })
                .map(|token| {
                    let read = EntryRead { token: token.clone(), sessions: Vec::new() };
                    let entry = self.read(&scene, &read, Freshness::Current);
                    (token, entry)
                })
                .collect()
        } else {
            BTreeMap::new()
        };
        self.begin(
            scene,
            worker,
            process,
            partition,
            Begin { jobs, incoming, view: fresh, maintenance: Maintenance::Leave, kept_reads },
        )
    }

    /// The sender's choice; the mutant computes it anew, and its code has changed after the first delivery.
    fn receiving_partition(&self, envelope: &Envelope, deliveries: u8) -> usize {
        let chosen = self.index_of(&envelope.to.partition);
        if self.has(DriverMutation::ReceiverChoosesPartition) && deliveries > 1 {
            return (chosen + 1) % self.partitions.len();
        }
        chosen
    }

    /// A client's request is given to an idle worker.
    pub(super) fn ask(&self, before: &Scene, worker: usize, process: usize, number: u8) -> Moved {
        let mut scene = before.clone();
        let requests = &mut Arc::make_mut(&mut scene.outside).requests;
        requests.get_mut(&number).expect("only known requests are asked").copies -= 1;
        let key = DeduplicationKey::of_request(&Self::endpoint(), &number.to_string())
            .expect("a digit is a valid key");
        let request = Request {
            message_id: Self::input_id(number),
            endpoint: Self::endpoint(),
            deduplication: RequestDeduplication::ByKey { key, expires_at_ms: u64::MAX },
        };
        self.begin(
            scene,
            worker,
            process,
            self.script(number).partition,
            Begin {
                jobs: vec![Some(Job::Request(number))],
                incoming: vec![Incoming::Request(request)],
                view: View::Fresh,
                maintenance: Maintenance::Leave,
                kept_reads: BTreeMap::new(),
            },
        )
    }

    /// An idle worker visits a partition: an idle flush, or a sweep.
    pub(super) fn visit(
        &self,
        before: &Scene,
        worker: usize,
        process: usize,
        partition: usize,
        view: View,
    ) -> Moved {
        self.begin(
            before.clone(),
            worker,
            process,
            partition,
            Begin {
                jobs: Vec::new(),
                incoming: Vec::new(),
                view,
                maintenance: Maintenance::Tidy,
                kept_reads: BTreeMap::new(),
            },
        )
    }

    fn begin(
        &self,
        mut scene: Scene,
        worker: usize,
        process: usize,
        partition: usize,
        begin: Begin,
    ) -> Moved {
        // A visit creates nothing and commits no message: nothing ever asks whose it was.
        let serial = if begin.incoming.is_empty() { 0 } else { self.new_serial(&mut scene) };
        let lane = &mut Arc::make_mut(&mut scene.processes[process]).lanes[partition];
        let cached = lane.view.take();
        let marks = std::mem::take(&mut lane.marks);
        let mut preload = vec![Self::applied_item()];
        if self.scripts.iter().any(|script| script.blob == Blob::Created) {
            preload.push(blob_item());
        }
        let step = Processing::begin(Work {
            view: if begin.view == View::Fresh { None } else { cached },
            marks,
            deferred: self.deferred(&scene, process, partition),
            preload,
            now_ms: scene.outside.clock_ms,
            messages: begin.incoming,
            maintenance: begin.maintenance,
            limits: self.limits,
            ..Work::on(
                Self::store(),
                self.partitions[partition].clone(),
                AttemptId::new(1, serial),
                Incarnation(partition as u64 + 10),
            )
        });
        let Begin { jobs, kept_reads, .. } = begin;
        let task = Task { partition, serial, jobs, under_way: Vec::new(), kept_reads };
        self.proceed(scene, worker, process, task, step)
    }

    /// What a process is completing is left alone by its next processing.
    fn deferred(&self, scene: &Scene, process: usize, partition: usize) -> Deferred {
        let first = self.workers[..process].iter().sum::<usize>();
        let workers = &scene.workers[first..first + self.workers[process]];
        let tasks = workers.iter().filter_map(|worker| match &**worker {
            Worker::Finishing { task, .. } if task.partition == partition => Some(task),
            _ => None,
        });
        let mut under_way: Vec<PendingId> = tasks.flat_map(|task| task.under_way.iter().copied()).collect();
        under_way.sort_unstable();
        Deferred { under_way, ..Deferred::default() }
    }

    /// Puts a worker before the machine's next step, or ends the processing.
    pub(super) fn proceed(
        &self,
        mut scene: Scene,
        worker: usize,
        process: usize,
        task: Task,
        step: Step,
    ) -> Moved {
        let next = match step {
            Step::Settled(settled) => return self.settle(scene, worker, process, task, settled),
            Step::Recover(recover) => {
                let (recovering, completion) = recover.start();
                match completion.begin() {
                    CompletionStep::Done(report) => {
                        let step = self.recovered(&mut scene, process, recovering, report);
                        return self.proceed(scene, worker, process, task, step);
                    }
                    step => {
                        Worker::Recovering { task, recovering: Box::new(recovering), step: Box::new(step) }
                    }
                }
            }
            Step::Handle(handle) if self.reads_later(&handle) => {
                let handle = Box::new(handle);
                Worker::Handling { task, handle, phase: EffectPhase::ReadLater, deadline_ms: 0 }
            }
            Step::Handle(handle) if self.has_effect(&handle) => {
                let number = number_of(&handle);
                let name = EffectName::new(format!("{}-{}", handle.attempt(), number))
                    .expect("an attempt's name is a valid effect name");
                let phase = EffectPhase::Register(name);
                let deadline_ms = scene.outside.clock_ms + TICK_MS / 2;
                Worker::Handling { task, handle: Box::new(handle), phase, deadline_ms }
            }
            step => Worker::Processing { task, step: Box::new(step) },
        };
        scene.workers[worker] = Arc::new(next);
        Ok(scene)
    }

    fn reads_later(&self, handle: &HandleStep) -> bool {
        self.script(number_of(handle)).reads_later && handle.get(&mirror_item()) == Lookup::Unknown
    }

    fn has_effect(&self, handle: &HandleStep) -> bool {
        self.script(number_of(handle)).blob != Blob::None
    }

    /// The engine's `settle`: what is remembered, what is acknowledged at once, and what waits for the
    /// completion.
    fn settle(
        &self,
        mut scene: Scene,
        worker: usize,
        process: usize,
        mut task: Task,
        settled: Settled,
    ) -> Moved {
        let lane = &mut Arc::make_mut(&mut scene.processes[process]).lanes[task.partition];
        lane.marks.add(settled.marks);
        lane.view = settled.view;
        let waiting: Vec<usize> =
            settled.completion.as_ref().map(|completion| completion.slots().collect()).unwrap_or_default();
        for (slot, disposition) in settled.dispositions.into_iter().enumerate() {
            let must_wait = waiting.contains(&slot)
                && matches!(task.jobs[slot], Some(Job::Message(_)))
                && matches!(disposition, Disposition::Committed | Disposition::CommittedBefore)
                && !self.has(DriverMutation::AcknowledgesBeforePublishing);
            if must_wait {
                if self.has(DriverMutation::RemembersTokensTooEarly)
                    && let Some(Job::Message(message)) = &task.jobs[slot]
                {
                    self.remember_consumed(&mut scene, process, message);
                }
                continue;
            }
            match task.jobs[slot].take() {
                Some(Job::Message(message)) => {
                    self.settle_message(&mut scene, process, message, &disposition)?;
                }
                Some(Job::Request(number)) => Self::settle_request(&mut scene, number, disposition)?,
                None => {}
            }
        }
        if let Some(completion) = settled.completion {
            task.under_way = completion.pending_ids().collect();
            return self.finish(scene, worker, process, task, completion.begin());
        }
        scene.workers[worker] = Arc::default();
        Ok(scene)
    }

    fn settle_message(
        &self,
        scene: &mut Scene,
        process: usize,
        message: Bytes,
        disposition: &Disposition,
    ) -> Result<(), String> {
        match disposition {
            Disposition::Committed | Disposition::CommittedBefore | Disposition::Visited => {}
            Disposition::Duplicate => {
                self.remember_consumed(scene, process, &message);
            }
            Disposition::Retry { .. } => {
                let broker = Arc::make_mut(&mut scene.broker);
                let deliveries = broker.deliveries.get(&message).copied().unwrap_or(0);
                let is_spent = self.deliveries_max.is_some_and(|limit| deliveries >= limit);
                if is_spent { self.dead_letter(scene, message) } else { give_back(scene, message) }
            }
            // To be blocked is no failure of the message: it is never dead-lettered for that.
            Disposition::Blocked { .. } | Disposition::Postponed => give_back(scene, message),
            Disposition::DeadLetter { .. } => self.dead_letter(scene, message),
            Disposition::Replayed(_) => return Err("a message was answered like a request".to_owned()),
        }
        Ok(())
    }

    fn dead_letter(&self, scene: &mut Scene, message: Bytes) {
        if self.has(DriverMutation::ConsumesDeadLetters) {
            let envelope = codec::decode_envelope(&message).expect("only the world makes envelopes");
            if let Some(token) = envelope.token() {
                self.delete(scene, token);
            }
        }
        let dead = Arc::make_mut(&mut scene.broker).dead.entry(message).or_default();
        // How many copies lie there makes no difference.
        *dead = 1;
    }

    fn settle_request(scene: &mut Scene, number: u8, disposition: Disposition) -> Result<(), String> {
        let request = Arc::make_mut(&mut scene.outside)
            .requests
            .get_mut(&number)
            .expect("only known requests are asked");
        let response = match disposition {
            Disposition::Committed | Disposition::CommittedBefore => Bytes::from(number.to_string()),
            Disposition::Replayed(response) => response,
            // The client asks again.
            Disposition::Retry { .. } | Disposition::Blocked { .. } | Disposition::Postponed => {
                request.copies += 1;
                return Ok(());
            }
            other => return Err(format!("request {number} came to {other:?}")),
        };
        match &request.answer {
            Some(known) if *known != response => Err(format!("request {number} was answered in two ways")),
            _ => {
                request.answer = Some(response);
                Ok(())
            }
        }
    }

    fn remember_consumed(&self, scene: &mut Scene, process: usize, message: &Bytes) {
        if self.memory == ConsumedTokens::Forgotten {
            return;
        }
        let envelope = codec::decode_envelope(message).expect("only the world makes envelopes");
        if let Some(token) = envelope.token() {
            Arc::make_mut(&mut scene.processes[process]).consumed.insert(token.clone());
        }
    }

    /// Puts a worker before the next step of steps 7 to 9, or ends them.
    pub(super) fn finish(
        &self,
        mut scene: Scene,
        worker: usize,
        process: usize,
        mut task: Task,
        step: CompletionStep,
    ) -> Moved {
        let report = match step {
            CompletionStep::Done(report) => report,
            step => {
                scene.workers[worker] = Arc::new(Worker::Finishing { task, step: Box::new(step) });
                return Ok(scene);
            }
        };
        self.remember_finished(&mut scene, process, &report);
        for (slot, result) in report.waiting() {
            let Some(Job::Message(message)) = task.jobs[slot].take() else { continue };
            let disposition = match result {
                Ok(()) => Disposition::Committed,
                Err(reason) => Disposition::Blocked { reason: reason.to_owned() },
            };
            self.settle_message(&mut scene, process, message, &disposition)?;
        }
        let lane = &mut Arc::make_mut(&mut scene.processes[process]).lanes[task.partition];
        lane.marks.add(report.marks);
        scene.workers[worker] = Arc::default();
        Ok(scene)
    }

    pub(super) fn recovered(
        &self,
        scene: &mut Scene,
        process: usize,
        recovering: RecoveringStep,
        report: CompletionReport,
    ) -> Step {
        self.remember_finished(scene, process, &report);
        recovering.answer(report)
    }

    fn remember_finished(&self, scene: &mut Scene, process: usize, report: &CompletionReport) {
        if self.memory == ConsumedTokens::Forgotten {
            return;
        }
        let process = Arc::make_mut(&mut scene.processes[process]);
        for outcome in &report.outcomes {
            if let (Ok(()), Some(token)) = (&outcome.result, outcome.pending.origin.token()) {
                process.consumed.insert(token.clone());
            }
        }
    }
}

/// Whether a processing starts from the cached view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum View {
    /// If there is one.
    Cached,
    /// It loads in any case.
    Fresh,
}
/// What a processing begins with.
struct Begin {
    jobs: Vec<Option<Job>>,
    incoming: Vec<Incoming>,
    view: View,
    maintenance: Maintenance,
    kept_reads: BTreeMap<TokenRef, Option<Bytes>>,
}
fn take_one(copies: &mut BTreeMap<Bytes, u8>, message: &Bytes) {
    let count = copies.get_mut(message).expect("only messages that are there are taken");
    *count -= 1;
    if *count == 0 {
        copies.remove(message);
    }
}
pub(super) fn give_back(scene: &mut Scene, message: Bytes) {
    *Arc::make_mut(&mut scene.broker).available.entry(message).or_default() += 1;
}
fn count_delivery(scene: &mut Scene, message: &Bytes, limit: u8) {
    let deliveries = Arc::make_mut(&mut scene.broker).deliveries.entry(message.clone()).or_default();
    *deliveries = limit.min(*deliveries + 1);
}
