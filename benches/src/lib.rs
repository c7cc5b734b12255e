//! What the measurements share: a trivial message, a way to put many of them into a system as if a sender had committed
//! them, and a way to wait until all are processed.

pub mod naive_consumer;
pub mod side_by_side;
pub mod slow_store;
pub mod watched_broker;

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tollgate::proto::{AttemptId, EndpointName, PartitionKey};
use tollgate::proto::{
    Audience, Body, Broker, Commit, DeduplicationId, Destination, EntryKey, Incarnation, MessageId,
    OutboxEntry, OutgoingMessage, Publication, Store, TokenRef, Version, codec,
    control_record::ControlRecord,
};
use tollgate::{Endpoint, HandlerError, Message, Tx};

/// A message that asks for next to nothing.
#[derive(Serialize, Deserialize)]
pub struct Add {
    /// What to add.
    pub amount: u64,
}

impl Message for Add {
    const TYPE: &'static str = "bench.add";
}

/// The endpoint of [`Add`].
pub const ENDPOINT: &str = "adder";

/// The item that [`Add`] changes.
pub const TOTAL: &str = "total";

/// Adds to one item and sends nothing.
pub fn adder(concurrency: usize) -> Endpoint {
    Endpoint::new(ENDPOINT).concurrency(concurrency).preload(TOTAL).on::<Add, _, _>(add)
}

async fn add(tx: Tx, message: Add) -> Result<(), HandlerError> {
    let total: u64 = tx.get(TOTAL).await?.unwrap_or_default();
    tx.put(TOTAL, &(total + message.amount))?;
    Ok(())
}

/// Outgoing messages in one commit of the imagined sender.
const CHUNK: u64 = 1_000;

/// Stores outbox entries for `count` messages to `partitions` partitions, round and round, and gives the broker messages
/// that announce them.
///
/// # Panics
/// If the store refuses.
pub async fn seed(store: &dyn Store, count: u64, partitions: u64) -> Vec<OutgoingMessage> {
    let endpoint = EndpointName::new(ENDPOINT).expect("a valid name");
    let mut messages = Vec::with_capacity(usize::try_from(count).expect("it fits into memory"));
    let mut next = 0;
    let mut chunk = 0u64;
    while next < count {
        let sender = PartitionKey::new(format!("sender/{chunk}")).expect("a valid key");
        let version = Version::first(Incarnation(chunk + 1));
        let mut entries = Vec::new();
        for index in 0..u32::try_from(CHUNK.min(count - next)).expect("chunks are small") {
            let to = Destination {
                endpoint: endpoint.clone(),
                partition: PartitionKey::new(format!("partition/{}", next % partitions))
                    .expect("a valid key"),
            };
            let entry = OutboxEntry {
                message_id: MessageId::from_name("bench", &next.to_string()),
                to,
                message_type: Add::TYPE.try_into().expect("a valid name"),
                headers: Vec::new(),
                body: Body::Inline(Bytes::from_static(b"{\"amount\":1}")),
                audience: Audience::Tollgate,
                effects: Vec::new(),
            };
            let key = EntryKey { sequence: version.sequence(), index };
            let token = TokenRef { store: store.alias().clone(), partition: sender.clone(), entry: key };
            let publication = Publication {
                deduplication_id: DeduplicationId::of_token(&token),
                envelope: entry.envelope(token, None),
            };
            messages.push(publication.into_message(std::time::Duration::ZERO));
            entries.push((key, codec::encode_entry(&entry)));
            next += 1;
        }
        let control = ControlRecord {
            version,
            attempt: AttemptId::new(0, chunk),
            pending: Vec::new(),
            registrations: Vec::new(),
            sessions: Vec::new(),
        };
        store
            .commit(Commit {
                partition: sender,
                expected: None,
                version,
                control: codec::encode_control(&control),
                items: Vec::new(),
                entries,
                deleted_entries: Vec::new(),
                records: Vec::new(),
                now_ms: 0,
            })
            .await
            .expect("the store takes the seed");
        chunk += 1;
    }
    messages
}

/// Messages in one call to the broker.
const SEND: usize = 1_000;

/// Sends messages, in their order.
///
/// # Panics
/// If the broker refuses.
pub async fn send(broker: &Arc<dyn Broker>, messages: &[OutgoingMessage]) {
    for some in messages.chunks(SEND) {
        for answer in broker.send(some.to_vec()).await {
            answer.expect("the broker takes the messages");
        }
    }
}
