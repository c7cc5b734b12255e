//! The table and the store on an emulated `DynamoDB`, in this process or as a server on a file: real requests of the real SDK, and the units
//! that answers report. Feature `dynamodb`.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::builders::PutItemFluentBuilder;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, Delete, DeleteRequest, KeySchemaElement, KeyType,
    KeysAndAttributes, Put, PutRequest, ReturnConsumedCapacity, ScalarAttributeType, TransactWriteItem,
    WriteRequest,
};
use bytes::Bytes;
use tollgate::proto::BoxFuture;
use tollgate_dynamodb::{DynamoDbStore, TableOptions};
use tollgate_dynamodb_emulator::{Endpoint, InProcessDynamoDb, ServerKind, WireCounter};

use super::contender::Reported;
use super::table::{Answer, Call, Change, Condition, Key, Record, Table, TableError, Write};

const TABLE: &str = "rival";
const PARTITION: &str = "pk";
const SORT: &str = "sk";
const VERSION: &str = "version";
const VALUE: &str = "value";
const EXPIRES: &str = "expires_at";

type Item = HashMap<String, AttributeValue>;

/// An emulator of one's own. It ends when it is dropped.
pub enum Emulator {
    /// In this process, in memory.
    InProcess(InProcessDynamoDb),
    /// A process beside this one, on a file.
    Server {
        /// Where it answers.
        endpoint: Endpoint,
        /// What its answers report.
        counter: WireCounter,
    },
}

impl Emulator {
    /// One in this process.
    pub fn in_process() -> Self {
        Self::InProcess(InProcessDynamoDb::new())
    }

    /// One as a server.
    ///
    /// # Errors
    /// If it can't be started on this machine.
    pub async fn server() -> Result<Self, TableError> {
        // Starting it waits for a process.
        let started = tokio::task::spawn_blocking(|| Endpoint::start(ServerKind::Dynoxide)).await;
        let endpoint = started.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        Ok(Self::Server { endpoint, counter: WireCounter::default() })
    }

    fn client(&self) -> Client {
        match self {
            Self::InProcess(dynamo) => dynamo.client(),
            Self::Server { endpoint, counter } => {
                Client::from_conf(endpoint.client_config().interceptor(counter.clone()).build())
            }
        }
    }

    /// What it says it charged so far.
    pub fn reported(&self) -> Reported {
        let counts = match self {
            Self::InProcess(dynamo) => dynamo.counts(),
            Self::Server { counter, .. } => counter.counts(),
        };
        Reported {
            write_units: Some(counts.write_units().as_f64()),
            read_units: Some(counts.read_units().as_f64()),
            request_units: None,
        }
    }
}

/// A table on an emulated `DynamoDB`.
pub struct DynamoDbTable {
    client: Client,
}

fn failed(error: &dyn std::fmt::Debug) -> TableError {
    TableError(format!("{error:?}"))
}

/// Tollgate's store on an emulator.
///
/// # Errors
/// If the store refuses the emulator.
pub async fn store(dynamo: &Emulator, alias: &str) -> Result<DynamoDbStore, TableError> {
    let store = DynamoDbStore::builder(dynamo.client()).alias(alias).table("tollgate").build();
    let store = store.map_err(|error| failed(&error))?;
    store.provision(&TableOptions::default()).await.map_err(|error| failed(&error))?;
    Ok(store)
}

impl DynamoDbTable {
    /// An empty table.
    ///
    /// # Errors
    /// If it can't be created.
    pub async fn create(dynamo: &Emulator) -> Result<Self, TableError> {
        let client = dynamo.client();
        let attribute = |name: &str| {
            let attribute = AttributeDefinition::builder().attribute_name(name);
            attribute.attribute_type(ScalarAttributeType::S).build().map_err(|error| failed(&error))
        };
        let key = |name: &str, kind: KeyType| {
            let key = KeySchemaElement::builder().attribute_name(name).key_type(kind);
            key.build().map_err(|error| failed(&error))
        };
        client
            .create_table()
            .table_name(TABLE)
            .attribute_definitions(attribute(PARTITION)?)
            .attribute_definitions(attribute(SORT)?)
            .key_schema(key(PARTITION, KeyType::Hash)?)
            .key_schema(key(SORT, KeyType::Range)?)
            .billing_mode(BillingMode::PayPerRequest)
            .send()
            .await
            .map_err(|error| failed(&error))?;
        Ok(Self { client })
    }

