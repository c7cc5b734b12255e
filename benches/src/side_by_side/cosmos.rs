//! The table and the store on Microsoft's in-memory emulator of Cosmos DB in this process: real requests of the real SDK, under session
//! consistency, and the request units that answers report. Feature `cosmos`.
//!
//! A record is a document: `id` is the sort key, `pk` the partition, and the value is text, as Tollgate's items are where JSON has numbers
//! that Cosmos DB would round. A condition on a version is one on the etag that the document had in that version. Cosmos DB
//! has no batch across partitions: what is one there elsewhere is a request for each document here, all of them sent together, as
//! Tollgate's deletions of tokens are.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use azure_data_cosmos::clients::ContainerClient;
use azure_data_cosmos::feed::{FeedScope, Query};
use azure_data_cosmos::models::TransactionalBatchResponse;
use azure_data_cosmos::options::{
    BatchReplaceOptions, BinaryEncodingOptions, FeedOptions, ItemReadOptions, ItemWriteOptions,
    OperationOptions, OperationOptionsBuilder, Precondition, QueryOptions,
};
use azure_data_cosmos::{CosmosError, TransactionalBatch};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::try_join_all;
use serde_json::{Map, Value, json};
use tollgate::proto::{BoxFuture, StoreAlias};
use tollgate_cosmos::{CosmosStore, RecordExpiry};
use tollgate_cosmos_emulator::CosmosEmulator;

use super::contender::Reported;
use super::rival::Desk;
use super::table::{Answer, Call, Change, Condition, Key, Record, Table, TableError, Write};

const DATABASE: &str = "bench";
const CONTAINER: &str = "bench";
/// Sort keys have it as their separator, and ids of documents may not.
const SEPARATOR: &str = "#";
/// What stands for it in ids.
const SEPARATOR_IN_IDS: &str = ":";

/// Not found, conflict, a condition on an etag that does not hold, an operation of a batch that was not tried.
const NOT_FOUND: u16 = 404;
const REFUSED: [u16; 2] = [409, 412];
const NOT_TRIED: u16 = 424;
const HUNDREDTHS: f64 = 100.0;

fn failed(error: &dyn std::fmt::Display) -> TableError {
    TableError(error.to_string())
}

fn start() -> Result<CosmosEmulator, TableError> {
    CosmosEmulator::builder().container(DATABASE, CONTAINER, &["/pk"]).start().map_err(|error| failed(&error))
}

/// Tollgate's store on an emulator of its own.
///
/// # Errors
/// If the emulator or the store refuses.
pub async fn store(alias: StoreAlias) -> Result<(CosmosEmulator, CosmosStore), TableError> {
    let emulator = start()?;
    let client = emulator.client().await.map_err(|error| failed(&error))?;
    let builder = CosmosStore::builder(alias).expiry(RecordExpiry::ByStore);
    let store = builder.open(&client, DATABASE, CONTAINER).await.map_err(|error| failed(&error))?;
    Ok((emulator, store))
}

/// What Tollgate's store was charged.
pub fn reporter(
    emulator: CosmosEmulator,
    store: Arc<CosmosStore>,
) -> Box<dyn Fn() -> Reported + Send + Sync> {
    Box::new(move || {
        let _keeps = &emulator;
        Reported { request_units: Some(store.statistics().total().request_units), ..Reported::default() }
    })
}

/// What answers have reported, in hundredths of a request unit.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<AtomicU64>);

impl Meter {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "charges are small and positive"
    )]
    fn add(&self, charge: Option<&impl ToString>) {
        // The SDK's type of a charge shows its number by `Display` alone.
        let charge: f64 = charge.and_then(|charge| charge.to_string().parse().ok()).unwrap_or_default();
        self.0.fetch_add((charge * HUNDREDTHS).round() as u64, Ordering::Relaxed);
    }

    /// As the harness wants it.
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    pub fn reported(&self) -> Reported {
        let units = self.0.load(Ordering::Relaxed) as f64 / HUNDREDTHS;
        Reported { request_units: Some(units), ..Reported::default() }
    }
}

/// A table in an emulated container of its own.
pub struct CosmosTable {
    container: ContainerClient,
    options: OperationOptions,
    meter: Meter,
    /// The newest version that was seen of each document, and its etag.
    seen: Mutex<HashMap<Key, (u64, String)>>,
    _emulator: CosmosEmulator,
}

impl CosmosTable {
    /// An empty one.
    ///
    /// # Errors
    /// If the emulator refuses.
    pub async fn create() -> Result<Self, TableError> {
        let emulator = start()?;
        let client = emulator.client().await.map_err(|error| failed(&error))?;
        let container = client.database_client(DATABASE).container_client(CONTAINER, None).await;
        // As Tollgate's store has it, so that documents are equally large for all.
        let encoding = BinaryEncodingOptions::new().with_enabled(false);
        Ok(Self {
            container: container.map_err(|error| failed(&error))?,
            options: OperationOptionsBuilder::new().with_binary_encoding(encoding).build(),
            meter: Meter::default(),
            seen: Mutex::default(),
            _emulator: emulator,
        })
    }

