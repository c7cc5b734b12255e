//! Reads of outbox entries, which are tokens: coalesced across partitions, each from the place that its index tells. An entry
//! for which the main item had no room is looked for apart.

use bytes::Bytes;
use tollgate_proto::{EntryRead, Placement, StoreError, TokenRef};

use crate::batch_reading::Place;
use crate::names::{self, ENTRY, Item, MAIN, SPILLED};
use crate::store::DynamoDbStore;

/// What one answer says of an entry.
enum Seen {
    /// It is there, or it is not.
    Said(Option<Bytes>),
    /// It may have been without room in the main item.
    MayLieApart,
}

impl DynamoDbStore {
    /// [`tollgate_proto::Store::read_entries`].
    pub(crate) async fn read_tokens(&self, reads: &[EntryRead]) -> Vec<Result<Option<Bytes>, StoreError>> {
        let own = || reads.iter().map(|read| &read.token).filter(|token| token.store == self.alias);
        let together = own().filter(|token| token.entry.placement() == Placement::Together);
        let mut attributes: Vec<String> = together.map(|token| names::entry_attribute(token.entry)).collect();
        attributes.sort_unstable();
        attributes.dedup();
        attributes.extend([ENTRY.to_owned(), SPILLED.to_owned()]);
        let found = self.read_places(own().map(place).collect(), Some(&attributes)).await;
        let seen: Vec<Result<Seen, StoreError>> = reads
            .iter()
            .map(|read| {
                self.check_alias(&read.token)?;
                let item = found.at(&place(&read.token))?;
                self.see(&read.token, item, &attribute(&read.token))
            })
            .collect();
        let spilled = reads.iter().zip(&seen).filter(|(_, seen)| matches!(seen, Ok(Seen::MayLieApart)));
        let spilled: Vec<Place> = spilled.map(|(read, _)| own_place(&read.token)).collect();
        let apart = self.read_places(spilled, Some(&[ENTRY.to_owned()])).await;
        let answer = |(read, seen): (&EntryRead, Result<Seen, StoreError>)| match seen? {
            Seen::Said(entry) => Ok(entry),
            Seen::MayLieApart => match self.see(&read.token, apart.at(&own_place(&read.token))?, ENTRY)? {
                Seen::Said(entry) => Ok(entry),
                Seen::MayLieApart => Ok(None),
            },
        };
        reads.iter().zip(seen).map(answer).collect()
    }

    fn see(&self, token: &TokenRef, item: Option<&Item>, attribute: &str) -> Result<Seen, StoreError> {
        let Some(item) = item else { return Ok(Seen::Said(None)) };
        match item.get(attribute).map(crate::main_item::binary) {
            Some(Some(entry)) => Ok(Seen::Said(Some(entry))),
            // Taken for consumed, it would be lost.
            Some(None) => Err(self.corrupt(
                &token.partition,
                format!("outgoing message {}", token.entry),
                "it is not binary",
            )),
            None if item.contains_key(SPILLED) => Ok(Seen::MayLieApart),
            None => Ok(Seen::Said(None)),
        }
    }
}

/// Where an entry lies by its index.
fn place(token: &TokenRef) -> Place {
    match token.entry.placement() {
        Placement::Together => (token.partition.clone(), MAIN.to_owned()),
        Placement::Apart => own_place(token),
    }
}

fn own_place(token: &TokenRef) -> Place {
    (token.partition.clone(), names::entry_sort(token.entry))
}

fn attribute(token: &TokenRef) -> String {
    match token.entry.placement() {
        Placement::Together => names::entry_attribute(token.entry),
        Placement::Apart => ENTRY.to_owned(),
    }
}
