//! Commits: one transactional batch on one logical partition, whose first operation carries the condition. What is in the
//! way of a batch (an expired record, a deletion of what is gone) is taken out of it and the batch sent again; each time the
//! condition is checked anew.

use azure_data_cosmos::TransactionalBatch;
use azure_data_cosmos::options::{BatchReplaceOptions, Precondition};
use serde_json::Value;
use tollgate_proto::{
    Commit, CommitOutcome, DeduplicationKey, LimitExceeded, PartitionKey, StoreError, Version,
};

use crate::cosmos_store::CosmosStore;
use crate::document::{
    RecordDocument, control_document, entry_document, parse_control, parse_record, record_document,
};
use crate::document_id::{CONTROL_ID, entry_id, item_id, record_id};
use crate::failure::Failure;
use crate::item_document::item_document;
use crate::limits::{BATCH_BYTES_MAX, COSMOS_LIMITS, ITEM_OVERHEAD_BYTES};
use crate::requests::BatchAnswer;
use crate::statistics::Operation;

/// How often a batch is sent again because expired records were in its way, before the commit is put back.
const ROUNDS_MAX: usize = 8;

/// A commit whose bytes, unencoded, are below this part of Cosmos DB's limit fits whatever its encoding adds: text that is
/// kept as text at most doubles.
const SURELY_FITS_PART: usize = 4;

/// Bytes of a batch's operation beyond its document: `{"operationType":"Replace","id":…,"ifMatch":…,"resourceBody":…}`.
const OPERATION_BYTES: usize = 160;

/// One operation of the batch behind the control record's.
enum Change {
    Put { document: Value },
    Create { document: Value },
    Delete { id: String },
    Record { key: DeduplicationKey, document: Value, replaces: Option<String> },
}

impl CosmosStore {
    pub(crate) async fn commit_one(&self, commit: Commit) -> Result<CommitOutcome, StoreError> {
        let bytes = self.check_limits(&commit)?;
        let partition = &commit.partition;
        let condition = match commit.expected {
            None => None,
            Some(expected) => match self.etag_of(partition, expected).await? {
                Some(etag) => Some(etag),
                None => return Ok(CommitOutcome::Conflict),
            },
        };
        let control = control_document(&self.requests.layout, partition, commit.version, &commit.control);
        let mut changes = self.changes_of(&commit);
        let document_bytes = check_encoded(&commit, bytes, &control, &changes);
        if let Err(limit) = document_bytes {
            return Err(self.too_large(partition, limit));
        }
        let mut rounds_of_records = 0;
        loop {
            let batch = self.batch(partition, condition.as_deref(), &control, &changes)?;
            let fail = |failure: Failure| failure.of_commit(&self.requests.alias, partition, bytes);
            let (index, failure) =
                match self.requests.execute(Operation::Commit, batch).await.map_err(fail)? {
                    BatchAnswer::Done { results, mark } => {
                        if let Some(etag) = results.first().and_then(|result| result.etag()) {
                            self.memory.saw(partition, commit.version, etag);
                        }
                        // Without a mark nobody could be sure to see what was committed: let the engine load it, which brings one.
                        let mark = mark.ok_or_else(|| StoreError::OutcomeUnknown {
                            store: self.requests.alias.clone(),
                            partition: partition.clone(),
                            reason: "it was answered without a session token".to_owned(),
                        })?;
                        self.memory.answered(partition, &mark.scope);
                        return Ok(CommitOutcome::Committed { session: Some(mark) });
                    }
                    BatchAnswer::Refused { index, failure } => (index, failure),
                };
            match (index.checked_sub(1), failure) {
                (None, Failure::Condition | Failure::Missing { .. }) => {
                    self.memory.forget(partition);
                    return Ok(CommitOutcome::Conflict);
                }
                (Some(place), Failure::Condition | Failure::Missing { .. })
                    if matches!(changes.get(place), Some(Change::Record { .. })) =>
                {
                    let existing = self.judge_records(&commit, &mut changes).await?;
                    if !existing.is_empty() {
                        return Ok(CommitOutcome::RecordsExist(existing));
                    }
                    rounds_of_records += 1;
                    if rounds_of_records > ROUNDS_MAX {
                        return Err(StoreError::Unavailable {
                            store: self.requests.alias.clone(),
                            reason: format!("records of partition {partition} come and go"),
                        });
                    }
                }
                // It is gone already. Ids of entries are never used twice, and an item can't come back under this condition.
                (Some(place), Failure::Missing { .. })
                    if matches!(changes.get(place), Some(Change::Delete { .. })) =>
                {
                    changes.remove(place);
                }
                (_, Failure::Condition) => {
                    return Err(StoreError::Corrupt {
                        store: self.requests.alias.clone(),
                        partition: partition.clone(),
                        what: format!("operation {index} of a commit"),
                        reason: "an outbox entry that is to be created exists already".to_owned(),
                    });
                }
                (_, failure) => return Err(fail(failure)),
            }
        }
    }

    /// The etag of the control record in this version. `None`: it has another version, or there is none.
    ///
    /// An etag stands for one state of one document, so a batch with it as its condition is conditional on the version that
    /// was in the document when the etag was seen.
    async fn etag_of(
        &self,
        partition: &PartitionKey,
        version: Version,
    ) -> Result<Option<std::sync::Arc<str>>, StoreError> {
        if let Some(etag) = self.memory.etag(partition, version) {
            return Ok(Some(etag));
        }
        let found = self.read_at_primary(Operation::BeforeCommit, partition, CONTROL_ID).await?;
        let Some((json, _)) = found else { return Ok(None) };
        let control = parse_control(&json)
            .map_err(|reason| self.corrupt(partition, "the control record".to_owned(), reason))?;
        self.memory.saw(partition, control.version, &control.etag);
        Ok((control.version == version).then(|| control.etag.into()))
    }