    /// What its answers have reported.
    pub fn meter(&self) -> Meter {
        self.meter.clone()
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<Key, (u64, String)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of an etag. Answers may overtake each other: an older version than the one that is known is not noted.
    fn note(&self, key: &Key, version: u64, etag: impl Into<String>) {
        let mut seen = self.seen();
        if seen.get(key).is_none_or(|(known, _)| *known <= version) {
            seen.insert(key.clone(), (version, etag.into()));
        }
    }

    fn etag(&self, key: &Key, version: u64) -> Option<String> {
        self.seen().get(key).filter(|(known, _)| *known == version).map(|(_, etag)| etag.clone())
    }

    fn judge(&self, error: &CosmosError) -> u16 {
        if let Some(response) = error.response() {
            self.meter.add(response.headers().request_charge.as_ref());
        }
        u16::from(error.status().status_code())
    }

    async fn get_one(&self, key: &Key) -> Result<Option<Record>, TableError> {
        let options = ItemReadOptions::default().with_operation_options(self.options.clone());
        match self.container.read_item(key.partition.clone(), &id(&key.sort), Some(options)).await {
            Ok(response) => {
                self.meter.add(response.headers().request_charge());
                let document: Map<String, Value> = response.into_model().map_err(|error| failed(&error))?;
                self.record(key, &document).map(Some)
            }
            Err(error) if self.judge(&error) == NOT_FOUND => Ok(None),
            Err(error) => Err(failed(&error)),
        }
    }

    /// What a document says; takes note of its etag.
    fn record(&self, key: &Key, document: &Map<String, Value>) -> Result<Record, TableError> {
        let number = |field: &str| document.get(field).and_then(Value::as_u64);
        let text = |field: &str| document.get(field).and_then(Value::as_str);
        let (Some(version), Some(value), Some(etag)) = (number("version"), text("value"), text("_etag"))
        else {
            return Err(TableError("a document without version, value or etag".to_owned()));
        };
        self.note(key, version, etag);
        let value = Bytes::copy_from_slice(value.as_bytes());
        Ok(Record { version, value, expires_at: number("expires_at") })
    }

    async fn query(&self, query: Query, scope: FeedScope) -> Result<Vec<Map<String, Value>>, TableError> {
        // The SDK refuses a query over more than 100 physical partitions unless it is told that this is meant.
        let options = QueryOptions::default()
            .with_operation_options(self.options.clone())
            .with_feed_options(FeedOptions::default().with_max_fan_out(u32::MAX));
        let pages = self.container.query_items::<Map<String, Value>>(query, scope, Some(options)).await;
        let mut pages = pages.map_err(|error| failed(&error))?.into_pages();
        let mut documents = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed(&error))?;
            self.meter.add(page.headers().request_charge());
            documents.extend(page.into_items());
        }
        Ok(documents)
    }

    async fn find(&self, partition: String, prefix: &str) -> Result<Answer, TableError> {
        let query = Query::from("SELECT * FROM c WHERE STARTSWITH(c.id, @prefix)");
        let query = query.with_parameter("@prefix", id(prefix)).map_err(|error| failed(&error))?;
        let documents = self.query(query, FeedScope::partition(partition.clone())).await?;
        let mut found = Vec::with_capacity(documents.len());
        for document in &documents {
            let key = Key::new(&*partition, sort_of(document)?);
            let record = self.record(&key, document)?;
            found.push((key.sort, record));
        }
        found.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(Answer::Found(found))
    }

    /// One write. Answers whether its condition held.
    async fn write_one(&self, Write { key, change, condition }: Write) -> Result<bool, TableError> {
        let mut options = ItemWriteOptions::default().with_operation_options(self.options.clone());
        let (partition, id) = (key.partition.clone(), id(&key.sort));
        let (version, response) = match (&change, condition) {
            (Change::Delete, _) => (None, self.container.delete_item(partition, &id, Some(options)).await),
            (Change::Put(new), Condition::Any) => {
                let written = self.container.upsert_item(partition, &id, document(&key, new), Some(options));
                (Some(new.version), written.await)
            }
            (Change::Put(new), Condition::Absent) => {
                let written = self.container.create_item(partition, &id, document(&key, new), Some(options));
                (Some(new.version), written.await)
            }
            (Change::Put(new), Condition::Version(version)) => {
                // Another version than the one that was seen last: the condition fails.
                let Some(etag) = self.etag(&key, version) else { return Ok(false) };
                options = options.with_precondition(Precondition::if_match(etag));
                let written = self.container.replace_item(partition, &id, document(&key, new), Some(options));
                (Some(new.version), written.await)
            }
        };
        match response {
            Ok(response) => {
                self.meter.add(response.headers().request_charge());
                match (version, response.headers().etag()) {
                    (Some(version), Some(etag)) => self.note(&key, version, etag.to_string()),
                    _ => drop(self.seen().remove(&key)),
                }
                Ok(true)
            }
            Err(error) => match self.judge(&error) {
                // What is to be deleted is gone.
                NOT_FOUND if change == Change::Delete => Ok(true),
                code if code == NOT_FOUND || REFUSED.contains(&code) => Ok(false),
                _ => Err(failed(&error)),
            },
        }
    }

    async fn transact(&self, mut writes: Vec<Write>) -> Result<Answer, TableError> {
        loop {
            let Some(batch) = self.batch(&writes)? else { return Ok(Answer::Refused) };
            let response = self.container.execute_transactional_batch(batch, None).await;
            let response = response.map_err(|error| {
                self.judge(&error);
                failed(&error)
            })?;
            self.meter.add(response.headers().request_charge());
            let model: TransactionalBatchResponse = response.into_model().map_err(|error| failed(&error))?;
            let results = model.results();
            let refused =
                results.iter().position(|result| !result.is_success() && result.status_code() != NOT_TRIED);
            let Some(place) = refused else {
                for (write, result) in writes.iter().zip(results) {
                    match (&write.change, result.etag()) {
                        (Change::Put(new), Some(etag)) => self.note(&write.key, new.version, etag),
                        _ => drop(self.seen().remove(&write.key)),
                    }
                }
                return Ok(Answer::Written);
            };
            let code = results[place].status_code();
            if code == NOT_FOUND && writes[place].change == Change::Delete {
                // It is gone already, which is what was wanted: the rest is sent again.
                writes.remove(place);
            } else if code == NOT_FOUND || REFUSED.contains(&code) {
                return Ok(Answer::Refused);
            } else {
                return Err(TableError(format!("operation {place} of a batch was answered {code}")));
            }
        }
    }

    /// The batch of a transaction. `None`: a condition can't hold.
    fn batch(&self, writes: &[Write]) -> Result<Option<TransactionalBatch>, TableError> {
        let partition = writes.first().map(|write| write.key.partition.clone()).unwrap_or_default();
        let mut batch = TransactionalBatch::new(partition);
        for Write { key, change, condition } in writes {
            let added = match (change, condition) {
                (Change::Delete, _) => Ok(batch.delete_item(id(&key.sort), None)),
                (Change::Put(new), Condition::Any) => batch.upsert_item(document(key, new), None),
                (Change::Put(new), Condition::Absent) => batch.create_item(document(key, new)),
                (Change::Put(new), Condition::Version(version)) => {
                    let Some(etag) = self.etag(key, *version) else { return Ok(None) };
                    let unchanged =
                        BatchReplaceOptions::default().with_precondition(Precondition::if_match(etag));
                    batch.replace_item(id(&key.sort), document(key, new), Some(unchanged))
                }
            };
            batch = added.map_err(|error| failed(&error))?;
        }
        Ok(Some(batch))
    }
}

