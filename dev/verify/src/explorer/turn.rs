//! One step of a worker, with every way in which it can turn out: what the machine asks for is done, or fails
//! before or after its effect, and the machine is told. What follows from the machine's answer is in
//! [`super::driver`].

use std::sync::Arc;

use tollgate_proto::completion::CompletionStep;
use tollgate_proto::processing::Step;
use tollgate_proto::{Commit, CommitOutcome, PartitionKey, StoreError, codec};

use super::driver::Moved;
use super::effects::Freshness;
use super::handling::Creation;
use super::mutant::DriverMutation;
use super::scene::{Budget, EffectPhase, Scene, Task, Worker};
use super::world::World;

/// How a step of a worker turns out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Turn {
    /// As it should.
    Done,
    /// The call fails and has had no effect.
    FailsBefore,
    /// The call fails and has had its effect.
    FailsAfter,
    /// The commit happens and its answer is lost.
    AnswerLost,
    /// Nothing happens and the answer is lost.
    NothingAndAnswerLost,
    /// The answer is lost, and the commit is still on its way: it may arrive later, or never.
    StillUnderWay,
    /// The commit happens, and a client library that repeats it by itself reports a failed condition.
    Repeated,
    /// The read is answered by a replica that lags behind.
    Stale,
    /// The preparation of a side effect fails, and is still on its way: it may come to be later, or never.
    ComesToBeLater,
    /// The handler does not wait for the end of what it began: it happens.
    DroppedAndDone,
    /// The handler does not wait for the end of what it began: nothing happens.
    DroppedForNothing,
    /// The handler does not wait for the end of what it began: it may happen later, or never.
    DroppedUnderWay,
    /// The handler fails.
    HandlerFails,
}

impl World {
    /// A worker does its next step.
    pub(super) fn advance(&self, before: &Scene, worker: usize, process: usize, turn: Turn) -> Moved {
        let mut scene = before.clone();
        charge(&mut scene, turn);
        match (*scene.workers[worker]).clone() {
            Worker::Idle => unreachable!("an idle worker has no next step"),
            Worker::Processing { task, step } => self.process(scene, worker, process, task, *step, turn),
            Worker::Handling { task, handle, phase, deadline_ms } => {
                let creation = Creation { handle: *handle, phase, deadline_ms };
                self.create(scene, worker, process, task, creation, turn)
            }
            Worker::Recovering { task, recovering, step } => match self.complete(&mut scene, *step, turn)? {
                CompletionStep::Done(report) => {
                    let step = self.recovered(&mut scene, process, *recovering, report);
                    self.proceed(scene, worker, process, task, step)
                }
                step => {
                    let step = Box::new(step);
                    scene.workers[worker] = Arc::new(Worker::Recovering { task, recovering, step });
                    Ok(scene)
                }
            },
            Worker::Finishing { task, step } => {
                let step = self.complete(&mut scene, *step, turn)?;
                self.finish(scene, worker, process, task, step)
            }
        }
    }

    fn process(
        &self,
        mut scene: Scene,
        worker: usize,
        process: usize,
        mut task: Task,
        step: Step,
        turn: Turn,
    ) -> Moved {
        let next = match step {
            Step::Load(load) => {
                let request = load.request();
                load.answer(match turn {
                    Turn::Done => Ok(self.load(&scene, &request, Freshness::Current)),
                    Turn::Stale => Ok(self.load(&scene, &request, Freshness::Stale)),
                    _ => Err(unavailable()),
                })
            }
            Step::ReadTokens(read) => {
                let freshness = if turn == Turn::Stale { Freshness::Stale } else { Freshness::Current };
                let answers = read
                    .requests()
                    .iter()
                    .map(|request| match turn {
                        Turn::Done | Turn::Stale => {
                            Ok(if let Some(kept) = task.kept_reads.get(&request.token) {
                                kept.clone()
                            } else {
                                let entry = self.read(&scene, request, freshness);
                                if self.has(DriverMutation::ReusesTokenReadAfterReload) {
                                    task.kept_reads.insert(request.token.clone(), entry.clone());
                                }
                                entry
                            })
                        }
                        _ => Err(unavailable()),
                    })
                    .collect();
                read.answer(answers)
            }
            Step::Handle(handle) => self.handle(&scene, handle, None, turn),
            Step::WakeUp(wake_up) => {
                if turn != Turn::FailsBefore {
                    self.send(&mut scene, &wake_up.publication())?;
                }
                let sent = turn == Turn::Done || self.has(DriverMutation::CommitsWithoutWakeUp);
                wake_up.answer(if sent { Ok(()) } else { Err("the broker can't be reached".to_owned()) })
            }
            Step::Commit(commit) => {
                if self.has(DriverMutation::PublishesBeforeCommit) {
                    self.publish_now(&mut scene, &commit.request())?;
                }
                let answer = self.commit_with(&mut scene, &commit.request(), turn);
                commit.answer(answer)
            }
            Step::Recover(_) | Step::Settled(_) => unreachable!("these are passed through at once"),
        };
        self.proceed(scene, worker, process, task, next)
    }

