//! Nothing at all: at-least-once delivery, a commit, a message. The commit is conditional on the version, so that nothing is
//! overwritten; that does not help against a copy that comes later.

use super::desk::{Change, Desk, Written};
use super::entity::Message;
use super::technique::{Technique, Turn};
use super::world::World;

/// At-least-once delivery and nothing else.
pub struct AtLeastOnce;

/// Where a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// It reads the document.
    Load,
    /// It runs the handler and writes.
    Commit,
    /// It sends what the handler wants sent.
    Send(Message),
    /// It is done.
    Acknowledge,
}

impl Technique for AtLeastOnce {
    type Document = ();
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
        Turn::Next(match work {
            Work::Load => {
                desk.load();
                Work::Commit
            }
            Work::Commit => {
                let handled = desk.handle();
                match desk.commit(Change::of(handled), |()| ()) {
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

    fn kept(&self, (): &()) -> usize {
        0
    }
}
