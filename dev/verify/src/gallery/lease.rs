//! A lease: whoever processes a message first creates a record that says so, and makes it say "done" in the end. A record
//! "in progress" expires, because its owner may have died. Whether it has died or is only slow, nobody can know.

use super::desk::{Change, Desk, Written};
use super::entity::{Message, Subject};
use super::scene::Scene;
use super::technique::{SceneOf, Technique, Turn};
use super::world::World;

/// A lease that expires.
pub struct Lease;

/// What is known of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Record {
    /// Somebody processes it, or did when they were heard of last.
    InProgress(Subject),
    /// It was processed, and everything was sent.
    Done(Subject),
}

/// Where a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// It takes the lease, if nobody has it and the message was not processed.
    Acquire,
    /// Somebody else has the lease: later, perhaps.
    PutBack,
    /// It reads the document.
    Load,
    /// It runs the handler and writes.
    Commit,
    /// It sends what the handler wants sent.
    Send(Message),
    /// It makes the record say "done".
    Complete,
    /// It is done.
    Acknowledge,
}

impl Record {
    const fn subject(self) -> Subject {
        match self {
            Self::InProgress(subject) | Self::Done(subject) => subject,
        }
    }
}

impl Technique for Lease {
    type Document = ();
    type Record = Record;
    type Work = Work;
    type Memory = ();

    fn world(&self) -> World {
        World::reservations()
    }

    fn begin(&self) -> Work {
        Work::Acquire
    }

    fn step(&self, work: Work, desk: &mut Desk<'_, Self>) -> Turn<Work> {
        let subject = desk.message().subject;
        Turn::Next(match work {
            Work::Acquire => {
                let lease = Record::InProgress(subject);
                match desk.create(lease, "a lease of the message") {
                    None => Work::Load,
                    Some(Record::InProgress(_)) => Work::PutBack,
                    Some(Record::Done(_)) => Work::Acknowledge,
                }
            }
            Work::PutBack => return Turn::PutBack,
            Work::Load => {
                desk.load();
                Work::Commit
            }
            Work::Commit => {
                let handled = desk.handle();
                match desk.commit(Change::of(handled), |()| ()) {
                    Written::Yes => {
                        desk.forget();
                        handled.output.map_or(Work::Complete, Work::Send)
                    }
                    Written::Conflict => Work::Load,
                }
            }
            Work::Send(message) => {
                desk.send(message);
                Work::Complete
            }
            Work::Complete => {
                desk.replace(&Record::InProgress(subject), Record::Done(subject), "it was done");
                Work::Acknowledge
            }
            Work::Acknowledge => return Turn::Done,
        })
    }

    fn kept(&self, (): &()) -> usize {
        0
    }

    fn have_same_key(&self, one: &Record, other: &Record) -> bool {
        one.subject() == other.subject()
    }

    fn age(&self, scene: &mut SceneOf<Self>) {
        let Scene { records, .. } = scene;
        records.retain(|record| matches!(record, Record::Done(_)));
    }
}
