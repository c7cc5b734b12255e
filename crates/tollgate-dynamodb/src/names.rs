//! What everything of a partition is called in the table: sort keys of items, names of attributes, and the way back. The only
//! place that makes or reads them; `docs/stores/dynamodb.md` draws them. What a value means is not decided here.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use tollgate_proto::{DeduplicationKey, EntryKey, Incarnation, ItemName, PartitionKey, Sequence};

/// One item of the table, as the SDK has it.
pub(crate) type Item = HashMap<String, AttributeValue>;

/// Sort key of a partition's main item, and the beginning of every other sort key of ours.
pub(crate) const MAIN: &str = "tollgate";
/// Version of the control record: 8 bytes incarnation, 8 bytes counter, big endian.
pub(crate) const VERSION: &str = "version";
/// The control record.
pub(crate) const CONTROL: &str = "control";
/// Which business items are items of their own: their names, or `true` if there are too many to name.
pub(crate) const APART: &str = "apart";
/// There if entries that should lie in the main item had no room in it.
pub(crate) const SPILLED: &str = "spilled";
/// Body of an outbox entry that is an item of its own.
pub(crate) const ENTRY: &str = "entry";
/// Response of a deduplication record.
pub(crate) const RESPONSE: &str = "response";
/// When a deduplication record expires, in milliseconds: what commits judge by.
pub(crate) const EXPIRES_AT_MS: &str = "expires_at_ms";
/// The key of a deduplication record whose sort key holds only its hash.
pub(crate) const RECORD_KEY: &str = "key";
/// Default name of the attribute by which DynamoDB deletes expired records, in seconds.
pub(crate) const EXPIRY: &str = "expires_at";

const ITEM_ATTRIBUTE: &str = "item_";
const ENTRY_ATTRIBUTE: &str = "entry_";
const ITEM_SORT: &str = "tollgate#item#";
const ENTRY_SORT: &str = "tollgate#entry#";
const RECORD_SORT: &str = "tollgate#record#";
const HASHED_RECORD_SORT: &str = "tollgate#record-hash#";

/// Longest sort key that DynamoDB takes, in bytes.
pub(crate) const SORT_KEY_BYTES_MAX: usize = 1024;

/// The table and what its keys are called.
#[derive(Clone, Debug)]
pub(crate) struct TableNames {
    pub(crate) table: String,
    pub(crate) partition_key: String,
    pub(crate) sort_key: String,
    pub(crate) expiry: String,
}

/// What kind of thing of ours an item of the table is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Main,
    Item(ItemName),
    Entry(EntryKey),
    Record,
}

impl TableNames {
    /// The key of an item.
    pub(crate) fn key(&self, partition: &PartitionKey, sort: &str) -> Item {
        HashMap::from([
            (self.partition_key.clone(), AttributeValue::S(partition.as_str().to_owned())),
            (self.sort_key.clone(), AttributeValue::S(sort.to_owned())),
        ])
    }

    /// Where an item lies, if its keys are texts.
    pub(crate) fn place_of<'a>(&self, item: &'a Item) -> Option<(&'a str, &'a str)> {
        let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).map(String::as_str);
        Some((text(&self.partition_key)?, text(&self.sort_key)?))
    }

    /// Names that the store itself uses in its items: the keys must have others.
    pub(crate) fn is_taken(name: &str) -> bool {
        [VERSION, CONTROL, APART, SPILLED, ENTRY, RESPONSE, EXPIRES_AT_MS, RECORD_KEY].contains(&name)
            || name.starts_with(ITEM_ATTRIBUTE)
            || name.starts_with(ENTRY_ATTRIBUTE)
    }
}

/// The attribute of a business item, in the main item as well as in an item of its own.
pub(crate) fn item_attribute(name: &ItemName) -> String {
    format!("{ITEM_ATTRIBUTE}{name}")
}

/// The sort key of a business item of its own.
pub(crate) fn item_sort(name: &ItemName) -> String {
    format!("{ITEM_SORT}{name}")
}

/// The business item whose attribute this is.
pub(crate) fn item_of_attribute(attribute: &str) -> Option<ItemName> {
    attribute.strip_prefix(ITEM_ATTRIBUTE).and_then(|name| ItemName::new(name).ok())
}

/// The outbox entry whose attribute this is.
pub(crate) fn entry_of_attribute(attribute: &str) -> Option<EntryKey> {
    entry_of_text(attribute.strip_prefix(ENTRY_ATTRIBUTE)?)
}

