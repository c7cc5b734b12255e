//! What handlers do in a world: they count, send, read another item, and create side effects, with every way
//! in which that can turn out.

use std::sync::Arc;

use bytes::Bytes;
use tollgate_proto::processing::{Failure, HandleStep, Lookup, Step};
use tollgate_proto::unit_of_work::{Outgoing, UnitOfWork};
use tollgate_proto::{
    AttachedEffect, Audience, Body, Destination, EffectKind, EffectName, EndpointName, ItemValue, LoadRequest,
};

use super::driver::Moved;
use super::effects::{EXTERNAL, Freshness};
use super::mutant::DriverMutation;
use super::scene::{EffectPhase, Outside, Scene, Task, Worker};
use super::stage::{answered_item, blob_item, mirror_item, number_of};
use super::turn::Turn;
use super::world::{Blob, Poison, Script, World};

impl World {
    /// What the handler of a message does.
    pub(super) fn handle(
        &self,
        scene: &Scene,
        mut handle: HandleStep,
        effect: Option<EffectName>,
        turn: Turn,
    ) -> Step {
        let number = number_of(&handle);
        let script = self.script(number);
        if script.poison == Poison::Poisonous {
            return handle.failed(Failure::Permanent { reason: "it is poison".to_owned() });
        }
        let mut applied = match handle.get(&Self::applied_item()) {
            Lookup::Present(value) => value.bytes().to_vec(),
            Lookup::Absent => vec![0; self.scripts.len()],
            Lookup::Unknown => unreachable!("the item is preloaded"),
        };
        let is_early = script.after.is_some_and(|first| applied[usize::from(first)] == 0);
        let mirror = match handle.get(&mirror_item()) {
            Lookup::Present(value) => value.bytes().to_vec(),
            Lookup::Absent | Lookup::Unknown => applied.clone(),
        };
        if is_early || mirror != applied && handle.get(&mirror_item()) != Lookup::Absent {
            return handle.failed(Failure::Permanent { reason: "the books do not balance".to_owned() });
        }
        applied[usize::from(number)] = applied[usize::from(number)].saturating_add(1);
        let input = std::sync::Arc::clone(handle.input());
        let work = handle.unit_of_work();
        if self.scripts.iter().any(|script| script.reads_later) {
            work.put(mirror_item(), ItemValue::Binary(applied.clone().into()));
        }
        work.put(Self::applied_item(), ItemValue::Binary(applied.into()));
        for carried in &input.effects {
            // What the handler sees of the call that its message follows up.
            let Outside { blobs, executed, .. } = &*scene.outside;
            let answered = blobs.contains(&carried.name) && executed.contains(&carried.name);
            work.put(answered_item(), ItemValue::Binary(vec![u8::from(answered)].into()));
        }
        let mut carried = Vec::new();
        match (script.blob, effect) {
            (Blob::Called, Some(name)) => {
                let kind = EffectKind::new("call").expect("the constant is a valid kind");
                carried.push(AttachedEffect { kind, name, detail: Bytes::new() });
            }
            (_, Some(name)) => {
                work.put(blob_item(), ItemValue::Binary(Bytes::copy_from_slice(name.as_str().as_bytes())));
            }
            (_, None) => {}
        }
        self.send_outputs(script, work, carried);
        work.respond(Bytes::from(number.to_string()));
        if turn == Turn::HandlerFails {
            return handle.failed(passing());
        }
        handle.succeeded()
    }

    fn send_outputs(&self, script: &Script, work: &mut UnitOfWork, mut carried: Vec<AttachedEffect>) {
        for sent in &script.sends {
            work.send(Outgoing {
                to: self.destination(*sent),
                message_type: Self::message_type(),
                headers: Vec::new(),
                body: Body::Inline(Bytes::from(sent.to_string())),
                audience: Audience::Tollgate,
                effects: std::mem::take(&mut carried),
            });
        }
        for _ in 0..script.sends_external {
            work.send(Outgoing {
                to: Destination {
                    endpoint: EndpointName::new(EXTERNAL).expect("the constant is a valid name"),
                    partition: self.partitions[0].clone(),
                },
                message_type: Self::message_type(),
                headers: Vec::new(),
                body: Body::Inline(Bytes::new()),
                audience: Audience::External,
                effects: Vec::new(),
            });
        }
    }

