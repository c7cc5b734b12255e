//! The books: what an oracle may look at when a run has come to rest. It sees what is stored, which blobs there are, and what
//! outsiders have received; nothing of what the processes think.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use tollgate::{Blobs, Store};
use tollgate_proto::{EffectName, EndpointName, Envelope, ItemName, LoadRequest, PartitionKey, codec};

use super::run::Universe;

/// What is left in the world at the end of a run.
#[derive(Clone)]
pub struct Books {
    pub(super) universe: Arc<Universe>,
}

/// Most partitions in one page of a look at the store.
const PAGE: usize = 1024;

impl Books {
    /// A business item, read as JSON. `None`: there is none.
    ///
    /// # Panics
    /// If the name breaks a rule or the item is no such JSON.
    pub async fn item<T: DeserializeOwned>(&self, partition: &str, item: &str) -> Option<T> {
        let request = LoadRequest {
            partition: PartitionKey::new(partition).expect("an oracle names partitions that can exist"),
            items: vec![ItemName::new(item).expect("an oracle names items that can exist")],
            records: Vec::new(),
        };
        let loaded = self.universe.memory.load(vec![request]).await.pop()?;
        let loaded = loaded.expect("a store in memory does not fail");
        let value = loaded.items.into_iter().next()?.1?;
        Some(serde_json::from_slice(value.bytes()).expect("an oracle knows what its handlers store"))
    }

    /// The keys of all partitions, in order.
    ///
    /// # Panics
    /// Never: a store in memory does not fail.
    pub async fn partitions(&self) -> Vec<String> {
        let mut keys = Vec::new();
        let mut cursor = None;
        loop {
            let page =
                self.universe.memory.scan(cursor, PAGE).await.expect("a store in memory does not fail");
            keys.extend(page.partitions.iter().map(|scanned| scanned.partition.to_string()));
            cursor = page.next;
            if cursor.is_none() {
                keys.sort_unstable();
                return keys;
            }
        }
    }

    /// The names of all blobs, in order.
    ///
    /// # Panics
    /// Never: blob storage in memory does not fail.
    pub async fn blobs(&self) -> Vec<EffectName> {
        self.universe.blobs.list("").await.expect("blob storage in memory does not fail")
    }

    /// What an endpoint has received that no process consumes: messages to outsiders, repetitions included.
    ///
    /// # Panics
    /// If the name breaks a rule.
    pub async fn received_outside(&self, endpoint: &str) -> Vec<Envelope> {
        let endpoint = EndpointName::new(endpoint).expect("an oracle names endpoints that can exist");
        self.universe.received_outside(&endpoint).await
    }

    /// What deduplication has left behind, in words; empty when everything is as it should be.
    pub(super) async fn left_over(&self) -> Vec<String> {
        let mut left = Vec::new();
        let mut cursor = None;
        loop {
            let page =
                self.universe.memory.scan(cursor, PAGE).await.expect("a store in memory does not fail");
            for scanned in page.partitions {
                let partition = scanned.partition;
                if !scanned.entries.is_empty() {
                    left.push(format!("{} outbox entries in {partition}", scanned.entries.len()));
                }
                let Some(control) = scanned.control else { continue };
                match codec::decode_control(&control) {
                    Ok(control) => {
                        if !control.pending.is_empty() {
                            left.push(format!("{} markers in {partition}", control.pending.len()));
                        }
                        if !control.registrations.is_empty() {
                            left.push(format!(
                                "{} registrations in {partition}",
                                control.registrations.len()
                            ));
                        }
                    }
                    Err(error) => left.push(format!("a damaged control record in {partition}: {error}")),
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        left.extend(self.universe.left_in_broker());
        left
    }
}
