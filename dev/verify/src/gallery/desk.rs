//! All that a worker may do in one step: one call to the store or one to the broker, conditional on no more than the version of
//! one document. So no technique can cheat; and the calls are counted here, not claimed.

use std::fmt;

use super::entity::{Code, Entity, Handled, Message, Name, Place};
use super::scene::{Errand, Job, Snapshot, Version};
use super::technique::{SceneOf, Technique};
use super::world::{Handler, Outputs, World};

/// A worker's desk during one step.
pub struct Desk<'a, T: Technique> {
    technique: &'a T,
    world: &'a World,
    scene: &'a mut SceneOf<T>,
    worker: usize,
    errand: Errand,
    snapshot: Option<Snapshot<T::Document>>,
    code: Code,
    has_drawn: bool,
    call: Option<Call>,
    notes: Notes,
}

/// Where a step reached out of its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// To the store.
    Store,
    /// To the broker, with a message.
    Send,
    /// To the broker, about the message that was taken.
    Settle,
}

/// What the store says to a conditional write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Done.
    Yes,
    /// The condition does not hold; nothing was written.
    Conflict,
}

/// Whether anybody listens.
#[derive(Clone, Debug)]
pub(super) enum Notes {
    Silent,
    Told(Vec<String>),
}

/// What a step came to, besides the next state.
pub(super) struct Report {
    pub call: Option<Call>,
    pub has_drawn: bool,
    pub notes: Notes,
}

/// What is written together with a document, in the same partition.
#[derive(Clone, Debug)]
pub struct Change<Record> {
    /// What the handler wants.
    pub handled: Option<Handled>,
    /// Records that are created; if one exists, it is a conflict.
    pub created: Vec<Record>,
    /// Records that are deleted.
    pub deleted: Vec<Record>,
}

impl<Record> Change<Record> {
    /// What a handler wants, and no records.
    pub const fn of(handled: Handled) -> Self {
        Self { handled: Some(handled), created: Vec::new(), deleted: Vec::new() }
    }

    /// Nothing but the technique's own part of the document.
    pub const fn none() -> Self {
        Self { handled: None, created: Vec::new(), deleted: Vec::new() }
    }
}

impl<'a, T: Technique> Desk<'a, T> {
    pub(super) fn new(
        technique: &'a T,
        world: &'a World,
        scene: &'a mut SceneOf<T>,
        worker: usize,
        code: Code,
        notes: Notes,
    ) -> (Self, T::Work) {
        let job = scene.workers[worker].job.take().expect("only a worker with a job makes a step");
        let Job { errand, snapshot, work } = job;
        let desk = Self {
            technique,
            world,
            scene,
            worker,
            errand,
            snapshot,
            code,
            has_drawn: false,
            call: None,
            notes,
        };
        (desk, work)
    }

    /// Goes on with `work` at the next step.
    pub(super) fn keep(self, work: T::Work) -> Report {
        let job = Job { errand: self.errand, snapshot: self.snapshot, work };
        self.scene.workers[self.worker].job = Some(job);
        Report { call: self.call, has_drawn: self.has_drawn, notes: self.notes }
    }

    /// There is nothing to go on with.
    pub(super) fn clear(mut self, back: Option<Message>) -> Report {
        if let Some(message) = back {
            *self.scene.queue.entry(message).or_default() += 1;
        }
        if let Errand::Message(message) = self.errand {
            self.calls(Call::Settle);
            let what = if back.is_some() { "puts back" } else { "acknowledges" };
            self.tell(|| format!("{what} {message}"));
        }
        Report { call: self.call, has_drawn: self.has_drawn, notes: self.notes }
    }

    pub(super) const fn errand(&self) -> Errand {
        self.errand
    }

    /// The message that is being processed.
    ///
    /// # Panics
    /// On a visit, which has none.
    pub fn message(&self) -> Message {
        match self.errand {
            Errand::Message(message) => message,
            Errand::Visit(place) => panic!("a visit of {place} has no message"),
        }
    }

    /// Whether a message is being processed, and which.
    pub fn message_if_any(&self) -> Option<Message> {
        match self.errand {
            Errand::Message(message) => Some(message),
            Errand::Visit(_) => None,
        }
    }

    /// What this process remembers.
    pub fn memory(&mut self) -> &mut T::Memory {
        &mut self.scene.workers[self.worker].memory
    }

