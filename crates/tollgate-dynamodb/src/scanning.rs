//! Scans for the audit, consistent and with pages of the length asked for, and surveys for the sweep, which
//! cost half and return all that a call has read. Both read the whole table, whatever else is in it: they are
//! no step of any message's way.

use std::time::Duration;

use aws_sdk_dynamodb::operation::scan::ScanOutput;
use aws_sdk_dynamodb::types::ReturnConsumedCapacity;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tollgate_proto::{PartitionKey, ScanCursor, ScanPage, ScannedPartition, StoreError};

use crate::main_item::MainItem;
use crate::names::{self, Item, Kind};
use crate::store::DynamoDbStore;

/// Fewest items that one call reads, so that partitions of many items don't take a call for each few.
const ITEMS_MIN: usize = 64;

/// The last item of the last partition that was listed whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    partition: String,
    sort: String,
}

impl DynamoDbStore {
    /// [`tollgate_proto::Store::scan`].
    pub(crate) async fn scan_page(
        &self,
        cursor: Option<ScanCursor>,
        limit: usize,
    ) -> Result<ScanPage, StoreError> {
        let mut start = cursor.map(|cursor| self.position_of(&cursor)).transpose()?;
        let limit = limit.max(1);
        let mut listing = Listing::default();
        loop {
            // What is read beyond the page's last partition is paid for and read again.
            let items_max = (limit - listing.whole.len()).saturating_add(1).max(ITEMS_MIN);
            let (output, _) = self.scan_call(start.as_ref(), true, i32::try_from(items_max).ok()).await?;
            for item in output.items.iter().flatten() {
                if let Some((partition, sort)) = self.names.place_of(item) {
                    let position = Position { partition: partition.to_owned(), sort: sort.to_owned() };
                    if listing.begins(&position) && listing.whole.len() >= limit {
                        return Ok(listing.page());
                    }
                    listing.add(position, item);
                }
            }
            match output.last_evaluated_key.as_ref().and_then(|key| self.names.place_of(key)) {
                None => {
                    listing.end();
                    return Ok(ScanPage { partitions: listing.whole, next: None });
                }
                Some((partition, sort)) => {
                    start = Some(Position { partition: partition.to_owned(), sort: sort.to_owned() });
                }
            }
        }
    }

    /// [`tollgate_proto::Store::survey`]: what one call reads, up to the last partition that may go on in the
    /// next one.
    pub(crate) async fn survey_page(&self, cursor: Option<ScanCursor>) -> Result<ScanPage, StoreError> {
        let mut start = cursor.map(|cursor| self.position_of(&cursor)).transpose()?;
        let mut listing = Listing::default();
        loop {
            let (output, units) = self.scan_call(start.as_ref(), false, None).await?;
            for item in output.items.iter().flatten() {
                if let Some((partition, sort)) = self.names.place_of(item) {
                    let position = Position { partition: partition.to_owned(), sort: sort.to_owned() };
                    listing.begins(&position);
                    listing.add(position, item);
                }
            }
            if let (Some(most), Some(units)) = (self.survey_units_max, units) {
                let milliseconds = units.saturating_mul(1000) / u64::from(most.get());
                tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            }
            let last = output.last_evaluated_key.as_ref().and_then(|key| self.names.place_of(key));
            let Some((partition, sort)) = last else {
                listing.end();
                return Ok(ScanPage { partitions: listing.whole, next: None });
            };
            if let Some(page) = listing.whole_page() {
                return Ok(page);
            }
            start = Some(Position { partition: partition.to_owned(), sort: sort.to_owned() });
        }
    }

    /// One call, and the read units that it has cost, if DynamoDB tells.
    async fn scan_call(
        &self,
        start: Option<&Position>,
        consistent: bool,
        items_max: Option<i32>,
    ) -> Result<(ScanOutput, Option<u64>), StoreError> {
        let start_key = start.map(|position| self.key_of(position));
        let output = self
            .calls
            .make("Scan", |client| {
                client
                    .scan()
                    .table_name(&self.names.table)
                    .consistent_read(consistent)
                    .set_limit(items_max)
                    .set_exclusive_start_key(start_key.clone())
                    .return_consumed_capacity(ReturnConsumedCapacity::Total)
                    .send()
            })
            .await
            .map_err(|failure| failure.of_repeatable_call(&self.alias, None))?;
        let units = self.calls.consumed("Scan", output.consumed_capacity.as_ref());
        Ok((output, units))
    }

    fn key_of(&self, position: &Position) -> Item {
        let text = |text: &str| aws_sdk_dynamodb::types::AttributeValue::S(text.to_owned());
        Item::from([
            (self.names.partition_key.clone(), text(&position.partition)),
            (self.names.sort_key.clone(), text(&position.sort)),
        ])
    }

    fn position_of(&self, cursor: &ScanCursor) -> Result<Position, StoreError> {
        serde_json::from_slice(&cursor.0).map_err(|error| StoreError::Misconfigured {
            store: self.alias.clone(),
            reason: format!("a scan can't go on at a cursor that this store has not made: {error}"),
        })
    }
}

/// Partitions in the order of the table: all items of one come one after the other.
#[derive(Default)]
struct Listing {
    whole: Vec<ScannedPartition>,
    current: Option<ScannedPartition>,
    last: Option<Position>,
    /// The last item of the last whole partition.
    end_of_whole: Option<Position>,
}

impl Listing {
    /// Whether an item is the first of its partition. The one before it is whole then.
    fn begins(&mut self, position: &Position) -> bool {
        let begins = self.last.as_ref().is_none_or(|last| last.partition != position.partition);
        if begins {
            self.end_of_whole.clone_from(&self.last);
            self.end();
        }
        begins
    }

    fn end(&mut self) {
        self.whole.extend(self.current.take());
    }

    fn add(&mut self, position: Position, item: &Item) {
        if let (Some(kind), Ok(key)) =
            (names::kind_of(&position.sort), PartitionKey::new(&position.partition))
        {
            let partition = self.current.get_or_insert_with(|| ScannedPartition {
                partition: key,
                control: None,
                entries: Vec::new(),
                records: 0,
                items: Vec::new(),
            });
            match kind {
                Kind::Main => {
                    let main = MainItem::new(item);
                    partition.control = main.control();
                    partition.entries.extend(main.entries());
                    partition.items.extend(main.item_names());
                }
                Kind::Item(name) => partition.items.push(name),
                Kind::Entry(key) => partition.entries.push(key),
                Kind::Record => partition.records += 1,
            }
        }
        self.last = Some(position);
    }

    /// The whole partitions, and where the one begins that may go on. `None`: there is no whole one yet.
    fn whole_page(&mut self) -> Option<ScanPage> {
        let end = self.end_of_whole.as_ref()?;
        let bytes = serde_json::to_vec(end).expect("two texts are JSON");
        let partitions = std::mem::take(&mut self.whole);
        Some(ScanPage { partitions, next: Some(ScanCursor(Bytes::from(bytes))) })
    }

    /// What is listed so far, and where to go on.
    fn page(self) -> ScanPage {
        let next = self.last.map(|last| {
            let bytes = serde_json::to_vec(&last).expect("two texts are JSON");
            ScanCursor(Bytes::from(bytes))
        });
        ScanPage { partitions: self.whole, next }
    }
}
