//! Tollgate, in small: the outgoing message that a commit stores in the sender's partition is at once outbox record and token.
//! This is a sketch for comparison, without folding, limits, lost answers, side effects and all the rest: the machine that is
//! shipped is explored as it is, by [`crate::explorer`].

use std::collections::{BTreeMap, BTreeSet};

use super::desk::{Change, Desk, Written};
use super::entity::{Message, Name, Place, Subject};
use super::technique::{Technique, Turn};
use super::world::World;

/// The outbox entry is the token.
pub struct OutboxEntryAsToken;

/// An outgoing message in its sender's partition: as long as it is there, it may be processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Entry(Subject);

/// Where a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// It reads the document.
    Load,
    /// It looks whether an outgoing message of somebody's unfinished one is still there.
    ReadEntry(Subject, Message),
    /// It sends that one.
    SendFor(Subject, Message),
    /// It consumes the token of somebody's unfinished message.
    ConsumeFor(Subject),
    /// It reads the token.
    Check,
    /// It runs the handler and writes.
    Commit,
    /// It sends what the commit has stored.
    Send(Message),
    /// It deletes the token of its own message.
    Consume,
    /// It removes the markers of finished messages, because nothing else is going on.
    Flush,
    /// It is done.
    Acknowledge,
}

impl Technique for OutboxEntryAsToken {
    /// Markers: messages that were committed and are not known to be finished, with what they send.
    type Document = BTreeMap<Subject, Option<Message>>;
    type Record = Entry;
    type Work = Work;
    /// Messages that are known to be finished.
    type Memory = BTreeSet<Subject>;

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
                return Self::go_on(desk);
            }
            Work::ReadEntry(subject, message) => {
                if desk.has(&Entry(message.subject), format_args!("the outbox entry of {message}")) {
                    Work::SendFor(subject, message)
                } else {
                    Work::ConsumeFor(subject)
                }
            }
            Work::SendFor(subject, message) => {
                desk.send(message);
                Work::ConsumeFor(subject)
            }
            Work::ConsumeFor(subject) => {
                desk.delete(&Entry(subject), format_args!("the token of \"{subject}\""));
                desk.memory().insert(subject);
                return Self::go_on(desk);
            }
            Work::Check => {
                if desk.has(&Entry(desk.message().subject), "the message's token") {
                    Work::Commit
                } else {
                    Work::Acknowledge
                }
            }
            Work::Commit => {
                let (subject, handled, finished) = (desk.message().subject, desk.handle(), finished(desk));
                let created = handled.output.map(|output| Entry(output.subject)).into_iter().collect();
                let written = desk.commit(Change { created, ..Change::of(handled) }, |pending| {
                    pending.retain(|known, _| !finished.contains(known));
                    pending.insert(subject, handled.output);
                });
                match written {
                    Written::Yes => {
                        forget(desk, &finished);
                        handled.output.map_or(Work::Consume, Work::Send)
                    }
                    Written::Conflict => Work::Load,
                }
            }
            Work::Send(message) => {
                desk.send(message);
                Work::Consume
            }
            Work::Consume => {
                let subject = desk.message().subject;
                desk.delete(&Entry(subject), "the token of its message");
                desk.memory().insert(subject);
                Work::Acknowledge
            }
            Work::Flush => {
                let finished = finished(desk);
                let written = desk.commit(Change::none(), |pending| {
                    pending.retain(|known, _| !finished.contains(known));
                });
                if written == Written::Yes {
                    forget(desk, &finished);
                }
                return Turn::Done;
            }
            Work::Acknowledge => return Turn::Done,
        })
    }

    fn kept(&self, pending: &Self::Document) -> usize {
        pending.len()
    }

    fn place(&self, entry: &Entry) -> Place {
        entry.0.sender()
    }

    fn admit(&self, request: Message, _: Name) -> (Option<Entry>, Message) {
        (Some(Entry(request.subject)), request)
    }

    fn visit(&self, pending: &Self::Document) -> Option<Work> {
        (!pending.is_empty()).then_some(Work::Load)
    }
}

impl OutboxEntryAsToken {
    /// After the document was loaded: whatever is pending there is completed first.
    fn go_on(desk: &mut Desk<'_, Self>) -> Turn<Work> {
        let finished = finished(desk);
        let unfinished = desk.document().iter().find(|(known, _)| !finished.contains(known));
        Turn::Next(match (unfinished, desk.message_if_any()) {
            (Some((subject, Some(message))), _) => Work::ReadEntry(*subject, *message),
            (Some((subject, None)), _) => Work::ConsumeFor(*subject),
            (None, None) => Work::Flush,
            (None, Some(message)) if finished.contains(&message.subject) => Work::Acknowledge,
            (None, Some(_)) => Work::Check,
        })
    }
}

/// Which pending messages of the document are finished.
fn finished(desk: &mut Desk<'_, OutboxEntryAsToken>) -> BTreeSet<Subject> {
    let pending: BTreeSet<Subject> = desk.document().keys().copied().collect();
    desk.memory().intersection(&pending).copied().collect()
}

/// What is not pending any more need not be remembered.
fn forget(desk: &mut Desk<'_, OutboxEntryAsToken>, finished: &BTreeSet<Subject>) {
    desk.memory().retain(|known| !finished.contains(known));
}
