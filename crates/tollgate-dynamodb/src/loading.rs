//! Loads of partitions: what lies in main items by coalesced reads, and everything that must be seen together with something
//! apart in one transaction, so that a partition is shown as it was at one moment. Which items are apart is known from before, or
//! seen in the main item.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::types::{Get, ReturnConsumedCapacity, TransactGetItem};
use bytes::Bytes;
use futures_util::future::{join, join_all};
use tollgate_proto::{
    DeduplicationKey, ItemName, ItemValue, LoadRequest, LoadedPartition, PartitionKey, StoreError,
};

use crate::calls::TRIES_MAX;
use crate::failure::Failure;
use crate::main_item::MainItem;
use crate::names::{self, Item, MAIN, RESPONSE};
use crate::prepared_commit::TRANSACTION_ITEMS_MAX;
use crate::store::DynamoDbStore;

/// Items of one partition by their sort keys, as they were at one moment.
type Snapshot = HashMap<String, Item>;
/// Answers by the place of their requests.
type Answers = BTreeMap<usize, Result<LoadedPartition, StoreError>>;

impl DynamoDbStore {
    /// [`tollgate_proto::Store::load`].
    pub(crate) async fn load_all(
        &self,
        requests: &[LoadRequest],
    ) -> Vec<Result<LoadedPartition, StoreError>> {
        let (apart, together): (Vec<usize>, Vec<usize>) =
            (0..requests.len()).partition(|at| self.reaches_apart(&requests[*at]));
        let place = |at: usize| (requests[at].partition.clone(), MAIN.to_owned());
        let places = together.iter().map(|at| place(*at)).collect();
        let (mains, mut answers) =
            join(self.read_places(places, None), self.load_each_apart(requests, apart)).await;
        let mut found_apart = Vec::new();
        for at in together {
            let request = &requests[at];
            let answer = mains.at(&place(at)).and_then(|main| {
                let loaded = self.loaded(request, main, &Snapshot::new())?;
                Ok(items_apart(request, main).next().is_none().then_some(loaded))
            });
            match answer.transpose() {
                Some(answer) => drop(answers.insert(at, answer)),
                None => found_apart.push(at),
            }
        }
        answers.extend(self.load_each_apart(requests, found_apart).await);
        answers.into_values().collect()
    }

    /// Whether the main item alone is known not to be enough.
    fn reaches_apart(&self, request: &LoadRequest) -> bool {
        !request.records.is_empty() || !self.items_known_apart(request).is_empty()
    }

