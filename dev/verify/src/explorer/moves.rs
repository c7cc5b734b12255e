//! What can happen next in a scene: every delivery, every step of every worker with each of its turns, every
//! fault that the budget allows. Workers that are alike and idle are tried once.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tollgate_proto::processing::{Step, WakeUpPatience};
use tollgate_proto::{Content, EffectName, codec};

use super::driver::{Moved, View, give_back};
use super::mutant::DriverMutation;
use super::scene::{EffectPhase, Job, Scene, Shape, Worker};
use super::search::Kind;
use super::stage::first_id;
use super::turn::{Turn, turns};
use super::world::{Consistency, Poison, Sweep, TICK_MS, World};

/// One thing that can happen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Move {
    /// A worker takes messages from the broker.
    Take {
        /// Which worker.
        worker: usize,
        /// The encoded envelopes.
        messages: Vec<Bytes>,
    },
    /// A worker takes a wake-up that has been delivered so often that it loses patience.
    TakeImpatiently {
        /// Which worker.
        worker: usize,
        /// The encoded envelope.
        message: Bytes,
    },
    /// A worker is given a client's request.
    Ask {
        /// Which worker.
        worker: usize,
        /// The request's number.
        request: u8,
    },
    /// A worker does its next step.
    Advance {
        /// Which worker.
        worker: usize,
        /// How it turns out.
        turn: Turn,
    },
    /// A worker removes what is finished from an idle partition's control record.
    Flush {
        /// Which worker.
        worker: usize,
        /// Which partition.
        partition: usize,
    },
    /// A worker looks at a partition for what others left.
    Sweep {
        /// Which worker.
        worker: usize,
        /// Which partition.
        partition: usize,
    },
    /// The broker delivers a message again that a worker still has.
    TimeOut {
        /// Which worker.
        worker: usize,
        /// Which of its messages.
        slot: usize,
    },
    /// A process dies and starts anew.
    Crash {
        /// Which process.
        process: usize,
    },
    /// A process drops a view from its cache.
    Evict {
        /// Which process.
        process: usize,
        /// Which partition.
        partition: usize,
    },
    /// A client goes away and asks no more.
    Depart {
        /// The request's number.
        request: u8,
    },
    /// A dead letter is sent again.
    Replay {
        /// The encoded envelope.
        message: Bytes,
    },
    /// A replica catches up.
    Replicate {
        /// Which partition.
        partition: usize,
    },
    /// A commit arrives whose sender has long stopped waiting for the answer.
    Land {
        /// Which one of those under way.
        place: usize,
    },
    /// A side effect comes to be whose preparation has failed long ago.
    ComeToBe {
        /// Which one.
        effect: EffectName,
    },
    /// Time passes.
    Tick,
}

impl World {
    /// Everything that can happen next.
    pub(super) fn moves(&self, shape: &Shape, scene: &Scene) -> Vec<(Move, Kind)> {
        let mut moves = Vec::new();
        self.add_work(shape, scene, &mut moves);
        if moves.iter().all(|(_, kind)| *kind == Kind::Fault) {
            self.add_work_at_rest(shape, scene, &mut moves);
        }
        self.add_faults(shape, scene, &mut moves);
        moves
    }

    /// What the system does by itself.
    fn add_work(&self, shape: &Shape, scene: &Scene, moves: &mut Vec<(Move, Kind)>) {
        for process in 0..shape.workers.len() {
            let Some(worker) = idle_worker(shape, scene, process) else { continue };
            for messages in self.bursts(scene) {
                let partition = self.target(&messages[0]);
                if !is_free(shape, scene, process, partition) {
                    continue;
                }
                let is_early = messages.iter().any(|message| self.is_early_wake_up(scene, message));
                if is_early && scene.outside.budget.fences > 0 {
                    let message = messages[0].clone();
                    moves.push((Move::TakeImpatiently { worker, message }, Kind::Fault));
                }
                // A wake-up that finds its commit not made yet is put back: nothing comes of that.
                let kind = if is_early { Kind::Fault } else { Kind::Progress };
                moves.push((Move::Take { worker, messages }, kind));
            }
            for (number, request) in &scene.outside.requests {
                if request.copies > 0 && is_free(shape, scene, process, self.script(*number).partition) {
                    moves.push((Move::Ask { worker, request: *number }, Kind::Progress));
                }
            }
            for (partition, lane) in scene.processes[process].lanes.iter().enumerate() {
                if !lane.marks.is_empty() && is_free(shape, scene, process, partition) {
                    moves.push((Move::Flush { worker, partition }, Kind::Progress));
                }
            }
        }
        for worker in 0..scene.workers.len() {
            let is_twin = worker > 0
                && shape.process_of(worker) == shape.process_of(worker - 1)
                && scene.workers[worker] == scene.workers[worker - 1];
            if is_twin {
                continue;
            }
            if must_wait(scene, worker) {
                continue;
            }
            for turn in turns(scene, worker) {
                let kind = if turn == Turn::Done { Kind::Progress } else { Kind::Fault };
                moves.push((Move::Advance { worker, turn }, kind));
            }
        }
        if self.consistency == Consistency::Session {
            for (partition, piece) in scene.partitions.iter().enumerate() {
                if piece.replica.as_ref() != Some(&piece.contents) {
                    moves.push((Move::Replicate { partition }, Kind::Progress));
                }
            }
        }
    }

