//! The contenders, each in a file of its own, and the list of them.

pub mod inbox_in_entity;
pub mod lease;
pub mod naive;
pub mod outbox;
pub mod outbox_document;
pub mod published_token;
pub mod registered;
pub mod state_history;
pub mod tollgate;

use super::contender::Contender;
use super::rival::OnTable;

/// All of them, rivals first.
pub fn all() -> Vec<Box<dyn Contender>> {
    vec![
        Box::new(OnTable::<naive::Naive>::new()),
        Box::new(OnTable::<lease::Lease>::new()),
        Box::new(OnTable::<outbox::Outbox>::new()),
        Box::new(OnTable::<outbox_document::OutboxDocument>::new()),
        Box::new(OnTable::<inbox_in_entity::InboxInEntity>::new()),
        Box::new(OnTable::<state_history::StateHistory>::new()),
        Box::new(OnTable::<published_token::PublishedToken>::new()),
        Box::new(OnTable::<registered::Registered>::new()),
        Box::new(tollgate::IDENTITY),
        Box::new(tollgate::COLD),
        Box::new(tollgate::UNFOLDED),
        Box::new(tollgate::FORGETFUL),
        Box::new(tollgate::TOKEN),
    ]
}

/// Those with these names, in this order. `Err`: the name that nobody has.
///
/// # Errors
/// If a name is unknown.
pub fn named(names: &[&str]) -> Result<Vec<Box<dyn Contender>>, String> {
    names
        .iter()
        .map(|name| {
            let found = all().into_iter().find(|contender| contender.name() == *name);
            found.ok_or_else(|| (*name).to_owned())
        })
        .collect()
}

/// The title of the contender with this name, or the name if nobody has it any more.
pub fn title(name: &str) -> String {
    let found = all().into_iter().find(|contender| contender.name() == name);
    found.map_or_else(|| name.to_owned(), |contender| contender.title().to_owned())
}