    /// Register, prepare, and then the rest of the handler.
    pub(super) fn create(
        &self,
        mut scene: Scene,
        worker: usize,
        process: usize,
        task: Task,
        creation: Creation,
        turn: Turn,
    ) -> Moved {
        let Creation { mut handle, phase, deadline_ms } = creation;
        let is_dropped =
            matches!(turn, Turn::DroppedAndDone | Turn::DroppedForNothing | Turn::DroppedUnderWay);
        let phase = match phase {
            EffectPhase::ReadLater => {
                let step = self.read_later(&scene, handle, turn);
                return self.proceed(scene, worker, process, task, step);
            }
            EffectPhase::Register(name) => {
                let kind = match self.script(number_of(&handle)).blob {
                    Blob::Called => "call",
                    Blob::Created | Blob::None => "blob",
                };
                let kind = EffectKind::new(kind).expect("the constants are valid kinds");
                let commit = match handle.register(kind, name.clone(), deadline_ms) {
                    Ok(commit) => commit,
                    Err(failure) => {
                        let step = handle.failed(failure);
                        return self.proceed(scene, worker, process, task, step);
                    }
                };
                let answer = self.commit_with(&mut scene, &commit, turn);
                if is_dropped {
                    EffectPhase::Finish(None)
                } else if handle.registered(&answer).is_err() {
                    let step = handle.lost();
                    return self.proceed(scene, worker, process, task, step);
                } else {
                    EffectPhase::Prepare(name)
                }
            }
            EffectPhase::Prepare(name) => {
                // The deadline is checked, and what was begun before it lands before the last clean-up.
                let is_late = scene.outside.clock_ms >= deadline_ms
                    && !self.has(DriverMutation::CreatesAfterTheDeadline);
                if !is_late && matches!(turn, Turn::Done | Turn::FailsAfter | Turn::DroppedAndDone) {
                    Arc::make_mut(&mut scene.outside).blobs.insert(name.clone());
                }
                if !is_late && matches!(turn, Turn::ComesToBeLater | Turn::DroppedUnderWay) {
                    Arc::make_mut(&mut scene.outside).late.insert(name.clone(), deadline_ms);
                }
                if is_dropped {
                    EffectPhase::Finish(None)
                } else if is_late || turn != Turn::Done {
                    let step = handle.failed(passing());
                    return self.proceed(scene, worker, process, task, step);
                } else {
                    handle.prepared(&name);
                    EffectPhase::Finish(Some(name))
                }
            }
            EffectPhase::Finish(name) => {
                let step = self.handle(&scene, handle, name, turn);
                return self.proceed(scene, worker, process, task, step);
            }
        };
        let handling = Worker::Handling { task, handle: Box::new(handle), phase, deadline_ms };
        scene.workers[worker] = Arc::new(handling);
        Ok(scene)
    }

    /// The handler reads an item that was not loaded with the partition, and then does all the rest.
    fn read_later(&self, scene: &Scene, mut handle: HandleStep, turn: Turn) -> Step {
        let partition = self.partitions[self.script(number_of(&handle)).partition].clone();
        let request = LoadRequest { partition, items: vec![mirror_item()], records: Vec::new() };
        let freshness = match turn {
            Turn::Done => Freshness::Current,
            Turn::Stale => Freshness::Stale,
            _ => return handle.failed(passing()),
        };
        let loaded = self.load(scene, &request, freshness);
        let value = loaded.items.into_iter().next().and_then(|(_, value)| value);
        // A handler that is told of it may do as it likes.
        let _ = handle.provide(mirror_item(), value, loaded.control.as_ref());
        self.handle(scene, handle, None, Turn::Done)
    }
}

/// A side effect that is being created.
pub(super) struct Creation {
    pub(super) handle: HandleStep,
    pub(super) phase: EffectPhase,
    pub(super) deadline_ms: u64,
}

fn passing() -> Failure {
    Failure::Passing { reason: "bad luck".to_owned() }
}
