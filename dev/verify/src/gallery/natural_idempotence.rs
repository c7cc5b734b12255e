//! Natural idempotence: the data structure takes care of duplicates, as a set does. Adding twice is adding once, unless
//! something came between. Nothing is stored for the sake of deduplication.

use super::desk::{Change, Desk, Written};
use super::entity::{Guest, Subject};
use super::technique::{Technique, Turn};
use super::world::{Arrival, Handler, Outputs, World};

/// A set, with additions alone or with removals too.
pub enum NaturalIdempotence {
    /// The set only grows.
    AdditionsOnly,
    /// A guest is added, and later removed.
    WithRemovals,
}

/// Where a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// It reads the document.
    Load,
    /// It adds or removes, and writes.
    Commit,
    /// It is done.
    Acknowledge,
}

impl Technique for NaturalIdempotence {
    type Document = ();
    type Record = ();
    type Work = Work;
    type Memory = ();

    fn world(&self) -> World {
        let (second, arrival) = match self {
            Self::AdditionsOnly => (Subject::Join(Guest::Bob), Arrival::AtOnce),
            Self::WithRemovals => (Subject::Leave(Guest::Ada), Arrival::InTurn),
        };
        World {
            requests: vec![Subject::Join(Guest::Ada), second],
            arrival,
            outputs: Outputs::None,
            handler: Handler::Deterministic,
            ..World::reservations()
        }
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
                        Work::Acknowledge
                    }
                    Written::Conflict => Work::Load,
                }
            }
            Work::Acknowledge => return Turn::Done,
        })
    }

    fn kept(&self, (): &()) -> usize {
        0
    }
}
