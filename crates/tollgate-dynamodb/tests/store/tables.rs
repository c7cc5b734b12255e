//! Stores on fresh tables for the tests of this folder.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_dynamodb::Client;
use tollgate_dynamodb::{DynamoDbStore, DynamoDbStoreBuilder, TableOptions};
use tollgate_dynamodb_emulator::InProcessDynamoDb;

/// A store with the alias `main` on a table of its own.
pub async fn fresh_store(client: Client) -> DynamoDbStore {
    fresh_store_with(client, |builder| builder).await
}

/// The same, with other names or bounds.
pub async fn fresh_store_with(
    client: Client,
    with: impl FnOnce(DynamoDbStoreBuilder) -> DynamoDbStoreBuilder,
) -> DynamoDbStore {
    let builder = DynamoDbStore::builder(client).alias("main").table(fresh_table());
    let store = with(builder).build().unwrap();
    assert!(store.provision(&TableOptions::default()).await.unwrap().created);
    store
}

/// Two stores on one table, as two processes have them.
pub async fn two_stores_on_one_table(dynamodb: &InProcessDynamoDb) -> [DynamoDbStore; 2] {
    let table = fresh_table();
    let store = |client: Client| DynamoDbStore::builder(client).alias("main").table(&table).build().unwrap();
    let stores = [store(dynamodb.client()), store(dynamodb.client())];
    assert!(stores[0].provision(&TableOptions::default()).await.unwrap().created);
    stores
}

/// A store on an emulator of its own.
pub async fn in_process_store() -> (InProcessDynamoDb, DynamoDbStore) {
    let dynamodb = InProcessDynamoDb::new();
    let store = fresh_store(dynamodb.client()).await;
    (dynamodb, store)
}

/// A name that no other table has, on a server that others may use too.
pub fn fresh_table() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("tollgate-{}-{}", fastrand::u64(..), NEXT.fetch_add(1, Ordering::Relaxed))
}
