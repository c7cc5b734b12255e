//! The emulator answers as DynamoDB does, as far as Tollgate relies on it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::types::{PointInTimeRecoverySpecification, TimeToLiveSpecification};
use tollgate_dynamodb_emulator::InProcessDynamoDb;

use crate::table::{self, TABLE, code, key, number, put_new, string};

#[tokio::test]
async fn a_put_item_is_read_as_it_was_written() {
    let client = InProcessDynamoDb::new().client();
    table::create(&client).await;
    let mut item = key("a", "state");
    item.insert("v".into(), string("one"));
    client.put_item().table_name(TABLE).set_item(Some(item.clone())).send().await.unwrap();
    let read = client
        .get_item()
        .table_name(TABLE)
        .set_key(Some(key("a", "state")))
        .consistent_read(true)
        .send()
        .await
        .unwrap();
    assert_eq!(read.item, Some(item));
}

#[tokio::test]
async fn a_failed_condition_is_said_to_be_one_and_changes_nothing() {
    let client = InProcessDynamoDb::new().client();
    table::create(&client).await;
    table::increment(&client, "a").await.unwrap();
    let put = client
        .put_item()
        .table_name(TABLE)
        .set_item(Some(key("a", "state")))
        .condition_expression("attribute_not_exists(pk)")
        .send()
        .await;
    assert_eq!(put.map_err(code).unwrap_err(), "ConditionalCheckFailedException");
    assert_eq!(table::value(&client, "a").await, 1);
}

#[tokio::test]
async fn a_transaction_happens_as_a_whole_or_not_at_all() {
    let client = InProcessDynamoDb::new().client();
    table::create(&client).await;
    let both =
        || client.transact_write_items().transact_items(put_new("a", "1")).transact_items(put_new("a", "2"));
    both().send().await.unwrap();
    let again =
        client.transact_write_items().transact_items(put_new("a", "3")).transact_items(put_new("a", "2"));
    let error = again.send().await.unwrap_err().into_service_error();
    let aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError::TransactionCanceledException(
        canceled,
    ) = error
    else {
        panic!("not canceled: {error:?}")
    };
    let codes: Vec<_> = canceled.cancellation_reasons().iter().map(|reason| reason.code().unwrap()).collect();
    assert_eq!(codes, ["None", "ConditionalCheckFailed"]);
    let items = client.scan().table_name(TABLE).send().await.unwrap();
    assert_eq!(items.count(), 2, "the third item must not have been put");
}

#[tokio::test]
async fn a_transaction_repeated_with_its_token_is_no_conflict() {
    let client = InProcessDynamoDb::new().client();
    table::create(&client).await;
    for _ in 0..2 {
        client
            .transact_write_items()
            .client_request_token("commit-1")
            .transact_items(put_new("a", "1"))
            .send()
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn an_item_expires_by_the_clock_that_is_set_by_hand() {
    let dynamo = InProcessDynamoDb::new();
    let client = dynamo.client();
    table::create(&client).await;
    let expiry =
        TimeToLiveSpecification::builder().enabled(true).attribute_name("expires_at").build().unwrap();
    client.update_time_to_live().table_name(TABLE).time_to_live_specification(expiry).send().await.unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut item = key("a", "record");
    item.insert("expires_at".into(), number(now + 60));
    client.put_item().table_name(TABLE).set_item(Some(item)).send().await.unwrap();

    assert_eq!(dynamo.expire_items(), 0, "its time is not over");
    dynamo.advance_clock(Duration::from_secs(120));
    assert_eq!(
        client.scan().table_name(TABLE).send().await.unwrap().count(),
        1,
        "nobody got round to it yet"
    );
    assert_eq!(dynamo.expire_items(), 1);
    assert_eq!(client.scan().table_name(TABLE).send().await.unwrap().count(), 0);
}

#[tokio::test]
async fn point_in_time_recovery_is_on_when_it_was_switched_on() {
    let client = InProcessDynamoDb::new().client();
    let describe = || async {
        let answer = client.describe_continuous_backups().table_name(TABLE).send().await.map_err(code)?;
        let description = answer.continuous_backups_description().expect("it is described");
        let recovery = description.point_in_time_recovery_description().expect("it is described");
        Ok::<_, String>(
            recovery.point_in_time_recovery_status().expect("it has a status").as_str().to_owned(),
        )
    };
    assert_eq!(describe().await.unwrap_err(), "TableNotFoundException");
    table::create(&client).await;
    assert_eq!(describe().await.unwrap(), "DISABLED");
    let on =
        PointInTimeRecoverySpecification::builder().point_in_time_recovery_enabled(true).build().unwrap();
    client
        .update_continuous_backups()
        .table_name(TABLE)
        .point_in_time_recovery_specification(on)
        .send()
        .await
        .unwrap();
    assert_eq!(describe().await.unwrap(), "ENABLED");
}

#[tokio::test]
async fn a_missing_table_is_said_to_be_missing() {
    let client = InProcessDynamoDb::new().client();
    let error = client.describe_table().table_name(TABLE).send().await.map_err(code).unwrap_err();
    assert_eq!(error, "ResourceNotFoundException");
}
