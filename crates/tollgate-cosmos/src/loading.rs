//! Loads: a control record with items and deduplication records, as they were at one moment, after every write that was
//! answered before.
//!
//! A replica that lags behind must not answer, and nobody has a mark to show: whoever loads doesn't know who wrote last. A
//! stale control record could do no harm to a commit, which is conditional; but a wake-up would be taken for settled
//! because the version it names has not arrived yet, and its outputs would wait for the sweep. So a load is a transactional
//! batch of reads. For Cosmos DB a batch is a write: it is executed in the write region, and all of it at one moment.

use std::collections::BTreeMap;

use azure_data_cosmos::TransactionalBatch;
use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use tollgate_proto::{
    DeduplicationKey, ItemName, ItemValue, LoadRequest, LoadedPartition, PartitionKey, SessionMark,
    StoreError,
};

use crate::cosmos_store::CosmosStore;
use crate::document::{ControlDocument, parse_control, parse_record};
use crate::document_id::{CONTROL_ID, item_id, record_id};
use crate::failure::Failure;
use crate::item_document::parse_item;
use crate::limits::BATCH_OPERATIONS_MAX;
use crate::requests::BatchAnswer;
use crate::statistics::Operation;

/// How often a load of a partition that changes under it starts again before it asks for patience.
const ROUNDS_MAX: usize = 8;

/// Documents read at one moment, by id.
struct Snapshot {
    documents: BTreeMap<String, Bytes>,
    mark: Option<SessionMark>,
}

/// The answer to a batch of reads.
enum Read {
    /// All of them, as they were at one moment.
    All(Vec<Bytes>, Option<SessionMark>),
    /// Nothing, since the document at this place is missing.
    Missing(usize),
}

impl CosmosStore {
    pub(crate) async fn load_all(
        &self,
        requests: Vec<LoadRequest>,
    ) -> Vec<Result<LoadedPartition, StoreError>> {
        join_all(requests.into_iter().map(|request| self.load_one(request))).await
    }

    async fn load_one(&self, request: LoadRequest) -> Result<LoadedPartition, StoreError> {
        let LoadRequest { partition, items, records } = request;
        let mut ids = vec![CONTROL_ID.to_owned()];
        ids.extend(items.iter().map(item_id));
        ids.extend(records.iter().map(record_id));
        let snapshot = self.snapshot(&partition, ids).await?;
        let control = self.control_in(&partition, &snapshot)?;
        if let Some(mark) = &snapshot.mark {
            self.memory.answered(&partition, &mark.scope);
        }
        let items = items.into_iter().map(|name| self.item_in(&partition, &snapshot, name));
        let records = records.into_iter().map(|key| self.record_in(&partition, &snapshot, key));
        Ok(LoadedPartition {
            control: control.map(|control| control.record),
            items: items.collect::<Result<_, _>>()?,
            records: records.collect::<Result<_, _>>()?,
            session: snapshot.mark.clone(),
        })
    }

    /// The documents of these ids that exist. The first id is the control record's.
    async fn snapshot(&self, partition: &PartitionKey, ids: Vec<String>) -> Result<Snapshot, StoreError> {
        if ids.len() <= BATCH_OPERATIONS_MAX {
            match self.read_at_once(Operation::Load, partition, &ids).await? {
                Read::All(documents, mark) => {
                    return Ok(Snapshot { documents: ids.into_iter().zip(documents).collect(), mark });
                }
                // One id alone: it is the one that is missing.
                Read::Missing(_) if ids.len() == 1 => {
                    return Ok(Snapshot { documents: BTreeMap::new(), mark: None });
                }
                Read::Missing(0) => return self.snapshot_with_gaps(partition, &ids, None).await,
                Read::Missing(_) => {}
            }
        }
        let control = self.read_at_primary(Operation::Load, partition, CONTROL_ID).await?;
        self.snapshot_with_gaps(partition, &ids, control).await
    }

