//! Outbox outside the document: the outgoing messages are stored first, in a record under a transaction's name, and the commit
//! of the entity puts no more than that name into its document. Whoever finds a name there finishes the transaction
//! before anything else. The ids of processed messages are records of their own. So the document does not grow.

use super::desk::{Change, Desk, Written};
use super::entity::{Handled, Message, Name, Subject};
use super::technique::{Technique, Turn};
use super::world::World;

/// Outbox outside the document.
pub struct OutboxByTransaction;

/// What is stored besides the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Record {
    /// What a transaction wants sent.
    Outbox(Outbox),
    /// A message that was processed and whose outputs were sent.
    Processed(Subject),
}

/// What a transaction wants sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Outbox {
    transaction: Name,
    /// The message that was handled.
    of: Subject,
    output: Option<Message>,
}

/// Where a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// It reads the document, and with it the name of an unfinished transaction.
    Load,
    /// It reads what somebody's unfinished transaction wants sent.
    ReadOutbox(Name),
    /// It looks the message up.
    LookUp,
    /// It runs the handler and stores what it wants sent.
    Store,
    /// It writes the document.
    Commit(Name, Handled),
    /// It sends what the transaction wants sent.
    Send(Outbox, Message),
    /// It stores the id of the transaction's message.
    Remember(Outbox),
    /// It deletes what was sent.
    Delete(Outbox),
    /// It takes the transaction's name out of the document, once all that this message wanted sent is out, or some other.
    Clear(Option<Subject>),
    /// It is done.
    Acknowledge,
}

impl Technique for OutboxByTransaction {
    /// The transaction that was committed last, if it is not finished.
    type Document = Option<Name>;
    type Record = Record;
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
            Work::Load => desk.load().map_or(Work::LookUp, Work::ReadOutbox),
            Work::ReadOutbox(name) => {
                let found = desk.find(
                    format_args!("what unfinished transaction {name} wants sent"),
                    |record| matches!(record, Record::Outbox(outbox) if outbox.transaction == name),
                );
                match found.first() {
                    Some(Record::Outbox(outbox)) => outbox.finish(),
                    // Everything was done but for the name in the document.
                    _ => Work::Clear(None),
                }
            }
            Work::LookUp => {
                if desk.has(&Record::Processed(subject), "the message's id") {
                    Work::Acknowledge
                } else {
                    Work::Store
                }
            }
            Work::Store => {
                let (handled, transaction) = (desk.handle(), desk.new_name());
                let outbox = Outbox { transaction, of: subject, output: handled.output };
                let what = format_args!("the outbox record of transaction {transaction}");
                desk.create(Record::Outbox(outbox), what);
                Work::Commit(transaction, handled)
            }
            Work::Commit(transaction, handled) => {
                match desk.commit(Change::of(handled), |last| *last = Some(transaction)) {
                    Written::Yes => Outbox { transaction, of: subject, output: handled.output }.finish(),
                    Written::Conflict => Work::Load,
                }
            }
            Work::Send(outbox, message) => {
                desk.send(message);
                Work::Remember(outbox)
            }
            Work::Remember(outbox) => {
                let of = outbox.of;
                desk.create(Record::Processed(of), format_args!("a record that \"{of}\" was processed"));
                Work::Delete(outbox)
            }
            Work::Delete(outbox) => {
                desk.delete(&Record::Outbox(outbox), "the outbox record");
                Work::Clear(Some(outbox.of))
            }
            Work::Clear(of) => match desk.commit(Change::none(), |last| *last = None) {
                Written::Yes if of == Some(subject) => Work::Acknowledge,
                // On the next look at the document there is no such transaction, and the ids tell whose it was.
                Written::Yes | Written::Conflict => Work::Load,
            },
            Work::Acknowledge => return Turn::Done,
        })
    }

    fn kept(&self, transaction: &Self::Document) -> usize {
        usize::from(transaction.is_some())
    }
}

impl Outbox {
    /// The first step of finishing a transaction that was committed.
    fn finish(self) -> Work {
        self.output.map_or(Work::Remember(self), |message| Work::Send(self, message))
    }
}
