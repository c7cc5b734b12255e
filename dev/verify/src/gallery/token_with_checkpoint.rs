//! Tokens as published: each attempt creates tokens under names of its own, and a checkpoint, a second write of the document,
//! decides which attempt's tokens the messages carry. After it nobody creates tokens for them again.

use std::collections::BTreeMap;

use super::desk::{Change, Desk, Written};
use super::entity::{Message, Name, Subject};
use super::technique::{Technique, Turn};
use super::world::World;

/// Tokens with a checkpoint.
pub struct TokenWithCheckpoint;

/// The right to process a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(Name);

/// Where a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// It reads the document.
    Load,
    /// It looks for the token.
    Check,
    /// It runs the handler and writes.
    Commit,
    /// It creates a token of its own for the outgoing message.
    CreateToken(Message),
    /// It writes down which token the outgoing message carries.
    Checkpoint(Message),
    /// It sends what the document holds.
    Send(Message),
    /// It deletes the token of its own message.
    Consume,
    /// It takes what was sent out of the document.
    Clear,
    /// It is done.
    Acknowledge,
}

impl Technique for TokenWithCheckpoint {
    /// Messages that were processed and not finished, with what they want sent: with a token once it is decided.
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
        let Message { subject, token, .. } = desk.message();
        let token = Token(token.expect("nobody sends a message without a token"));
        Turn::Next(match work {
            Work::Load => {
                desk.load();
                Work::Check
            }
            Work::Check => {
                if desk.has(&token, "the message's token") {
                    let known = desk.document().get(&subject);
                    known.map_or(Work::Commit, |to_send| to_send.map_or(Work::Consume, dispatch))
                } else {
                    Work::Acknowledge
                }
            }
            Work::Commit => {
                let handled = desk.handle();
                match desk.commit(Change::of(handled), |outbox| outbox.insert(subject, handled.output)) {
                    Written::Yes => handled.output.map_or(Work::Consume, dispatch),
                    Written::Conflict => Work::Load,
                }
            }
            Work::CreateToken(message) => {
                let name = desk.new_name();
                desk.create(Token(name), format_args!("token {name} for {message}"));
                Work::Checkpoint(message.with_token(name))
            }
            Work::Checkpoint(message) => {
                match desk.commit(Change::none(), |outbox| outbox.insert(subject, Some(message))) {
                    Written::Yes => Work::Send(message),
                    Written::Conflict => Work::Load,
                }
            }
            Work::Send(message) => {
                desk.send(message);
                Work::Consume
            }
            Work::Consume => {
                desk.delete(&token, "the token of its message");
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

    fn admit(&self, request: Message, name: Name) -> (Option<Token>, Message) {
        (Some(Token(name)), request.with_token(name))
    }
}

fn dispatch(message: Message) -> Work {
    if message.token.is_some() { Work::Send(message) } else { Work::CreateToken(message) }
}
