//! What must hold: the guarantees of the design, in every state and where nothing can move any more.
//! They look only at what is stored, what the broker holds and what outsiders got; never at what a worker
//! thinks.

use std::sync::Arc;

use tollgate_proto::{EffectName, MessageId};

use super::scene::Scene;
use super::stage::{answered_item, blob_item};
use super::world::{Blob, Input, Poison, Sweep, World};

/// How the messages of a world hang together.
#[derive(Debug)]
pub(super) struct Family {
    /// For every message that a handler sends: the number of the message whose handler sends it.
    parents: Vec<(MessageId, u8)>,
    /// Messages to outsiders.
    external: Vec<(MessageId, u8)>,
}

impl Family {
    pub(super) fn of(world: &World) -> Self {
        let mut family = Self { parents: Vec::new(), external: Vec::new() };
        for input in &world.inputs {
            family.add(world, input.number(), World::input_id(input.number()));
        }
        family
    }

    fn add(&mut self, world: &World, number: u8, id: MessageId) {
        let script = world.script(number);
        let mut place = 0;
        for sent in &script.sends {
            let child = MessageId::derive(id, &World::endpoint(), place);
            self.parents.push((child, number));
            self.add(world, *sent, child);
            place += 1;
        }
        for _ in 0..script.sends_external {
            let child = MessageId::derive(id, &World::endpoint(), place);
            self.parents.push((child, number));
            self.external.push((child, number));
            place += 1;
        }
    }

    /// The message whose handler sends this one.
    pub(super) fn parent(&self, id: MessageId) -> Option<u8> {
        self.parents.iter().find(|(known, _)| *known == id).map(|(_, parent)| *parent)
    }
}

impl World {
    /// How often the handler of a message has been applied, all partitions together.
    pub(super) fn applied(scene: &Scene, number: u8) -> u64 {
        scene
            .partitions
            .iter()
            .filter_map(|partition| partition.contents.items.get(&Self::applied_item()))
            .map(|value| u64::from(value.bytes()[usize::from(number)]))
            .sum()
    }

    /// Guarantee 3: what is sent was committed.
    pub(super) fn check_sent(&self, scene: &Scene, id: MessageId) -> Result<(), String> {
        match Family::of(self).parent(id) {
            Some(parent) if Self::applied(scene, parent) == 0 => Err(format!(
                "a ghost: an output of message {parent} is sent, and message {parent} is not committed"
            )),
            _ => Ok(()),
        }
    }

    /// What must hold in every state.
    pub(super) fn broken(&self, scene: &Scene) -> Option<String> {
        for number in (0_u8..).take(self.scripts.len()) {
            let applied = Self::applied(scene, number);
            if applied > self.times_sent(scene, number) {
                return Some(format!("message {number} was applied {applied} times"));
            }
        }
        for partition in &scene.partitions {
            let Some(name) = partition.contents.items.get(&blob_item()) else { continue };
            let name = std::str::from_utf8(name.bytes()).ok().and_then(|name| EffectName::new(name).ok());
            if name.is_none_or(|name| !scene.outside.blobs.contains(&name)) {
                return Some("the state names a blob that is gone".to_owned());
            }
        }
        for partition in &scene.partitions {
            if partition.contents.items.get(&answered_item()).is_some_and(|value| value.bytes()[0] == 0) {
                return Some(
                    "a message was handled without the answer to the call that it follows up".to_owned(),
                );
            }
        }
        if self.deliveries_max.is_none() && scene.broker.dead.keys().any(|message| !self.is_poison(message)) {
            return Some("a message was dead-lettered for a state that is not its partition's".to_owned());
        }
        let called = (0_u8..).zip(&self.scripts).filter(|(_, script)| script.blob == Blob::Called);
        let committed = called.filter(|(number, _)| Self::applied(scene, *number) > 0).count();
        let executed = scene.outside.executed.len();
        if executed > committed {
            return Some(format!(
                "{executed} calls were executed, and {committed} that make one are committed"
            ));
        }
        None
    }

