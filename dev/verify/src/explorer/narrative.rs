//! A step as a line that a person can read: who does what, and what changed by it.

use tollgate_proto::completion::CompletionStep;
use tollgate_proto::processing::Step;
use tollgate_proto::{Body, Content, codec};

use super::moves::Move;
use super::properties::news;
use super::scene::{EffectPhase, Scene, Shape, Worker};
use super::world::World;

/// Tells one move.
pub(super) fn tell(world: &World, shape: &Shape, before: &Scene, step: &Move, after: &Scene) -> String {
    let who = |worker: usize| format!("process {} worker {}", shape.process_of(worker) + 1, worker + 1);
    let what = match step {
        Move::Take { worker, messages } => {
            let names: Vec<String> = messages.iter().map(|message| name(world, before, message)).collect();
            format!("{} takes {}", who(*worker), names.join(" and "))
        }
        Move::TakeImpatiently { worker, message } => {
            format!("{} takes, for the third time, {}", who(*worker), name(world, before, message))
        }
        Move::Ask { worker, request } => format!("{} is asked request {request}", who(*worker)),
        Move::Advance { worker, turn } => {
            format!("{} {}{turn}", who(*worker), activity(&before.workers[*worker]))
        }
        Move::Flush { worker, partition } => {
            format!("{} flushes idle partition {}", who(*worker), world.partitions[*partition])
        }
        Move::Sweep { worker, partition } => {
            format!("{} sweeps partition {}", who(*worker), world.partitions[*partition])
        }
        Move::TimeOut { worker, .. } => {
            format!("the broker's visibility timeout passes for what {} is working on", who(*worker))
        }
        Move::Crash { process } => format!("process {} crashes and starts anew", process + 1),
        Move::Evict { process, partition } => {
            format!("process {} drops {} from its cache", process + 1, world.partitions[*partition])
        }
        Move::Depart { request } => format!("the client of request {request} goes away"),
        Move::Replay { message } => format!("an operator replays {}", name(world, before, message)),
        Move::Replicate { partition } => {
            let name = world.partitions.get(*partition).map_or("senders", |key| key.as_str());
            format!("the replica of {name} catches up")
        }
        Move::Land { place } => {
            let partition = &before.outside.under_way[*place].partition;
            format!("a commit on {partition} arrives that nobody waits for any more")
        }
        Move::ComeToBe { effect } => format!("blob {effect} comes to be, whose creation had failed"),
        Move::Tick => "time passes".to_owned(),
    };
    let mut changed = news(world, before, after);
    if let Move::Advance { worker, .. } | Move::Take { worker, .. } | Move::Ask { worker, .. } = step {
        let now = activity(&after.workers[*worker]);
        changed.push(if now.is_empty() { "done".to_owned() } else { format!("next it {now}") });
    }
    if changed.is_empty() { what } else { format!("{what} [{}]", changed.join("; ")) }
}

fn activity(worker: &Worker) -> String {
    match worker {
        Worker::Idle => String::new(),
        Worker::Processing { step, .. } => match &**step {
            Step::Load(_) => "loads the partition".to_owned(),
            Step::ReadTokens(_) => "reads the token".to_owned(),
            Step::Handle(handle) => match &handle.input().body {
                Body::Inline(body) if !body.is_empty() => {
                    format!("runs the handler of message {}", String::from_utf8_lossy(body))
                }
                _ => "runs the handler".to_owned(),
            },
            Step::WakeUp(_) => "sends a wake-up".to_owned(),
            Step::Commit(commit) => match commit.message_count() {
                0 => "commits only to tidy up".to_owned(),
                1 => "commits".to_owned(),
                count => format!("commits {count} messages at once"),
            },
            Step::Recover(_) | Step::Settled(_) => "goes on".to_owned(),
        },
        Worker::Handling { phase, .. } => match phase {
            EffectPhase::ReadLater => "reads another item and runs the handler".to_owned(),
            EffectPhase::Register(name) => format!("registers blob {name}"),
            EffectPhase::Prepare(name) => format!("creates blob {name}"),
            EffectPhase::Finish(_) => "runs the rest of the handler".to_owned(),
        },
        Worker::Recovering { step, .. } => format!("{} (for an earlier commit)", completing(step)),
        Worker::Finishing { step, .. } => completing(step).to_owned(),
    }
}

fn completing(step: &CompletionStep) -> &'static str {
    match step {
        CompletionStep::ReadOutputs(_) => "reads outbox entries",
        CompletionStep::PublishEffects(_) => "lets the other system execute the calls",
        CompletionStep::Publish(_) => "publishes",
        CompletionStep::CleanUp(_) => "cleans up side effects of lost attempts",
        CompletionStep::Release(_) => "deletes the calls that were followed up",
        CompletionStep::Consume(_) => "consumes tokens",
        CompletionStep::Done(_) => "is done",
    }
}

/// What a reader calls a broker message.
fn name(world: &World, scene: &Scene, message: &bytes::Bytes) -> String {
    let envelope = codec::decode_envelope(message).expect("only the world makes envelopes");
    match &envelope.content {
        Content::WakeUp { expected, .. } => {
            let version = expected.map_or(0, |version| version.sequence().counter);
            format!("a wake-up that names version {version}")
        }
        Content::Body(body) => format!("message {}", String::from_utf8_lossy(body)),
        Content::Token { token, .. } => {
            let partition = &scene.partitions[world.index_of(&token.partition)];
            let entry = partition.contents.entries.get(&token.entry);
            match entry.map(codec::decode_entry) {
                Some(Ok(entry)) => match entry.body {
                    Body::Inline(body) => format!("message {}", String::from_utf8_lossy(&body)),
                    Body::Blob(_) => "a message".to_owned(),
                },
                _ => format!("a copy of the message whose token {} is gone", token.entry),
            }
        }
    }
}
