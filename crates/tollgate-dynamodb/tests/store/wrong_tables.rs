//! Tables that are missing or wrong, requests that are too large, and tables that are shared: clear errors before anything is lost,
//! and no hand on what belongs to others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use serde::{Deserialize, Serialize};
use tollgate_dynamodb::{Billing, DynamoDbError, DynamoDbStore, TableOptions};
use tollgate_dynamodb_emulator::{Fault, InProcessDynamoDb, Operation};
use tollgate_proto::{CommitOutcome, ItemName, ItemValue, LimitExceeded, Store, StoreError};

use crate::layouts::Partition;
use crate::tables::{fresh_store_with, fresh_table, in_process_store};

async fn problem(store: &DynamoDbStore) -> String {
    let error = store.verify().await.unwrap_err();
    assert!(matches!(error, StoreError::Misconfigured { .. }), "{error:?}");
    assert!(!error.is_retryable());
    error.to_string()
}

async fn create(dynamodb: &InProcessDynamoDb, table: &str, keys: &[(&str, KeyType, ScalarAttributeType)]) {
    let create = dynamodb.client().create_table().table_name(table).billing_mode(BillingMode::PayPerRequest);
    let create = keys.iter().fold(create, |create, (name, key_type, attribute_type)| {
        let definition =
            AttributeDefinition::builder().attribute_name(*name).attribute_type(attribute_type.clone());
        let element = KeySchemaElement::builder().attribute_name(*name).key_type(key_type.clone());
        create.attribute_definitions(definition.build().unwrap()).key_schema(element.build().unwrap())
    });
    create.send().await.unwrap();
}

#[tokio::test]
async fn a_missing_table_is_named_with_the_way_out() {
    let dynamodb = InProcessDynamoDb::new();
    let store = DynamoDbStore::builder(dynamodb.client()).table("nowhere").build().unwrap();
    let problem = problem(&store).await;
    assert!(problem.contains("nowhere") && problem.contains("provision"), "{problem}");
}

#[tokio::test]
async fn keys_of_another_name_or_type_are_named_with_the_way_out() {
    use KeyType::{Hash, Range};
    use ScalarAttributeType::{N, S};
    let dynamodb = InProcessDynamoDb::new();
    for (table, keys, words) in [
        ("other-name", vec![("id", Hash, S), ("sk", Range, S)], ["\"id\"", "partition_key_attribute"]),
        ("number", vec![("pk", Hash, S), ("sk", Range, N)], ["of type N", "sort_key_attribute"]),
        ("no-sort-key", vec![("pk", Hash, S)], ["no sort key", "create another table"]),
    ] {
        create(&dynamodb, table, &keys).await;
        let store = DynamoDbStore::builder(dynamodb.client()).table(table).build().unwrap();
        let problem = problem(&store).await;
        assert!(words.iter().all(|word| problem.contains(word)) && problem.contains(table), "{problem}");
        let provisioned = store.provision(&TableOptions::default()).await.unwrap();
        assert!(!provisioned.created && provisioned.differences[0].contains(words[0]), "{provisioned:?}");
    }
}

#[tokio::test]
async fn a_table_that_exists_is_compared_and_not_changed() {
    let dynamodb = InProcessDynamoDb::new();
    let table = fresh_table();
    let store = DynamoDbStore::builder(dynamodb.client()).table(&table).build().unwrap();
    assert!(store.provision(&TableOptions::default()).await.unwrap().created);
    let again = store.provision(&TableOptions::default()).await.unwrap();
    assert!(!again.created);
    assert_eq!(again.differences, [] as [String; 0]);
    let wanted = TableOptions {
        billing: Billing::Provisioned { reads: 5, writes: 5 },
        time_to_live: false,
        ..TableOptions::default()
    };
    let differences = store.provision(&wanted).await.unwrap().differences;
    assert_eq!(differences.len(), 2, "{differences:?}");
    assert!(differences[0].contains("billing is on demand"), "{differences:?}");
    assert!(differences[1].contains("the time to live is on"), "{differences:?}");
    let unchanged = store.provision(&TableOptions::default()).await.unwrap();
    assert_eq!(unchanged.differences, [] as [String; 0]);
}

#[tokio::test(start_paused = true)]
async fn provisioning_waits_for_a_new_table_whose_backups_are_still_being_enabled() {
    let dynamodb = InProcessDynamoDb::new();
    for _ in 0..20 {
        dynamodb.fail_next(Operation::UpdateContinuousBackups, Fault::BackupsUnavailable);
    }
    let store = DynamoDbStore::builder(dynamodb.client()).table(fresh_table()).build().unwrap();
    let provisioned = store.provision(&TableOptions::default()).await.unwrap();
    assert!(provisioned.created);
    assert_eq!(provisioned.differences, [] as [String; 0], "nothing is left off");
    assert_eq!(dynamodb.counts().of(Operation::UpdateContinuousBackups).calls, 21);
}

