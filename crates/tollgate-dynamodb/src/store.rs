//! The store: what it consists of, and core's trait, whose every method is at work in a room of its own. What is remembered of
//! partitions is remembered here.

use std::num::NonZeroU32;
use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::ReturnConsumedCapacity;
use moka::ops::compute::Op;
use moka::sync::Cache;
use tollgate_proto::{
    BoxFuture, Commit, CommitOutcome, EntryKey, EntryRead, LoadRequest, LoadedPartition, PartitionKey,
    Placement, ScanCursor, ScanPage, ScanPrice, SessionMark, Store, StoreAlias, StoreError, StoreLimits,
    TokenRef, Version,
};

use crate::builder::DynamoDbStoreBuilder;
use crate::calls::Calls;
use crate::error::DynamoDbError;
use crate::expression::Update;
use crate::failure::Failure;
use crate::main_item::Known;
use crate::names::{MAIN, TableNames};
use crate::provisioning::{Provisioned, TableOptions};

/// Exactly-once processing on one DynamoDB table.
///
/// A partition is one item collection: a main item with the control record, and beside it whatever is cheaper as an item of its
/// own ([`crate::capacity`]). Business items are stored as DynamoDB's own attributes. `docs/stores/dynamodb.md` draws the table.
///
/// A store belongs to the tokio runtime on which it is first used: the client's connections live there. Used
/// from a second runtime while nothing drives the first, calls wait for an answer until they time out. Give
/// each runtime a store with a client of its own, or open the store on a runtime whose threads run as long as
/// the store is used.
///
/// ```no_run
/// # async fn example(client: aws_sdk_dynamodb::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use tollgate_proto::Store;
/// use tollgate_dynamodb::{DynamoDbStore, TableOptions};
///
/// let store = DynamoDbStore::builder(client).alias("orders").table("orders").build()?;
/// let provisioned = store.provision(&TableOptions::default()).await?;
/// assert_eq!(provisioned.differences, [] as [String; 0]);
/// store.verify().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DynamoDbStore {
    pub(crate) alias: StoreAlias,
    pub(crate) names: TableNames,
    pub(crate) limits: StoreLimits,
    pub(crate) calls: Calls,
    /// A partition of which nothing exists, and nothing will: what is tried on it at start can't succeed.
    pub(crate) verified_partition: PartitionKey,
    /// Most read units a second for surveys. `None`: as fast as it goes.
    pub(crate) survey_units_max: Option<NonZeroU32>,
    /// What the partitions looked like when they were last seen. It saves reads, and is never believed without its version.
    pub(crate) known: Cache<PartitionKey, Arc<Known>>,
}

impl DynamoDbStore {
    /// Begins a store on the client's region, account and endpoint.
    ///
    /// The client's own retries are switched off, since only the store knows what may be repeated; it gets a timeout for each
    /// call, if it has none.
    pub fn builder(client: Client) -> DynamoDbStoreBuilder {
        DynamoDbStoreBuilder::new(client)
    }

    /// Creates the table, or compares the one that is there with `options`, which are then not forced on it.
    ///
    /// # Errors
    /// [`DynamoDbError::Provisioning`] if DynamoDB refuses; [`DynamoDbError::NotActive`] if the new table takes too long.
    pub async fn provision(&self, options: &TableOptions) -> Result<Provisioned, DynamoDbError> {
        self.provision_table(options).await
    }

    /// Remembers how a partition looked, unless something newer is remembered.
    pub(crate) fn remember(&self, partition: &PartitionKey, mut known: Known) {
        self.known.entry_by_ref(partition).and_compute_with(|before| {
            let sequence = |known: &Known| known.version.map(Version::sequence);
            if let Some(before) = before.map(moka::Entry::into_value)
                && let (Some(before_at), Some(now_at)) = (sequence(&before), sequence(&known))
                && before_at.incarnation == now_at.incarnation
            {
                if before_at.counter > now_at.counter {
                    return Op::Nop;
                }
                if before_at == now_at && known.changed.is_empty() {
                    known.changed.clone_from(&before.changed);
                }
            }
            Op::Put(Arc::new(known))
        });
    }

