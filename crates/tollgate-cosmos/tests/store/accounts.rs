//! Emulated accounts and stores on them for the tests of this folder.

use azure_data_cosmos::CosmosClient;
use tollgate_cosmos::{CosmosStore, RecordExpiry};
use tollgate_cosmos_emulator::{CosmosEmulator, CosmosEmulatorBuilder, FaultRules};
use tollgate_proto::StoreAlias;

pub const DATABASE: &str = "shop";
pub const CONTAINER: &str = "orders";

/// Physical partitions of small tests: the emulator is slow to make many.
const PHYSICAL_PARTITIONS: u32 = 8;

/// An account with one container, whose partition key is `/pk`.
pub fn account() -> CosmosEmulatorBuilder {
    CosmosEmulator::builder().physical_partitions(PHYSICAL_PARTITIONS).container(
        DATABASE,
        CONTAINER,
        &["/pk"],
    )
}

/// A store with the alias `main`.
pub async fn open(client: &CosmosClient) -> CosmosStore {
    let builder = CosmosStore::builder(StoreAlias::new("main").unwrap()).expiry(RecordExpiry::ByStore);
    builder.open(client, DATABASE, CONTAINER).await.unwrap()
}

/// A store of a process of its own, that prefers a region and meets faults.
pub async fn store_with(emulator: &CosmosEmulator, region: Option<&str>, faults: &FaultRules) -> CosmosStore {
    open(&emulator.client_with(region, faults).await.unwrap()).await
}

/// A store of a process of its own.
pub async fn store(emulator: &CosmosEmulator) -> CosmosStore {
    store_with(emulator, None, &FaultRules::none()).await
}