#[tokio::test(start_paused = true)]
async fn provisioning_completes_what_an_interrupted_one_left_and_changes_no_table_with_items() {
    let dynamodb = InProcessDynamoDb::new();
    let store = DynamoDbStore::builder(dynamodb.client()).table(fresh_table()).build().unwrap();
    let interrupted = tokio::time::timeout(std::time::Duration::from_secs(3), async {
        for _ in 0..100 {
            dynamodb.fail_next(Operation::UpdateContinuousBackups, Fault::BackupsUnavailable);
        }
        store.provision(&TableOptions::default()).await
    });
    assert!(interrupted.await.is_err(), "the process dies");
    dynamodb.forget_ordered_faults();
    let completed = store.provision(&TableOptions::default()).await.unwrap();
    assert!(!completed.created);
    assert_eq!(completed.differences, [] as [String; 0]);

    // Somebody's table, in use, without either.
    let table = fresh_table();
    let store = DynamoDbStore::builder(dynamodb.client()).table(&table).build().unwrap();
    let bare = TableOptions { time_to_live: false, point_in_time_recovery: false, ..TableOptions::default() };
    assert!(store.provision(&bare).await.unwrap().created);
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let put =
        dynamodb.client().put_item().table_name(&table).item("pk", text("P")).item("sk", text("profile"));
    put.send().await.unwrap();
    let differences = store.provision(&TableOptions::default()).await.unwrap().differences;
    assert_eq!(differences.len(), 2, "{differences:?}");
}

#[tokio::test]
async fn a_table_whose_items_expire_by_another_attribute_is_refused_with_the_way_out() {
    let dynamodb = InProcessDynamoDb::new();
    let table = fresh_table();
    let builder = || DynamoDbStore::builder(dynamodb.client()).table(&table);
    let other = builder().expiry_attribute("valid_until").build().unwrap();
    other.provision(&TableOptions::default()).await.unwrap();
    let problem = problem(&builder().build().unwrap()).await;
    assert!(problem.contains("valid_until") && problem.contains("expiry_attribute"), "{problem}");
    other.verify().await.unwrap();
}

#[tokio::test]
async fn what_is_tried_at_start_is_tried_on_the_partition_that_is_named() {
    let dynamodb = InProcessDynamoDb::new();
    let named =
        |builder: tollgate_dynamodb::DynamoDbStoreBuilder| builder.verification_partition("tenant-1/x");
    let store = fresh_store_with(dynamodb.client(), named).await;
    let keys: Arc<Mutex<Vec<(Operation, bool)>>> = Arc::default();
    dynamodb.decide_faults({
        let keys = Arc::clone(&keys);
        move |call| {
            let is_named = String::from_utf8_lossy(call.body).contains("tenant-1/x");
            keys.lock().unwrap().push((call.operation, is_named));
            None
        }
    });
    store.verify().await.unwrap();
    let keys = keys.lock().unwrap();
    let without: Vec<Operation> =
        keys.iter().filter(|(_, is_named)| !is_named).map(|(operation, _)| *operation).collect();
    assert_eq!(without, [Operation::DescribeTable, Operation::DescribeTimeToLive]);
    assert!(keys.len() >= 8);
}

#[tokio::test]
async fn names_that_the_store_needs_for_itself_are_refused() {
    let dynamodb = InProcessDynamoDb::new();
    let builder = || DynamoDbStore::builder(dynamodb.client());
    for builder in [
        builder().partition_key_attribute("version"),
        builder().sort_key_attribute("item_a"),
        builder().partition_key_attribute("same").sort_key_attribute("same"),
        builder().expiry_attribute(""),
        builder().table(""),
        builder().alias(""),
    ] {
        assert!(matches!(builder.build(), Err(DynamoDbError::InvalidName { .. })));
    }
}

#[tokio::test]
async fn keys_may_have_other_names() {
    let dynamodb = InProcessDynamoDb::new();
    let store = fresh_store_with(dynamodb.client(), |builder| {
        builder.partition_key_attribute("PK").sort_key_attribute("range key").expiry_attribute("ttl")
    })
    .await;
    store.verify().await.unwrap();
    let mut partition = Partition::new();
    let commit = partition.next(&store, &[("a", Some(10))], &[20]);
    let entries = partition.commit(&store, commit).await;
    assert_eq!(partition.sizes(&store, &["a"]).await, [Some(10)]);
    partition.consume(&store, &entries).await;
    assert_eq!(partition.entry(&store, entries[0]).await, None);
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    customer: String,
    cents: u64,
    lines: Vec<(String, i64)>,
    paid: bool,
}

