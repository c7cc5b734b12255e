//! Inbox with a retention window: as the outbox in the entity, but ids and outgoing messages are records of their own, written
//! in the entity's transaction, and ids whose messages were sent are dropped when they are old enough. What is old enough
//! is a bet on the broker, on operators who replay dead letters, and on the length of the next outage.

use super::desk::{Change, Desk, Written};
use super::entity::{Message, Place, Subject};
use super::scene::Scene;
use super::technique::{SceneOf, Technique, Turn};
use super::world::World;

/// An inbox, by its window.
pub enum InboxWithRetention {
    /// Ids are kept for ever.
    Endless,
    /// Ids are dropped after a while.
    Passing,
}

/// A record of the inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Inbox {
    /// The message that was processed.
    subject: Subject,
    /// What is to be sent still.
    to_send: Option<Message>,
}

/// Where a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// It looks the message up.
    LookUp,
    /// It reads the document.
    Load,
    /// It runs the handler and writes.
    Commit,
    /// It sends what the record holds.
    Send(Message),
    /// It writes that everything was sent.
    Mark(Message),
    /// It is done.
    Acknowledge,
}

impl Technique for InboxWithRetention {
    type Document = ();
    type Record = Inbox;
    type Work = Work;
    type Memory = ();

    fn world(&self) -> World {
        World::reservations()
    }

    fn begin(&self) -> Work {
        Work::LookUp
    }

    fn step(&self, work: Work, desk: &mut Desk<'_, Self>) -> Turn<Work> {
        let subject = desk.message().subject;
        Turn::Next(match work {
            Work::LookUp => {
                match desk.find("the message in the inbox", |record| record.subject == subject).first() {
                    None => Work::Load,
                    Some(Inbox { to_send: Some(message), .. }) => Work::Send(*message),
                    Some(Inbox { to_send: None, .. }) => Work::Acknowledge,
                }
            }
            Work::Load => {
                desk.load();
                Work::Commit
            }
            Work::Commit => {
                let handled = desk.handle();
                let created = vec![Inbox { subject, to_send: handled.output }];
                match desk.commit(Change { created, ..Change::of(handled) }, |()| ()) {
                    Written::Yes => {
                        desk.forget();
                        handled.output.map_or(Work::Acknowledge, Work::Send)
                    }
                    // Somebody else may have processed the message.
                    Written::Conflict => Work::LookUp,
                }
            }
            Work::Send(message) => {
                desk.send(message);
                Work::Mark(message)
            }
            Work::Mark(message) => {
                let to_send = Inbox { subject, to_send: Some(message) };
                desk.replace(&to_send, Inbox { subject, to_send: None }, "everything was sent");
                Work::Acknowledge
            }
            Work::Acknowledge => return Turn::Done,
        })
    }

    fn kept(&self, (): &()) -> usize {
        0
    }

    fn place(&self, record: &Inbox) -> Place {
        record.subject.place()
    }

    fn have_same_key(&self, one: &Inbox, other: &Inbox) -> bool {
        one.subject == other.subject
    }

    fn age(&self, scene: &mut SceneOf<Self>) {
        let Scene { records, .. } = scene;
        match self {
            Self::Endless => {}
            Self::Passing => records.retain(|record| record.to_send.is_some()),
        }
    }
}
