//! The emulated account: which regions, consistency and containers it has, clients of it, and what can be done to it from
//! outside. Requests are answered by Microsoft's code; nothing here looks into one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use azure_core::http::Url;
use azure_data_cosmos::options::Region;
use azure_data_cosmos::{
    AccountEndpoint, AccountReference, CosmosClient, CosmosClientBuilder, CosmosRuntimeBuilder,
    RoutingStrategy,
};
use azure_data_cosmos_driver::in_memory_emulator::{
    ConsistencyLevel, ContainerConfig, InMemoryEmulatorHttpClient, ReplicationConfig, VirtualAccountConfig,
    VirtualRegion, WriteMode,
};

use crate::error::EmulatorError;
use crate::fault_rules::FaultRules;
use crate::request_counts::{Observer, RequestCounts};

/// The key of every emulated account. The emulator checks none.
pub const KEY: &str = "dG9sbGdhdGU=";

/// How many physical partitions a container has unless told otherwise: the emulator copies the whole physical partition for
/// each batch, so these are many and small.
pub const PHYSICAL_PARTITIONS: u32 = 200;

/// An emulated account.
pub struct CosmosEmulator {
    emulator: Arc<InMemoryEmulatorHttpClient>,
    observer: Arc<Observer>,
    regions: Vec<(String, Url)>,
    /// Databases, containers and paths of partition keys.
    pub(crate) containers: Vec<(String, String, Vec<String>)>,
}

impl CosmosEmulator {
    /// Begins to describe an account: one region, `East US`, session consistency, no containers.
    pub fn builder() -> CosmosEmulatorBuilder {
        CosmosEmulatorBuilder {
            regions: Vec::new(),
            consistency: ConsistencyLevel::Session,
            write_mode: WriteMode::Single,
            physical_partitions: PHYSICAL_PARTITIONS,
            containers: Vec::new(),
        }
    }

    /// A client that prefers the first region.
    ///
    /// # Errors
    /// [`EmulatorError::Client`] if the SDK refuses.
    pub async fn client(&self) -> Result<CosmosClient, EmulatorError> {
        self.client_with(None, &FaultRules::none()).await
    }

    /// A client that prefers a region and meets faults. Each client has a session of its own, like a process of its own.
    ///
    /// # Errors
    /// [`EmulatorError::Client`] if the SDK refuses.
    pub async fn client_with(
        &self,
        preferred_region: Option<&str>,
        faults: &FaultRules,
    ) -> Result<CosmosClient, EmulatorError> {
        let runtime = self.emulator.runtime_builder_with_fault_rules(faults.rules());
        let runtime = CosmosRuntimeBuilder::from(runtime)
            .build()
            .await
            .map_err(|error| EmulatorError::client(&error))?;
        let endpoint: AccountEndpoint = self.regions[0]
            .1
            .as_str()
            .parse()
            .map_err(|_| EmulatorError::client(&"the first region's address is not one of an account"))?;
        let preferred = preferred_region.unwrap_or(&self.regions[0].0).to_owned();
        CosmosClientBuilder::new()
            .with_runtime(runtime)
            .build(
                AccountReference::with_authentication_key(endpoint, KEY.to_owned()),
                RoutingStrategy::PreferredRegions(vec![Region::from(preferred)]),
            )
            .await
            .map_err(|error| EmulatorError::client(&error))
    }

    /// What was asked of documents so far, by all clients.
    pub fn counts(&self) -> RequestCounts {
        self.observer.read()
    }

    /// Keeps everything that is written from now on from a region. Without a pause regions are replicated to at once.
    pub fn pause_replication(&self, region: &str) {
        self.emulator.store().pause_replication(region);
    }

    /// Lets a region catch up, and waits until it has. Document by document: whoever reads there meanwhile may see half of a batch, which
    /// the service does not show.
    pub async fn resume_replication(&self, region: &str) {
        let store = self.emulator.store();
        store.resume_replication(region);
        store.drain_pending_replications().await;
    }