    /// A name that nobody has used before.
    pub fn new_name(&mut self) -> Name {
        let subject = self.message().subject;
        self.scene.new_name(subject)
    }

    /// Store: reads the document of the partition, consistently.
    pub fn load(&mut self) -> &T::Document {
        self.calls(Call::Store);
        let place = self.errand.place();
        self.tell(|| format!("loads {place}"));
        let stored = self.scene.documents[&place].clone();
        let snapshot = self.snapshot.insert(Snapshot { stored, version: Version::Current });
        &snapshot.stored.document
    }

    /// The document as it was loaded.
    ///
    /// # Panics
    /// If it was not.
    pub fn document(&self) -> &T::Document {
        &self.snapshot().stored.document
    }

    /// The state of the business as it was loaded, sealed.
    pub fn entity(&self) -> Entity {
        self.snapshot().stored.entity.clone()
    }

    /// Runs the handler on the state as it was loaded.
    pub fn handle(&mut self) -> Handled {
        let entity = self.entity();
        self.handle_on(&entity)
    }

    /// Runs the handler on an older state.
    pub fn handle_on(&mut self, entity: &Entity) -> Handled {
        let message = self.message();
        let code = match self.world.handler {
            Handler::Deterministic => Code::None,
            Handler::Draws => self.code,
        };
        let mut handled = entity.handle(message, code);
        if self.world.outputs == Outputs::None {
            handled.output = None;
        }
        self.has_drawn |= handled.output.is_some() && self.world.handler == Handler::Draws;
        handled
    }

    /// Store: writes the document that was loaded, with records of the same partition, all or nothing, on condition that
    /// nobody has written it since. After a conflict the snapshot is gone.
    ///
    /// # Panics
    /// If a record lies in another partition: no store of this world writes to two at once.
    pub fn commit<Unused>(
        &mut self,
        change: Change<T::Record>,
        edit: impl FnOnce(&mut T::Document) -> Unused,
    ) -> Written {
        self.calls(Call::Store);
        let place = self.errand.place();
        for record in change.created.iter().chain(&change.deleted) {
            assert_eq!(self.technique.place(record), place, "a commit stays in one partition");
        }
        let snapshot = self.snapshot.take().expect("a document is loaded before it is written");
        let is_taken = change.created.iter().any(|record| self.holder(record).is_some());
        if snapshot.version == Version::Outdated || is_taken {
            let why = if is_taken { "its id is there already" } else { "somebody has written it since" };
            self.tell(|| format!("tries to write {place}: conflict, {why}"));
            return Written::Conflict;
        }
        let stored = self.scene.documents.get_mut(&place).expect("it was loaded");
        edit(&mut stored.document);
        if let Some(handled) = &change.handled {
            stored.entity.apply(handled);
        }
        let stored = stored.clone();
        for worker in &mut self.scene.workers {
            if let Some(job) = &mut worker.job
                && job.errand.place() == place
                && let Some(snapshot) = &mut job.snapshot
            {
                snapshot.version = Version::Outdated;
            }
        }
        self.scene.records.extend(change.created);
        for record in &change.deleted {
            self.scene.records.remove(record);
        }
        self.snapshot = Some(Snapshot { stored, version: Version::Current });
        let effect = change.handled.and_then(|handled| handled.effect);
        self.tell(|| match effect {
            Some(effect) => format!("commits {place}: {effect}"),
            None if change.handled.is_some() => format!("commits {place}: nothing changes"),
            None => format!("writes {place}"),
        });
        Written::Yes
    }

    /// The document as it was loaded is no longer needed.
    pub fn forget(&mut self) {
        self.snapshot = None;
    }

    /// Store: whether a record exists.
    pub fn has(&mut self, record: &T::Record, what: impl fmt::Display) -> bool {
        self.calls(Call::Store);
        let is_there = self.scene.records.contains(record);
        self.tell(|| format!("looks for {what}: {}", if is_there { "it is there" } else { "there is none" }));
        is_there
    }

    /// Store: the records of one partition that fulfil a condition.
    pub fn find(
        &mut self,
        what: impl fmt::Display,
        mut is_wanted: impl FnMut(&T::Record) -> bool,
    ) -> Vec<T::Record> {
        self.calls(Call::Store);
        let found: Vec<_> = self.scene.records.iter().filter(|record| is_wanted(record)).cloned().collect();
        self.tell(|| format!("looks for {what}: {} found", found.len()));
        found
    }

