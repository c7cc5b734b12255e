//! Asks each emulator that can be started here the questions on whose answers Tollgate's store depends, and prints the answers
//! beside what DynamoDB's documentation says. The table of `docs/stores/dynamodb-emulators.md` comes from here.
//!
//! `cargo run --release -p tollgate-dynamodb-emulator --example emulator_differences`

use std::fmt::Debug;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, ConditionCheck, ConsumedCapacity, KeySchemaElement,
    KeyType, KeysAndAttributes, Put, PutRequest, ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure,
    ScalarAttributeType, TransactWriteItem, WriteRequest,
};
use tokio::task::JoinSet;
use tollgate_dynamodb_emulator::{Endpoint, InProcessDynamoDb, ServerKind};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const TABLE: &str = "differences";
const KIB: usize = 1024;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    ask("dynoxide in process", &InProcessDynamoDb::new().client()).await?;
    for kind in [ServerKind::Dynoxide, ServerKind::Ministack, ServerKind::DynamoDbLocal] {
        match Endpoint::start(kind) {
            Ok(server) => ask(&format!("{kind} server"), &server.client()).await?,
            Err(error) => println!("\n{kind}: not asked: {error}"),
        }
    }
    Ok(())
}

async fn ask(name: &str, client: &Client) -> Result<(), Failure> {
    println!("\n{name}");
    create_table(client).await?;
    let say = |question: &str, documented: &str, answer: &str| {
        let verdict = if answer == documented { "as documented" } else { "DIFFERS" };
        println!("  {question:<62} {answer:<36} {verdict} ({documented})");
    };
    capacity(client, &say).await?;
    limits(client, &say).await?;
    transactions(client, &say).await?;
    say("64 tasks add 1 to an item 10 times each", "640", &concurrent_additions(client).await?);
    let backups = client.describe_continuous_backups().table_name(TABLE).send().await;
    say("DescribeContinuousBackups", "answers", &outcome(backups, |_| "answers".to_owned()));
    Ok(())
}

type Say<'a> = &'a (dyn Fn(&str, &str, &str) + Sync);

async fn capacity(client: &Client, say: Say<'_>) -> Result<(), Failure> {
    let total = ReturnConsumedCapacity::Total;
    let put = client.put_item().table_name(TABLE).return_consumed_capacity(total.clone());
    let put = key(put, |put, name, value| put.item(name, value), "capacity").item("v", binary(1500));
    let answer = put.send().await;
    say("units: put of 1.5 KB", "2", &outcome(answer, |answer| units(answer.consumed_capacity())));
    let update = client.update_item().table_name(TABLE).return_consumed_capacity(total.clone());
    let update = key(update, |update, name, value| update.key(name, value), "capacity")
        .update_expression("SET n = :n")
        .expression_attribute_values(":n", AttributeValue::N("1".into()));
    let answer = update.send().await;
    say(
        "units: update of one attribute of it",
        "2",
        &outcome(answer, |answer| units(answer.consumed_capacity())),
    );
    let mut keys = KeysAndAttributes::builder().consistent_read(true);
    for pk in ["capacity", "nobody"] {
        keys = keys.keys([("pk".into(), text(pk)), ("sk".into(), text("s"))].into());
    }
    let batch =
        client.batch_get_item().request_items(TABLE, keys.build()?).return_consumed_capacity(total.clone());
    let answer = batch.send().await;
    say(
        "units: consistent batch read of it and of nothing",
        "2",
        &outcome(answer, |answer| units(answer.consumed_capacity().first())),
    );
    let check = ConditionCheck::builder()
        .table_name(TABLE)
        .key("pk", text("nobody"))
        .key("sk", text("s"))
        .condition_expression("attribute_not_exists(pk)")
        .build()?;
    let transaction = client
        .transact_write_items()
        .transact_items(put_new("capacity-t", "s", 100)?)
        .transact_items(TransactWriteItem::builder().condition_check(check).build())
        .return_consumed_capacity(total);
    let answer = transaction.send().await;
    say(
        "units: transaction of a small put and a condition check",
        "4",
        &outcome(answer, |answer| units(answer.consumed_capacity().first())),
    );
    Ok(())
}