#[tokio::test]
async fn other_tools_read_business_items_as_what_they_are_and_own_items_beside_them_stay() {
    let dynamodb = InProcessDynamoDb::new();
    let table = fresh_table();
    let store = DynamoDbStore::builder(dynamodb.client()).table(&table).alias("main").build().unwrap();
    store.provision(&TableOptions::default()).await.unwrap();
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let own = HashMap::from([
        ("pk".to_owned(), text("P")),
        ("sk".to_owned(), text("profile")),
        ("name".to_owned(), text("Ada")),
    ]);
    dynamodb.client().put_item().table_name(&table).set_item(Some(own.clone())).send().await.unwrap();

    let order =
        Order { customer: "Ada".to_owned(), cents: 1 << 40, lines: vec![("tea".to_owned(), -2)], paid: true };
    let mut partition = Partition::new();
    for (large, sort) in [(10, "tollgate"), (40 * 1024, "tollgate#item#order")] {
        let mut commit = partition.next(&store, &[("large", Some(large))], &[]);
        if sort != "tollgate" {
            partition.commit(&store, commit).await;
            commit = partition.next(&store, &[], &[]);
        }
        let json = serde_json::to_vec(&order).unwrap();
        commit.items.push((ItemName::new("order").unwrap(), Some(ItemValue::Json(json.into()))));
        partition.commit(&store, commit).await;
        let get = dynamodb.client().get_item().table_name(&table).key("pk", text("P")).key("sk", text(sort));
        let item = get.send().await.unwrap().item.unwrap();
        let read: Order =
            serde_dynamo::aws_sdk_dynamodb_1::from_attribute_value(item["item_order"].clone()).unwrap();
        assert_eq!(read, order, "at {sort}");
    }
    let get = dynamodb.client().get_item().table_name(&table).key("pk", text("P")).key("sk", text("profile"));
    assert_eq!(get.send().await.unwrap().item, Some(own));
    let page = store.scan(None, 10).await.unwrap();
    assert_eq!(page.partitions.len(), 1);
    assert_eq!(page.partitions[0].items.len(), 2, "{page:?}");
}

#[tokio::test]
async fn what_is_too_large_is_named_before_anything_is_sent() {
    let (dynamodb, store) = in_process_store().await;
    let partition = Partition::new();
    let before = dynamodb.counts();
    let oversized = [
        partition.next(&store, &[("photo", Some(401 * 1024))], &[]),
        partition.next(&store, &[], &[401 * 1024]),
        partition.next(&store, &[], &[10; 100]),
        partition.next(&store, &[], &[390 * 1024; 10]),
    ];
    let words = ["item photo of partition P", "outgoing message", "101 items", "bytes"];
    for (commit, words) in oversized.into_iter().zip(words) {
        let error = store.commit(commit).await.unwrap_err();
        assert!(matches!(error, StoreError::TooLarge { .. }) && !error.is_retryable(), "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
    }
    let limit = LimitExceeded::ItemBytes { item: "item photo of partition P".to_owned(), bytes: 1, max: 1 };
    assert!(limit.to_string().contains("claim check"), "{limit}");
    assert_eq!(dynamodb.counts(), before, "nothing was sent");
}

#[tokio::test]
async fn numbers_and_texts_that_dynamodb_would_change_come_back_as_they_were() {
    let (_dynamodb, store) = in_process_store().await;
    let mut partition = Partition::new();
    for json in [
        "{\"n\":0.1234567890123456789012345678901234567890123}",
        "1e300",
        "{\"n\":1234567895171680000000000000000000000000}",
        "{\"n\":-0.0}",
        "{\"\":1}",
        "{\"$json\":\"x\"}",
        "\"\"",
        "[]",
        "null",
        "{\"a\":[1,2.50,{\"b\":null}]}",
    ] {
        let mut commit = partition.next(&store, &[], &[]);
        commit.items = vec![(ItemName::new("value").unwrap(), Some(ItemValue::Json(json.into())))];
        assert!(matches!(store.commit(commit.clone()).await, Ok(CommitOutcome::Committed { .. })), "{json}");
        partition.version = Some(commit.version);
        let request = tollgate_proto::LoadRequest {
            partition: partition.key.clone(),
            items: vec![ItemName::new("value").unwrap()],
            records: vec![],
        };
        let loaded = store.load(vec![request]).await.pop().unwrap().unwrap();
        let Some(ItemValue::Json(read)) = &loaded.items[0].1 else { panic!("{json}: {loaded:?}") };
        let value = |json: &[u8]| serde_json::from_slice::<serde_json::Value>(json).unwrap();
        assert_eq!(value(read), value(json.as_bytes()), "{json}");
    }
}