    pub(super) fn commit_with(
        &self,
        scene: &mut Scene,
        commit: &Commit,
        turn: Turn,
    ) -> Result<CommitOutcome, StoreError> {
        match turn {
            Turn::FailsBefore | Turn::FailsAfter | Turn::DroppedForNothing => return Err(unavailable()),
            Turn::NothingAndAnswerLost => return Err(outcome_unknown(&commit.partition)),
            Turn::StillUnderWay | Turn::DroppedUnderWay => {
                Arc::make_mut(&mut scene.outside).under_way.push(commit.clone());
                return Err(outcome_unknown(&commit.partition));
            }
            _ => {}
        }
        let outcome = self.commit(scene, commit);
        if outcome == CommitOutcome::Conflict {
            let budget = &mut Arc::make_mut(&mut scene.outside).budget;
            budget.conflicts = budget.conflicts.map(|left| left.saturating_sub(1));
        }
        match turn {
            Turn::AnswerLost => Err(outcome_unknown(&commit.partition)),
            Turn::Repeated => Ok(CommitOutcome::Conflict),
            _ => Ok(outcome),
        }
    }

    fn complete(
        &self,
        scene: &mut Scene,
        step: CompletionStep,
        turn: Turn,
    ) -> Result<CompletionStep, String> {
        let fails = matches!(turn, Turn::FailsBefore | Turn::FailsAfter);
        Ok(match step {
            CompletionStep::ReadOutputs(read) => {
                let freshness = if turn == Turn::Stale { Freshness::Stale } else { Freshness::Current };
                let mut answers = Vec::new();
                for request in read.requests() {
                    if fails {
                        answers.push(Err(unavailable()));
                        continue;
                    }
                    let entry = self.read(scene, &request, freshness);
                    if entry.is_none() && self.has(DriverMutation::RecreatesEntries) {
                        let entry = self.entry_of_output(&request.token, scene);
                        if let Some(entry) = entry {
                            self.recreate(scene, &request.token, &entry);
                            answers.push(Ok(Some(codec::encode_entry(&entry))));
                            continue;
                        }
                    }
                    answers.push(Ok(entry));
                }
                read.answer(answers)
            }
            CompletionStep::PublishEffects(publish) => {
                let effects: Vec<_> = publish.effects().map(|effect| effect.name.clone()).collect();
                if turn != Turn::FailsBefore {
                    let outside = Arc::make_mut(&mut scene.outside);
                    // Where it was cleaned up, nothing happens.
                    outside
                        .executed
                        .extend(effects.iter().filter(|name| outside.blobs.contains(*name)).cloned());
                }
                let answer = if fails { Err("the other system can't be reached".to_owned()) } else { Ok(()) };
                publish.answer(vec![answer; effects.len()])
            }
            CompletionStep::Publish(publish) => {
                let publications = publish.publications();
                if turn != Turn::FailsBefore {
                    for publication in &publications {
                        self.check_sent(scene, publication.envelope.message_id)?;
                        self.send(scene, publication)?;
                    }
                }
                let answer = if fails { Err("the broker can't be reached".to_owned()) } else { Ok(()) };
                publish.answer(vec![answer; publications.len()])
            }
            CompletionStep::CleanUp(clean_up) => {
                if turn != Turn::FailsBefore {
                    let outside = Arc::make_mut(&mut scene.outside);
                    for effect in clean_up.clean_ups() {
                        outside.blobs.remove(&effect.registration.name);
                    }
                }
                let answer = if fails { Err("blob storage can't be reached".to_owned()) } else { Ok(()) };
                let count = clean_up.clean_ups().len();
                clean_up.answer(vec![answer; count])
            }
            CompletionStep::Release(release) => {
                let effects: Vec<_> = release.effects().map(|effect| effect.name.clone()).collect();
                if turn != Turn::FailsBefore {
                    let outside = Arc::make_mut(&mut scene.outside);
                    outside.blobs.retain(|name| !effects.contains(name));
                }
                let answer = if fails { Err("the other system can't be reached".to_owned()) } else { Ok(()) };
                release.answer(vec![answer; effects.len()])
            }
            CompletionStep::Consume(consume) => {
                let mut answers = Vec::new();
                for token in consume.tokens() {
                    let session = if turn == Turn::FailsBefore { None } else { self.delete(scene, &token) };
                    answers.push(if fails { Err(unavailable()) } else { Ok(session) });
                }
                consume.answer(answers)
            }
            CompletionStep::Done(report) => CompletionStep::Done(report),
        })
    }
}