async fn limits(client: &Client, say: Say<'_>) -> Result<(), Failure> {
    for (kib, documented) in [(399, "done"), (401, "ValidationException")] {
        let put = client.put_item().table_name(TABLE);
        let put = key(put, |put, name, value| put.item(name, value), "limits").item("v", binary(kib * KIB));
        say(&format!("an item of {kib} KiB"), documented, &outcome(put.send().await, |_| "done".into()));
    }
    for (items, documented) in [(100, "done"), (101, "ValidationException")] {
        let mut transaction = client.transact_write_items();
        for n in 0..items {
            transaction = transaction.transact_items(put_new(&format!("items-{items}"), &n.to_string(), 10)?);
        }
        let answer = transaction.send().await;
        say(&format!("a transaction of {items} items"), documented, &outcome(answer, |_| "done".into()));
    }
    let mut transaction = client.transact_write_items();
    for n in 0..11 {
        transaction = transaction.transact_items(put_new("bytes", &n.to_string(), 390 * KIB)?);
    }
    let answer = transaction.send().await;
    say("a transaction of 4.2 MB", "ValidationException", &outcome(answer, |_| "done".into()));
    let writes = (0..26).map(|n| {
        let put = PutRequest::builder().item("pk", text("batch")).item("sk", text(&n.to_string())).build()?;
        Ok::<_, Failure>(WriteRequest::builder().put_request(put).build())
    });
    let batch = client.batch_write_item().request_items(TABLE, writes.collect::<Result<Vec<_>, _>>()?);
    say("a batch of 26 writes", "ValidationException", &outcome(batch.send().await, |_| "done".into()));
    let put = client.put_item().table_name(TABLE).item("pk", text(&"p".repeat(2049))).item("sk", text("s"));
    say(
        "a partition key of 2,049 bytes",
        "ValidationException",
        &outcome(put.send().await, |_| "done".into()),
    );
    let put = client.put_item().table_name(TABLE).item("pk", text("p")).item("sk", text(&"s".repeat(1025)));
    say("a sort key of 1,025 bytes", "ValidationException", &outcome(put.send().await, |_| "done".into()));
    for n in 0..50 {
        let put =
            client.put_item().table_name(TABLE).item("pk", text("16mb")).item("sk", text(&n.to_string()));
        put.item("v", binary(390 * KIB)).send().await?;
    }
    let keys = (0..50).map(|n: u8| [("pk".into(), text("16mb")), ("sk".into(), text(&n.to_string()))].into());
    let keys = KeysAndAttributes::builder().set_keys(Some(keys.collect())).build()?;
    let answer = client.batch_get_item().request_items(TABLE, keys).send().await;
    let unprocessed = outcome(answer, |answer| {
        let left = answer
            .unprocessed_keys()
            .and_then(|tables| tables.get(TABLE))
            .map_or(0, |keys| keys.keys().len());
        if left == 0 { "all at once".to_owned() } else { "leaves some unprocessed".to_owned() }
    });
    say("a batch read of 19.5 MB", "leaves some unprocessed", &unprocessed);
    Ok(())
}

