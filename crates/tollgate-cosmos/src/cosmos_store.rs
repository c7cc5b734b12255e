//! The store itself: what it is opened with, and the trait that it implements. What each operation does is in the file that
//! is named after it; why it is right is in `docs/decisions/0010-cosmos-documents-and-sessions.md`.

use azure_data_cosmos::CosmosClient;
use bytes::Bytes;
use tollgate_proto::{
    BoxFuture, Commit, CommitOutcome, EntryRead, LoadRequest, LoadedPartition, ScanCursor, ScanPage,
    ScanPrice, SessionMark, Store, StoreAlias, StoreError, StoreLimits, TokenRef,
};

use crate::container_layout::ContainerLayout;
use crate::error::CosmosStoreError;
use crate::failure::Failure;
use crate::limits::COSMOS_LIMITS;
use crate::partition_memory::{PARTITIONS_REMEMBERED_MAX, PartitionMemory};
use crate::requests::Requests;
use crate::statistics::CosmosStatistics;

/// How many requests a store has under way unless told otherwise. At 10 ms a request: 12,800 requests a second.
pub const REQUESTS_UNDER_WAY_MAX: usize = 128;

/// Who deletes deduplication records whose time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordExpiry {
    /// The service, by the documents' `ttl`. The container needs a default time to live; -1 will do.
    ByService,
    /// [`Store::expire`], by queries over the whole container. For emulators without time to live.
    ByStore,
}

/// A store on one container of Azure Cosmos DB for NoSQL.
///
/// ```no_run
/// # async fn example(client: azure_data_cosmos::CosmosClient) -> Result<(), Box<dyn std::error::Error>> {
/// use tollgate_proto::{Store, StoreAlias};
/// use tollgate_cosmos::CosmosStore;
///
/// let store = CosmosStore::builder(StoreAlias::new("main")?).open(&client, "shop", "orders").await?;
/// store.verify().await?;
/// # Ok(())
/// # }
/// ```
pub struct CosmosStore {
    pub(crate) requests: Requests,
    pub(crate) memory: PartitionMemory,
    pub(crate) expiry: RecordExpiry,
}

impl CosmosStore {
    /// Begins to describe a store.
    pub fn builder(alias: StoreAlias) -> CosmosStoreBuilder {
        CosmosStoreBuilder {
            alias,
            layout: ContainerLayout::default(),
            expiry: RecordExpiry::ByService,
            under_way_max: REQUESTS_UNDER_WAY_MAX,
            remembered_max: PARTITIONS_REMEMBERED_MAX,
        }
    }

    /// What it has cost since it was opened.
    pub fn statistics(&self) -> CosmosStatistics {
        self.requests.tallies.read()
    }
}

/// What a [`CosmosStore`] is opened with.
#[derive(Clone, Debug)]
pub struct CosmosStoreBuilder {
    alias: StoreAlias,
    layout: ContainerLayout,
    expiry: RecordExpiry,
    under_way_max: usize,
    remembered_max: u64,
}

impl CosmosStoreBuilder {
    /// The container's partition key: `/pk` unless told otherwise.
    #[must_use]
    pub fn layout(mut self, layout: ContainerLayout) -> Self {
        self.layout = layout;
        self
    }

    /// Who deletes expired records: the service unless told otherwise.
    #[must_use]
    pub fn expiry(mut self, expiry: RecordExpiry) -> Self {
        self.expiry = expiry;
        self
    }

    /// Most requests under way at a time; at least one. [`REQUESTS_UNDER_WAY_MAX`] unless told otherwise.
    #[must_use]
    pub fn requests_under_way_max(mut self, requests: usize) -> Self {
        self.under_way_max = requests.max(1);
        self
    }

    /// How many partitions' etags are remembered: 100,000 unless told otherwise. With none each commit reads first.
    #[must_use]
    pub fn partitions_remembered_max(mut self, partitions: u64) -> Self {
        self.remembered_max = partitions;
        self
    }