fn charge(scene: &mut Scene, turn: Turn) {
    if turn == Turn::Done {
        return;
    }
    let budget = &mut Arc::make_mut(&mut scene.outside).budget;
    match turn {
        Turn::Done => {}
        Turn::FailsBefore | Turn::FailsAfter => budget.failed_calls -= 1,
        Turn::AnswerLost | Turn::NothingAndAnswerLost | Turn::StillUnderWay | Turn::Repeated => {
            budget.lost_answers -= 1;
        }
        Turn::Stale => budget.stale_reads -= 1,
        Turn::ComesToBeLater => budget.late_effects -= 1,
        Turn::DroppedAndDone | Turn::DroppedForNothing | Turn::DroppedUnderWay => budget.drops -= 1,
        Turn::HandlerFails => budget.handler_failures -= 1,
    }
}
fn unavailable() -> StoreError {
    StoreError::Unavailable { store: World::store(), reason: "it can't be reached".to_owned() }
}

fn outcome_unknown(partition: &PartitionKey) -> StoreError {
    StoreError::OutcomeUnknown {
        store: World::store(),
        partition: partition.clone(),
        reason: "timed out".to_owned(),
    }
}

/// How the next step of a worker may turn out, as far as the budget goes.
pub(super) fn turns(scene: &Scene, worker: usize) -> Vec<Turn> {
    let Budget { lost_answers, failed_calls, late_effects, drops, handler_failures, stale_reads, .. } =
        scene.outside.budget;
    let mut turns = vec![Turn::Done];
    let mut add = |budget: u8, more: &[Turn]| {
        if budget > 0 {
            turns.extend_from_slice(more);
        }
    };
    let both = [Turn::FailsBefore, Turn::FailsAfter];
    let dropped = [Turn::DroppedAndDone, Turn::DroppedForNothing, Turn::DroppedUnderWay];
    let lost = [Turn::AnswerLost, Turn::NothingAndAnswerLost, Turn::StillUnderWay, Turn::Repeated];
    match &*scene.workers[worker] {
        Worker::Idle => turns.clear(),
        Worker::Processing { step, .. } => match &**step {
            Step::Load(_) | Step::ReadTokens(_) => {
                add(failed_calls, &[Turn::FailsBefore]);
                add(stale_reads, &[Turn::Stale]);
            }
            Step::Handle(_) => add(handler_failures, &[Turn::HandlerFails]),
            Step::WakeUp(_) => add(failed_calls, &both),
            Step::Commit(_) => {
                add(failed_calls, &[Turn::FailsBefore]);
                add(lost_answers, &lost);
            }
            Step::Recover(_) | Step::Settled(_) => unreachable!("these are passed through at once"),
        },
        Worker::Handling { phase, .. } => match phase {
            EffectPhase::ReadLater => {
                add(failed_calls, &[Turn::FailsBefore]);
                add(stale_reads, &[Turn::Stale]);
            }
            EffectPhase::Register(_) => {
                add(lost_answers, &lost);
                add(drops, &dropped);
            }
            EffectPhase::Prepare(_) => {
                add(failed_calls, &both);
                add(drops, &dropped);
                add(late_effects, &[Turn::ComesToBeLater]);
            }
            EffectPhase::Finish(_) => add(handler_failures, &[Turn::HandlerFails]),
        },
        Worker::Recovering { step, .. } | Worker::Finishing { step, .. } => match &**step {
            CompletionStep::ReadOutputs(_) => {
                add(failed_calls, &[Turn::FailsBefore]);
                add(stale_reads, &[Turn::Stale]);
            }
            CompletionStep::PublishEffects(_)
            | CompletionStep::Publish(_)
            | CompletionStep::CleanUp(_)
            | CompletionStep::Release(_)
            | CompletionStep::Consume(_) => add(failed_calls, &both),
            CompletionStep::Done(_) => unreachable!("these are passed through at once"),
        },
    }
    turns
}