    /// Splits a physical partition in two and waits until it is done; for `locked` the partition answers 410, as a splitting
    /// one does.
    pub async fn split(&self, database: &str, container: &str, physical_partition: u32, locked: Duration) {
        let store = self.emulator.store();
        store.split_partition(database, container, physical_partition, locked);
        store.wait_for_split(database, container, physical_partition).await;
    }

    /// The emulator itself, to serve it.
    #[cfg(feature = "host")]
    pub(crate) fn http(&self) -> &Arc<InMemoryEmulatorHttpClient> {
        &self.emulator
    }
}

/// What an emulated account has.
#[derive(Clone, Debug)]
pub struct CosmosEmulatorBuilder {
    regions: Vec<(String, Url)>,
    consistency: ConsistencyLevel,
    write_mode: WriteMode,
    physical_partitions: u32,
    containers: Vec<(String, String, Vec<String>)>,
}

impl CosmosEmulatorBuilder {
    /// One more region, such as `West US`. The first one takes the writes.
    ///
    /// # Panics
    /// If the name holds what no host's name can.
    #[must_use]
    pub fn region(self, name: &str) -> Self {
        let host = name.to_lowercase().replace(' ', "");
        let url = format!("https://{host}.emulator.local/");
        self.region_at(name, Url::parse(&url).expect("a region's name makes a host's name"))
    }

    /// One more region, at this address.
    #[must_use]
    pub fn region_at(mut self, name: &str, address: Url) -> Self {
        self.regions.push((name.to_owned(), address));
        self
    }

    /// The account's default consistency.
    #[must_use]
    pub fn consistency(mut self, level: ConsistencyLevel) -> Self {
        self.consistency = level;
        self
    }

    /// Whether one region takes writes or all do.
    #[must_use]
    pub fn write_mode(mut self, mode: WriteMode) -> Self {
        self.write_mode = mode;
        self
    }

    /// How many physical partitions each container begins with.
    #[must_use]
    pub fn physical_partitions(mut self, partitions: u32) -> Self {
        self.physical_partitions = partitions;
        self
    }

    /// One more container, with its partition key's paths; its database comes with it.
    #[must_use]
    pub fn container(mut self, database: &str, container: &str, paths: &[&str]) -> Self {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        self.containers.push((database.to_owned(), container.to_owned(), paths));
        self
    }

    /// Starts the account. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// [`EmulatorError::Configuration`] if the emulator refuses.
    pub fn start(self) -> Result<CosmosEmulator, EmulatorError> {
        let described = if self.regions.is_empty() { self.region("East US") } else { self };
        let regions: Vec<VirtualRegion> =
            described.regions.iter().map(|(name, url)| VirtualRegion::new(name, url.clone())).collect();
        let config = VirtualAccountConfig::new(regions)
            .map_err(|error| EmulatorError::configuration(&error))?
            .with_consistency(described.consistency)
            // Unless told so, the emulator replicates each document after a random time of its own: what was written later may arrive
            // earlier, and with it the log sequence number. No session survives that, and the service does not do it.
            .with_replication_config(ReplicationConfig::immediate())
            .with_write_mode(described.write_mode);
        let observer = Arc::new(Observer::default());
        let emulator = InMemoryEmulatorHttpClient::try_new(config)
            .map_err(|error| EmulatorError::configuration(&error))?
            .with_request_observer(Arc::clone(&observer) as _);
        let store = emulator.store();
        let mut databases = BTreeSet::new();
        for (database, container, paths) in &described.containers {
            if databases.insert(database) {
                store.create_database(database);
            }
            let kind = if paths.len() > 1 { "MultiHash" } else { "Hash" };
            let key =
                serde_json::from_value(serde_json::json!({ "paths": paths, "kind": kind, "version": 2 }))
                    .map_err(|error| EmulatorError::configuration(&error))?;
            let config = ContainerConfig::new()
                .with_partition_count(described.physical_partitions)
                .build()
                .map_err(|error| EmulatorError::configuration(&error))?;
            store.create_container_with_config(database, container, key, config);
        }
        let (regions, containers) = (described.regions, described.containers);
        Ok(CosmosEmulator { emulator: Arc::new(emulator), observer, regions, containers })
    }
}