/// The id of a sort key, or how the ids of those begin that begin so.
fn id(sort: &str) -> String {
    sort.replace(SEPARATOR, SEPARATOR_IN_IDS)
}

fn sort_of(document: &Map<String, Value>) -> Result<String, TableError> {
    let id = document.get("id").and_then(Value::as_str);
    let id = id.ok_or_else(|| TableError("a document without an id".to_owned()))?;
    Ok(id.replace(SEPARATOR_IN_IDS, SEPARATOR))
}

fn document(key: &Key, record: &Record) -> Value {
    let mut document = json!({
        "id": id(&key.sort),
        "pk": key.partition,
        "version": record.version,
        "value": String::from_utf8_lossy(&record.value),
    });
    if let (Some(expires), Some(fields)) = (record.expires_at, document.as_object_mut()) {
        fields.insert("expires_at".to_owned(), expires.into());
        // By which the service would delete it.
        fields.insert("ttl".to_owned(), expires.saturating_sub(Desk::in_seconds(0)).into());
    }
    document
}

impl Table for CosmosTable {
    fn call(&self, call: Call) -> BoxFuture<'_, Result<Answer, TableError>> {
        Box::pin(async move {
            match call {
                Call::Get(keys) => {
                    Ok(Answer::Records(try_join_all(keys.iter().map(|key| self.get_one(key))).await?))
                }
                Call::Query { partition, prefix } => self.find(partition, &prefix).await,
                Call::Write(writes) if writes.len() > 1 => self.transact(writes).await,
                Call::Write(writes) => {
                    let mut written = true;
                    for write in writes {
                        written &= self.write_one(write).await?;
                    }
                    Ok(if written { Answer::Written } else { Answer::Refused })
                }
                Call::Batch(writes) => {
                    try_join_all(writes.into_iter().map(|write| self.write_one(write))).await?;
                    Ok(Answer::Written)
                }
            }
        })
    }

    fn contents(&self) -> BoxFuture<'_, Result<Vec<(Key, Record)>, TableError>> {
        Box::pin(async move {
            let documents = self.query(Query::from("SELECT * FROM c"), FeedScope::full_container()).await?;
            let mut contents = Vec::with_capacity(documents.len());
            for document in &documents {
                let partition = document.get("pk").and_then(Value::as_str);
                let partition = partition.ok_or_else(|| TableError("a document without a key".to_owned()))?;
                let key = Key::new(partition, sort_of(document)?);
                let record = self.record(&key, document)?;
                contents.push((key, record));
            }
            Ok(contents)
        })
    }
}
