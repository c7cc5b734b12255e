//! Inbox and outbox inside the entity: its document holds the ids of all messages that were processed, and what is still to be sent. One
//! read, one conditional write, the sending, and a second write that takes out what was sent. The ids stay for ever, because
//! nobody can say when the last copy has come, so the document grows.
//!
//! Source: "outbox in the entity", e.g. exactly-once.github.io, part "Outbox" of its series; the simplest complete technique.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::side_by_side::plan::{Account, Hop};
use crate::side_by_side::rival::{Carried, Desk, Loaded, Rival, STATE, Settle, decode, encode};
use crate::side_by_side::table::{Key, TableError};

/// Inbox and outbox in the document.
pub struct InboxInEntity;

#[derive(Default, Serialize, Deserialize)]
struct Document {
    account: Account,
    processed: BTreeSet<String>,
    to_send: BTreeMap<String, Vec<Hop>>,
}

impl Rival for InboxInEntity {
    const NAME: &'static str = "inbox-in-entity";
    const TITLE: &'static str = "inbox and outbox inside the entity, for ever";
    const SOURCE: &'static str = "exactly-once.github.io, the outbox inside the entity";

    async fn process(desk: &Desk, message: Carried) -> Result<Settle, TableError> {
        let partition = desk.partition(&message.hop);
        let key = Key::new(&*partition, STATE);
        let mut document: Loaded<Document> = desk.load(&partition).await?;
        if !document.value.processed.contains(&message.id) {
            let outputs = desk.handle(&mut document.value.account, &message.hop);
            document.value.processed.insert(message.id.clone());
            if !outputs.is_empty() {
                document.value.to_send.insert(message.id.clone(), outputs);
            }
            if !desk.write(vec![document.write(key.clone())]).await? {
                return Ok(Settle::PutBack);
            }
            document.written();
        }
        let Some(outputs) = document.value.to_send.remove(&message.id) else {
            return Ok(Settle::Acknowledge);
        };
        desk.send(outputs.into_iter().map(Carried::new));
        loop {
            if desk.write(vec![document.write(key.clone())]).await? {
                return Ok(Settle::Acknowledge);
            }
            document = desk.load(&partition).await?;
            if document.value.to_send.remove(&message.id).is_none() {
                return Ok(Settle::Acknowledge);
            }
        }
    }

    fn account(state: &Bytes) -> Result<Account, TableError> {
        decode::<Document>(state).map(|document| document.account)
    }

    fn deduplication_in_state(state: &Bytes) -> usize {
        let account = Self::account(state).map_or(0, |account| encode(&account).len());
        state.len().saturating_sub(account)
    }
}