    /// What must hold where only faults can happen.
    pub(super) fn broken_when_quiet(&self, scene: &Scene) -> Option<String> {
        self.not_applied(scene).or_else(|| self.left_over(scene)).or_else(|| self.not_sent(scene))
    }

    /// Guarantee 2, for everything that was accepted.
    fn not_applied(&self, scene: &Scene) -> Option<String> {
        let mut expected: Vec<u8> = Vec::new();
        for input in &self.inputs {
            let number = input.number();
            let is_accepted = match input {
                Input::Token(_) | Input::Identity(_) | Input::Natural(_) => true,
                Input::Request(_) => {
                    // A client that went away may have been served or not; one that was answered was served.
                    Self::applied(scene, number) > 0 || scene.outside.requests[&number].answer.is_some()
                }
            };
            if is_accepted {
                self.add_expected(number, &mut expected);
            }
        }
        let is_lost = |number: &u8| {
            let sent = if self.is_natural_input(*number) { 1 } else { self.times_sent(scene, *number) };
            Self::applied(scene, *number) < sent
        };
        expected.into_iter().find(is_lost).map(|number| {
            format!("message {number} is lost: it was never applied, and nothing moves any more")
        })
    }

    fn add_expected(&self, number: u8, expected: &mut Vec<u8>) {
        if self.script(number).poison == Poison::Poisonous {
            return;
        }
        expected.push(number);
        for sent in &self.script(number).sends {
            self.add_expected(*sent, expected);
        }
    }

    /// How many messages of this number there are: one, but for those that a natural handler sends anew each
    /// time it runs, which itself may run as often as it likes.
    fn times_sent(&self, scene: &Scene, number: u8) -> u64 {
        if self.is_natural_input(number) {
            return u64::MAX;
        }
        let sends = |parent: &u8| self.script(*parent).sends.contains(&number);
        let natural = self.inputs.iter().map(|input| input.number()).find(sends);
        match natural.filter(|parent| self.is_natural_input(*parent)) {
            Some(parent) => Self::applied(scene, parent).max(1),
            None => 1,
        }
    }

    fn is_natural_input(&self, number: u8) -> bool {
        self.inputs.contains(&Input::Natural(number))
    }

    /// Whether a message goes to a handler that is idempotent by its own declaration.
    pub(super) fn is_natural(&self, id: MessageId) -> bool {
        self.inputs
            .iter()
            .any(|input| matches!(input, Input::Natural(_)) && Self::input_id(input.number()) == id)
    }

    /// Whether several messages with this id are sent, each with a token of its own.
    pub(super) fn is_sent_anew(&self, id: MessageId) -> bool {
        self.inputs.iter().any(|input| matches!(input, Input::Natural(_)))
            && Family::of(self).parent(id).is_some_and(|parent| self.is_natural_input(parent))
    }

    /// Guarantee 5.
    fn left_over(&self, scene: &Scene) -> Option<String> {
        let poison = self.inputs.iter().filter(|input| {
            matches!(input, Input::Token(_)) && self.script(input.number()).poison == Poison::Poisonous
        });
        // A poison message keeps its token.
        let mut tokens = poison.count();
        for (index, partition) in scene.partitions.iter().enumerate() {
            let name = self.partitions.get(index).map_or("senders", |key| key.as_str());
            let entries = partition.contents.entries.len();
            if entries > 0 && index < self.partitions.len() {
                return Some(format!(
                    "partition {name} has {entries} outbox entries left, and nothing moves any more"
                ));
            }
            if entries > tokens {
                return Some(format!("{entries} tokens are left, and nothing moves any more"));
            }
            if index == self.partitions.len() && entries < tokens {
                return Some("the token of a poison message is gone".to_owned());
            }
            tokens -= entries;
            let Some(control) = partition.contents.record() else { continue };
            // Without a sweep nobody tidies up after a process that died with its marks; nothing is lost by
            // that.
            if !control.pending.is_empty() && self.sweep == Sweep::Runs {
                return Some(format!("partition {name} has markers left, and nothing moves any more"));
            }
            if !control.registrations.is_empty() {
                return Some(format!("partition {name} has registrations left, and nothing moves any more"));
            }
        }
        if let Some(message) = scene.broker.available.keys().next() {
            return Some(format!("the broker has a message left that nobody takes: {message:?}"));
        }
        let named = scene
            .partitions
            .iter()
            .filter(|partition| partition.contents.items.contains_key(&blob_item()))
            .count();
        if scene.outside.blobs.len() > named {
            let blobs = scene.outside.blobs.len();
            return Some(format!("{blobs} blobs are there, and the state names {named}"));
        }
        None
    }

