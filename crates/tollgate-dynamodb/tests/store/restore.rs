//! The restore that `docs/stores/dynamodb.md` describes: messages in flight at the moment of the backup are
//! processed once, whatever became of their queues since.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use tollgate::{Broker, Endpoint, Gate, Store};
use tollgate_dynamodb::{DynamoDbStore, TableOptions};
use tollgate_dynamodb_emulator::{InProcessDynamoDb, ServerKind, external_endpoint};
use tollgate_testkit::ring::{EDGE, ENDPOINT, Ring, broker, ring_gate, until_drained};

use crate::tables::fresh_table;

const RING: Ring = Ring { messages: 40, hops: 1, partitions: 7 };

async fn store_on(client: &Client, table: &str) -> Arc<DynamoDbStore> {
    let store = DynamoDbStore::builder(client.clone()).alias("main").table(table).build().unwrap();
    store.provision(&TableOptions::default()).await.unwrap();
    Arc::new(store)
}

/// A table's items, as a restore to this moment brings them back.
async fn backup(client: &Client, table: &str) -> Vec<HashMap<String, AttributeValue>> {
    let pages = client.scan().table_name(table).consistent_read(true).into_paginator().items().send();
    pages.collect::<Result<_, _>>().await.unwrap()
}

async fn restores_what_was_in_flight(client: Client) {
    let table = fresh_table();
    let (store, queues) = (store_on(&client, &table).await, broker());
    let source = Gate::builder()
        .store(store.clone())
        .broker(queues.clone() as Arc<dyn Broker>)
        .sweep_every(None)
        .endpoint(Endpoint::new(EDGE))
        .open()
        .await
        .unwrap();
    RING.start(&source).await;
    source.close().await;
    let endpoint = ENDPOINT.try_into().unwrap();
    assert_eq!(queues.depth(&endpoint).ready, 40);
    let items = backup(&client, &table).await;

    // Life goes on until somebody notices that something is wrong.
    let consumer = ring_gate(store, queues.clone(), 4).open().await.unwrap();
    until_drained(&queues).await;
    consumer.close().await;

    // The table is restored under another name, and the queues are empty.
    let restored_table = fresh_table();
    let restored = store_on(&client, &restored_table).await;
    for item in items {
        client.put_item().table_name(&restored_table).set_item(Some(item)).send().await.unwrap();
    }
    let queues = broker();
    let consumer = ring_gate(restored.clone(), queues.clone(), 4).open().await.unwrap();
    assert_eq!(
        consumer.sweep().await.unwrap(),
        0,
        "nothing was unpublished, so a sweep alone brings nothing back"
    );
    let republished = consumer.republish(Duration::ZERO).await.unwrap();
    assert_eq!((republished.sent, republished.failed), (40, 0));
    until_drained(&queues).await;
    assert_eq!(consumer.close().await.dead_letters, 0);
    RING.audit(&*restored as &dyn Store).await;
}

#[tokio::test]
async fn a_restore_as_documented_processes_all_messages_that_were_in_flight() {
    restores_what_was_in_flight(InProcessDynamoDb::new().client()).await;
}

#[tokio::test]
async fn a_restore_as_documented_processes_all_messages_that_were_in_flight_on_a_server() {
    let Some(endpoint) = external_endpoint(ServerKind::Dynoxide) else { return };
    restores_what_was_in_flight(endpoint.client()).await;
}
