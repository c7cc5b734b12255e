//! Accounts and containers that can't keep the store's promises are refused at start, with the way out; and requests that can't be are
//! refused before they are sent.

use std::sync::Arc;

use tollgate_cosmos::{ContainerLayout, CosmosStore, CosmosStoreError, RecordExpiry};
use tollgate_cosmos_emulator::{ConsistencyLevel, CosmosEmulator, WriteMode};
use tollgate_proto::{Store, StoreAlias, StoreError};
use tollgate_testkit::store_conformance::Partition;

use crate::accounts::{CONTAINER, DATABASE, account, store};

async fn problem(emulator: &CosmosEmulator) -> String {
    let error = store(emulator).await.verify().await.unwrap_err();
    assert!(matches!(error, StoreError::Misconfigured { .. }), "{error:?}");
    error.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn levels_that_ignore_session_tokens_are_refused() {
    for level in
        [ConsistencyLevel::Eventual, ConsistencyLevel::ConsistentPrefix, ConsistencyLevel::BoundedStaleness]
    {
        let emulator = account().region("East US").region("West US").consistency(level).start().unwrap();
        let problem = problem(&emulator).await;
        assert!(problem.contains("Set the default consistency to session or strong"), "{level:?}: {problem}");
    }
    for level in [ConsistencyLevel::Session, ConsistencyLevel::Strong] {
        let emulator = account().region("East US").region("West US").consistency(level).start().unwrap();
        store(&emulator).await.verify().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_write_regions_are_refused() {
    let emulator =
        account().region("East US").region("West US").write_mode(WriteMode::Multi).start().unwrap();
    let problem = problem(&emulator).await;
    assert!(problem.contains("Switch multi-region writes off"), "{problem}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_partition_key_is_refused() {
    let emulator =
        CosmosEmulator::builder().physical_partitions(1).container(DATABASE, CONTAINER, &["/tenant"]);
    let problem = problem(&emulator.start().unwrap()).await;
    assert!(problem.contains("/tenant") && problem.contains("/pk"), "{problem}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_container_is_named() {
    let emulator = account().start().unwrap();
    let client = emulator.client().await.unwrap();
    let builder = CosmosStore::builder(StoreAlias::new("main").unwrap());
    let error = builder.open(&client, DATABASE, "nowhere").await.err().unwrap();
    assert!(matches!(error, CosmosStoreError::Open { .. }), "{error:?}");
    assert!(error.to_string().contains("nowhere"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hierarchical_key_works_and_a_key_with_too_few_levels_is_refused() {
    let paths = ["/tenant", "/order"];
    let emulator = CosmosEmulator::builder()
        .physical_partitions(4)
        .container(DATABASE, CONTAINER, &paths)
        .start()
        .unwrap();
    let client = emulator.client().await.unwrap();
    let layout = ContainerLayout::hierarchical(paths, '/').unwrap();
    let builder = CosmosStore::builder(StoreAlias::new("main").unwrap()).layout(layout);
    let store = builder.expiry(RecordExpiry::ByStore).open(&client, DATABASE, CONTAINER).await.unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    store.verify().await.unwrap();
    let mut partition = Partition::of_key(&store, "contoso/order/4711");
    let keys = partition.put(&[("item", b"1")], &[b"entry"]).await;
    assert!(partition.entry(keys[0]).await.is_some());
    partition.delete(keys[0]).await;
    assert_eq!(partition.item("item").await.as_deref(), Some(&b"1"[..]));
    let page = store.scan(None, 10).await.unwrap();
    assert_eq!(page.partitions[0].partition, partition.key);

    let error = store.commit(Partition::of_key(&store, "contoso").next_commit()).await.unwrap_err();
    assert!(!error.is_retryable() && error.to_string().contains("fewer levels"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_is_created_as_the_layout_says_is_accepted_and_keeps_our_fields_out_of_the_index() {
    let emulator = account().start().unwrap();
    let client = emulator.client().await.unwrap();
    let layout = ContainerLayout::hierarchical(["/tenant", "/order"], '/').unwrap();
    let properties = layout.container_properties("created");
    let indexing = serde_json::to_value(properties.indexing_policy.as_ref().unwrap()).unwrap();
    assert_eq!(indexing["excludedPaths"][0]["path"], "/tollgate/*");
    client.database_client(DATABASE.to_owned()).create_container(properties, None).await.unwrap();
    let builder = CosmosStore::builder(StoreAlias::new("main").unwrap()).layout(layout);
    let store = builder.open(&client, DATABASE, "created").await.unwrap();
    store.verify().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_without_time_to_live_is_refused_if_the_service_is_to_expire_records() {
    let emulator = account().start().unwrap();
    let client = emulator.client().await.unwrap();
    let builder = CosmosStore::builder(StoreAlias::new("main").unwrap());
    let error = builder.open(&client, DATABASE, CONTAINER).await.unwrap().verify().await.unwrap_err();
    assert!(error.to_string().contains("time to live"), "{error}");
}