    /// Opens a container of the account at this URL, with one of its keys: `https://NAME.documents.azure.com`, or the address of an
    /// emulator on this machine, which may be without TLS.
    ///
    /// # Errors
    /// [`CosmosStoreError::Open`] if the URL is none, nobody answers there or the container is not found.
    #[cfg(feature = "account-keys")]
    pub async fn open_with_key(
        self,
        account: &str,
        key: String,
        database: &str,
        container: &str,
    ) -> Result<CosmosStore, CosmosStoreError> {
        use azure_data_cosmos::{AccountEndpoint, AccountReference, CosmosClientBuilder, RoutingStrategy};

        let fail = |retryable, reason: String| CosmosStoreError::Open {
            database: database.to_owned(),
            container: container.to_owned(),
            reason,
            retryable,
        };
        let endpoint: AccountEndpoint =
            account.parse().map_err(|_| fail(false, format!("{account:?} is not the URL of an account")))?;
        let client = CosmosClientBuilder::new()
            .build(
                AccountReference::with_authentication_key(endpoint, key),
                RoutingStrategy::PreferredRegions(vec![]),
            )
            .await
            .map_err(|error| fail(is_passing(&error), error.to_string()))?;
        self.open(&client, database, container).await
    }

    /// Opens the container. It has to exist; [`Store::verify`] tells whether it and its account will do.
    ///
    /// # Errors
    /// [`CosmosStoreError::Open`] if the container is not found or the account can't be asked.
    pub async fn open(
        self,
        client: &CosmosClient,
        database: &str,
        container: &str,
    ) -> Result<CosmosStore, CosmosStoreError> {
        let database_client = client.database_client(database.to_owned());
        let opened = database_client.container_client(container.to_owned(), None);
        let opened = opened.await.map_err(|error| CosmosStoreError::Open {
            database: database.to_owned(),
            container: container.to_owned(),
            retryable: is_passing(&error),
            reason: error.to_string(),
        })?;
        Ok(CosmosStore {
            requests: Requests::new(self.alias, self.layout, opened, self.under_way_max),
            memory: PartitionMemory::new(self.remembered_max),
            expiry: self.expiry,
        })
    }
}

/// Whether the same may succeed in a moment.
fn is_passing(error: &azure_data_cosmos::CosmosError) -> bool {
    matches!(
        Failure::of(error),
        Failure::Throttled { .. } | Failure::Unavailable { .. } | Failure::Unknown { .. }
    )
}

impl Store for CosmosStore {
    fn alias(&self) -> &StoreAlias {
        &self.requests.alias
    }

    fn limits(&self) -> StoreLimits {
        COSMOS_LIMITS
    }

    fn verify(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.verify_all())
    }

    fn load(&self, requests: Vec<LoadRequest>) -> BoxFuture<'_, Vec<Result<LoadedPartition, StoreError>>> {
        Box::pin(self.load_all(requests))
    }

    fn read_entries(&self, reads: Vec<EntryRead>) -> BoxFuture<'_, Vec<Result<Option<Bytes>, StoreError>>> {
        Box::pin(self.read_all(reads))
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, StoreError>> {
        Box::pin(self.commit_one(commit))
    }

    fn delete_entries(
        &self,
        tokens: Vec<TokenRef>,
    ) -> BoxFuture<'_, Vec<Result<Option<SessionMark>, StoreError>>> {
        Box::pin(self.delete_all(tokens))
    }

    fn scan(&self, cursor: Option<ScanCursor>, limit: usize) -> BoxFuture<'_, Result<ScanPage, StoreError>> {
        Box::pin(self.scan_page(cursor, limit))
    }

    fn scan_price(&self) -> ScanPrice {
        ScanPrice::Metered
    }

    fn expire(&self, now_ms: u64) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            match self.expiry {
                RecordExpiry::ByService => Ok(0),
                RecordExpiry::ByStore => self.expire_records(now_ms).await,
            }
        })
    }
}
