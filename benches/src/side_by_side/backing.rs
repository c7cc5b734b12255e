//! Which store a run is on, as the contenders need it: a table for rivals, a `Store` for Tollgate, both behind the same network. The
//! heavy ones are features.

use std::sync::Arc;

use tollgate::proto::{Store, StoreAlias};
use tollgate_embedded::MemoryStore;

use super::BenchError;
use super::charged_table::ChargedTable;
use super::contender::{Reported, Stage};
use super::embedded_table::{self, EmbeddedTable};
use super::memory_table::MemoryTable;
use super::scenario::StoreKind;
use super::table::{Call, Table, TableError, Write};

/// Whether this build has an emulated `DynamoDB`.
pub const HAS_DYNAMODB: bool = cfg!(feature = "dynamodb");

/// What a store says it charged so far. It also keeps what has to live as long as the store: an emulator, a directory.
type Report = Box<dyn Fn() -> Reported + Send + Sync>;

/// A table, and what its store reports.
pub struct TableBacking {
    /// The table, behind the network.
    pub table: Arc<dyn Table>,
    report: Report,
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
    report: Report,
}

impl StoreBacking {
    /// What the store says it charged so far.
    pub fn reported(&self) -> Reported {
        (self.report)()
    }
}

fn nothing() -> Report {
    Box::new(Reported::default)
}

/// An empty table of the scenario's store.
///
/// # Errors
/// If this build doesn't have the store, or it refuses.
pub async fn table(contender: &'static str, stage: &Stage) -> Result<TableBacking, BenchError> {
    let network = Arc::clone(&stage.network);
    let opened = match stage.scenario.store {
        StoreKind::Memory => {
            Ok(TableBacking { table: Arc::new(MemoryTable::new(network)), report: nothing() })
        }
        StoreKind::Embedded => EmbeddedTable::create(alias()).map(|table| TableBacking {
            table: Arc::new(ChargedTable::new(table, network)),
            report: nothing(),
        }),
        kind => emulated::table(kind, network).await,
    };
    opened.map_err(|error| failed(contender, &error))
}

/// An empty store of the scenario's kind.
///
/// # Errors
/// If this build doesn't have it, or it refuses.
pub async fn store(contender: &'static str, stage: &Stage) -> Result<StoreBacking, BenchError> {
    let opened = match stage.scenario.store {
        StoreKind::Memory => {
            Ok(StoreBacking { store: Arc::new(MemoryStore::new(alias())), report: nothing() })
        }
        StoreKind::Embedded => embedded_table::open(alias()).map(|(store, directory)| StoreBacking {
            store: Arc::new(store),
            report: Box::new(move || {
                let _keeps = &directory;
                Reported::default()
            }),
        }),
        kind => emulated::store(kind).await,
    };
    opened.map_err(|error| failed(contender, &error))
}

fn failed(contender: &'static str, reason: &dyn ToString) -> BenchError {
    BenchError::Contender { contender, reason: reason.to_string() }
}

/// The alias of the store of every run.
const ALIAS: &str = "bench";

fn alias() -> StoreAlias {
    StoreAlias::new(ALIAS).expect("a constant that is an alias")
}

/// The stores that are features, for which an SDK and an emulator have to be built.
mod emulated {
    use std::sync::Arc;

    use super::super::network::Network;
    use super::super::scenario::StoreKind;
    use super::super::table::TableError;
    use super::{StoreBacking, TableBacking};

    #[cfg_attr(
        not(any(feature = "dynamodb", feature = "cosmos")),
        expect(
            clippy::unused_async,
            unused_variables,
            reason = "a build without emulators has nothing to wait for"
        )
    )]
    pub(super) async fn table(kind: StoreKind, network: Arc<Network>) -> Result<TableBacking, TableError> {
        match kind {
            #[cfg(feature = "dynamodb")]
            StoreKind::DynamoDb | StoreKind::DynamoDbServer => {
                use super::super::dynamodb::DynamoDbTable;

                let dynamo = dynamodb(kind).await?;
                let table = super::ChargedTable::new(DynamoDbTable::create(&dynamo).await?, network);
                Ok(TableBacking { table: Arc::new(table), report: Box::new(move || dynamo.reported()) })
            }
            #[cfg(feature = "cosmos")]
            StoreKind::Cosmos => {
                let table = super::super::cosmos::CosmosTable::create().await?;
                let meter = table.meter();
                let table = Arc::new(super::ChargedTable::new(table, network));
                Ok(TableBacking { table, report: Box::new(move || meter.reported()) })
            }
            kind => Err(missing(kind)),
        }
    }

    #[cfg_attr(
        not(any(feature = "dynamodb", feature = "cosmos")),
        expect(clippy::unused_async, reason = "a build without emulators has nothing to wait for")
    )]
    pub(super) async fn store(kind: StoreKind) -> Result<StoreBacking, TableError> {
        match kind {
            #[cfg(feature = "dynamodb")]
            StoreKind::DynamoDb | StoreKind::DynamoDbServer => {
                let dynamo = dynamodb(kind).await?;
                let store = super::super::dynamodb::store(&dynamo, super::ALIAS).await?;
                Ok(StoreBacking { store: Arc::new(store), report: Box::new(move || dynamo.reported()) })
            }
            #[cfg(feature = "cosmos")]
            StoreKind::Cosmos => {
                let (emulator, store) = super::super::cosmos::store(super::alias()).await?;
                let store = Arc::new(store);
                let report = super::super::cosmos::reporter(emulator, Arc::clone(&store));
                Ok(StoreBacking { store, report })
            }
            kind => Err(missing(kind)),
        }
    }

    #[cfg(feature = "dynamodb")]
    async fn dynamodb(kind: StoreKind) -> Result<super::super::dynamodb::Emulator, TableError> {
        use super::super::dynamodb::Emulator;

        match kind {
            StoreKind::DynamoDbServer => Emulator::server().await,
            _ => Ok(Emulator::in_process()),
        }
    }

    fn missing(kind: StoreKind) -> TableError {
        TableError(format!("this build has no {}: build with the feature `full`", kind.name()))
    }
}
