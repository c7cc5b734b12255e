//! The way between Tollgate and its store: every call of the trait waits as the network says, a batch once, and is charged by the
//! published rules, for which the sizes of what lies where are kept here. On `DynamoDB` it is charged as the compact layout is
//! (state, control record and entries in one item), on Cosmos DB as one document each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::future::join_all;
use tollgate::proto::{
    BoxFuture, Commit, CommitOutcome, EntryKey, EntryRead, ItemName, LoadRequest, LoadedPartition,
    PartitionKey, SessionMark, Store, StoreError, StoreWrapper, TokenRef,
};

use super::charges::{Charge, Written, document_read, document_write, read_units, write_units};
use super::network::Network;
use super::scenario::Deletions;

/// Bytes of attribute names, keys and the version in a main item on `DynamoDB`.
const MAIN_OVERHEAD: usize = 60;
/// Bytes of an attribute's name for an item or entry in it.
const ATTRIBUTE_OVERHEAD: usize = 30;
/// Beyond this size the store lays out a partition wide: one item each, in transactions.
const MAIN_ITEM_BYTES_MAX: usize = 300 * 1024;
/// Bytes of names and the etag in a document on Cosmos DB.
const DOCUMENT_OVERHEAD: usize = 110;

/// A store behind the network.
pub struct MeteredStore {
    inner: Arc<dyn Store>,
    network: Arc<Network>,
    deletions: Deletions,
    sizes: Mutex<HashMap<PartitionKey, Sizes>>,
}

/// What lies in a partition, in bytes.
#[derive(Default)]
struct Sizes {
    control: usize,
    items: HashMap<ItemName, usize>,
    entries: HashMap<EntryKey, usize>,
    records: usize,
}

impl Sizes {
    fn main(&self) -> usize {
        let attributes = self
            .items
            .iter()
            .map(|(name, bytes)| name.as_str().len() + bytes)
            .chain(self.entries.values().copied());
        MAIN_OVERHEAD + self.control + attributes.map(|bytes| ATTRIBUTE_OVERHEAD + bytes).sum::<usize>()
    }
}

/// Binary in a JSON document is base64.
const fn binary_document(bytes: usize) -> usize {
    DOCUMENT_OVERHEAD + bytes.div_ceil(3) * 4
}

impl MeteredStore {
    /// A store at the end of a network.
    pub fn new(inner: Arc<dyn Store>, network: Arc<Network>, deletions: Deletions) -> Self {
        Self { inner, network, deletions, sizes: Mutex::default() }
    }

    /// Commits what a sender has left: neither waits nor is charged.
    ///
    /// # Errors
    /// If the store refuses.
    pub async fn seed(&self, commit: Commit) -> Result<CommitOutcome, StoreError> {
        let change = Changed::of(&commit);
        let outcome = self.inner.commit(commit).await?;
        change.apply(&mut self.sizes());
        Ok(outcome)
    }

    /// Bytes in the store: of everything, and of outbox entries and deduplication records. The control records' bytes are in the
    /// first: they are constant for each partition.
    pub fn bytes(&self) -> (u64, u64) {
        let sizes = self.sizes();
        let (mut all, mut deduplication) = (0, 0);
        for (partition, sizes) in sizes.iter() {
            let kept = sizes.entries.values().sum::<usize>() + sizes.records;
            let items: usize = sizes.items.iter().map(|(name, bytes)| name.as_str().len() + bytes).sum();
            deduplication += kept;
            all += kept + items + sizes.control + partition.as_str().len();
        }
        (all as u64, deduplication as u64)
    }

    fn sizes(&self) -> MutexGuard<'_, HashMap<PartitionKey, Sizes>> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn charge(&self, charge: Charge) {
        self.network.charge(charge.write_units, charge.read_units, charge.request_units);
    }

    async fn delete_some(&self, tokens: Vec<TokenRef>) -> Vec<Result<Option<SessionMark>, StoreError>> {
        self.network
            .call(async {
                let answers = self.inner.delete_entries(tokens.clone()).await;
                self.charge_deletions(&tokens);
                answers
            })
            .await
    }

    fn charge_deletions(&self, tokens: &[TokenRef]) {
        let mut charge = Charge::default();
        let mut sizes = self.sizes();
        let mut written: Vec<&PartitionKey> = Vec::new();
        for token in tokens {
            let Some(partition) = sizes.get_mut(&token.partition) else { continue };
            if !written.contains(&&token.partition) {
                written.push(&token.partition);
                charge.write_units += write_units(partition.main().min(MAIN_ITEM_BYTES_MAX));
            }
            let entry = partition.entries.remove(&token.entry).unwrap_or_default();
            charge.request_units += document_write(binary_document(entry));
        }
        drop(sizes);
        self.charge(charge);
    }
}

/// What a commit changes, in bytes.
struct Changed {
    partition: PartitionKey,
    control: usize,
    items: Vec<(ItemName, Option<usize>)>,
    entries: Vec<(EntryKey, usize)>,
    deleted: Vec<EntryKey>,
    records: Vec<usize>,
}

