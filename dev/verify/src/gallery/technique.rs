//! What a technique is: what it stores with an entity, what it stores elsewhere, and the steps of a worker between taking a
//! message and acknowledging it. Every technique of the gallery implements [`Technique`] in a file of its own; what there is
//! around it is in [`super::world`].

use std::fmt::Debug;
use std::hash::Hash;

use super::desk::Desk;
use super::entity::{Message, Name, Place};
use super::scene::Scene;
use super::world::World;

/// Something that can be part of a state.
pub trait Value: Clone + Debug + Eq + Ord + Hash {}

impl<T: Clone + Debug + Eq + Ord + Hash> Value for T {}

/// A way to process messages.
pub trait Technique: Sized {
    /// What it stores in an entity's document, next to the business.
    type Document: Value + Default;
    /// What it stores besides.
    type Record: Value;
    /// Where a worker is between two of its steps.
    type Work: Value;
    /// What a process remembers between two messages, until it crashes.
    type Memory: Value + Default;

    /// In which world it is tried.
    fn world(&self) -> World;

    /// The first step after a message was taken.
    fn begin(&self) -> Self::Work;

    /// One step: at most one call to the store or the broker, which is what a crash can come between.
    fn step(&self, work: Self::Work, desk: &mut Desk<'_, Self>) -> Turn<Self::Work>;

    /// How many entries it keeps in a document.
    fn kept(&self, document: &Self::Document) -> usize;

    /// In which partition a record lies.
    fn place(&self, _record: &Self::Record) -> Place {
        Place::Alone
    }

    /// Whether only one of two records can exist, because they have the same key.
    fn have_same_key(&self, one: &Self::Record, other: &Self::Record) -> bool {
        one == other
    }

    /// What whoever sends a first message stores before sending it, and the message that is then sent. `name` is not used
    /// elsewhere.
    fn admit(&self, request: Message, _name: Name) -> (Option<Self::Record>, Message) {
        (None, request)
    }

    /// What a worker with nothing else to do begins for the good of a partition, if there is anything to be done.
    fn visit(&self, _document: &Self::Document) -> Option<Self::Work> {
        None
    }

    /// Time passes: whatever has an age reaches it.
    fn age(&self, _scene: &mut SceneOf<Self>) {}
}

/// The states of the world in which a technique is tried.
pub type SceneOf<T> = Scene<
    <T as Technique>::Document,
    <T as Technique>::Record,
    <T as Technique>::Work,
    <T as Technique>::Memory,
>;

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn<Work> {
    /// The worker goes on.
    Next(Work),
    /// It has acknowledged its message, or its visit is over.
    Done,
    /// The message goes back to the queue.
    PutBack,
}
