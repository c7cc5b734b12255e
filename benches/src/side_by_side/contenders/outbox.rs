//! The outbox as libraries for `DynamoDB` and Cosmos DB have it: records in the entity's own partition. A query looks whether the message was
//! processed; one transaction writes the state, a record of the message and one for each output; the outputs are sent, the
//! message's record is marked as dispatched and gets seven days to live, the outputs' records are deleted in a batch that nobody
//! waits for. What comes after seven days is processed again.
//!
//! Source: `NServiceBus`' persistence for `DynamoDB` (<https://docs.particular.net/persistence/dynamodb/outbox>, its `OutboxPersister`): a
//! consistent query by message id, a transaction with a conditional put for the message and one for each output, a conditional update
//! "dispatched" with the time to live, seven days by default, and a best effort batch of deletions. Its query runs before the saga's load, and so
//! does ours. In the rival's favour: the library waits for the batch of deletions, ours does not. The library gives the records of a message a
//! partition of their own, which `DynamoDB`'s transactions may span; here they lie in the entity's, as they must on Cosmos DB. Neither calls nor units
//! depend on it. What the same library does on Cosmos DB is `outbox-document`.

use serde::{Deserialize, Serialize};

use crate::side_by_side::plan::{Account, Hop};
use crate::side_by_side::rival::{Carried, Desk, Rival, STATE, Settle, decode, encode};
use crate::side_by_side::table::{Condition, Key, TableError, Write};

/// An outbox beside the entity.
pub struct Outbox;

/// What is written of a message.
#[derive(Serialize, Deserialize)]
struct Metadata {
    outputs: usize,
    dispatched: bool,
}

/// The retention that the library begins with.
const RETENTION_SECONDS: u64 = 7 * 24 * 3_600;
/// Versions of a message's record.
const COMMITTED: u64 = 1;
const DISPATCHED: u64 = 2;

fn metadata_key(partition: &str, id: &str) -> Key {
    Key::new(partition, format!("outbox#{id}"))
}

fn output_key(partition: &str, id: &str, place: usize) -> Key {
    Key::new(partition, format!("outbox#{id}#{place:04}"))
}

impl Rival for Outbox {
    const NAME: &'static str = "outbox";
    const TITLE: &'static str = "outbox records in the partition, kept for 7 days";
    const SOURCE: &'static str = "NServiceBus' persistence for DynamoDB";

    async fn process(desk: &Desk, message: Carried) -> Result<Settle, TableError> {
        let partition = desk.partition(&message.hop);
        let found = desk.query(&partition, &format!("outbox#{}", message.id)).await?;
        if let Some((_, record)) = found.first() {
            let metadata: Metadata = decode(&record.value)?;
            if metadata.dispatched {
                return Ok(Settle::Acknowledge);
            }
            let outputs: Result<Vec<Hop>, _> =
                found[1..].iter().map(|(_, record)| decode(&record.value)).collect();
            return dispatch(desk, &partition, &message.id, outputs?).await;
        }
        let mut state = desk.load::<Account>(&partition).await?;
        let outputs = desk.handle(&mut state.value, &message.hop);
        let metadata = encode(&Metadata { outputs: outputs.len(), dispatched: false });
        let mut writes = vec![
            state.write(Key::new(&*partition, STATE)),
            Write::put(metadata_key(&partition, &message.id), COMMITTED, metadata, Condition::Absent),
        ];
        for (place, output) in outputs.iter().enumerate() {
            let key = output_key(&partition, &message.id, place);
            writes.push(Write::put(key, COMMITTED, encode(output), Condition::Any));
        }
        if !desk.write(writes).await? {
            return Ok(Settle::PutBack);
        }
        dispatch(desk, &partition, &message.id, outputs).await
    }
}

async fn dispatch(desk: &Desk, partition: &str, id: &str, outputs: Vec<Hop>) -> Result<Settle, TableError> {
    let count = outputs.len();
    desk.send(outputs.into_iter().map(Carried::new));
    let metadata = encode(&Metadata { outputs: count, dispatched: true });
    let dispatched = Write::put(metadata_key(partition, id), DISPATCHED, metadata, Condition::Any);
    desk.write(vec![dispatched.expiring_at(Desk::in_seconds(RETENTION_SECONDS))]).await?;
    if count > 0 {
        desk.batch_aside((0..count).map(|place| Write::delete(output_key(partition, id, place))).collect());
    }
    Ok(Settle::Acknowledge)
}