fn entry_of_text(text: &str) -> Option<EntryKey> {
    let mut parts = text.split('.');
    let incarnation = Incarnation(u64::from_str_radix(parts.next()?, 16).ok()?);
    let counter = parts.next()?.parse().ok()?;
    let index = parts.next()?.parse().ok()?;
    Some(EntryKey { sequence: Sequence { incarnation, counter }, index })
}

/// The attribute of an outbox entry in the main item.
pub(crate) fn entry_attribute(key: EntryKey) -> String {
    format!("{ENTRY_ATTRIBUTE}{}", entry_text(key))
}

/// The sort key of an outbox entry of its own.
pub(crate) fn entry_sort(key: EntryKey) -> String {
    format!("{ENTRY_SORT}{}", entry_text(key))
}

fn entry_text(key: EntryKey) -> String {
    format!("{:016x}.{}.{}", key.sequence.incarnation.0, key.sequence.counter, key.index)
}

/// The sort key of a deduplication record. A key that doesn't fit is represented by its hash: 256 bits of BLAKE3 collide
/// for nobody.
pub(crate) fn record_sort(key: &DeduplicationKey) -> String {
    if is_hashed(key) {
        format!("{HASHED_RECORD_SORT}{}", blake3::hash(key.as_str().as_bytes()).to_hex())
    } else {
        format!("{RECORD_SORT}{key}")
    }
}

/// Whether the sort key of a record doesn't show its key.
pub(crate) fn is_hashed(key: &DeduplicationKey) -> bool {
    RECORD_SORT.len() + key.as_str().len() > SORT_KEY_BYTES_MAX
}

/// What the item at a sort key is, if it is ours.
pub(crate) fn kind_of(sort: &str) -> Option<Kind> {
    if sort == MAIN {
        return Some(Kind::Main);
    }
    if let Some(name) = sort.strip_prefix(ITEM_SORT) {
        return ItemName::new(name).ok().map(Kind::Item);
    }
    if let Some(entry) = sort.strip_prefix(ENTRY_SORT) {
        return entry_of_text(entry).map(Kind::Entry);
    }
    (sort.starts_with(RECORD_SORT) || sort.starts_with(HASHED_RECORD_SORT)).then_some(Kind::Record)
}

#[cfg(test)]
mod tests {
    use tollgate_proto::ids::{NAME_BYTES_MAX, PARTITION_KEY_BYTES_MAX};

    use super::*;

    #[test]
    fn no_name_that_core_allows_makes_a_sort_key_too_long() {
        let item = ItemName::new("x".repeat(NAME_BYTES_MAX)).unwrap();
        assert!(item_sort(&item).len() <= SORT_KEY_BYTES_MAX);
        for length in 1..=PARTITION_KEY_BYTES_MAX {
            let key = DeduplicationKey::new("x".repeat(length)).unwrap();
            assert!(record_sort(&key).len() <= SORT_KEY_BYTES_MAX, "{length}");
        }
        let sequence = Sequence { incarnation: Incarnation(u64::MAX), counter: u64::MAX };
        let entry = EntryKey { sequence, index: u32::MAX };
        assert!(entry_sort(entry).len() <= SORT_KEY_BYTES_MAX);
        assert_eq!(entry_of_attribute(&entry_attribute(entry)), Some(entry));
        assert_eq!(kind_of(&entry_sort(entry)), Some(Kind::Entry(entry)));
    }

    #[test]
    fn a_hashed_record_is_no_other_record() {
        let long = DeduplicationKey::new("x".repeat(PARTITION_KEY_BYTES_MAX)).unwrap();
        let sort = record_sort(&long);
        let pretender = DeduplicationKey::new(sort.strip_prefix(HASHED_RECORD_SORT).unwrap()).unwrap();
        assert_ne!(record_sort(&pretender), sort);
        assert_eq!(kind_of(&sort), Some(Kind::Record));
    }

    #[test]
    fn what_lies_at_a_sort_key_is_told_from_it() {
        let name = ItemName::new("a#b").unwrap();
        assert_eq!(kind_of(&item_sort(&name)), Some(Kind::Item(name.clone())));
        assert_eq!(item_of_attribute(&item_attribute(&name)), Some(name));
        assert_eq!(kind_of(MAIN), Some(Kind::Main));
        assert_eq!(kind_of("tollgate-like"), None);
        assert_eq!(kind_of("orders"), None);
    }
}
