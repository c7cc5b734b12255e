//! Outbox in the entity: the document keeps the id of every message that was processed, and with it the messages that are to
//! be sent, until they are. Ids are never dropped, because nobody can say when the last copy has come.

use std::collections::BTreeMap;

use super::desk::{Change, Desk, Written};
use super::entity::{Message, Subject};
use super::technique::{Technique, Turn};
use super::world::World;

/// Outbox in the entity.
pub struct OutboxInEntity;

/// What a document knows of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Known {
    /// It was processed; this is to be sent.
    ToSend(Message),
    /// It was processed, and everything was sent.
    Sent,
}

/// Where a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// It reads the document.
    Load,
    /// It runs the handler and writes.
    Commit,
    /// It sends what the document holds.
    Send(Message),
    /// It takes what was sent out of the document.
    Clear,
    /// It is done.
    Acknowledge,
}

impl Technique for OutboxInEntity {
    type Document = BTreeMap<Subject, Known>;
    type Record = ();
    type Work = Work;
    type Memory = ();

    fn world(&self) -> World {
        World::reservations()
    }

    fn begin(&self) -> Work {
        Work::Load
    }

    fn step(&self, work: Work, desk: &mut Desk<'_, Self>) -> Turn<Work> {
        let subject = desk.message().subject;
        Turn::Next(match work {
            Work::Load => match desk.load().get(&subject) {
                Some(Known::ToSend(message)) => Work::Send(*message),
                Some(Known::Sent) => Work::Acknowledge,
                None => Work::Commit,
            },
            Work::Commit => {
                let handled = desk.handle();
                let known = handled.output.map_or(Known::Sent, Known::ToSend);
                match desk.commit(Change::of(handled), |outbox| outbox.insert(subject, known)) {
                    Written::Yes => handled.output.map_or(Work::Acknowledge, Work::Send),
                    Written::Conflict => Work::Load,
                }
            }
            Work::Send(message) => {
                desk.send(message);
                Work::Clear
            }
            Work::Clear => match desk.commit(Change::none(), |outbox| outbox.insert(subject, Known::Sent)) {
                Written::Yes => Work::Acknowledge,
                Written::Conflict => Work::Load,
            },
            Work::Acknowledge => return Turn::Done,
        })
    }

    fn kept(&self, outbox: &Self::Document) -> usize {
        outbox.len()
    }
}