    fn changes_of(&self, commit: &Commit) -> Vec<Change> {
        let Commit { partition, items, entries, deleted_entries, records, now_ms, .. } = commit;
        let layout = &self.requests.layout;
        let records = records.iter().map(|record| Change::Record {
            key: record.key.clone(),
            document: record_document(layout, partition, record, *now_ms),
            replaces: None,
        });
        let items = items.iter().map(|(name, value)| match value {
            Some(value) => Change::Put { document: item_document(layout, partition, name, value) },
            None => Change::Delete { id: item_id(name) },
        });
        let entries = entries
            .iter()
            .map(|(key, entry)| Change::Create { document: entry_document(layout, partition, *key, entry) });
        let deletions = deleted_entries.iter().map(|key| Change::Delete { id: entry_id(*key) });
        // Records directly behind the condition: they are the likeliest to refuse what follows.
        records.chain(items).chain(entries).chain(deletions).collect()
    }

    fn batch(
        &self,
        partition: &PartitionKey,
        condition: Option<&str>,
        control: &Value,
        changes: &[Change],
    ) -> Result<TransactionalBatch, StoreError> {
        let batch = TransactionalBatch::new(self.requests.key(partition)?);
        let if_match = |etag: &str| {
            Some(BatchReplaceOptions::default().with_precondition(Precondition::if_match(etag.to_owned())))
        };
        let with_control = match condition {
            Some(etag) => batch.replace_item(CONTROL_ID, control, if_match(etag)),
            None => batch.create_item(control),
        };
        let add = |batch: TransactionalBatch, change: &Change| match change {
            Change::Put { document } => batch.upsert_item(document, None),
            Change::Create { document } | Change::Record { document, replaces: None, .. } => {
                batch.create_item(document)
            }
            Change::Delete { id } => Ok(batch.delete_item(id.clone(), None)),
            Change::Record { key, document, replaces: Some(etag) } => {
                batch.replace_item(record_id(key), document, if_match(etag))
            }
        };
        let whole = with_control.and_then(|batch| changes.iter().try_fold(batch, add));
        whole.map_err(|error: azure_data_cosmos::CosmosError| {
            Failure::of(&error).of_commit(&self.requests.alias, partition, 0)
        })
    }

    /// Looks at the records that may be in a commit's way. Those that are alive are answered; the others are to be replaced.
    async fn judge_records(
        &self,
        commit: &Commit,
        changes: &mut [Change],
    ) -> Result<Vec<DeduplicationKey>, StoreError> {
        let mut alive = Vec::new();
        for change in changes {
            let Change::Record { key, replaces, .. } = change else { continue };
            match self.record(&commit.partition, key).await? {
                None => *replaces = None,
                Some(record) if record.expires_at_ms > commit.now_ms => alive.push(key.clone()),
                Some(record) => *replaces = Some(record.etag),
            }
        }
        Ok(alive)
    }

    async fn record(
        &self,
        partition: &PartitionKey,
        key: &DeduplicationKey,
    ) -> Result<Option<RecordDocument>, StoreError> {
        let found = self.read_at_primary(Operation::BeforeCommit, partition, &record_id(key)).await?;
        found
            .map(|(json, _)| parse_record(&json))
            .transpose()
            .map_err(|reason| self.corrupt(partition, format!("the record of {key}"), reason))
    }

    /// Checks the declared limits. Returns the bytes of the commit before they are encoded.
    fn check_limits(&self, commit: &Commit) -> Result<usize, StoreError> {
        commit
            .check(&COSMOS_LIMITS, ITEM_OVERHEAD_BYTES)
            .map_err(|limit| self.too_large(&commit.partition, limit))?;
        let items = commit.items.iter().filter_map(|(_, value)| value.as_ref());
        Ok(commit.control.len()
            + items.map(|value| value.bytes().len()).sum::<usize>()
            + commit.entries.iter().map(|(_, entry)| entry.len()).sum::<usize>()
            + commit.records.iter().map(|record| record.response.len()).sum::<usize>())
    }

    fn too_large(&self, partition: &PartitionKey, limit: LimitExceeded) -> StoreError {
        StoreError::TooLarge { store: self.requests.alias.clone(), partition: partition.clone(), limit }
    }
}

/// Checks the limits on the bytes that would be sent.
fn check_encoded(
    commit: &Commit,
    bytes: usize,
    control: &Value,
    changes: &[Change],
) -> Result<(), LimitExceeded> {
    if bytes < BATCH_BYTES_MAX / SURELY_FITS_PART {
        return Ok(());
    }
    let mut whole = control.to_string().len() + OPERATION_BYTES;
    for change in changes {
        let size = match change {
            Change::Put { document } | Change::Create { document } | Change::Record { document, .. } => {
                document.to_string().len()
            }
            Change::Delete { id } => id.len(),
        };
        if size > BATCH_BYTES_MAX {
            return Err(LimitExceeded::ItemBytes {
                item: format!("a document of partition {}", commit.partition),
                bytes: size,
                max: BATCH_BYTES_MAX,
            });
        }
        whole += size + OPERATION_BYTES;
    }
    if whole > BATCH_BYTES_MAX {
        return Err(LimitExceeded::TransactionBytes { bytes: whole, max: BATCH_BYTES_MAX });
    }
    Ok(())
}
