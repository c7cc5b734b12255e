//! The table on the durable embedded store, for contenders other than Tollgate: a call that writes is one request to the store's writer,
//! waits for the same group and the same sync as a commit of Tollgate's, and is durable when it is answered; a call that reads
//! looks into the same view. Records lie there as they are, with nothing of Tollgate's beside them.

use bytes::{BufMut as _, Bytes, BytesMut};
use tempfile::TempDir;
use tollgate::proto::{BoxFuture, ItemName, PartitionKey, StoreAlias};
use tollgate_embedded::EmbeddedStore;
use tollgate_embedded::plain_records::{PlainCondition, PlainWrite};

use super::table::{Answer, Call, Change, Condition, Key, Record, Table, TableError, Write};

/// A table in a directory of its own, which is deleted with it.
pub struct EmbeddedTable {
    store: EmbeddedStore,
    /// Dropped after the store.
    _directory: TempDir,
}

fn failed(error: &dyn ToString) -> TableError {
    TableError(error.to_string())
}

/// An empty embedded store, and its directory.
///
/// # Errors
/// If the directory can't be made or written.
pub fn open(alias: StoreAlias) -> Result<(EmbeddedStore, TempDir), TableError> {
    let directory = TempDir::with_prefix("tollgate-bench-").map_err(|error| failed(&error))?;
    let store = EmbeddedStore::open(directory.path(), alias).map_err(|error| failed(&error))?;
    Ok((store, directory))
}

impl EmbeddedTable {
    /// An empty one.
    ///
    /// # Errors
    /// If its directory can't be made or written.
    pub fn create(alias: StoreAlias) -> Result<Self, TableError> {
        let (store, directory) = open(alias)?;
        Ok(Self { store, _directory: directory })
    }

    async fn get(&self, keys: Vec<Key>) -> Result<Answer, TableError> {
        let mut records = Vec::with_capacity(keys.len());
        for key in &keys {
            let (partition, name) = place(key)?;
            let value = self.store.read_plain(&partition, &name).await.map_err(|error| failed(&error))?;
            records.push(value.as_ref().map(record).transpose()?);
        }
        Ok(Answer::Records(records))
    }

    async fn query(&self, partition: &str, prefix: &str) -> Result<Answer, TableError> {
        let partition = PartitionKey::new(partition).map_err(|error| failed(&error))?;
        let found = self.store.query_plain(&partition, prefix).await.map_err(|error| failed(&error))?;
        let found = found.iter().map(|(name, value)| Ok((name.as_str().to_owned(), record(value)?)));
        found.collect::<Result<_, _>>().map(Answer::Found)
    }

    async fn write(&self, writes: Vec<Write>) -> Result<Answer, TableError> {
        let writes = writes.into_iter().map(plain).collect::<Result<_, _>>()?;
        let written = self.store.write_plain(writes).await.map_err(|error| failed(&error))?;
        Ok(if written { Answer::Written } else { Answer::Refused })
    }
}

fn place(key: &Key) -> Result<(PartitionKey, ItemName), TableError> {
    let partition = PartitionKey::new(&*key.partition).map_err(|error| failed(&error))?;
    let name = ItemName::new(&*key.sort).map_err(|error| failed(&error))?;
    Ok((partition, name))
}

fn plain(write: Write) -> Result<PlainWrite, TableError> {
    let (partition, name) = place(&write.key)?;
    let value = match write.change {
        Change::Put(record) => Some(bytes_of(&record)),
        Change::Delete => None,
    };
    let condition = match write.condition {
        Condition::Any => PlainCondition::Any,
        Condition::Absent => PlainCondition::Absent,
        Condition::Version(version) => {
            PlainCondition::BeginsWith(Bytes::copy_from_slice(&version.to_be_bytes()))
        }
    };
    Ok(PlainWrite { partition, name, value, condition })
}

/// What stands for a record that does not expire.
const NEVER: u64 = u64::MAX;

/// Version and expiry, 8 bytes each, and the value.
fn bytes_of(record: &Record) -> Bytes {
    let mut bytes = BytesMut::with_capacity(16 + record.value.len());
    bytes.put_u64(record.version);
    bytes.put_u64(record.expires_at.unwrap_or(NEVER));
    bytes.put_slice(&record.value);
    bytes.freeze()
}

fn record(bytes: &Bytes) -> Result<Record, TableError> {
    let (Some(version), Some(expires)) = (bytes.first_chunk::<8>(), bytes.get(8..16)) else {
        return Err(TableError("a record without version and expiry".to_owned()));
    };
    let expires = expires.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    Ok(Record {
        version: u64::from_be_bytes(*version),
        expires_at: (expires != NEVER).then_some(expires),
        value: bytes.slice(16..),
    })
}

impl Table for EmbeddedTable {
    fn call(&self, call: Call) -> BoxFuture<'_, Result<Answer, TableError>> {
        Box::pin(async move {
            match call {
                Call::Get(keys) => self.get(keys).await,
                Call::Query { partition, prefix } => self.query(&partition, &prefix).await,
                // Writes anywhere share the sync in any case; without conditions they never refuse each other.
                Call::Write(writes) | Call::Batch(writes) => self.write(writes).await,
            }
        })
    }

    fn contents(&self) -> BoxFuture<'_, Result<Vec<(Key, Record)>, TableError>> {
        Box::pin(async move {
            let every = self.store.every_plain().await.map_err(|error| failed(&error))?;
            let each = every.iter().map(|(partition, name, value)| {
                Ok((Key::new(partition.as_str(), name.as_str()), record(value)?))
            });
            each.collect()
        })
    }
}
