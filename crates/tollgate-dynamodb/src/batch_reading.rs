//! Strongly consistent reads of many items by key: as many as DynamoDB takes at a time, and again for those that it leaves
//! unprocessed. What the items mean is the caller's business.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{KeysAndAttributes, ReturnConsumedCapacity};
use futures_util::future::join_all;
use tollgate_proto::{PartitionKey, StoreError};

use crate::calls::{self, TRIES_MAX};
use crate::failure::{Failure, Scope};
use crate::names::{Item, MAIN};
use crate::prepared_commit::BATCH_READ_MAX;
use crate::store::DynamoDbStore;

/// Where an item lies.
pub(crate) type Place = (PartitionKey, String);

/// What was found. A place that is not in it was read and is empty.
#[derive(Debug, Default)]
pub(crate) struct Found {
    items: HashMap<Place, Item>,
    failures: HashMap<Place, StoreError>,
}

impl Found {
    /// The item at a place, or why it could not be read.
    pub(crate) fn at(&self, place: &Place) -> Result<Option<&Item>, StoreError> {
        match self.failures.get(place) {
            Some(failure) => Err(failure.clone()),
            None => Ok(self.items.get(place)),
        }
    }
}

impl DynamoDbStore {
    /// Reads what lies at these places: whole items, or the attributes named.
    pub(crate) async fn read_places(&self, mut places: Vec<Place>, attributes: Option<&[String]>) -> Found {
        places.sort_unstable();
        places.dedup();
        let batches =
            join_all(places.chunks(BATCH_READ_MAX).map(|batch| self.read_batch(batch, attributes))).await;
        batches.into_iter().fold(Found::default(), |mut found, batch| {
            found.items.extend(batch.items);
            found.failures.extend(batch.failures);
            found
        })
    }

    /// Reads one partition's main item.
    pub(crate) async fn read_main(&self, partition: &PartitionKey) -> Result<Option<Item>, StoreError> {
        let key = self.names.key(partition, MAIN);
        let output = self
            .calls
            .make("GetItem", |client| {
                client
                    .get_item()
                    .table_name(&self.names.table)
                    .set_key(Some(key.clone()))
                    .consistent_read(true)
                    .return_consumed_capacity(ReturnConsumedCapacity::Total)
                    .send()
            })
            .await
            .map_err(|failure| failure.of_repeatable_call(&self.alias, Some(partition)))?;
        self.calls.consumed("GetItem", output.consumed_capacity());
        Ok(output.item)
    }

    async fn read_batch(&self, places: &[Place], attributes: Option<&[String]>) -> Found {
        let mut found = Found::default();
        let mut keys: Vec<Item> =
            places.iter().map(|(partition, sort)| self.names.key(partition, sort)).collect();
        let mut fruitless = 0;
        while !keys.is_empty() {
            let request = self.keys_and_attributes(std::mem::take(&mut keys), attributes);
            let answer = self
                .calls
                .make("BatchGetItem", |client| {
                    client
                        .batch_get_item()
                        .request_items(&self.names.table, request.clone())
                        .return_consumed_capacity(ReturnConsumedCapacity::Total)
                        .send()
                })
                .await;
            let output = match answer {
                Ok(output) => output,
                Err(failure) => return self.leave(found, places, &request, failure),
            };
            self.calls.consumed("BatchGetItem", output.consumed_capacity());
            let items = output.responses.unwrap_or_default().into_values().flatten();
            let before = found.items.len();
            found.items.extend(items.filter_map(|item| Some((self.place(&item)?, item))));
            keys = output
                .unprocessed_keys
                .unwrap_or_default()
                .into_values()
                .flat_map(|unprocessed| unprocessed.keys)
                .collect();
            // An answer that is full leaves the rest for the next one; an empty one is throttling.
            fruitless = if found.items.len() > before { 0 } else { fruitless + 1 };
            if !keys.is_empty() {
                self.calls.count("tollgate_dynamodb_unprocessed_total", "BatchGetItem");
            }
            if !keys.is_empty() && fruitless > 0 {
                if fruitless > TRIES_MAX {
                    let request = self.keys_and_attributes(keys, attributes);
                    let throttled =
                        Failure::Throttled { scope: Scope::Keys, reason: "keys stay unprocessed".to_owned() };
                    return self.leave(found, places, &request, throttled);
                }
                calls::pause(fruitless).await;
            }
        }
        found
    }

    fn keys_and_attributes(&self, keys: Vec<Item>, attributes: Option<&[String]>) -> KeysAndAttributes {
        let mut builder = KeysAndAttributes::builder().consistent_read(true).set_keys(Some(keys));
        if let Some(attributes) = attributes {
            let projected = [&self.names.partition_key, &self.names.sort_key].into_iter().chain(attributes);
            let names: HashMap<String, String> =
                projected.enumerate().map(|(number, name)| (format!("#{number}"), name.clone())).collect();
            let projection = names.keys().cloned().collect::<Vec<_>>().join(",");
            builder = builder.set_expression_attribute_names(Some(names)).projection_expression(projection);
        }
        builder.build().expect("keys are given")
    }

    /// What is not found by now has failed; what was found stays found.
    fn leave(
        &self,
        mut found: Found,
        places: &[Place],
        request: &KeysAndAttributes,
        failure: Failure,
    ) -> Found {
        let asked: Vec<Place> = request.keys().iter().filter_map(|key| self.place(key)).collect();
        let error = failure.of_each(&self.alias);
        let failed = places.iter().filter(|place| asked.contains(place));
        found.failures.extend(failed.map(|place| (place.clone(), error(&place.0))));
        found
    }

    fn place(&self, item: &Item) -> Option<Place> {
        let (partition, sort) = self.names.place_of(item)?;
        Some((PartitionKey::new(partition).ok()?, sort.to_owned()))
    }
}