    /// What happens when the system does nothing by itself any more: somebody looks for what was left, an
    /// operator sends dead letters again, time passes.
    fn add_work_at_rest(&self, shape: &Shape, scene: &Scene, moves: &mut Vec<(Move, Kind)>) {
        self.add_sweeps(shape, scene, Kind::Progress, moves);
        for message in scene.broker.available.keys() {
            let partition = self.target(message);
            for process in 0..shape.workers.len() {
                if let Some(worker) = idle_worker(shape, scene, process)
                    && is_free(shape, scene, process, partition)
                    && self.is_early_wake_up(scene, message)
                {
                    let message = message.clone();
                    moves.push((Move::TakeImpatiently { worker, message }, Kind::Progress));
                }
            }
        }
        for message in scene.broker.dead.keys() {
            if !self.is_poison(message) {
                moves.push((Move::Replay { message: message.clone() }, Kind::Progress));
            }
        }
        let is_awaited = scene.partitions.iter().any(|partition| {
            let control = partition.contents.record();
            let mut registrations = control.iter().flat_map(|control| &control.registrations);
            registrations.any(|registration| registration.deadline_ms >= scene.outside.clock_ms)
        });
        if is_awaited {
            moves.push((Move::Tick, Kind::Progress));
        }
    }

    fn add_faults(&self, shape: &Shape, scene: &Scene, moves: &mut Vec<(Move, Kind)>) {
        let budget = scene.outside.budget;
        if budget.sweeps > 0 {
            self.add_sweeps(shape, scene, Kind::Fault, moves);
        }
        if scene.outside.clock_ms < self.clock_end_ms {
            moves.push((Move::Tick, Kind::Fault));
        }
        for place in 0..scene.outside.under_way.len() {
            moves.push((Move::Land { place }, Kind::Fault));
        }
        for effect in scene.outside.late.keys() {
            moves.push((Move::ComeToBe { effect: effect.clone() }, Kind::Fault));
        }
        if budget.time_outs > 0 {
            for (worker, piece) in scene.workers.iter().enumerate() {
                for (slot, job) in piece.task().into_iter().flat_map(|task| task.jobs.iter().enumerate()) {
                    if matches!(job, Some(Job::Message(_))) {
                        moves.push((Move::TimeOut { worker, slot }, Kind::Fault));
                    }
                }
            }
        }
        for (process, piece) in scene.processes.iter().enumerate() {
            let is_busy = shape.workers[process].clone().any(|worker| *scene.workers[worker] != Worker::Idle);
            let knows = piece.lanes.iter().any(|lane| *lane != super::scene::Lane::default());
            if budget.crashes > 0 && (is_busy || knows) {
                moves.push((Move::Crash { process }, Kind::Fault));
            }
            if budget.evictions > 0 {
                for (partition, lane) in piece.lanes.iter().enumerate() {
                    if lane.view.is_some() {
                        moves.push((Move::Evict { process, partition }, Kind::Fault));
                    }
                }
            }
        }
        if budget.departures > 0 {
            for (number, request) in &scene.outside.requests {
                if request.copies > 0 {
                    moves.push((Move::Depart { request: *number }, Kind::Fault));
                }
            }
        }
    }

    fn add_sweeps(&self, shape: &Shape, scene: &Scene, kind: Kind, moves: &mut Vec<(Move, Kind)>) {
        if self.sweep == Sweep::Absent {
            return;
        }
        for partition in 0..self.partitions.len() {
            let has_work = scene.partitions[partition]
                .contents
                .record()
                .is_some_and(|control| !control.pending.is_empty() || !control.registrations.is_empty());
            if !has_work {
                continue;
            }
            for process in 0..shape.workers.len() {
                let has_marks = !scene.processes[process].lanes[partition].marks.is_empty();
                if has_marks || !is_free(shape, scene, process, partition) {
                    // What this process is at work on needs no visitor.
                    continue;
                }
                if let Some(worker) = idle_worker(shape, scene, process) {
                    moves.push((Move::Sweep { worker, partition }, kind));
                }
            }
        }
    }