    fn items_known_apart<'a>(&self, request: &'a LoadRequest) -> Vec<&'a ItemName> {
        let known = self.known.get(&request.partition);
        let is_apart = |name: &&ItemName| known.as_ref().is_some_and(|known| known.apart.may_hold(name));
        request.items.iter().filter(is_apart).collect()
    }

    async fn load_each_apart(&self, requests: &[LoadRequest], at: Vec<usize>) -> Answers {
        let loads = at.iter().map(|at| self.load_apart(&requests[*at]));
        let answers = join_all(loads).await;
        at.into_iter().zip(answers).collect()
    }

    async fn load_apart(&self, request: &LoadRequest) -> Result<LoadedPartition, StoreError> {
        let mut items = self.items_known_apart(request);
        for _ in 0..TRIES_MAX {
            let sorts = items.iter().map(|name| names::item_sort(name));
            let mut sorts: Vec<String> =
                sorts.chain(request.records.iter().map(names::record_sort)).collect();
            sorts.sort_unstable();
            sorts.dedup();
            let Some(snapshot) = self.snapshot(&request.partition, &sorts).await? else { continue };
            let main = snapshot.get(MAIN);
            if items_apart(request, main).all(|name| items.contains(&name)) {
                return self.loaded(request, main, &snapshot);
            }
            items = items_apart(request, main).collect();
        }
        Err(StoreError::Unavailable {
            store: self.alias.clone(),
            reason: format!("partition {} changes faster than it can be read", request.partition),
        })
    }

    /// The main item and others of its partition. `None`: they needed several transactions, between which the partition changed.
    async fn snapshot(
        &self,
        partition: &PartitionKey,
        sorts: &[String],
    ) -> Result<Option<Snapshot>, StoreError> {
        let mut chunks: Vec<&[String]> = sorts.chunks(TRANSACTION_ITEMS_MAX - 1).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        let version = |snapshot: &Snapshot| snapshot.get(MAIN).and_then(|main| MainItem::new(main).version());
        let mut snapshot: Option<Snapshot> = None;
        while let Some(chunk) = chunks.pop() {
            let read = match self.read_together(partition, chunk).await {
                Ok(read) => read,
                // More than 4 MB, probably; half of it is less.
                Err(Failure::Invalid(_)) if chunk.len() > 1 => {
                    let (left, right) = chunk.split_at(chunk.len() / 2);
                    chunks.extend([left, right]);
                    continue;
                }
                Err(failure) => return Err(failure.of_repeatable_call(&self.alias, Some(partition))),
            };
            match &mut snapshot {
                None => snapshot = Some(read),
                Some(before) if version(before) == version(&read) => before.extend(read),
                Some(_) => return Ok(None),
            }
        }
        Ok(snapshot)
    }

    async fn read_together(&self, partition: &PartitionKey, sorts: &[String]) -> Result<Snapshot, Failure> {
        let get = |sort: &str| {
            let get =
                Get::builder().table_name(&self.names.table).set_key(Some(self.names.key(partition, sort)));
            TransactGetItem::builder().get(get.build().expect("table and key are given")).build()
        };
        let sorts = || std::iter::once(MAIN).chain(sorts.iter().map(String::as_str));
        let gets: Vec<TransactGetItem> = sorts().map(get).collect();
        let output = self
            .calls
            .make("TransactGetItems", |client| {
                client
                    .transact_get_items()
                    .set_transact_items(Some(gets.clone()))
                    .return_consumed_capacity(ReturnConsumedCapacity::Total)
                    .send()
            })
            .await?;
        self.calls.consumed("TransactGetItems", output.consumed_capacity());
        let answers = output.responses.unwrap_or_default();
        Ok(sorts().zip(answers).filter_map(|(sort, answer)| Some((sort.to_owned(), answer.item?))).collect())
    }

    /// The answer to a request, from the items that were read for it.
    fn loaded(
        &self,
        request: &LoadRequest,
        main: Option<&Item>,
        others: &Snapshot,
    ) -> Result<LoadedPartition, StoreError> {
        let partition = &request.partition;
        let damaged = |what: String, reason: &str| self.corrupt(partition, what, reason);
        let main = main.map(MainItem::new);
        let control = match main {
            None => None,
            Some(main) => {
                let known = main.known();
                let control = main.control().filter(|_| known.version.is_some()).ok_or_else(|| {
                    damaged(
                        "the control record".to_owned(),
                        "version or record are missing or not binary: it was damaged, or an item of the sort key `tollgate` \
                         belongs to another program",
                    )
                })?;
                self.remember(partition, known);
                Some(control)
            }
        };
        let item = |name: &ItemName| -> Result<(ItemName, Option<ItemValue>), StoreError> {
            let apart = || MainItem::new(others.get(&names::item_sort(name))?).item(name);
            let value = main.and_then(|main| main.item(name)).or_else(apart).transpose();
            let value = value.map_err(|reason| damaged(format!("item {name}"), reason))?;
            Ok((name.clone(), value))
        };
        let record = |key: &DeduplicationKey| -> Result<(DeduplicationKey, Option<Bytes>), StoreError> {
            let Some(record) = others.get(&names::record_sort(key)) else { return Ok((key.clone(), None)) };
            let response = record.get(RESPONSE).and_then(crate::main_item::binary);
            let response = response
                .ok_or_else(|| damaged(format!("the record of {key}"), "its response is not binary"))?;
            Ok((key.clone(), Some(response)))
        };
        Ok(LoadedPartition {
            control,
            items: request.items.iter().map(item).collect::<Result<_, _>>()?,
            records: request.records.iter().map(record).collect::<Result<_, _>>()?,
            session: None,
        })
    }
}

/// The items asked for that lie apart, as the main item tells.
fn items_apart<'a>(request: &'a LoadRequest, main: Option<&Item>) -> impl Iterator<Item = &'a ItemName> {
    let main = main.map(MainItem::new);
    let apart = main.map(MainItem::apart);
    let in_main: Vec<bool> =
        request.items.iter().map(|name| main.is_some_and(|main| main.raw_item(name).is_some())).collect();
    request.items.iter().zip(in_main).filter_map(move |(name, in_main)| {
        let is_apart = !in_main && apart.as_ref().is_some_and(|apart| apart.may_hold(name));
        is_apart.then_some(name)
    })
}