    async fn get(&self, keys: Vec<Key>) -> Result<Answer, TableError> {
        if let [key] = &*keys {
            let answer = self
                .client
                .get_item()
                .table_name(TABLE)
                .set_key(Some(key_item(key)))
                .consistent_read(true)
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .send()
                .await
                .map_err(|error| failed(&error))?;
            return Ok(Answer::Records(vec![answer.item.as_ref().map(record).transpose()?]));
        }
        let wanted = keys.iter().map(key_item).collect();
        let wanted = KeysAndAttributes::builder().set_keys(Some(wanted)).consistent_read(true).build();
        let answer = self
            .client
            .batch_get_item()
            .request_items(TABLE, wanted.map_err(|error| failed(&error))?)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await
            .map_err(|error| failed(&error))?;
        let mut found = HashMap::new();
        for item in answer.responses.and_then(|mut tables| tables.remove(TABLE)).unwrap_or_default() {
            found.insert(key_of(&item)?, record(&item)?);
        }
        Ok(Answer::Records(keys.iter().map(|key| found.remove(key)).collect()))
    }

    async fn query(&self, partition: String, prefix: String) -> Result<Answer, TableError> {
        let answer = self
            .client
            .query()
            .table_name(TABLE)
            .consistent_read(true)
            .key_condition_expression("pk = :pk AND begins_with(sk, :prefix)")
            .expression_attribute_values(":pk", AttributeValue::S(partition))
            .expression_attribute_values(":prefix", AttributeValue::S(prefix))
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await
            .map_err(|error| failed(&error))?;
        let found = answer.items.unwrap_or_default();
        let found: Result<Vec<_>, _> =
            found.iter().map(|item| Ok::<_, TableError>((key_of(item)?.sort, record(item)?))).collect();
        Ok(Answer::Found(found?))
    }

    async fn write(&self, mut writes: Vec<Write>) -> Result<Answer, TableError> {
        if writes.len() == 1 {
            let Some(Write { key, change, condition }) = writes.pop() else { return Ok(Answer::Written) };
            return self.write_one(key, change, condition).await;
        }
        let items: Result<Vec<_>, _> = writes.into_iter().map(transact_item).collect();
        let answer = self
            .client
            .transact_write_items()
            .set_transact_items(Some(items?))
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await;
        match answer {
            Ok(_) => Ok(Answer::Written),
            Err(error) => {
                let error = error.into_service_error();
                if error.is_transaction_canceled_exception() {
                    Ok(Answer::Refused)
                } else {
                    Err(failed(&error))
                }
            }
        }
    }

    async fn write_one(&self, key: Key, change: Change, condition: Condition) -> Result<Answer, TableError> {
        match change {
            Change::Put(new) => {
                let put = self
                    .client
                    .put_item()
                    .table_name(TABLE)
                    .set_item(Some(item(&key, &new)))
                    .return_consumed_capacity(ReturnConsumedCapacity::Total);
                match conditional(put, condition).send().await {
                    Ok(_) => Ok(Answer::Written),
                    Err(error) => {
                        let error = error.into_service_error();
                        if error.is_conditional_check_failed_exception() {
                            Ok(Answer::Refused)
                        } else {
                            Err(failed(&error))
                        }
                    }
                }
            }
            Change::Delete => self
                .client
                .delete_item()
                .table_name(TABLE)
                .set_key(Some(key_item(&key)))
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .send()
                .await
                .map(|_| Answer::Written)
                .map_err(|error| failed(&error)),
        }
    }

