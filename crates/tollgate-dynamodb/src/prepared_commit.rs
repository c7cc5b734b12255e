//! A commit with its business items as attributes: measured, checked against DynamoDB's limits before anything is sent, and
//! described for [`crate::capacity`]. How it is written is in [`crate::commit_writes`].

use aws_sdk_dynamodb::types::AttributeValue;
use tollgate_proto::{Commit, EntryKey, ItemName, LimitExceeded, Placement, RecordWrite, StoreLimits};

use crate::capacity::{self, Candidates, CommitShape, ITEM_BYTES_MAX, Layout, WRITE_UNIT_BYTES};
use crate::item_size::{item_bytes, value_bytes};
use crate::main_item::{Known, Spill, version_attribute};
use crate::names::{
    self, APART, CONTROL, ENTRY, EXPIRES_AT_MS, Item, RECORD_KEY, RESPONSE, SPILLED, TableNames, VERSION,
};
use crate::native_json;

/// Most items in one transaction.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html>
pub(crate) const TRANSACTION_ITEMS_MAX: usize = 100;
/// Most bytes in one transaction. Same source.
pub(crate) const TRANSACTION_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most keys in one read. <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html>
pub(crate) const BATCH_READ_MAX: usize = 100;
/// Most deletions that are asked for at once. DynamoDB takes 25 in a batch; those in one main item are one update.
pub(crate) const DELETIONS_MAX: usize = 100;

/// After its time a record stays for another hour, for DynamoDB's clock may be ahead of those that judge: in seconds.
const EXPIRY_MARGIN_SECONDS: u64 = 3600;

/// What the store declares. The main item counts in a transaction as a whole, with what was in it before: room for it is left.
pub(crate) const LIMITS: StoreLimits = StoreLimits {
    transaction_items_max: TRANSACTION_ITEMS_MAX,
    transaction_bytes_max: TRANSACTION_BYTES_MAX - ITEM_BYTES_MAX,
    item_bytes_max: ITEM_BYTES_MAX,
    read_batch_max: BATCH_READ_MAX,
    delete_batch_max: DELETIONS_MAX,
};

/// A commit on its way.
#[derive(Clone, Debug)]
pub(crate) struct PreparedCommit {
    pub(crate) commit: Commit,
    pub(crate) items: Vec<(ItemName, Option<AttributeValue>)>,
}

impl PreparedCommit {
    pub(crate) fn new(commit: Commit) -> Self {
        let items = commit
            .items
            .iter()
            .map(|(name, value)| (name.clone(), value.as_ref().map(native_json::to_attribute)))
            .collect();
        Self { commit, items }
    }

    /// Whether the commit fits into DynamoDB's limits, whichever layout it takes.
    pub(crate) fn check(&self, names: &TableNames, limits: &StoreLimits) -> Result<(), LimitExceeded> {
        let partition = &self.commit.partition;
        let base = self.base_bytes(names, &Known::nothing());
        check_item(base, || format!("the control record of partition {partition}"))?;
        let (mut items, mut bytes) = (1, base);
        for (name, value) in &self.items {
            let size = self.own_item_bytes(names, name, value.as_ref());
            check_item(size, || format!("item {name} of partition {partition}"))?;
            (items, bytes) = (items + 1, bytes + size);
        }
        for (key, entry) in &self.commit.entries {
            let size = self.own_entry_bytes(names, *key, entry.len());
            check_item(size, || format!("outgoing message {key} of partition {partition}"))?;
            (items, bytes) = (items + 1, bytes + size);
        }
        for record in &self.commit.records {
            let size = item_bytes(&self.record_item(names, record));
            check_item(size, || format!("response to {} in partition {partition}", record.key))?;
            (items, bytes) = (items + 1, bytes + size);
        }
        items += self.commit.deleted_entries.len();
        if items > limits.transaction_items_max {
            return Err(LimitExceeded::TransactionItems { items, max: limits.transaction_items_max });
        }
        if bytes > limits.transaction_bytes_max {
            return Err(LimitExceeded::TransactionBytes { bytes, max: limits.transaction_bytes_max });
        }
        Ok(())
    }

    /// What the commit brings along, in bytes, keys included.
    pub(crate) fn bytes(&self, names: &TableNames) -> usize {
        let items = self
            .items
            .iter()
            .map(|(name, value)| self.own_item_bytes(names, name, value.as_ref()))
            .sum::<usize>();
        let entries = self
            .commit
            .entries
            .iter()
            .map(|(key, entry)| self.own_entry_bytes(names, *key, entry.len()))
            .sum::<usize>();
        let records = self
            .commit
            .records
            .iter()
            .map(|record| item_bytes(&self.record_item(names, record)))
            .sum::<usize>();
        self.base_bytes(names, &Known::nothing()) + items + entries + records
    }