    /// Messages of one partition that may be taken together.
    fn bursts(&self, scene: &Scene) -> Vec<Vec<Bytes>> {
        let available: Vec<(&Bytes, u8)> =
            scene.broker.available.iter().map(|(message, copies)| (message, *copies)).collect();
        let mut bursts = Vec::new();
        for (place, (message, copies)) in available.iter().enumerate() {
            bursts.push(vec![(*message).clone()]);
            if self.fold_max < 2 {
                continue;
            }
            if *copies > 1 {
                bursts.push(vec![(*message).clone(); 2]);
            }
            for (other, _) in &available[place + 1..] {
                if self.target(other) == self.target(message) {
                    bursts.push(vec![(*message).clone(), (*other).clone()]);
                    bursts.push(vec![(*other).clone(), (*message).clone()]);
                }
            }
        }
        bursts
    }

    /// Whether this is a wake-up whose commit has not been made.
    fn is_early_wake_up(&self, scene: &Scene, message: &Bytes) -> bool {
        let envelope = codec::decode_envelope(message).expect("only the world makes envelopes");
        let Content::WakeUp { expected, .. } = envelope.content else { return false };
        let partition = &scene.partitions[self.index_of(&envelope.to.partition)];
        partition.contents.record().map(|control| control.version) == expected
    }

    fn target(&self, message: &Bytes) -> usize {
        let envelope = codec::decode_envelope(message).expect("only the world makes envelopes");
        self.index_of(&envelope.to.partition)
    }

    pub(super) fn is_poison(&self, message: &Bytes) -> bool {
        let envelope = codec::decode_envelope(message).expect("only the world makes envelopes");
        self.inputs.iter().any(|input| {
            Self::input_id(input.number()) == envelope.message_id
                && self.script(input.number()).poison == Poison::Poisonous
        })
    }

    /// Makes a move.
    pub(super) fn make(&self, shape: &Shape, before: &Scene, next: &Move) -> Moved {
        match next {
            Move::Take { worker, messages } => {
                self.take(before, *worker, shape.process_of(*worker), messages, WakeUpPatience::Wait)
            }
            Move::TakeImpatiently { worker, message } => {
                let mut scene = before.clone();
                let budget = &mut Arc::make_mut(&mut scene.outside).budget;
                budget.fences = budget.fences.saturating_sub(1);
                let message = std::slice::from_ref(message);
                self.take(&scene, *worker, shape.process_of(*worker), message, WakeUpPatience::Fence)
            }
            Move::Ask { worker, request } => self.ask(before, *worker, shape.process_of(*worker), *request),
            Move::Advance { worker, turn } => self.advance(before, *worker, shape.process_of(*worker), *turn),
            Move::Flush { worker, partition } => {
                self.visit(before, *worker, shape.process_of(*worker), *partition, View::Cached)
            }
            Move::Sweep { worker, partition } => {
                let mut scene = before.clone();
                let budget = &mut Arc::make_mut(&mut scene.outside).budget;
                budget.sweeps = budget.sweeps.saturating_sub(1);
                self.visit(&scene, *worker, shape.process_of(*worker), *partition, View::Fresh)
            }
            Move::Land { place } => {
                let mut scene = before.clone();
                let commit = Arc::make_mut(&mut scene.outside).under_way.remove(*place);
                self.commit(&mut scene, &commit);
                Ok(scene)
            }
            other => Ok(self.befall(shape, before.clone(), other)),
        }
    }

