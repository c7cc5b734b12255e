//! The table that the tests use, and the few calls on it that they share.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, Put, ScalarAttributeType,
    TransactWriteItem,
};

/// Its name.
pub const TABLE: &str = "tollgate";

/// A key or an item.
pub type Item = HashMap<String, AttributeValue>;

/// Creates the table with `pk` and `sk`, both strings.
pub async fn create(client: &Client) {
    let attribute = |name| {
        AttributeDefinition::builder()
            .attribute_name(name)
            .attribute_type(ScalarAttributeType::S)
            .build()
            .expect("name and type are set")
    };
    let key = |name, kind| {
        KeySchemaElement::builder()
            .attribute_name(name)
            .key_type(kind)
            .build()
            .expect("name and type are set")
    };
    client
        .create_table()
        .table_name(TABLE)
        .billing_mode(BillingMode::PayPerRequest)
        .attribute_definitions(attribute("pk"))
        .attribute_definitions(attribute("sk"))
        .key_schema(key("pk", KeyType::Hash))
        .key_schema(key("sk", KeyType::Range))
        .send()
        .await
        .expect("the table can be created");
}

/// The key of `pk` and `sk`.
pub fn key(pk: &str, sk: &str) -> Item {
    HashMap::from([("pk".to_owned(), string(pk)), ("sk".to_owned(), string(sk))])
}

/// A string attribute.
pub fn string(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

/// A number attribute.
pub fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// A put of a new item in a transaction.
pub fn put_new(pk: &str, sk: &str) -> TransactWriteItem {
    let put = Put::builder()
        .table_name(TABLE)
        .set_item(Some(key(pk, sk)))
        .condition_expression("attribute_not_exists(pk)")
        .build()
        .expect("table and item are set");
    TransactWriteItem::builder().put(put).build()
}

/// Adds 1 to the item's attribute `n`, which is no idempotent thing to do: who does it twice is found out.
pub async fn increment(client: &Client, pk: &str) -> Result<(), String> {
    client
        .update_item()
        .table_name(TABLE)
        .set_key(Some(key(pk, "state")))
        .update_expression("ADD n :one")
        .expression_attribute_values(":one", number(1))
        .send()
        .await
        .map(drop)
        .map_err(code)
}

/// What `increment` has come to.
pub async fn value(client: &Client, pk: &str) -> u64 {
    let answer = client
        .get_item()
        .table_name(TABLE)
        .set_key(Some(key(pk, "state")))
        .consistent_read(true)
        .send()
        .await
        .expect("the item can be read");
    let n = answer.item().and_then(|item| item.get("n")).and_then(|n| n.as_n().ok());
    n.map_or(0, |n| n.parse().expect("n is a number"))
}

/// DynamoDB's code of an error, or what the transport said.
pub fn code<E: ProvideErrorMetadata + std::fmt::Debug>(error: SdkError<E>) -> String {
    match error {
        SdkError::DispatchFailure(failure) if failure.is_timeout() => "timeout".to_owned(),
        SdkError::DispatchFailure(failure) if failure.is_io() => "disconnected".to_owned(),
        other => other.code().map_or_else(|| format!("{other:?}"), str::to_owned),
    }
}