impl Changed {
    fn of(commit: &Commit) -> Self {
        let items = commit.items.iter();
        let items =
            items.map(|(name, value)| (name.clone(), value.as_ref().map(|value| value.bytes().len())));
        Self {
            partition: commit.partition.clone(),
            control: commit.control.len(),
            items: items.collect(),
            entries: commit.entries.iter().map(|(key, bytes)| (*key, bytes.len())).collect(),
            deleted: commit.deleted_entries.clone(),
            records: commit
                .records
                .iter()
                .map(|record| record.key.as_str().len() + record.response.len())
                .collect(),
        }
    }

    /// Takes note of it, and says what it is charged.
    fn apply(self, sizes: &mut HashMap<PartitionKey, Sizes>) -> Charge {
        let overhead = self.partition.as_str().len();
        let sizes = sizes.entry(self.partition).or_default();
        let before = sizes.main();
        let mut documents = vec![binary_document(self.control)];
        let mut own_items = vec![MAIN_OVERHEAD + self.control];
        sizes.control = self.control;
        for (name, value) in self.items {
            let bytes = value.unwrap_or_else(|| sizes.items.get(&name).copied().unwrap_or_default());
            documents.push(DOCUMENT_OVERHEAD + name.as_str().len() + bytes);
            own_items.push(MAIN_OVERHEAD + name.as_str().len() + bytes);
            match value {
                Some(bytes) => sizes.items.insert(name, bytes),
                None => sizes.items.remove(&name),
            };
        }
        for (key, bytes) in self.entries {
            documents.push(binary_document(bytes));
            own_items.push(MAIN_OVERHEAD + bytes);
            sizes.entries.insert(key, bytes);
        }
        for key in self.deleted {
            let bytes = sizes.entries.remove(&key).unwrap_or_default();
            documents.push(binary_document(bytes));
            own_items.push(MAIN_OVERHEAD + bytes);
        }
        let mut expiries = Charge::default();
        for bytes in &self.records {
            documents.push(binary_document(*bytes));
            sizes.records += bytes + overhead;
            expiries = expiries + Charge::expiry(binary_document(*bytes));
        }
        let main = overhead + before.max(sizes.main());
        let mut items = if main <= MAIN_ITEM_BYTES_MAX { vec![main] } else { own_items };
        items.extend(self.records.iter().map(|bytes| MAIN_OVERHEAD + bytes));
        let of = |sizes: Vec<usize>| {
            sizes.into_iter().map(|bytes| Written { dynamodb: bytes, cosmos: bytes }).collect::<Vec<_>>()
        };
        let dynamodb = Charge::write(&of(items));
        let cosmos = Charge::write(&of(documents));
        Charge {
            write_units: dynamodb.write_units,
            read_units: 0,
            request_units: cosmos.request_units + expiries.request_units,
        }
    }
}

impl StoreWrapper for MeteredStore {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    fn load(&self, requests: Vec<LoadRequest>) -> BoxFuture<'_, Vec<Result<LoadedPartition, StoreError>>> {
        Box::pin(self.network.call(async move {
            let mut charge = Charge::default();
            {
                let sizes = self.sizes();
                for request in &requests {
                    let known = sizes.get(&request.partition);
                    charge.read_units += read_units(known.map_or(0, Sizes::main));
                    charge.request_units +=
                        document_read(known.map_or(0, |sizes| binary_document(sizes.control)));
                    for item in &request.items {
                        let bytes =
                            known.and_then(|sizes| sizes.items.get(item)).copied().unwrap_or_default();
                        charge.request_units += document_read(DOCUMENT_OVERHEAD + bytes);
                    }
                }
            }
            self.charge(charge);
            self.inner.load(requests).await
        }))
    }

    fn read_entries(&self, reads: Vec<EntryRead>) -> BoxFuture<'_, Vec<Result<Option<Bytes>, StoreError>>> {
        Box::pin(self.network.call(async move {
            let mut charge = Charge::default();
            {
                let sizes = self.sizes();
                for read in &reads {
                    let known = sizes.get(&read.token.partition);
                    charge.read_units += read_units(known.map_or(0, Sizes::main));
                    let entry = known.and_then(|sizes| sizes.entries.get(&read.token.entry)).copied();
                    charge.request_units += document_read(binary_document(entry.unwrap_or_default()));
                }
            }
            self.charge(charge);
            self.inner.read_entries(reads).await
        }))
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, StoreError>> {
        Box::pin(self.network.call(async move {
            let changed = Changed::of(&commit);
            let outcome = self.inner.commit(commit).await;
            if let Ok(CommitOutcome::Committed { .. }) = outcome {
                let charge = changed.apply(&mut self.sizes());
                self.charge(charge);
            } else {
                // A failed condition is charged like the smallest write.
                self.charge(Charge { write_units: 1, read_units: 0, request_units: document_write(0) });
            }
            outcome
        }))
    }

    fn delete_entries(
        &self,
        tokens: Vec<TokenRef>,
    ) -> BoxFuture<'_, Vec<Result<Option<SessionMark>, StoreError>>> {
        match self.deletions {
            Deletions::Batched => Box::pin(self.delete_some(tokens)),
            Deletions::OneByOne => Box::pin(async move {
                let each = tokens.into_iter().map(|token| self.delete_some(vec![token]));
                join_all(each).await.into_iter().flatten().collect()
            }),
        }
    }
}