    /// What happens to the system from outside.
    fn befall(&self, shape: &Shape, mut scene: Scene, fault: &Move) -> Scene {
        match fault {
            Move::TimeOut { worker, slot } => {
                let job = scene.workers[*worker].task().and_then(|task| task.jobs[*slot].clone());
                Arc::make_mut(&mut scene.outside).budget.time_outs -= 1;
                if let Some(Job::Message(message)) = job {
                    give_back(&mut scene, message);
                }
            }
            Move::Crash { process } => {
                Arc::make_mut(&mut scene.outside).budget.crashes -= 1;
                for worker in shape.workers[*process].clone() {
                    let died = std::mem::take(&mut scene.workers[worker]);
                    for job in died.task().into_iter().flat_map(|task| task.jobs.iter().flatten()) {
                        match job {
                            Job::Message(message) => give_back(&mut scene, message.clone()),
                            Job::Request(number) => {
                                let requests = &mut Arc::make_mut(&mut scene.outside).requests;
                                if let Some(request) = requests.get_mut(number) {
                                    request.copies += 1;
                                }
                            }
                        }
                    }
                }
                scene.processes[*process] = Arc::new(self.new_process());
            }
            Move::Evict { process, partition } => {
                Arc::make_mut(&mut scene.outside).budget.evictions -= 1;
                let process = Arc::make_mut(&mut scene.processes[*process]);
                process.lanes[*partition].view = None;
                process.consumed.clear();
            }
            Move::Depart { request } => {
                let outside = Arc::make_mut(&mut scene.outside);
                outside.budget.departures -= 1;
                if let Some(request) = outside.requests.get_mut(request) {
                    request.copies = 0;
                }
            }
            Move::Replay { message } => {
                let broker = Arc::make_mut(&mut scene.broker);
                broker.dead.remove(message);
                broker.deliveries.remove(message);
                // Under a fresh id, which no broker knows.
                let is_dropped = self.has(DriverMutation::ReplaysUnderTheOldId) && {
                    let envelope = codec::decode_envelope(message).expect("only the world makes envelopes");
                    broker.known.contains(&first_id(&envelope))
                };
                if !is_dropped {
                    give_back(&mut scene, message.clone());
                }
            }
            Move::Replicate { partition } => {
                let partition = Arc::make_mut(&mut scene.partitions[*partition]);
                partition.replica = Some(Arc::clone(&partition.contents));
            }
            Move::ComeToBe { effect } => {
                let outside = Arc::make_mut(&mut scene.outside);
                outside.late.remove(effect);
                outside.blobs.insert(effect.clone());
            }
            Move::Tick => {
                let outside = Arc::make_mut(&mut scene.outside);
                outside.clock_ms += TICK_MS;
                // Nothing is under way for longer than the engine reckons with.
                let now_ms = outside.clock_ms;
                outside.late.retain(|_, until_ms| *until_ms > now_ms);
            }
            Move::Take { .. }
            | Move::TakeImpatiently { .. }
            | Move::Ask { .. }
            | Move::Advance { .. }
            | Move::Flush { .. }
            | Move::Land { .. }
            | Move::Sweep { .. } => unreachable!("these are made elsewhere"),
        }
        scene
    }
}

/// Whether a worker must let an older attempt on the same partition finish before it commits or registers
/// anything: only where the budget of conflicts is spent, so that no two overtake each other for ever.
fn must_wait(scene: &Scene, worker: usize) -> bool {
    if scene.outside.budget.conflicts != Some(0) {
        return false;
    }
    let piece = &scene.workers[worker];
    let writes = match &**piece {
        Worker::Processing { step, .. } => matches!(**step, Step::Commit(_)),
        Worker::Handling { phase, .. } => matches!(phase, EffectPhase::Register(_)),
        Worker::Idle | Worker::Recovering { .. } | Worker::Finishing { .. } => false,
    };
    let own = piece.task().map(|task| task.serial);
    writes
        && scene.workers.iter().enumerate().any(|(index, other)| {
            index != worker && other.lane() == piece.lane() && other.task().map(|task| task.serial) < own
        })
}

fn idle_worker(shape: &Shape, scene: &Scene, process: usize) -> Option<usize> {
    shape.workers[process].clone().find(|worker| *scene.workers[*worker] == Worker::Idle)
}

/// Whether a partition's lane is free in a process.
fn is_free(shape: &Shape, scene: &Scene, process: usize, partition: usize) -> bool {
    shape.workers[process].clone().all(|worker| scene.workers[worker].lane() != Some(partition))
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "",
            Self::FailsBefore => ", which fails without effect",
            Self::FailsAfter => ", which has its effect and fails all the same",
            Self::ComesToBeLater => ", which fails, but is still on its way",
            Self::AnswerLost => ", which happens, but the answer is lost",
            Self::NothingAndAnswerLost => ", which does not happen, and the answer is lost",
            Self::StillUnderWay => ", of which no answer comes, and which may arrive later",
            Self::Repeated => {
                ", which happens, and is reported as a conflict by a client library's repetition"
            }
            Self::Stale => ", and a replica that lags behind answers",
            Self::DroppedAndDone => ", which happens, and the handler does not wait for its end",
            Self::DroppedForNothing => ", which does not happen, and the handler does not wait for its end",
            Self::DroppedUnderWay => ", which may happen later, and the handler does not wait for its end",
            Self::HandlerFails => ", which fails",
        })
    }
}
