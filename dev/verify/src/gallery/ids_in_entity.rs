//! Message ids kept in the entity: a message whose id is there has been processed. What becomes of the messages that its
//! handler wanted to send is the question, and the answers people give to it are the variants here.

use std::collections::BTreeSet;

use super::desk::{Change, Desk, Written};
use super::entity::{Handled, Message, Subject};
use super::technique::{Technique, Turn};
use super::world::{Handler, Outputs, World};

/// Message ids kept in the entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdsInEntity {
    /// Handlers send nothing.
    Silent,
    /// They send after the commit; a duplicate sends nothing.
    SendsAfterCommit,
    /// They send while they run, before the commit.
    SendsBeforeCommit,
    /// They send after the commit; for a duplicate the handler runs again, on the state as it is then, and its messages have
    /// the same ids as before.
    SendsAgainUnderTheSameIds,
}

/// Where a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// It reads the document.
    Load,
    /// It runs the handler and sends.
    SendFirst,
    /// It runs the handler, unless it has run already, and writes.
    Commit(Option<Handled>),
    /// It sends what the handler wants sent.
    Send(Message),
    /// It is done.
    Acknowledge,
}

impl Technique for IdsInEntity {
    /// The ids of all messages that were processed.
    type Document = BTreeSet<Subject>;
    type Record = ();
    type Work = Work;
    type Memory = ();

    fn world(&self) -> World {
        match self {
            Self::Silent => World { outputs: Outputs::None, ..World::reservations() },
            // Even a handler that draws nothing gives another answer on another state.
            Self::SendsAgainUnderTheSameIds => {
                World { handler: Handler::Deterministic, ..World::reservations() }
            }
            Self::SendsAfterCommit | Self::SendsBeforeCommit => World::reservations(),
        }
    }

    fn begin(&self) -> Work {
        Work::Load
    }

    fn step(&self, work: Work, desk: &mut Desk<'_, Self>) -> Turn<Work> {
        let subject = desk.message().subject;
        Turn::Next(match work {
            Work::Load => match (desk.load().contains(&subject), self) {
                (false, Self::SendsBeforeCommit) => Work::SendFirst,
                (false, _) => Work::Commit(None),
                (true, Self::SendsAgainUnderTheSameIds) => {
                    desk.handle().output.map_or(Work::Acknowledge, Work::Send)
                }
                (true, _) => Work::Acknowledge,
            },
            Work::SendFirst => {
                let handled = desk.handle();
                if let Some(message) = handled.output {
                    desk.send(message);
                }
                Work::Commit(Some(handled))
            }
            Work::Commit(handled) => {
                let handled = handled.unwrap_or_else(|| desk.handle());
                match (desk.commit(Change::of(handled), |ids| ids.insert(subject)), self) {
                    (Written::Conflict, _) => Work::Load,
                    (Written::Yes, Self::SendsBeforeCommit) => Work::Acknowledge,
                    (Written::Yes, _) => {
                        desk.forget();
                        handled.output.map_or(Work::Acknowledge, Work::Send)
                    }
                }
            }
            Work::Send(message) => {
                desk.send(message);
                Work::Acknowledge
            }
            Work::Acknowledge => return Turn::Done,
        })
    }

    fn kept(&self, ids: &Self::Document) -> usize {
        ids.len()
    }
}
