//! The outbox with one document for each message, its outputs inside: a read by message id, one transaction of the state and the document,
//! the sending, and a replacement of the document that empties it, marks it as dispatched and gives it seven days to live. Two
//! records fewer to write and delete than the outbox whose outputs are records of their own, as long as all outputs fit into one.
//!
//! Source: `NServiceBus`' persistence for Cosmos DB (<https://docs.particular.net/persistence/cosmosdb/>, its `OutboxPersister` and
//! `OutboxRecord`), with its default of seven days.

use serde::{Deserialize, Serialize};

use crate::side_by_side::plan::{Account, Hop};
use crate::side_by_side::rival::{Carried, Desk, Rival, STATE, Settle, decode, encode};
use crate::side_by_side::table::{Condition, Key, TableError, Write};

/// An outbox of documents.
pub struct OutboxDocument;

/// What is written of a message.
#[derive(Serialize, Deserialize)]
struct Document {
    dispatched: bool,
    outputs: Vec<Hop>,
}

/// The retention that the library begins with.
const RETENTION_SECONDS: u64 = 7 * 24 * 3_600;
/// Versions of a message's document.
const COMMITTED: u64 = 1;
const DISPATCHED: u64 = 2;

impl Rival for OutboxDocument {
    const NAME: &'static str = "outbox-document";
    const TITLE: &'static str = "outbox of one document a message, 7 days";
    const SOURCE: &'static str = "NServiceBus' persistence for Cosmos DB";

    async fn process(desk: &Desk, message: Carried) -> Result<Settle, TableError> {
        let partition = desk.partition(&message.hop);
        let key = Key::new(&*partition, format!("outbox#{}", message.id));
        let outputs = if let Some(record) = desk.get_one(key.clone()).await? {
            let document: Document = decode(&record.value)?;
            if document.dispatched {
                return Ok(Settle::Acknowledge);
            }
            document.outputs
        } else {
            let mut state = desk.load::<Account>(&partition).await?;
            let outputs = desk.handle(&mut state.value, &message.hop);
            let document = encode(&Document { dispatched: false, outputs: outputs.clone() });
            let writes = vec![
                state.write(Key::new(&*partition, STATE)),
                Write::put(key.clone(), COMMITTED, document, Condition::Absent),
            ];
            if !desk.write(writes).await? {
                return Ok(Settle::PutBack);
            }
            outputs
        };
        desk.send(outputs.into_iter().map(Carried::new));
        let emptied = encode(&Document { dispatched: true, outputs: Vec::new() });
        let dispatched = Write::put(key, DISPATCHED, emptied, Condition::Any);
        desk.write(vec![dispatched.expiring_at(Desk::in_seconds(RETENTION_SECONDS))]).await?;
        Ok(Settle::Acknowledge)
    }
}
