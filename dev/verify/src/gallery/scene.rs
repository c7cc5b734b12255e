//! All that there is at one moment: documents and records in the store, messages in the broker, workers. Only data: what
//! moves it is in [`super::world`], what a worker may do with it in [`super::desk`].

use std::collections::{BTreeMap, BTreeSet};

use super::entity::{Entity, Guest, Message, Name, Place, Subject};

/// One state of a world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scene<Document, Record, Work, Memory> {
    /// The documents, by their partition.
    pub documents: BTreeMap<Place, Stored<Document>>,
    /// Everything else that is stored.
    pub records: BTreeSet<Record>,
    /// Every message that was ever sent, with the copies that wait: a copy may come at any time later.
    pub queue: BTreeMap<Message, u8>,
    /// Each is a process of its own.
    pub workers: Vec<Worker<Document, Work, Memory>>,
    /// How many of the world's requests were sent.
    pub requests_sent: u8,
    /// How many names were given for each guest's messages: fewer states than with one count for all.
    pub names_given: BTreeMap<Guest, u8>,
    /// How many more copies the broker may make by itself.
    pub duplicates_left: u8,
    /// How many more processes may crash.
    pub crashes_left: u8,
}

/// A document: the business, and what the technique keeps with it. Written at once or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stored<Document> {
    /// The business.
    pub(super) entity: Entity,
    /// The technique's.
    pub document: Document,
}

/// A process with one thread.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Worker<Document, Work, Memory> {
    /// What it remembers.
    pub memory: Memory,
    /// What it is doing.
    pub job: Option<Job<Document, Work>>,
}

/// What a worker is doing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Job<Document, Work> {
    /// What for.
    pub errand: Errand,
    /// The document as it was loaded.
    pub snapshot: Option<Snapshot<Document>>,
    /// The next step.
    pub work: Work,
}

/// Why a worker works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Errand {
    /// It has taken a message.
    Message(Message),
    /// It looks after a partition.
    Visit(Place),
}

/// A document as it was loaded.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Snapshot<Document> {
    pub(super) stored: Stored<Document>,
    pub(super) version: Version,
}

/// What the store would say to a write under the version that was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// Nobody has written since.
    Current,
    /// Somebody has.
    Outdated,
}

impl<Document, Work, Memory: Default + PartialEq> Worker<Document, Work, Memory> {
    /// A process that has just started.
    pub fn new() -> Self {
        Self { memory: Memory::default(), job: None }
    }

    /// Whether a crash would make a difference.
    pub fn has_something_to_lose(&self) -> bool {
        self.job.is_some() || self.memory != Memory::default()
    }
}

impl<Document, Work, Memory: Default + PartialEq> Default for Worker<Document, Work, Memory> {
    fn default() -> Self {
        Self::new()
    }
}

impl<Document, Record, Work, Memory> Scene<Document, Record, Work, Memory> {
    /// A name that nobody has used before.
    pub fn new_name(&mut self, subject: Subject) -> Name {
        let guest = subject.guest();
        let given = self.names_given.entry(guest).or_default();
        *given += 1;
        Name { guest, number: *given }
    }
}

impl Errand {
    /// The partition that is worked on.
    pub const fn place(self) -> Place {
        match self {
            Self::Message(message) => message.subject.place(),
            Self::Visit(place) => place,
        }
    }
}