    /// A batch with a read of something missing answers nothing. So each document is read for itself, between two reads of
    /// the control record, of which the first has been made: if that has not changed, neither has anything else.
    async fn snapshot_with_gaps(
        &self,
        partition: &PartitionKey,
        ids: &[String],
        mut before: Option<(Bytes, Option<SessionMark>)>,
    ) -> Result<Snapshot, StoreError> {
        for _ in 0..ROUNDS_MAX {
            let reads = ids[1..].iter().map(|id| async move {
                let answer = self.read_at_primary(Operation::Load, partition, id).await?;
                Ok::<_, StoreError>(answer.map(|(document, _)| (id.clone(), document)))
            });
            let found = try_join_all(reads).await?;
            let after = self.read_at_primary(Operation::Load, partition, CONTROL_ID).await?;
            let control = |answer: &Option<(Bytes, Option<SessionMark>)>| {
                answer.as_ref().map(|(document, _)| document.clone())
            };
            if control(&before) == control(&after) {
                let mut documents: BTreeMap<String, Bytes> = found.into_iter().flatten().collect();
                let mark = after.and_then(|(document, mark)| {
                    documents.insert(CONTROL_ID.to_owned(), document);
                    mark
                });
                return Ok(Snapshot { documents, mark });
            }
            before = after;
        }
        Err(StoreError::Unavailable {
            store: self.requests.alias.clone(),
            reason: format!("partition {partition} has changed {ROUNDS_MAX} times while it was loaded"),
        })
    }

    /// Reads one document where writes are executed. `None`: there is none.
    pub(crate) async fn read_at_primary(
        &self,
        operation: Operation,
        partition: &PartitionKey,
        id: &str,
    ) -> Result<Option<(Bytes, Option<SessionMark>)>, StoreError> {
        match self.read_at_once(operation, partition, &[id.to_owned()]).await? {
            Read::All(mut documents, mark) => Ok(documents.pop().map(|document| (document, mark))),
            Read::Missing(_) => Ok(None),
        }
    }

    /// Reads documents of one partition in one batch.
    async fn read_at_once(
        &self,
        operation: Operation,
        partition: &PartitionKey,
        ids: &[String],
    ) -> Result<Read, StoreError> {
        let mut batch = TransactionalBatch::new(self.requests.key(partition)?);
        for id in ids {
            batch = batch.read_item(id.clone(), None);
        }
        let refuse = |failure: Failure| failure.of_repeatable(&self.requests.alias, Some(partition));
        match self.requests.execute(operation, batch).await.map_err(refuse)? {
            BatchAnswer::Done { results, mark } => {
                let body = |result: &azure_data_cosmos::models::TransactionalBatchOperationResult| {
                    let json = result.resource_body().map_or("null", |body| body.get());
                    Bytes::copy_from_slice(json.as_bytes())
                };
                Ok(Read::All(results.iter().map(body).collect(), mark))
            }
            BatchAnswer::Refused { index, failure: Failure::Missing { .. } } => Ok(Read::Missing(index)),
            BatchAnswer::Refused { failure, .. } => Err(refuse(failure)),
        }
    }

    fn control_in(
        &self,
        partition: &PartitionKey,
        snapshot: &Snapshot,
    ) -> Result<Option<ControlDocument>, StoreError> {
        let Some(json) = snapshot.documents.get(CONTROL_ID) else { return Ok(None) };
        let control = parse_control(json)
            .map_err(|reason| self.corrupt(partition, "the control record".to_owned(), reason))?;
        self.memory.saw(partition, control.version, &control.etag);
        Ok(Some(control))
    }

    fn item_in(
        &self,
        partition: &PartitionKey,
        snapshot: &Snapshot,
        name: ItemName,
    ) -> Result<(ItemName, Option<ItemValue>), StoreError> {
        let Some(json) = snapshot.documents.get(&item_id(&name)) else { return Ok((name, None)) };
        let value = parse_item(&self.requests.layout, json)
            .map_err(|reason| self.corrupt(partition, format!("item {name}"), reason))?;
        Ok((name, Some(value)))
    }

    fn record_in(
        &self,
        partition: &PartitionKey,
        snapshot: &Snapshot,
        key: DeduplicationKey,
    ) -> Result<(DeduplicationKey, Option<Bytes>), StoreError> {
        let Some(json) = snapshot.documents.get(&record_id(&key)) else { return Ok((key, None)) };
        let record = parse_record(json)
            .map_err(|reason| self.corrupt(partition, format!("the record of {key}"), reason))?;
        let response = (record.key == key.as_str()).then_some(record.response);
        Ok((key, response))
    }

    pub(crate) fn corrupt(&self, partition: &PartitionKey, what: String, reason: String) -> StoreError {
        StoreError::Corrupt { store: self.requests.alias.clone(), partition: partition.clone(), what, reason }
    }
}
