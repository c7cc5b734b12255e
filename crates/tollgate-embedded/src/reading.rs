//! Reads: loads, outbox entries, scans and the search for expired records, all on one view and none of them waiting for
//! anything but the disk. Nothing here writes.

use bytes::Bytes;
use tollgate_proto::{
    ItemName, LoadRequest, LoadedPartition, PartitionKey, ScanCursor, ScanPage, ScannedPartition, StoreAlias,
    StoreError, TokenRef,
};

use crate::embedded_store::check_token;
use crate::layout::{self, Space};
use crate::tables::View;

/// How many deduplication records are looked at for expired ones at a time: what a task may do before others get a turn.
const EXPIRY_PAGE: usize = 4096;

/// A view, and the store that it is of.
pub(crate) struct Reading<'a> {
    pub(crate) alias: &'a StoreAlias,
    pub(crate) view: &'a View,
}

/// Some expired deduplication records.
pub(crate) struct ExpiredRecords {
    pub(crate) keys: Vec<Vec<u8>>,
    /// Where to go on. `None`: that was all.
    pub(crate) next: Option<Vec<u8>>,
}

impl Reading<'_> {
    pub(crate) fn load(&self, request: LoadRequest) -> Result<LoadedPartition, StoreError> {
        let LoadRequest { partition, items, records } = request;
        let control = self.get(Space::Control, &layout::control_key(&partition))?;
        let control = control
            .map(|value| {
                layout::control_record(&value).ok_or_else(|| self.corrupt(&partition, "the control record"))
            })
            .transpose()?;
        let mut loaded = LoadedPartition { control, ..LoadedPartition::default() };
        for name in items {
            let value = self.get(Space::Items, &layout::item_key(&partition, &name))?;
            let value = value
                .map(|value| {
                    layout::item_value(&value).ok_or_else(|| self.corrupt(&partition, name.as_str()))
                })
                .transpose()?;
            loaded.items.push((name, value));
        }
        for key in records {
            let value = self.get(Space::Records, &layout::record_key(&partition, &key))?;
            let response = value
                .map(|value| match layout::record(&value) {
                    Some((_, response)) => Ok(Bytes::copy_from_slice(response)),
                    None => Err(self.corrupt(&partition, key.as_str())),
                })
                .transpose()?;
            loaded.records.push((key, response));
        }
        Ok(loaded)
    }

    pub(crate) fn entry(&self, token: &TokenRef) -> Result<Option<Bytes>, StoreError> {
        check_token(self.alias, token)?;
        let entry = self.get(Space::Entries, &layout::entry_key(&token.partition, token.entry))?;
        Ok(entry.map(|value| Bytes::copy_from_slice(&value)))
    }

    pub(crate) fn scan(&self, cursor: Option<&ScanCursor>, limit: usize) -> Result<ScanPage, StoreError> {
        let mut page = ScanPage::default();
        for pair in self.view.after(Space::Control, cursor.map(|cursor| &cursor.0[..])) {
            if page.partitions.len() == limit {
                let last = page.partitions.last().map(|scanned| scanned.partition.as_str().to_owned());
                page.next = last.map(|last| ScanCursor(Bytes::from(last)));
                break;
            }
            let (key, value) = pair.into_inner().map_err(|error| self.unavailable(&error))?;
            let name = std::str::from_utf8(&key).ok().and_then(|key| PartitionKey::new(key).ok());
            let partition =
                name.ok_or_else(|| self.unavailable(&"a partition key in the store is damaged"))?;
            page.partitions.push(self.scan_partition(partition, &value)?);
        }
        Ok(page)
    }

    fn scan_partition(
        &self,
        partition: PartitionKey,
        control: &[u8],
    ) -> Result<ScannedPartition, StoreError> {
        let prefix = layout::prefix(&partition, 0);
        let mut items: Vec<ItemName> = Vec::new();
        for pair in self.view.prefix(Space::Items, &prefix) {
            let key = pair.key().map_err(|error| self.unavailable(&error))?;
            items.extend(layout::item_name(&partition, &key));
        }
        let mut entries = Vec::new();
        for pair in self.view.prefix(Space::Entries, &prefix) {
            let key = pair.key().map_err(|error| self.unavailable(&error))?;
            let entry = layout::entry_of_key(&partition, &key);
            entries.push(entry.ok_or_else(|| self.corrupt(&partition, "the key of an outbox entry"))?);
        }
        Ok(ScannedPartition {
            control: layout::control_record(control),
            entries,
            records: self.count(Space::Records, &prefix)?,
            items,
            partition,
        })
    }

    fn count(&self, space: Space, prefix: &[u8]) -> Result<u64, StoreError> {
        let mut count = 0;
        for pair in self.view.prefix(space, prefix) {
            pair.key().map_err(|error| self.unavailable(&error))?;
            count += 1;
        }
        Ok(count)
    }

    pub(crate) fn expired_records(
        &self,
        cursor: Option<&[u8]>,
        now_ms: u64,
    ) -> Result<ExpiredRecords, StoreError> {
        let mut keys = Vec::new();
        for (place, pair) in self.view.after(Space::Records, cursor).enumerate() {
            let (key, value) = pair.into_inner().map_err(|error| self.unavailable(&error))?;
            if layout::record(&value).is_some_and(|(expires_at_ms, _)| expires_at_ms <= now_ms) {
                keys.push(key.to_vec());
            }
            if place + 1 == EXPIRY_PAGE {
                return Ok(ExpiredRecords { keys, next: Some(key.to_vec()) });
            }
        }
        Ok(ExpiredRecords { keys, next: None })
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<fjall::UserValue>, StoreError> {
        self.view.get(space, key).map_err(|error| self.unavailable(&error))
    }

    fn unavailable(&self, reason: &impl ToString) -> StoreError {
        StoreError::Unavailable { store: self.alias.clone(), reason: reason.to_string() }
    }

    fn corrupt(&self, partition: &PartitionKey, what: &str) -> StoreError {
        StoreError::Corrupt {
            store: self.alias.clone(),
            partition: partition.clone(),
            what: what.to_owned(),
            reason: "it is shorter than what was written".to_owned(),
        }
    }
}