    /// What the commit may be written like.
    pub(crate) fn candidates(&self, names: &TableNames, known: &Known) -> Candidates {
        let base = self.base_bytes(names, known) + known.waiting.bytes();
        let kept: usize = self.kept(known).map(|(_, bytes)| bytes).sum();
        let entries: Vec<usize> = self
            .commit
            .entries
            .iter()
            .map(|(key, entry)| self.own_entry_bytes(names, *key, entry.len()))
            .collect();
        let records = self.commit.records.iter().map(|record| item_bytes(&self.record_item(names, record)));
        let deleted = self.commit.deleted_entries.iter().filter(|key| key.placement() == Placement::Apart);
        let others: Vec<usize> = records.chain(deleted.map(|_| 0)).collect();
        let shape = |in_main: usize, main_items: usize, own: &mut dyn Iterator<Item = usize>| CommitShape {
            main: base + in_main,
            main_items,
            own: own.chain(others.iter().copied()).collect(),
            entries: entries.clone(),
        };
        let own_bytes = |(name, value): &(ItemName, Option<AttributeValue>)| {
            self.own_item_bytes(names, name, value.as_ref())
        };
        let main_bytes = |(name, value): &(ItemName, Option<AttributeValue>)| {
            value.as_ref().map_or(0, |value| attribute_bytes(name, value))
        };
        let is_apart = |item: &&(ItemName, Option<AttributeValue>)| known.apart.may_hold(&item.0);
        let (apart, together): (Vec<_>, Vec<_>) = self.items.iter().partition(is_apart);
        let together_bytes: usize = together.iter().map(|item| main_bytes(item)).sum();
        let apart_bytes: usize = apart.iter().map(|item| main_bytes(item)).sum();
        let kept_items = self.kept(known).count();
        let comes_in = !apart.is_empty()
            && !known.is_bound_to_wide()
            && apart.iter().all(|(name, _)| known.changed.contains(name));
        let stays_in = if kept < WRITE_UNIT_BYTES { kept } else { 0 };
        Candidates {
            waiting: known.waiting.bytes(),
            stay: shape(
                kept + together_bytes,
                kept_items + together.len(),
                &mut apart.iter().map(|item| own_bytes(item)),
            ),
            compact: comes_in.then(|| {
                let items = kept_items + self.items.len();
                shape(kept + together_bytes + apart_bytes, items, &mut std::iter::empty())
            }),
            wide: (!together.is_empty() || stays_in < kept)
                .then(|| shape(stays_in, 0, &mut self.items.iter().map(own_bytes))),
        }
    }

    /// Where the items go that the commit changes.
    pub(crate) fn layout(&self, names: &TableNames, known: &Known) -> Layout {
        // Entries say by their numbers where they lie; a commit without any has no say in it.
        let placement = self.commit.entries.first().map_or(Placement::Together, |(key, _)| key.placement());
        capacity::cheapest_with(&self.candidates(names, known), placement).layout
    }

    /// How many items of the table the commit writes at most.
    pub(crate) fn transaction_items(&self) -> usize {
        let commit = &self.commit;
        1 + self.items.len() + commit.entries.len() + commit.deleted_entries.len() + commit.records.len()
    }

    /// The business items of the main item that this commit does not change.
    pub(crate) fn kept<'a>(
        &'a self,
        known: &'a Known,
    ) -> impl Iterator<Item = (&'a ItemName, usize)> + Clone + 'a {
        known
            .items
            .iter()
            .filter(|(name, _)| self.items.iter().all(|(changed, _)| changed != *name))
            .map(|(name, bytes)| (name, *bytes))
    }

    /// The main item without business items and entries.
    pub(crate) fn base_bytes(&self, names: &TableNames, known: &Known) -> usize {
        let key = item_bytes(&names.key(&self.commit.partition, names::MAIN));
        let version = VERSION.len() + value_bytes(&version_attribute(self.commit.version));
        let apart = known.apart.attribute().map_or(0, |names| APART.len() + value_bytes(&names));
        let spilled = match known.spill {
            Spill::Never => 0,
            Spill::Happened => SPILLED.len() + 1,
        };
        key + version + CONTROL.len() + self.commit.control.len() + apart + spilled
    }

    /// A business item that lies apart.
    pub(crate) fn own_item(&self, names: &TableNames, name: &ItemName, value: AttributeValue) -> Item {
        let mut item = names.key(&self.commit.partition, &names::item_sort(name));
        item.insert(names::item_attribute(name), value);
        item
    }

    /// An entry that lies apart.
    pub(crate) fn own_entry(&self, names: &TableNames, key: EntryKey, entry: &[u8]) -> Item {
        let mut item = names.key(&self.commit.partition, &names::entry_sort(key));
        item.insert(ENTRY.to_owned(), AttributeValue::B(entry.to_vec().into()));
        item
    }

    /// A deduplication record.
    pub(crate) fn record_item(&self, names: &TableNames, record: &RecordWrite) -> Item {
        let mut item = names.key(&self.commit.partition, &names::record_sort(&record.key));
        let seconds = record.expires_at_ms.div_ceil(1000).saturating_add(EXPIRY_MARGIN_SECONDS);
        item.insert(RESPONSE.to_owned(), AttributeValue::B(record.response.to_vec().into()));
        item.insert(EXPIRES_AT_MS.to_owned(), AttributeValue::N(record.expires_at_ms.to_string()));
        item.insert(names.expiry.clone(), AttributeValue::N(seconds.to_string()));
        if names::is_hashed(&record.key) {
            item.insert(RECORD_KEY.to_owned(), AttributeValue::S(record.key.to_string()));
        }
        item
    }

    fn own_item_bytes(&self, names: &TableNames, name: &ItemName, value: Option<&AttributeValue>) -> usize {
        let key = item_bytes(&names.key(&self.commit.partition, &names::item_sort(name)));
        key + value.map_or(0, |value| attribute_bytes(name, value))
    }

    fn own_entry_bytes(&self, names: &TableNames, key: EntryKey, bytes: usize) -> usize {
        item_bytes(&names.key(&self.commit.partition, &names::entry_sort(key))) + ENTRY.len() + bytes
    }
}

/// What a business item takes in the main item.
pub(crate) fn attribute_bytes(name: &ItemName, value: &AttributeValue) -> usize {
    names::item_attribute(name).len() + value_bytes(value)
}

fn check_item(bytes: usize, item: impl FnOnce() -> String) -> Result<(), LimitExceeded> {
    if bytes > ITEM_BYTES_MAX {
        return Err(LimitExceeded::ItemBytes { item: item(), bytes, max: ITEM_BYTES_MAX });
    }
    Ok(())
}
