//! The gallery: every way of deduplicating messages that people use, as a small machine of its own in the same small world.
//! [`search`](fn@crate::explorer::search) walks through every interleaving and prints the shortest story that breaks it, or
//! finds that it holds; the price is counted on the way. None of these machines is used by the engine, and what is shipped
//! is not examined here but by [`crate::explorer`].
//!
//! ```
//! use tollgate_verify::gallery::{Verdict, exhibits};
//!
//! let nothing = exhibits().iter().find(|exhibit| exhibit.name == "at-least-once").expect("it is on show");
//! let Verdict::Breaks(story) = nothing.examine().verdict else { panic!("a copy is processed twice") };
//! assert!(story.violation.starts_with("processed twice"));
//! ```

mod at_least_once;
mod desk;
mod entity;
mod examination;
mod ids_in_entity;
mod inbox_with_retention;
mod lease;
mod natural_idempotence;
mod outbox_by_transaction;
mod outbox_entry_as_token;
mod outbox_in_entity;
pub mod page;
mod registered_side_effects;
mod scene;
mod state_history;
mod technique;
mod token_with_checkpoint;
mod token_without_checkpoint;
mod world;

pub use examination::{Examination, Growth, Trips, Verdict};

use examination::examine;
use ids_in_entity::IdsInEntity;
use inbox_with_retention::InboxWithRetention;
use natural_idempotence::NaturalIdempotence;
use world::{GHOST, Handler, LOST, TWICE, UNTRUE};

/// One technique on show.
pub struct Exhibit {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it is, in one line.
    pub title: &'static str,
    /// What its examination must come to.
    pub expected: Expected,
    /// What it needs from the store, and from whoever writes the handler.
    pub needs: &'static str,
    examine: fn() -> Examination,
}

/// What an examination must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It holds.
    Holds,
    /// It breaks, and the violation begins like this.
    Breaks(&'static str),
}

impl Exhibit {
    /// Searches it and measures it. That takes up to some seconds.
    pub fn examine(&self) -> Examination {
        (self.examine)()
    }

    /// Whether an examination came to what it must come to.
    pub fn is_as_expected(&self, examination: &Examination) -> bool {
        match (&examination.verdict, self.expected) {
            (Verdict::Holds, Expected::Holds) => true,
            (Verdict::Breaks(story), Expected::Breaks(how)) => story.violation.starts_with(how),
            _ => false,
        }
    }
}

/// All of them, in the order in which they are best read.
pub const fn exhibits() -> &'static [Exhibit] {
    &EXHIBITS
}

static EXHIBITS: [Exhibit; 18] = [
    Exhibit {
        name: "at-least-once",
        title: "Nothing: at-least-once delivery",
        expected: Expected::Breaks(TWICE),
        needs: "a conditional write of one document",
        examine: || examine(&at_least_once::AtLeastOnce),
    },
    Exhibit {
        name: "lease",
        title: "A lease on the message, which expires",
        expected: Expected::Breaks(TWICE),
        needs: "a conditional write of one document; a conditional create; records that expire",
        examine: || examine(&lease::Lease),
    },
    Exhibit {
        name: "natural-additions",
        title: "Natural idempotence: a set that only grows",
        expected: Expected::Holds,
        needs: "a conditional write of one document; operations that can be repeated and swapped",
        examine: || examine(&NaturalIdempotence::AdditionsOnly),
    },
    Exhibit {
        name: "natural-removals",
        title: "Natural idempotence: a set with removals",
        expected: Expected::Breaks(TWICE),
        needs: "a conditional write of one document; messages in order, which no broker that redelivers gives",
        examine: || examine(&NaturalIdempotence::WithRemovals),
    },
    Exhibit {
        name: "state-history",
        title: "Immutable data: a history of states, outputs derived again",
        expected: Expected::Holds,
        needs: "a conditional append; a handler that is deterministic, now and after every deployment",
        examine: || examine(&state_history::StateHistory(Handler::Deterministic)),
    },
    Exhibit {
        name: "state-history-drawn",
        title: "The same, with a handler that is not deterministic",
        expected: Expected::Breaks(UNTRUE),
        needs: "a conditional append",
        examine: || examine(&state_history::StateHistory(Handler::Draws)),
    },
    Exhibit {
        name: "ids-in-entity",
        title: "Message ids kept in the entity; handlers send nothing",
        expected: Expected::Holds,
        needs: "a conditional write of one document that may grow without end",
        examine: || examine(&IdsInEntity::Silent),
    },
    Exhibit {
        name: "ids-send-after",
        title: "Message ids kept in the entity; handlers send after the commit",
        expected: Expected::Breaks(LOST),
        needs: "a conditional write of one document that may grow without end",
        examine: || examine(&IdsInEntity::SendsAfterCommit),
    },
    Exhibit {
        name: "ids-send-before",
        title: "Message ids kept in the entity; handlers send before the commit",
        expected: Expected::Breaks(GHOST),
        needs: "a conditional write of one document that may grow without end",
        examine: || examine(&IdsInEntity::SendsBeforeCommit),
    },
    Exhibit {
        name: "deterministic-ids",
        title: "Deterministic output ids without an outbox",
        expected: Expected::Breaks(UNTRUE),
        needs: "a conditional write of one document that may grow without end",
        examine: || examine(&IdsInEntity::SendsAgainUnderTheSameIds),
    },
    Exhibit {
        name: "outbox-in-entity",
        title: "Outbox in the entity",
        expected: Expected::Holds,
        needs: "a conditional write of one document that may grow without end",
        examine: || examine(&outbox_in_entity::OutboxInEntity),
    },
    Exhibit {
        name: "inbox-kept",
        title: "Inbox and outbox, ids kept for ever",
        expected: Expected::Holds,
        needs: "a transaction over the entity and the inbox; a unique key",
        examine: || examine(&InboxWithRetention::Endless),
    },
    Exhibit {
        name: "inbox-with-retention",
        title: "Inbox and outbox with a retention window",
        expected: Expected::Breaks(TWICE),
        needs: "a transaction over the entity and the inbox; a unique key; removal of old records",
        examine: || examine(&InboxWithRetention::Passing),
    },
    Exhibit {
        name: "outbox-by-transaction",
        title: "Outbox outside the document, one transaction id inside",
        expected: Expected::Holds,
        needs: "a conditional write of one document; consistent reads of records elsewhere",
        examine: || examine(&outbox_by_transaction::OutboxByTransaction),
    },
    Exhibit {
        name: "token-without-checkpoint",
        title: "Tokens without a checkpoint",
        expected: Expected::Breaks(TWICE),
        needs: "a conditional write of one document; consistent reads of records elsewhere",
        examine: || examine(&token_without_checkpoint::TokenWithoutCheckpoint),
    },
    Exhibit {
        name: "token-with-checkpoint",
        title: "Tokens with a checkpoint, as published",
        expected: Expected::Holds,
        needs: "a conditional write of one document; consistent reads of records elsewhere",
        examine: || examine(&token_with_checkpoint::TokenWithCheckpoint),
    },
    Exhibit {
        name: "registered-side-effects",
        title: "Register, prepare, commit, publish",
        expected: Expected::Holds,
        needs: "a transaction in one partition; consistent reads of records elsewhere",
        examine: || examine(&registered_side_effects::RegisteredSideEffects),
    },
    Exhibit {
        name: "tollgate",
        title: "Tollgate: the outbox entry is the token (a sketch)",
        expected: Expected::Holds,
        needs: "a transaction in one partition; consistent reads of entries in others",
        examine: || examine(&outbox_entry_as_token::OutboxEntryAsToken),
    },
];
