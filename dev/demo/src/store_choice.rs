//! Where the demo's partitions lie: the one room that knows which stores there are. A store that only one process can
//! open is opened by the host, which serves it; any other is opened by each consumer by itself, and the host serves
//! only the broker.
//!
//! To add a store: a variant of [`StoreChoice`], and what [`StoreOptions::open`] does for it.

#[cfg(feature = "cosmos")]
mod cosmos;
#[cfg(feature = "dynamodb")]
mod dynamodb;

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tollgate::Store;
use tollgate::proto::StoreAlias;
use tollgate_embedded::EmbeddedStore;

use crate::error::DemoError;
use crate::remote::{CallError, Connection, RemoteStore};

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StoreChoice {
    /// The embedded store, in the data directory; the host opens it.
    Embedded,
    /// The store of another `tollgate host`, started by --server: it is to the demo what a database server is.
    Host,
    /// A table of `DynamoDB`, which is created if it is not there.
    #[cfg(feature = "dynamodb")]
    Dynamodb,
    /// A container of `Azure Cosmos DB`, which must be there.
    #[cfg(feature = "cosmos")]
    Cosmos,
}

/// Which store, and where it is.
#[derive(Args, Clone, Debug)]
pub struct StoreOptions {
    /// Where partitions are stored.
    #[arg(long, value_name = "STORE", value_enum, default_value_t = StoreChoice::Embedded)]
    pub store: StoreChoice,
    /// Where a store is that each process opens by itself. For `host`: the file with its address. For `dynamodb`: an emulator's
    /// table, as `http://127.0.0.1:8000/TABLE`, or the name of a table in the region and account that the environment tells.
    /// For `cosmos`: `https://ACCOUNT/DATABASE/CONTAINER` or an emulator's, with the account's key in `TOLLGATE_COSMOS_KEY`.
    #[arg(long, value_name = "WHERE")]
    pub store_at: Option<String>,
}

/// The name by which tokens refer to the demo's store.
const ALIAS: &str = "main";

/// How long a process that has just been started looks for its store: the host or the server may be starting too.
const FOUND_WITHIN: Duration = Duration::from_secs(60);

/// Opens the embedded store in the demo's directory.
///
/// # Errors
/// If it can't be used.
pub fn open_embedded(data: &Path) -> Result<EmbeddedStore, DemoError> {
    EmbeddedStore::open(data.join("store"), StoreAlias::new(ALIAS)?)
        .map_err(|error| DemoError::Open(error.to_string()))
}

impl StoreOptions {
    /// The same, as arguments of another process.
    pub fn arguments(&self) -> Vec<OsString> {
        let store = self.store.to_possible_value().expect("no variant is skipped");
        let mut arguments = vec!["--store".into(), store.get_name().into()];
        if let Some(place) = &self.store_at {
            arguments.extend(["--store-at".into(), place.into()]);
        }
        arguments
    }

    /// Opens what only the host can open. `None`: everybody opens the store by himself.
    ///
    /// # Errors
    /// If it can't be used.
    pub fn open_in_host(&self, data: &Path) -> Result<Option<EmbeddedStore>, DemoError> {
        match self.store {
            StoreChoice::Embedded => open_embedded(data).map(Some),
            StoreChoice::Host => Ok(None),
            #[cfg(feature = "dynamodb")]
            StoreChoice::Dynamodb => Ok(None),
            #[cfg(feature = "cosmos")]
            StoreChoice::Cosmos => Ok(None),
        }
    }

    /// Opens a store for a demo in one process.
    ///
    /// # Errors
    /// If it can't be used, or belongs to another process.
    #[cfg_attr(
        not(any(feature = "dynamodb", feature = "cosmos")),
        expect(clippy::unused_async, reason = "only a database makes it wait")
    )]
    pub async fn open_alone(&self, data: &Path) -> Result<Arc<dyn Store>, DemoError> {
        match self.store {
            StoreChoice::Embedded => Ok(Arc::new(open_embedded(data)?)),
            StoreChoice::Host => {
                Err(DemoError::Open("a store of another process needs --processes".to_owned()))
            }
            #[cfg(feature = "dynamodb")]
            StoreChoice::Dynamodb => dynamodb::open(self.store_at.as_deref()).await,
            #[cfg(feature = "cosmos")]
            StoreChoice::Cosmos => cosmos::open(self.store_at.as_deref()).await,
        }
    }

    /// Opens the store in a process that is connected to the host, waiting a while for it to be there.
    ///
    /// # Errors
    /// If it can't be used.
    pub async fn open(&self, host: &Arc<Connection>) -> Result<Arc<dyn Store>, DemoError> {
        let connection = match (self.store, &self.store_at) {
            #[cfg(feature = "dynamodb")]
            (StoreChoice::Dynamodb, place) => return dynamodb::open(place.as_deref()).await,
            #[cfg(feature = "cosmos")]
            (StoreChoice::Cosmos, place) => return cosmos::open(place.as_deref()).await,
            (StoreChoice::Embedded, _) => Arc::clone(host),
            (StoreChoice::Host, Some(address)) => Arc::new(Connection::open(address)),
            (StoreChoice::Host, None) => {
                let problem = "--store host needs --store-at with the file that has the host's address";
                return Err(DemoError::Open(problem.to_owned()));
            }
        };
        let opened = tokio::time::timeout(FOUND_WITHIN, async {
            loop {
                match RemoteStore::open(Arc::clone(&connection)).await {
                    // The connection has waited before it said so.
                    Err(CallError::NotSent(_) | CallError::Lost) => {}
                    opened => return opened,
                }
            }
        });
        match opened.await {
            Ok(Ok(store)) => Ok(Arc::new(store)),
            Ok(Err(error)) => Err(DemoError::Open(format!("the store can't be opened: {error}"))),
            Err(_) => {
                let waited = FOUND_WITHIN.as_secs();
                Err(DemoError::Open(format!(
                    "the store did not answer for {waited} s: is its server running?"
                )))
            }
        }
    }
}
