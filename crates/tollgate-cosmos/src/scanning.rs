//! Scans for the sweep and the audit, and the deletion of expired records where no service does it. Queries across the whole
//! container: not on the path of any message.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use azure_data_cosmos::feed::{FeedScope, Query};
use azure_data_cosmos::options::{FeedOptions, MaxItemCountHint, Precondition, QueryOptions};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::try_join_all;
use serde_json::{Map, Value};
use tollgate_proto::{PartitionKey, ScanCursor, ScanPage, ScannedPartition, StoreError};

use crate::cosmos_store::CosmosStore;
use crate::document::{decode, parse_record};
use crate::document_id::{CONTROL_ID, Kind, entry_of_id, item_name};
use crate::failure::Failure;
use crate::statistics::Operation;

/// How many partitions a page of a scan has at most, whatever is asked for: each is looked into with a query of its own.
const SCAN_PAGE_MAX: usize = 100;

/// The SDK refuses a query over more than 100 physical partitions unless it is told that this is meant.
fn every_partition() -> FeedOptions {
    FeedOptions::default().with_max_fan_out(u32::MAX)
}

impl CosmosStore {
    /// Lists the partitions that have a control record: nothing of Tollgate's is in any other.
    pub(crate) async fn scan_page(
        &self,
        cursor: Option<ScanCursor>,
        limit: usize,
    ) -> Result<ScanPage, StoreError> {
        let limit = u32::try_from(limit.clamp(1, SCAN_PAGE_MAX)).unwrap_or(1);
        let page_size = NonZeroU32::new(limit).unwrap_or(NonZeroU32::MIN);
        let mut options = QueryOptions::default()
            .with_operation_options(self.requests.options())
            .with_feed_options(every_partition())
            .with_max_item_count(MaxItemCountHint::Limit(page_size));
        if let Some(ScanCursor(token)) = cursor {
            let token = String::from_utf8_lossy(&token).into_owned();
            options = options
                .with_continuation_token(azure_data_cosmos::feed::ContinuationToken::from_string(token));
        }
        let query = Query::from("SELECT * FROM c WHERE c.id = @id").with_parameter("@id", CONTROL_ID);
        let query = query.map_err(|error| self.fail_scan(&error))?;
        let container = &self.requests.container;
        let mut pages = container
            .query_items::<Map<String, Value>>(query, FeedScope::full_container(), Some(options))
            .await
            .map_err(|error| self.fail_scan(&error))?
            .into_pages();
        loop {
            self.requests.tallies.count_request(Operation::Scan);
            let Some(page) = pages.next().await else { return Ok(ScanPage::default()) };
            let page = page.map_err(|error| self.fail_scan(&error))?;
            self.requests.count_charge(Operation::Scan, page.headers().request_charge());
            let documents = page.into_items();
            if documents.is_empty() {
                continue;
            }
            let next = pages.to_continuation_token().map_err(|error| self.fail_scan(&error))?;
            let scanned = documents.into_iter().filter_map(|document| self.partition_in(&document));
            let partitions = try_join_all(scanned.map(|(key, control)| self.look_into(key, control))).await?;
            let next = Some(ScanCursor(Bytes::copy_from_slice(next.as_str().as_bytes())));
            return Ok(ScanPage { partitions, next });
        }
    }

    fn partition_in(&self, document: &Map<String, Value>) -> Option<(PartitionKey, Option<Bytes>)> {
        let partition = self.requests.layout.partition_of(document)?;
        let record = document.get("tollgate")?["record"].as_str()?;
        // A damaged record is left out here; whoever loads the partition is told.
        Some((partition, decode(record).ok()))
    }

    async fn look_into(
        &self,
        partition: PartitionKey,
        control: Option<Bytes>,
    ) -> Result<ScannedPartition, StoreError> {
        let scope = FeedScope::partition(self.requests.key(&partition)?);
        let documents = self.query_all("SELECT c.id FROM c", scope, Operation::Scan).await?;
        let ids: Vec<&str> = documents.iter().filter_map(|document| document.get("id")?.as_str()).collect();
        let records = ids.iter().filter(|id| Kind::of_id(id) == Kind::Record).count() as u64;
        let entries = ids.iter().filter_map(|id| entry_of_id(id)).collect();
        let items: BTreeSet<_> = ids.iter().filter_map(|id| item_name(id)).collect();
        let items = items.into_iter().collect();
        Ok(ScannedPartition { partition, control, entries, records, items })
    }

    /// Deletes expired records, for emulators that don't.
    pub(crate) async fn expire_records(&self, now_ms: u64) -> Result<u64, StoreError> {
        let query = "SELECT * FROM c WHERE STARTSWITH(c.id, 'tollgate.record')";
        let documents = self.query_all(query, FeedScope::full_container(), Operation::Expire).await?;
        let mut expired = 0;
        for document in documents {
            let Some(partition) = self.requests.layout.partition_of(&document) else { continue };
            let Some(id) = document.get("id").and_then(Value::as_str).map(str::to_owned) else { continue };
            let json = Value::Object(document).to_string();
            let Ok(record) = parse_record(json.as_bytes()) else { continue };
            if record.expires_at_ms > now_ms {
                continue;
            }
            let unchanged = Precondition::if_match(record.etag);
            match self.requests.delete(Operation::Expire, &partition, &id, Some(unchanged)).await {
                Ok(_) => expired += 1,
                // It was renewed meanwhile.
                Err(Failure::Condition) => {}
                Err(failure) => return Err(failure.of_repeatable(&self.requests.alias, Some(&partition))),
            }
        }
        Ok(expired)
    }

    async fn query_all(
        &self,
        query: &'static str,
        scope: FeedScope,
        operation: Operation,
    ) -> Result<Vec<Map<String, Value>>, StoreError> {
        let options = QueryOptions::default()
            .with_operation_options(self.requests.options())
            .with_feed_options(every_partition());
        let _room = self.requests.room().await;
        let container = &self.requests.container;
        let mut pages = container
            .query_items::<Map<String, Value>>(Query::from(query), scope, Some(options))
            .await
            .map_err(|error| self.fail(operation, &error))?
            .into_pages();
        let mut documents = Vec::new();
        while let Some(page) = pages.next().await {
            self.requests.tallies.count_request(operation);
            let page = page.map_err(|error| self.fail(operation, &error))?;
            self.requests.count_charge(operation, page.headers().request_charge());
            documents.extend(page.into_items());
        }
        Ok(documents)
    }

    fn fail_scan(&self, error: &azure_data_cosmos::CosmosError) -> StoreError {
        self.fail(Operation::Scan, error)
    }

    fn fail(&self, operation: Operation, error: &azure_data_cosmos::CosmosError) -> StoreError {
        self.requests.judge(operation, error).of_repeatable(&self.requests.alias, None)
    }
}
