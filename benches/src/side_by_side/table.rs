//! The key-value store as contenders other than Tollgate see it: records under a partition and a sort key, with what both DynamoDB
//! and Cosmos DB offer: consistent reads, conditional writes, transactions and queries inside one partition, batches. One
//! value of [`Call`] is one round trip.

use bytes::Bytes;
use tollgate::proto::BoxFuture;

/// A place in the table.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The unit of consistency.
    pub partition: String,
    /// The place in it.
    pub sort: String,
}

impl Key {
    /// A place.
    pub fn new(partition: impl Into<String>, sort: impl Into<String>) -> Self {
        Self { partition: partition.into(), sort: sort.into() }
    }
}

/// What lies in a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// By which conditions are made. Writers count it up.
    pub version: u64,
    /// JSON, mostly.
    pub value: Bytes,
    /// When the store may delete it, in seconds since the Unix epoch.
    pub expires_at: Option<u64>,
}

/// What a write insists on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Any,
    /// There is nothing in the place.
    Absent,
    /// What is there has this version.
    Version(u64),
}

/// What a write does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Puts a record.
    Put(Record),
    /// Removes what is there.
    Delete,
}

/// A write of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Where.
    pub key: Key,
    /// What.
    pub change: Change,
    /// On which condition.
    pub condition: Condition,
}

impl Write {
    /// Puts a record that does not expire.
    pub fn put(key: Key, version: u64, value: impl Into<Bytes>, condition: Condition) -> Self {
        let record = Record { version, value: value.into(), expires_at: None };
        Self { key, change: Change::Put(record), condition }
    }

    /// The same, and lets the store delete it some day.
    #[must_use]
    pub fn expiring_at(mut self, seconds: u64) -> Self {
        if let Change::Put(record) = &mut self.change {
            record.expires_at = Some(seconds);
        }
        self
    }

    /// Removes a record.
    pub const fn delete(key: Key) -> Self {
        Self { key, change: Change::Delete, condition: Condition::Any }
    }
}

/// One round trip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Reads records, consistently: one, or a batch.
    Get(Vec<Key>),
    /// Reads all records of a partition whose sort key begins so, consistently.
    Query {
        /// Which partition.
        partition: String,
        /// How sort keys begin.
        prefix: String,
    },
    /// Writes records of one partition, all or nothing: one conditional write, or a transaction.
    Write(Vec<Write>),
    /// Writes records anywhere, each for itself and without conditions.
    Batch(Vec<Write>),
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// What was found, in the order of the question; of a query, with the sort keys.
    Records(Vec<Option<Record>>),
    /// What a query found.
    Found(Vec<(String, Record)>),
    /// It was written.
    Written,
    /// A condition failed, and nothing was written.
    Refused,
}

/// Why a call failed. All are passing: the message is put back.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the table did not answer: {0}")]
pub struct TableError(pub String);

/// A table.
pub trait Table: Send + Sync + 'static {
    /// Makes one round trip.
    fn call(&self, call: Call) -> BoxFuture<'_, Result<Answer, TableError>>;

    /// Everything in it, for the audit.
    fn contents(&self) -> BoxFuture<'_, Result<Vec<(Key, Record)>, TableError>>;
}
