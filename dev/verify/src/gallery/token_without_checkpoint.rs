//! Tokens, first draft: a message may be processed if its token exists, and processing deletes it. Tokens for outgoing messages
//! are created between the commit and the sending. A second attempt to send does not know that the first has created them.

use std::collections::BTreeMap;

use super::desk::{Change, Desk, Written};
use super::entity::{Message, Name, Subject};
use super::technique::{Technique, Turn};
use super::world::World;

/// Tokens without a checkpoint.
pub struct TokenWithoutCheckpoint;

/// The right to process a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(Subject);

/// Where a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// It reads the document.
    Load,
    /// It looks for the token.
    Check,
    /// It runs the handler and writes.
    Commit,
    /// It creates the token of the outgoing message.
    CreateToken(Message),
    /// It sends what the document holds.
    Send(Message),
    /// It deletes the token of its own message.
    Consume,
    /// It takes what was sent out of the document.
    Clear,
    /// It is done.
    Acknowledge,
}

impl Technique for TokenWithoutCheckpoint {
    /// Messages that were processed and not finished, with what they want sent.
    type Document = BTreeMap<Subject, Option<Message>>;
    type Record = Token;
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
            Work::Load => {
                desk.load();
                Work::Check
            }
            Work::Check => {
                if !desk.has(&Token(subject), "the message's token") {
                    Work::Acknowledge
                } else if let Some(to_send) = desk.document().get(&subject) {
                    to_send.map_or(Work::Consume, Work::CreateToken)
                } else {
                    Work::Commit
                }
            }
            Work::Commit => {
                let handled = desk.handle();
                match desk.commit(Change::of(handled), |outbox| outbox.insert(subject, handled.output)) {
                    Written::Yes => handled.output.map_or(Work::Consume, Work::CreateToken),
                    Written::Conflict => Work::Load,
                }
            }
            Work::CreateToken(message) => {
                desk.create(Token(message.subject), format_args!("a token for {message}"));
                Work::Send(message)
            }
            Work::Send(message) => {
                desk.send(message);
                Work::Consume
            }
            Work::Consume => {
                desk.delete(&Token(subject), "the token of its message");
                Work::Clear
            }
            Work::Clear => match desk.commit(Change::none(), |outbox| outbox.remove(&subject)) {
                Written::Yes => Work::Acknowledge,
                Written::Conflict => Work::Load,
            },
            Work::Acknowledge => return Turn::Done,
        })
    }

    fn kept(&self, outbox: &Self::Document) -> usize {
        outbox.len()
    }

    fn admit(&self, request: Message, _: Name) -> (Option<Token>, Message) {
        (Some(Token(request.subject)), request)
    }
}