async fn transactions(client: &Client, say: Say<'_>) -> Result<(), Failure> {
    let update = client.update_item().table_name(TABLE).update_expression("REMOVE entry");
    let update = key(update, |update, name, value| update.key(name, value), "removed");
    update.send().await?;
    let read = client.get_item().table_name(TABLE).consistent_read(true);
    let read = key(read, |read, name, value| read.key(name, value), "removed").send().await;
    let exists =
        outcome(read, |read| if read.item().is_some() { "an empty item" } else { "nothing" }.to_owned());
    say("REMOVE on a missing item leaves", "an empty item", &exists);

    let failed = client
        .put_item()
        .table_name(TABLE)
        .item("pk", text("removed"))
        .item("sk", text("s"))
        .condition_expression("attribute_not_exists(pk)")
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
        .send()
        .await;
    let old = match failed.map_err(SdkError::into_service_error) {
        Err(aws_sdk_dynamodb::operation::put_item::PutItemError::ConditionalCheckFailedException(failed)) => {
            if failed.item().is_some() {
                "the item"
            } else {
                "nothing"
            }
        }
        _ => "another error, or none",
    };
    say("ALL_OLD on a failed condition brings", "the item", old);

    let twice = client
        .transact_write_items()
        .transact_items(put_new("twice", "s", 10)?)
        .transact_items(put_new("twice", "s", 10)?);
    let answer = twice.send().await;
    say("a transaction with one item twice", "ValidationException", &outcome(answer, |_| "done".into()));

    let once = client
        .transact_write_items()
        .client_request_token("token")
        .transact_items(put_new("token", "s", 10)?);
    once.clone().send().await?;
    say("the same token again", "done", &outcome(once.send().await, |_| "done".into()));
    let other = client
        .transact_write_items()
        .client_request_token("token")
        .transact_items(put_new("token", "t", 10)?);
    let answer = other.send().await;
    let mismatch = "IdempotentParameterMismatchException";
    say("the same token with other items", mismatch, &outcome(answer, |_| "done".into()));
    Ok(())
}

async fn concurrent_additions(client: &Client) -> Result<String, Failure> {
    let mut tasks = JoinSet::new();
    for _ in 0..64 {
        let client = client.clone();
        tasks.spawn(async move {
            for _ in 0..10 {
                let update = client.update_item().table_name(TABLE).update_expression("ADD n :one");
                let update = key(update, |update, name, value| update.key(name, value), "added");
                update.expression_attribute_values(":one", AttributeValue::N("1".into())).send().await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let read = client.get_item().table_name(TABLE).consistent_read(true);
    let read = key(read, |read, name, value| read.key(name, value), "added").send().await?;
    Ok(read.item().and_then(|item| item["n"].as_n().ok()).cloned().unwrap_or_default())
}

fn outcome<A, E: ProvideErrorMetadata + Debug>(
    answer: Result<A, SdkError<E>>,
    read: impl FnOnce(&A) -> String,
) -> String {
    match answer {
        Ok(answer) => read(&answer),
        Err(error) => error.code().map_or_else(|| format!("{error:?}"), str::to_owned),
    }
}

fn units(consumed: Option<&ConsumedCapacity>) -> String {
    consumed
        .and_then(ConsumedCapacity::capacity_units)
        .map_or_else(|| "none reported".into(), |units| units.to_string())
}

fn key<B>(builder: B, mut add: impl FnMut(B, &str, AttributeValue) -> B, pk: &str) -> B {
    let builder = add(builder, "pk", text(pk));
    add(builder, "sk", text("s"))
}

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

fn binary(bytes: usize) -> AttributeValue {
    AttributeValue::B(Blob::new(vec![7; bytes]))
}

fn put_new(pk: &str, sk: &str, bytes: usize) -> Result<TransactWriteItem, Failure> {
    let put = Put::builder()
        .table_name(TABLE)
        .item("pk", text(pk))
        .item("sk", text(sk))
        .item("v", binary(bytes))
        .condition_expression("attribute_not_exists(pk)")
        .build()?;
    Ok(TransactWriteItem::builder().put(put).build())
}

async fn create_table(client: &Client) -> Result<(), Failure> {
    let mut create = client.create_table().table_name(TABLE).billing_mode(BillingMode::PayPerRequest);
    for (name, kind) in [("pk", KeyType::Hash), ("sk", KeyType::Range)] {
        let attribute =
            AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S);
        create = create
            .attribute_definitions(attribute.build()?)
            .key_schema(KeySchemaElement::builder().attribute_name(name).key_type(kind).build()?);
    }
    create.send().await?;
    Ok(())
}
