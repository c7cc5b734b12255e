//! Which store a run is on, as the contenders need it: a table for rivals, a `Store` for Tollgate, both behind the same network. The
//! heavy ones are features.

use std::sync::Arc;

use tollgate::core::{Store, StoreAlias};
use tollgate_embedded::MemoryStore;

use super::BenchError;
use super::contender::{Reported, Stage};
use super::memory_table::MemoryTable;
use super::scenario::StoreKind;
use super::table::{Call, Table, TableError, Write};

/// Whether this build has an emulated `DynamoDB`.
pub const HAS_DYNAMODB: bool = cfg!(feature = "dynamodb");

/// A table, and what its store reports.
pub struct TableBacking {
    /// The table, behind the network.
    pub table: Arc<dyn Table>,
    report: Box<dyn Fn() -> Reported + Send + Sync>,
}

impl TableBacking {
    /// Writes what senders have left.
    ///
    /// # Errors
    /// If the table fails.
    pub async fn seed(&self, writes: Vec<Write>) -> Result<(), TableError> {
        self.table.call(Call::Batch(writes)).await.map(drop)
    }

    /// What the store says it charged so far.
    pub fn reported(&self) -> Reported {
        (self.report)()
    }
}

/// A store for Tollgate, and what it reports.
pub struct StoreBacking {
    /// The store, not yet behind the network.
    pub store: Arc<dyn Store>,
    report: Box<dyn Fn() -> Reported + Send + Sync>,
}

impl StoreBacking {
    /// What the store says it charged so far.
    pub fn reported(&self) -> Reported {
        (self.report)()
    }
}

fn nothing() -> Box<dyn Fn() -> Reported + Send + Sync> {
    Box::new(Reported::default)
}

/// An empty table of the scenario's store.
///
/// # Errors
/// If this build doesn't have the store, or it refuses.
#[cfg_attr(
    not(feature = "dynamodb"),
    expect(clippy::unused_async, reason = "a store that is a server is waited for")
)]
pub async fn table(contender: &'static str, stage: &Stage) -> Result<TableBacking, BenchError> {
    match stage.scenario.store {
        StoreKind::Memory => {
            let table = Arc::new(MemoryTable::new(Arc::clone(&stage.network)));
            Ok(TableBacking { table, report: nothing() })
        }
        #[cfg(feature = "dynamodb")]
        StoreKind::DynamoDb => {
            let dynamo = tollgate_dynamodb_emulator::InProcessDynamoDb::new();
            let table = super::dynamodb::DynamoDbTable::create(&dynamo, Arc::clone(&stage.network)).await;
            let table = Arc::new(table.map_err(|error| failed(contender, &error))?);
            Ok(TableBacking { table, report: super::dynamodb::reporter(dynamo) })
        }
        #[cfg(not(feature = "dynamodb"))]
        StoreKind::DynamoDb => Err(missing(contender)),
    }
}

/// An empty store of the scenario's kind.
///
/// # Errors
/// If this build doesn't have it, or it refuses.
///
/// # Panics
/// Never: the alias is one.
#[cfg_attr(
    not(feature = "dynamodb"),
    expect(clippy::unused_async, reason = "a store that is a server is waited for")
)]
pub async fn store(contender: &'static str, stage: &Stage) -> Result<StoreBacking, BenchError> {
    match stage.scenario.store {
        StoreKind::Memory => {
            let alias = StoreAlias::new(ALIAS).expect("a constant that is an alias");
            Ok(StoreBacking { store: Arc::new(MemoryStore::new(alias)), report: nothing() })
        }
        #[cfg(feature = "dynamodb")]
        StoreKind::DynamoDb => {
            let dynamo = tollgate_dynamodb_emulator::InProcessDynamoDb::new();
            let store = super::dynamodb::store(&dynamo, ALIAS).await;
            let store = Arc::new(store.map_err(|error| failed(contender, &error))?);
            Ok(StoreBacking { store, report: super::dynamodb::reporter(dynamo) })
        }
        #[cfg(not(feature = "dynamodb"))]
        StoreKind::DynamoDb => Err(missing(contender)),
    }
}

#[cfg(feature = "dynamodb")]
fn failed(contender: &'static str, reason: &dyn ToString) -> BenchError {
    BenchError::Contender { contender, reason: reason.to_string() }
}

/// The alias of the store of every run.
const ALIAS: &str = "bench";

#[cfg(not(feature = "dynamodb"))]
fn missing(contender: &'static str) -> BenchError {
    BenchError::Contender {
        contender,
        reason: "this build has no DynamoDB: build with the feature `bench-full`".to_owned(),
    }
}