    async fn batch(&self, writes: Vec<Write>) -> Result<Answer, TableError> {
        let mut requests = Vec::with_capacity(writes.len());
        for Write { key, change, .. } in writes {
            let request = match change {
                Change::Put(new) => {
                    let put = PutRequest::builder().set_item(Some(item(&key, &new))).build();
                    WriteRequest::builder().put_request(put.map_err(|error| failed(&error))?)
                }
                Change::Delete => {
                    let delete = DeleteRequest::builder().set_key(Some(key_item(&key))).build();
                    WriteRequest::builder().delete_request(delete.map_err(|error| failed(&error))?)
                }
            };
            requests.push(request.build());
        }
        self.client
            .batch_write_item()
            .request_items(TABLE, requests)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await
            .map(|_| Answer::Written)
            .map_err(|error| failed(&error))
    }
}

fn conditional(put: PutItemFluentBuilder, condition: Condition) -> PutItemFluentBuilder {
    match condition {
        Condition::Any => put,
        Condition::Absent => put.condition_expression("attribute_not_exists(pk)"),
        Condition::Version(version) => put
            .condition_expression("version = :version")
            .expression_attribute_values(":version", AttributeValue::N(version.to_string())),
    }
}

fn transact_item(write: Write) -> Result<TransactWriteItem, TableError> {
    let Write { key, change, condition } = write;
    let item = match change {
        Change::Put(new) => {
            let put = Put::builder().table_name(TABLE).set_item(Some(item(&key, &new)));
            let put = match condition {
                Condition::Any => put,
                Condition::Absent => put.condition_expression("attribute_not_exists(pk)"),
                Condition::Version(version) => put
                    .condition_expression("version = :version")
                    .expression_attribute_values(":version", AttributeValue::N(version.to_string())),
            };
            TransactWriteItem::builder().put(put.build().map_err(|error| failed(&error))?)
        }
        Change::Delete => {
            let delete = Delete::builder().table_name(TABLE).set_key(Some(key_item(&key))).build();
            TransactWriteItem::builder().delete(delete.map_err(|error| failed(&error))?)
        }
    };
    Ok(item.build())
}

fn key_item(key: &Key) -> Item {
    HashMap::from([
        (PARTITION.to_owned(), AttributeValue::S(key.partition.clone())),
        (SORT.to_owned(), AttributeValue::S(key.sort.clone())),
    ])
}

fn item(key: &Key, record: &Record) -> Item {
    let mut item = key_item(key);
    item.insert(VERSION.to_owned(), AttributeValue::N(record.version.to_string()));
    item.insert(VALUE.to_owned(), AttributeValue::B(record.value.to_vec().into()));
    if let Some(expires) = record.expires_at {
        item.insert(EXPIRES.to_owned(), AttributeValue::N(expires.to_string()));
    }
    item
}

fn key_of(item: &Item) -> Result<Key, TableError> {
    let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).cloned();
    match (text(PARTITION), text(SORT)) {
        (Some(partition), Some(sort)) => Ok(Key { partition, sort }),
        _ => Err(TableError("an item without its key".to_owned())),
    }
}

fn record(item: &Item) -> Result<Record, TableError> {
    let number = |name: &str| item.get(name).and_then(|value| value.as_n().ok()?.parse().ok());
    let value = item.get(VALUE).and_then(|value| value.as_b().ok());
    match (number(VERSION), value) {
        (Some(version), Some(value)) => {
            let value = Bytes::copy_from_slice(value.as_ref());
            Ok(Record { version, value, expires_at: number(EXPIRES) })
        }
        _ => Err(TableError("an item without version or value".to_owned())),
    }
}

impl Table for DynamoDbTable {
    fn call(&self, call: Call) -> BoxFuture<'_, Result<Answer, TableError>> {
        Box::pin(async move {
            match call {
                Call::Get(keys) => self.get(keys).await,
                Call::Query { partition, prefix } => self.query(partition, prefix).await,
                Call::Write(writes) => self.write(writes).await,
                Call::Batch(writes) => self.batch(writes).await,
            }
        })
    }

    fn contents(&self) -> BoxFuture<'_, Result<Vec<(Key, Record)>, TableError>> {
        Box::pin(async move {
            let mut contents = Vec::new();
            let mut pages =
                self.client.scan().table_name(TABLE).consistent_read(true).into_paginator().items().send();
            while let Some(found) = pages.next().await {
                let found = found.map_err(|error| failed(&error))?;
                contents.push((key_of(&found)?, record(&found)?));
            }
            Ok(contents)
        })
    }
}
