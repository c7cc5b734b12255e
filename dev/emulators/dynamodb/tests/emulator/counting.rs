//! What goes over the wire is counted, by operation, with the capacity that answers report.

use aws_sdk_dynamodb::types::{KeysAndAttributes, ReturnConsumedCapacity};
use tollgate_dynamodb_emulator::{CapacityUnits, Effect, Fault, InProcessDynamoDb, Operation};

use crate::table::{self, TABLE, key, put_new, string};

#[tokio::test]
async fn calls_are_counted_by_operation_and_between_two_moments() {
    let dynamo = InProcessDynamoDb::new();
    let client = dynamo.client();
    table::create(&client).await;
    table::increment(&client, "a").await.unwrap();
    let before = dynamo.counts();
    table::increment(&client, "a").await.unwrap();
    table::value(&client, "a").await;
    let counts = dynamo.counts().since(&before);
    assert_eq!(counts.of(Operation::UpdateItem).calls, 1);
    assert_eq!(counts.of(Operation::GetItem).calls, 1);
    assert_eq!(counts.item_calls(), 2);
    assert_eq!(counts.of(Operation::CreateTable).calls, 0);
    assert!(counts.of(Operation::GetItem).request_bytes > 0);
}

#[tokio::test]
async fn consumed_capacity_is_counted_as_reads_and_as_writes() {
    let dynamo = InProcessDynamoDb::new();
    let client = dynamo.client();
    table::create(&client).await;
    let mut item = key("a", "state");
    item.insert("v".into(), string(&"x".repeat(1500)));
    client
        .put_item()
        .table_name(TABLE)
        .set_item(Some(item))
        .return_consumed_capacity(ReturnConsumedCapacity::Total)
        .send()
        .await
        .unwrap();
    let put = dynamo.counts();
    assert_eq!(
        (put.read_units(), put.write_units()),
        (CapacityUnits::ZERO, CapacityUnits::whole(2)),
        "1.5 KB are two write units"
    );

    let get = client.get_item().table_name(TABLE).set_key(Some(key("a", "state"))).consistent_read(true);
    get.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await.unwrap();
    let read = dynamo.counts().since(&put);
    assert_eq!(
        (read.read_units(), read.write_units()),
        (CapacityUnits::whole(1), CapacityUnits::ZERO),
        "up to 4 KB, consistently, are one read unit"
    );

    let before = dynamo.counts();
    client
        .transact_write_items()
        .transact_items(put_new("b", "1"))
        .transact_items(put_new("b", "2"))
        .return_consumed_capacity(ReturnConsumedCapacity::Total)
        .send()
        .await
        .unwrap();
    let transaction = dynamo.counts().since(&before);
    assert_eq!(transaction.write_units(), CapacityUnits::whole(4), "a transaction pays double for each item");
    assert_eq!(transaction.read_units(), CapacityUnits::ZERO);
}

#[tokio::test]
async fn a_batch_that_reads_several_items_is_one_call() {
    let dynamo = InProcessDynamoDb::new();
    let client = dynamo.client();
    table::create(&client).await;
    let keys = KeysAndAttributes::builder()
        .keys(key("a", "1"))
        .keys(key("b", "1"))
        .consistent_read(true)
        .build()
        .unwrap();
    client
        .batch_get_item()
        .request_items(TABLE, keys)
        .return_consumed_capacity(ReturnConsumedCapacity::Total)
        .send()
        .await
        .unwrap();
    let batch = dynamo.counts().of(Operation::BatchGetItem);
    assert_eq!(batch.calls, 1);
    assert_eq!(batch.read_units, CapacityUnits::whole(2), "a read of nothing costs as much as one of little");
}

#[tokio::test]
async fn a_request_without_return_consumed_capacity_reports_none() {
    let dynamo = InProcessDynamoDb::new();
    let client = dynamo.client();
    table::create(&client).await;
    table::increment(&client, "a").await.unwrap();
    assert_eq!(dynamo.counts().write_units(), CapacityUnits::ZERO);
}

#[tokio::test(start_paused = true)]
async fn the_retries_of_the_sdk_are_counted_as_calls() {
    let dynamo = InProcessDynamoDb::new();
    let client = dynamo.client();
    table::create(&client).await;
    dynamo.fail_next(Operation::UpdateItem, Fault::InternalError(Effect::None));
    dynamo.fail_next(Operation::UpdateItem, Fault::InternalError(Effect::None));
    table::increment(&client, "a").await.unwrap();
    let updates = dynamo.counts().of(Operation::UpdateItem);
    assert_eq!((updates.calls, updates.faults, updates.errors), (3, 2, 2));
}