    /// Remembers that entries of a main item are consumed.
    pub(crate) fn remember_consumed(&self, partition: &PartitionKey, keys: &[EntryKey]) {
        self.known.entry_by_ref(partition).and_compute_with(|before| match before {
            None => Op::Nop,
            Some(before) => {
                let mut known = Known::clone(before.value());
                for key in keys {
                    known.waiting.remove(*key);
                }
                Op::Put(Arc::new(known))
            }
        });
    }

    /// Updates a main item under a condition. Returns the units that it has cost, if DynamoDB tells.
    pub(crate) async fn update_main(
        &self,
        partition: &PartitionKey,
        update: &Update,
    ) -> Result<Option<u64>, Failure> {
        let key = self.names.key(partition, MAIN);
        let output = self
            .calls
            .make("UpdateItem", |client| {
                client
                    .update_item()
                    .table_name(&self.names.table)
                    .set_key(Some(key.clone()))
                    .update_expression(update.update())
                    .condition_expression(update.condition())
                    .set_expression_attribute_names(Some(update.names()))
                    .set_expression_attribute_values(update.values())
                    .return_consumed_capacity(ReturnConsumedCapacity::Total)
                    .send()
            })
            .await?;
        Ok(self.calls.consumed("UpdateItem", output.consumed_capacity.as_ref()))
    }

    pub(crate) fn check_alias(&self, token: &TokenRef) -> Result<(), StoreError> {
        if token.store == self.alias {
            return Ok(());
        }
        Err(StoreError::ForeignToken { store: self.alias.clone(), token: token.clone() })
    }

    pub(crate) fn corrupt(&self, partition: &PartitionKey, what: String, reason: &str) -> StoreError {
        StoreError::Corrupt {
            store: self.alias.clone(),
            partition: partition.clone(),
            what,
            reason: reason.to_owned(),
        }
    }
}

impl Store for DynamoDbStore {
    fn alias(&self) -> &StoreAlias {
        &self.alias
    }

    fn limits(&self) -> StoreLimits {
        self.limits
    }

    fn verify(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.verify_table())
    }

    fn load(&self, requests: Vec<LoadRequest>) -> BoxFuture<'_, Vec<Result<LoadedPartition, StoreError>>> {
        Box::pin(async move { self.load_all(&requests).await })
    }

    fn read_entries(
        &self,
        reads: Vec<EntryRead>,
    ) -> BoxFuture<'_, Vec<Result<Option<bytes::Bytes>, StoreError>>> {
        Box::pin(async move { self.read_tokens(&reads).await })
    }

    fn placement(&self, commit: &Commit) -> Placement {
        self.cheapest_placement(commit)
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, StoreError>> {
        Box::pin(self.commit_one(commit))
    }

    fn delete_entries(
        &self,
        tokens: Vec<TokenRef>,
    ) -> BoxFuture<'_, Vec<Result<Option<SessionMark>, StoreError>>> {
        Box::pin(async move { self.delete_tokens(&tokens).await })
    }

    fn scan(&self, cursor: Option<ScanCursor>, limit: usize) -> BoxFuture<'_, Result<ScanPage, StoreError>> {
        Box::pin(self.scan_page(cursor, limit))
    }

    fn survey(
        &self,
        cursor: Option<ScanCursor>,
        _limit: usize,
    ) -> BoxFuture<'_, Result<ScanPage, StoreError>> {
        Box::pin(self.survey_page(cursor))
    }

    fn scan_price(&self) -> ScanPrice {
        ScanPrice::Metered
    }

    /// DynamoDB deletes expired records by itself, if the table's time to live is switched on.
    fn expire(&self, _now_ms: u64) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(std::future::ready(Ok(0)))
    }
}
