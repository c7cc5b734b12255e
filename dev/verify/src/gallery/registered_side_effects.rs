//! Register, prepare, commit, publish: tokens and other side effects are created before the commit, under names of the
//! attempt, and each is registered before it is created. The commit decides whose are published; what other attempts have
//! registered is deleted. An attempt that stalls in between can create something after that.

use std::collections::BTreeMap;

use super::desk::{Change, Desk, Written};
use super::entity::{Handled, Message, Name, Place, Subject};
use super::technique::{Technique, Turn};
use super::world::World;

/// Register, prepare, commit, publish.
pub struct RegisteredSideEffects;

/// What is stored besides the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Record {
    /// In the entity's partition: the attempt of this name at this message is going to create something.
    Registration(Subject, Name),
    /// What an attempt has created: the message it wants to send, and the right to process it.
    Prepared(Name),
}

/// Where a worker is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// It reads the document.
    Load,
    /// It looks for the token.
    Check,
    /// It runs the handler and registers what that wants to create.
    Register,
    /// It creates it.
    Prepare(Handled),
    /// It writes.
    Commit(Handled),
    /// It makes visible what the committed attempt has created.
    Publish(Message),
    /// It looks for registrations of other attempts at the message.
    FindOthers,
    /// It deletes what they have created.
    CleanUp { others: Vec<Record>, registrations: Vec<Record> },
    /// It deletes the token of its own message.
    Consume { registrations: Vec<Record> },
    /// It takes the attempt out of the document, and the registrations from beside it.
    Clear { registrations: Vec<Record> },
    /// It is done.
    Acknowledge,
}

impl Technique for RegisteredSideEffects {
    /// Messages that were processed and not finished, with what the committed attempt has created.
    type Document = BTreeMap<Subject, Option<Message>>;
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
        let Message { subject, token, .. } = desk.message();
        let token = Record::Prepared(token.expect("nobody sends a message without a token"));
        Turn::Next(match work {
            Work::Load => {
                desk.load();
                Work::Check
            }
            Work::Check => {
                if desk.has(&token, "the message's token") {
                    let known = desk.document().get(&subject);
                    known.map_or(Work::Register, |output| output.map_or(Work::FindOthers, Work::Publish))
                } else {
                    Work::Acknowledge
                }
            }
            Work::Register => {
                let mut handled = desk.handle();
                let Some(output) = &mut handled.output else { return Turn::Next(Work::Commit(handled)) };
                let name = desk.new_name();
                *output = output.with_token(name);
                desk.create(
                    Record::Registration(subject, name),
                    format_args!("a registration of attempt {name}"),
                );
                Work::Prepare(handled)
            }
            Work::Prepare(handled) => {
                let output = handled.output.expect("only what is to be sent is prepared");
                let name = output.token.expect("it was named when it was registered");
                desk.create(Record::Prepared(name), format_args!("what attempt {name} will send"));
                Work::Commit(handled)
            }
            Work::Commit(handled) => {
                let output = handled.output;
                match desk.commit(Change::of(handled), |committed| committed.insert(subject, output)) {
                    Written::Yes => output.map_or(Work::FindOthers, Work::Publish),
                    Written::Conflict => Work::Load,
                }
            }
            Work::Publish(message) => {
                desk.send(message);
                Work::FindOthers
            }
            Work::FindOthers => {
                let is_of_message =
                    |record: &Record| matches!(record, Record::Registration(of, _) if *of == subject);
                let registrations = desk.find("registrations for the message", is_of_message);
                let committed = desk.document().get(&subject).copied().flatten();
                let winner = committed.and_then(|message| message.token);
                let others = registrations.iter().filter_map(|record| match record {
                    Record::Registration(_, name) if Some(*name) != winner => Some(Record::Prepared(*name)),
                    _ => None,
                });
                let others = others.collect();
                next_to_clean(others, registrations)
            }
            Work::CleanUp { mut others, registrations } => {
                let other = others.pop().expect("there is something to clean up");
                desk.delete(&other, "what another attempt has created");
                next_to_clean(others, registrations)
            }
            Work::Consume { registrations } => {
                desk.delete(&token, "the token of its message");
                Work::Clear { registrations }
            }
            Work::Clear { registrations } => {
                let change = Change { deleted: registrations, ..Change::none() };
                match desk.commit(change, |committed| committed.remove(&subject)) {
                    Written::Yes => Work::Acknowledge,
                    Written::Conflict => Work::Load,
                }
            }
            Work::Acknowledge => return Turn::Done,
        })
    }

    fn kept(&self, committed: &Self::Document) -> usize {
        committed.len()
    }

    fn place(&self, record: &Record) -> Place {
        match record {
            Record::Registration(subject, _) => subject.place(),
            Record::Prepared(_) => Place::Alone,
        }
    }

    fn admit(&self, request: Message, name: Name) -> (Option<Record>, Message) {
        (Some(Record::Prepared(name)), request.with_token(name))
    }
}

fn next_to_clean(others: Vec<Record>, registrations: Vec<Record>) -> Work {
    if others.is_empty() { Work::Consume { registrations } } else { Work::CleanUp { others, registrations } }
}
