//! Immutable data: every state of the entity is kept under the message that ended it. A duplicate finds the state that its
//! original saw, runs the handler on it again, and sends the same messages; it commits nothing.

use std::collections::BTreeMap;

use super::desk::{Change, Desk, Written};
use super::entity::{Entity, Message, Subject};
use super::technique::{Technique, Turn};
use super::world::{Handler, World};

/// A history of states, with handlers of either kind.
pub struct StateHistory(pub Handler);

/// Where a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// It reads the history.
    Load,
    /// It runs the handler and appends.
    Commit,
    /// It sends what the handler wants sent.
    Send(Message),
    /// It is done.
    Acknowledge,
}

impl Technique for StateHistory {
    /// The state that each message saw.
    type Document = BTreeMap<Subject, Entity>;
    type Record = ();
    type Work = Work;
    type Memory = ();

    fn world(&self) -> World {
        World { handler: self.0, ..World::reservations() }
    }

    fn begin(&self) -> Work {
        Work::Load
    }

    fn step(&self, work: Work, desk: &mut Desk<'_, Self>) -> Turn<Work> {
        let subject = desk.message().subject;
        Turn::Next(match work {
            Work::Load => match desk.load().get(&subject).cloned() {
                None => Work::Commit,
                Some(seen) => {
                    desk.forget();
                    desk.handle_on(&seen).output.map_or(Work::Acknowledge, Work::Send)
                }
            },
            Work::Commit => {
                let (seen, handled) = (desk.entity(), desk.handle());
                match desk.commit(Change::of(handled), |history| history.insert(subject, seen)) {
                    Written::Yes => {
                        desk.forget();
                        handled.output.map_or(Work::Acknowledge, Work::Send)
                    }
                    Written::Conflict => Work::Load,
                }
            }
            Work::Send(message) => {
                desk.send(message);
                Work::Acknowledge
            }
            Work::Acknowledge => return Turn::Done,
        })
    }

    fn kept(&self, history: &Self::Document) -> usize {
        history.len()
    }
}
