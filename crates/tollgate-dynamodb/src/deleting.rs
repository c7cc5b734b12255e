//! Deletions of outbox entries, by which tokens are consumed: those of one main item together in one update, those apart in
//! batches. All of it may be repeated, since what is gone stays gone.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::types::{DeleteRequest, ReturnConsumedCapacity, WriteRequest};
use futures_util::future::{join, join_all};
use tollgate_proto::{EntryKey, PartitionKey, Placement, SessionMark, StoreError, TokenRef};

use crate::batch_reading::Place;
use crate::calls::{self, TRIES_MAX};
use crate::expression::Update;
use crate::failure::{Failure, Scope};
use crate::names::{self, SPILLED, VERSION};
use crate::store::DynamoDbStore;

/// Most deletions in one batch.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchWriteItem.html>
const BATCH_WRITE_MAX: usize = 25;

/// What became of the deletions of a place or of a main item.
type Deleted = Result<(), StoreError>;

impl DynamoDbStore {
    /// [`tollgate_proto::Store::delete_entries`].
    pub(crate) async fn delete_tokens(
        &self,
        tokens: &[TokenRef],
    ) -> Vec<Result<Option<SessionMark>, StoreError>> {
        let mut together: BTreeMap<&PartitionKey, Vec<EntryKey>> = BTreeMap::new();
        let mut apart: Vec<Place> = Vec::new();
        for token in tokens.iter().filter(|token| token.store == self.alias) {
            match token.entry.placement() {
                Placement::Together => together.entry(&token.partition).or_default().push(token.entry),
                Placement::Apart => apart.push((token.partition.clone(), names::entry_sort(token.entry))),
            }
        }
        let removals = together.into_iter().map(|(partition, mut keys)| async move {
            keys.sort_unstable();
            keys.dedup();
            (partition, self.remove_from_main(partition, &keys).await)
        });
        let (removed, deleted) = join(join_all(removals), self.delete_places(apart)).await;
        let removed: HashMap<&PartitionKey, Deleted> = removed.into_iter().collect();
        tokens
            .iter()
            .map(|token| {
                self.check_alias(token)?;
                let place = (token.partition.clone(), names::entry_sort(token.entry));
                let answer = match token.entry.placement() {
                    Placement::Together => removed.get(&token.partition),
                    Placement::Apart => deleted.get(&place),
                };
                // Each place and each main item has been asked for, so there is an answer.
                answer.cloned().unwrap_or(Ok(())).map(|()| None)
            })
            .collect()
    }

    async fn remove_from_main(&self, partition: &PartitionKey, keys: &[EntryKey]) -> Deleted {
        let mut update = Update::default();
        // Without the condition the removal would create an item that is nobody's.
        update.require_some(VERSION);
        for key in keys {
            update.remove(names::entry_attribute(*key));
        }
        let mut of_all_in_main = update.clone();
        of_all_in_main.require(SPILLED, None);
        match self.update_main(partition, &of_all_in_main).await {
            Ok(_) => {
                self.remember_consumed(partition, keys);
                return Ok(());
            }
            Err(Failure::ConditionFailed) => {}
            Err(failure) => return Err(failure.of_repeatable_call(&self.alias, Some(partition))),
        }
        // The partition does not exist, or some of its entries had no room in the main item.
        match self.update_main(partition, &update).await {
            Ok(_) => {}
            Err(Failure::ConditionFailed) => return Ok(()),
            Err(failure) => return Err(failure.of_repeatable_call(&self.alias, Some(partition))),
        }
        let places = keys.iter().map(|key| (partition.clone(), names::entry_sort(*key))).collect();
        self.delete_places(places).await.into_values().collect()
    }

    /// Deletes what lies at these places. An answer for each.
    pub(crate) async fn delete_places(&self, mut places: Vec<Place>) -> HashMap<Place, Deleted> {
        places.sort_unstable();
        places.dedup();
        let batches = join_all(places.chunks(BATCH_WRITE_MAX).map(|batch| self.delete_batch(batch))).await;
        places.iter().cloned().zip(batches.into_iter().flatten()).collect()
    }

    /// One answer for each place, in their order.
    async fn delete_batch(&self, places: &[Place]) -> Vec<Deleted> {
        let delete = |(partition, sort): &Place| {
            let key = self.names.key(partition, sort);
            let request = DeleteRequest::builder().set_key(Some(key)).build().expect("the key is given");
            WriteRequest::builder().delete_request(request).build()
        };
        let mut requests: Vec<WriteRequest> = places.iter().map(delete).collect();
        let mut fruitless = 0;
        let failure = loop {
            let answer = self
                .calls
                .make("BatchWriteItem", |client| {
                    client
                        .batch_write_item()
                        .request_items(&self.names.table, requests.clone())
                        .return_consumed_capacity(ReturnConsumedCapacity::Total)
                        .send()
                })
                .await;
            let output = match answer {
                Ok(output) => output,
                Err(failure) => break failure,
            };
            self.calls.consumed("BatchWriteItem", output.consumed_capacity());
            let before = requests.len();
            requests = output.unprocessed_items.unwrap_or_default().into_values().flatten().collect();
            if requests.is_empty() {
                return vec![Ok(()); places.len()];
            }
            self.calls.count("tollgate_dynamodb_unprocessed_total", "BatchWriteItem");
            fruitless = if requests.len() < before { 1 } else { fruitless + 1 };
            if fruitless > TRIES_MAX {
                break Failure::Throttled {
                    scope: Scope::Keys,
                    reason: "deletions stay unprocessed".to_owned(),
                };
            }
            calls::pause(fruitless).await;
        };
        let error = failure.of_each(&self.alias);
        let left = |(partition, sort): &Place| {
            let key = self.names.key(partition, sort);
            requests
                .iter()
                .any(|request| request.delete_request().is_some_and(|request| request.key() == &key))
        };
        places.iter().map(|place| if left(place) { Err(error(&place.0)) } else { Ok(()) }).collect()
    }
}