    /// Guarantee 2 for outsiders.
    fn not_sent(&self, scene: &Scene) -> Option<String> {
        let missing = Family::of(self)
            .external
            .into_iter()
            .find(|(id, parent)| Self::applied(scene, *parent) > 0 && !scene.outside.external.contains(id));
        missing.map(|(_, parent)| format!("a message to outsiders is lost: message {parent} has sent it"))
    }

    /// Whether handlers of this world create something outside the store.
    pub(super) fn has_blobs(&self) -> bool {
        self.scripts.iter().any(|script| script.blob != Blob::None)
    }

    /// What a reader wants to know of a scene, one fact after the other.
    pub(super) fn facts(&self, scene: &Scene) -> Vec<String> {
        let mut facts = Vec::new();
        for (index, partition) in scene.partitions.iter().enumerate() {
            let name = self.partitions.get(index).map_or("senders", |key| key.as_str());
            let applied: Vec<String> = (0_u8..)
                .take(self.scripts.len())
                .filter_map(|number| {
                    let counts = partition.contents.items.get(&Self::applied_item())?;
                    let count = counts.bytes()[usize::from(number)];
                    (count > 0).then(|| format!("message {number} applied {count}x"))
                })
                .collect();
            let control = partition.contents.record();
            let version = control.as_ref().map_or(0, |control| control.version.sequence().counter);
            if index < self.partitions.len() {
                facts.push(format!("{name} at version {version}"));
                facts.push(format!(
                    "{name}: {}",
                    if applied.is_empty() { "nothing applied".to_owned() } else { applied.join(", ") }
                ));
                let pending = control.as_ref().map_or(0, |control| control.pending.len());
                facts.push(format!("{name}: {pending} markers"));
                let registrations = control.as_ref().map_or(0, |control| control.registrations.len());
                facts.push(format!("{name}: {registrations} registrations"));
            }
            facts.push(format!("{name}: {} outbox entries", partition.contents.entries.len()));
        }
        let count = |copies: &std::collections::BTreeMap<bytes::Bytes, u8>| {
            copies.values().map(|copies| u64::from(*copies)).sum::<u64>()
        };
        facts.push(format!("broker: {} copies waiting", count(&scene.broker.available)));
        facts.push(format!("broker: {} dead letters", count(&scene.broker.dead)));
        facts.push(format!("outsiders: {} messages", scene.outside.external.len()));
        if self.has_blobs() {
            facts.push(format!(
                "blobs: {}",
                scene.outside.blobs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
            ));
            if !scene.outside.executed.is_empty() {
                facts.push(format!("calls executed: {}", scene.outside.executed.len()));
            }
            facts.push(format!("clock: {} ms", scene.outside.clock_ms));
        }
        for (number, request) in &scene.outside.requests {
            if request.answer.is_some() {
                facts.push(format!("client: request {number} answered"));
            }
        }
        facts
    }
}

/// The facts of `after` that `before` did not have.
pub(super) fn news(world: &World, before: &Scene, after: &Scene) -> Vec<String> {
    let old = world.facts(before);
    let mut news: Vec<String> = world.facts(after).into_iter().filter(|fact| !old.contains(fact)).collect();
    for (index, (was, is)) in before.processes.iter().zip(&after.processes).enumerate() {
        let views = |process: &Arc<super::scene::Process>| -> Vec<bool> {
            process.lanes.iter().map(|lane| lane.view.is_some()).collect()
        };
        if views(was) != views(is) {
            let cached = views(is).into_iter().filter(|has| *has).count();
            news.push(format!("process {} has {cached} partitions cached", index + 1));
        }
    }
    news
}
