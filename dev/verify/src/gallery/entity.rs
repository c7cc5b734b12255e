//! What the gallery's messages are about: guests who reserve seats and are invoiced for them, or join and leave a list. This
//! is the business, the same for all techniques; nothing that deduplicates may enter it.
//!
//! An [`Entity`] remembers every change that was made to it. That memory belongs to the checker: a technique can apply a
//! handler's result to an entity and cannot look into it.

use std::fmt;

/// Who wants something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Guest {
    /// The first.
    Ada,
    /// The second. He pays in cash: no message follows from his reservation.
    Bob,
    /// The third.
    Cyd,
    /// The fourth.
    Dan,
}

/// The logical message: all copies of it, and whatever other attempts made of it, have the same subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// A guest wants a seat: the next one is given away. Its handler's output depends on the state.
    Reserve(Guest),
    /// A guest has a seat: an invoice is written.
    Reserved(Guest),
    /// A guest joins the list: an addition to a set.
    Join(Guest),
    /// A guest leaves the list: a removal from a set.
    Leave(Guest),
}

/// A partition of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// Of whoever sends the first messages.
    Entrance,
    /// The entity that gives seats away.
    Seats,
    /// The entity that writes invoices.
    Invoices,
    /// The entity that is a set of guests.
    List,
    /// None of these: a record that has a partition of its own.
    Alone,
}

/// What a handler draws at random, reads off a clock or asks somebody else: another attempt may get another answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// Nothing: the handler is deterministic.
    None,
    /// One answer.
    X,
    /// The other.
    Y,
}

/// A name that nobody has used before: of a token, a transaction, an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// While which message was handled it was given.
    pub(super) guest: Guest,
    /// How many were given there before.
    pub(super) number: u8,
}

/// A message as the broker carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Message {
    /// Which one it is.
    pub subject: Subject,
    /// The seat that it tells of, counted from 1. 0: it tells of none.
    pub seat: u8,
    /// What its handler drew.
    pub code: Code,
    /// The token under which it may be processed, for techniques whose tokens have names of their own.
    pub token: Option<Name>,
}

/// One change of an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Effect {
    /// Which message made it.
    pub(super) subject: Subject,
    /// Which seat it is about.
    pub(super) seat: u8,
    /// What the attempt drew that made it.
    pub(super) code: Code,
}

/// The state of the business in one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Entity {
    /// The changes, in their order. The checker's: a technique does not see it.
    pub(super) effects: Vec<Effect>,
}

/// What an attempt wants: a change, and a message that tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handled {
    pub(super) effect: Option<Effect>,
    /// The message to be sent.
    pub output: Option<Message>,
}

impl Guest {
    /// Whether a message follows from a reservation.
    pub(super) fn is_invoiced(self) -> bool {
        self != Self::Bob
    }
}

impl Message {
    /// A first message, as it comes from outside.
    pub const fn request(subject: Subject) -> Self {
        Self { subject, seat: 0, code: Code::None, token: None }
    }

    /// The same message with the name of its token.
    #[must_use]
    pub const fn with_token(self, token: Name) -> Self {
        Self { token: Some(token), ..self }
    }
}

impl Subject {
    /// The partition that its handler changes.
    pub const fn place(self) -> Place {
        match self {
            Self::Reserve(_) => Place::Seats,
            Self::Reserved(_) => Place::Invoices,
            Self::Join(_) | Self::Leave(_) => Place::List,
        }
    }

    /// Whom it is about.
    pub const fn guest(self) -> Guest {
        match self {
            Self::Reserve(guest) | Self::Reserved(guest) | Self::Join(guest) | Self::Leave(guest) => guest,
        }
    }

    /// The partition of its sender.
    pub const fn sender(self) -> Place {
        match self {
            Self::Reserve(_) | Self::Join(_) | Self::Leave(_) => Place::Entrance,
            Self::Reserved(_) => Place::Seats,
        }
    }
}

impl Entity {
    /// Runs the handler of `message` on this state: what it would change and send. `code` is what it draws.
    pub(super) fn handle(&self, message: Message, code: Code) -> Handled {
        let subject = message.subject;
        match subject {
            Subject::Reserve(guest) => {
                let seat = u8::try_from(self.effects.len() + 1).expect("a small world has few seats");
                let code = if guest.is_invoiced() { code } else { Code::None };
                let output = Message { subject: Subject::Reserved(guest), seat, code, token: None };
                Handled {
                    effect: Some(Effect { subject, seat, code }),
                    output: guest.is_invoiced().then_some(output),
                }
            }
            Subject::Reserved(_) => {
                let effect = Effect { subject, seat: message.seat, code: message.code };
                Handled { effect: Some(effect), output: None }
            }
            Subject::Join(guest) => self.set(guest, subject, Subject::Join(guest)),
            Subject::Leave(guest) => self.set(guest, subject, Subject::Leave(guest)),
        }
    }

    /// Adding what is there and removing what is not there changes nothing.
    fn set(&self, guest: Guest, subject: Subject, wanted: Subject) -> Handled {
        let is_about_guest = |effect: &&Effect| {
            effect.subject == Subject::Join(guest) || effect.subject == Subject::Leave(guest)
        };
        let last = self.effects.iter().rev().find(is_about_guest).map(|effect| effect.subject);
        let is_so_already = last.unwrap_or(Subject::Leave(guest)) == wanted;
        let effect = (!is_so_already).then_some(Effect { subject, seat: 0, code: Code::None });
        Handled { effect, output: None }
    }

    pub(super) fn apply(&mut self, handled: &Handled) {
        self.effects.extend(handled.effect);
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reserve(guest) => write!(f, "reserve for {guest:?}"),
            Self::Reserved(guest) => write!(f, "{guest:?} has a seat"),
            Self::Join(guest) => write!(f, "add {guest:?}"),
            Self::Leave(guest) => write!(f, "remove {guest:?}"),
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.subject {
            Subject::Reserved(guest) => {
                write!(f, "\"{guest:?} has seat {}{}\"", self.seat, self.code)?;
            }
            subject => write!(f, "\"{subject}\"")?,
        }
        self.token.map_or(Ok(()), |token| write!(f, " with token {token}"))
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seat, code) = (self.seat, self.code);
        match self.subject {
            Subject::Reserve(guest) => write!(f, "{guest:?} gets seat {seat}{code}"),
            Subject::Reserved(guest) => write!(f, "{guest:?} is invoiced for seat {seat}{code}"),
            Subject::Join(guest) => write!(f, "{guest:?} is added"),
            Subject::Leave(guest) => write!(f, "{guest:?} is removed"),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::X => f.write_str(", code X"),
            Self::Y => f.write_str(", code Y"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Entrance => "the entrance",
            Self::Seats => "seats",
            Self::Invoices => "invoices",
            Self::List => "the guest list",
            Self::Alone => "a partition of its own",
        })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}-{}", self.guest, self.number)
    }
}