    /// Store: creates a record, unless one of the same key exists: then that one is the answer.
    pub fn create(&mut self, record: T::Record, what: impl fmt::Display) -> Option<T::Record> {
        self.calls(Call::Store);
        let holder = self.holder(&record);
        if holder.is_none() {
            self.scene.records.insert(record);
        }
        self.tell(|| match &holder {
            None => format!("creates {what}"),
            Some(holder) => format!("can't create {what}, because there is {holder:?}"),
        });
        holder
    }

    /// Store: deletes a record, if it exists.
    pub fn delete(&mut self, record: &T::Record, what: impl fmt::Display) {
        self.calls(Call::Store);
        let was_there = self.scene.records.remove(record);
        let which = if was_there { "" } else { ", which is gone already" };
        self.tell(|| format!("deletes {what}{which}"));
    }

    /// Store: puts one record in another's place.
    pub fn replace(&mut self, old: &T::Record, new: T::Record, what: impl fmt::Display) {
        self.calls(Call::Store);
        self.scene.records.remove(old);
        self.scene.records.insert(new);
        self.tell(|| format!("writes that {what}"));
    }

    /// Broker: sends a message.
    pub fn send(&mut self, message: Message) {
        self.calls(Call::Send);
        *self.scene.queue.entry(message).or_default() += 1;
        self.tell(|| format!("sends {message}"));
    }

    fn snapshot(&self) -> &Snapshot<T::Document> {
        self.snapshot.as_ref().expect("a document is loaded before it is looked at")
    }

    fn holder(&self, record: &T::Record) -> Option<T::Record> {
        self.scene.records.iter().find(|other| self.technique.have_same_key(record, other)).cloned()
    }

    fn calls(&mut self, call: Call) {
        let before = self.call.replace(call);
        assert_eq!(before, None, "a step makes one call, so that there can be a crash between any two");
    }

    fn tell(&mut self, note: impl FnOnce() -> String) {
        if let Notes::Told(notes) = &mut self.notes {
            notes.push(note());
        }
    }
}

impl Place {
    /// The partitions that have a document.
    pub(super) const WITH_DOCUMENT: [Self; 3] = [Self::Seats, Self::Invoices, Self::List];
}

#[cfg(test)]
mod tests {
    use super::super::technique::Turn;
    use super::super::world::Trial;
    use super::*;
    use crate::explorer::Model;

    /// A technique that asks for more than there is.
    enum Cheat {
        LoadsAndCommitsInOneStep,
        CommitsIntoTwoPartitions,
    }

    impl Technique for Cheat {
        type Document = ();
        type Record = ();
        type Work = Next;
        type Memory = ();

        fn world(&self) -> World {
            World::reservations().undisturbed()
        }

        fn begin(&self) -> Next {
            Next::Load
        }

        fn step(&self, work: Next, desk: &mut Desk<'_, Self>) -> Turn<Next> {
            match (work, self) {
                (Next::Load, Self::LoadsAndCommitsInOneStep) => {
                    desk.load();
                    desk.commit(Change::none(), |()| ());
                }
                (Next::Load, Self::CommitsIntoTwoPartitions) => {
                    desk.load();
                }
                (Next::Commit, _) => {
                    desk.commit(Change { created: vec![()], ..Change::none() }, |()| ());
                }
            }
            Turn::Next(Next::Commit)
        }

        fn kept(&self, (): &()) -> usize {
            0
        }
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
    enum Next {
        Load,
        Commit,
    }

    fn walk(technique: &Cheat) {
        let trial = Trial::new(technique, technique.world());
        let mut scene = trial.initial();
        for _ in 0..3 {
            let mut found = Vec::new();
            trial.successors(&scene, &mut found);
            scene = found.swap_remove(0).next;
        }
    }

    #[test]
    #[should_panic(expected = "a step makes one call")]
    fn a_technique_that_makes_two_calls_in_one_step_is_refused() {
        walk(&Cheat::LoadsAndCommitsInOneStep);
    }

    #[test]
    #[should_panic(expected = "a commit stays in one partition")]
    fn a_technique_that_commits_into_two_partitions_is_refused() {
        walk(&Cheat::CommitsIntoTwoPartitions);
    }
}
