//! Where everything lies in the engine: four keyspaces, and in each a key that begins with the partition. The crate's
//! documentation draws it. No other file makes or takes apart keys.

use bytes::Bytes;
use tollgate_proto::{
    DeduplicationKey, EntryKey, Incarnation, ItemName, ItemValue, PartitionKey, Sequence, Version,
};

/// Bytes in front of a control record.
const VERSION_BYTES: usize = 16;

/// Bytes in front of a response.
const EXPIRY_BYTES: usize = 8;

const TAG_BINARY: u8 = 0;
const TAG_JSON: u8 = 1;

/// A part of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Space {
    Control,
    Items,
    Entries,
    Records,
}

impl Space {
    pub(crate) const ALL: [Self; 4] = [Self::Control, Self::Items, Self::Entries, Self::Records];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Items => "items",
            Self::Entries => "entries",
            Self::Records => "records",
        }
    }

    pub(crate) const fn place(self) -> usize {
        self as usize
    }
}

/// What the keys of one partition's items, entries or records begin with.
pub(crate) fn prefix(partition: &PartitionKey, room: usize) -> Vec<u8> {
    let partition = partition.as_str().as_bytes();
    let length = u16::try_from(partition.len()).expect("a partition key has at most 1024 bytes");
    let mut key = Vec::with_capacity(2 + partition.len() + room);
    key.extend_from_slice(&length.to_be_bytes());
    key.extend_from_slice(partition);
    key
}

pub(crate) fn control_key(partition: &PartitionKey) -> Vec<u8> {
    partition.as_str().as_bytes().to_vec()
}

pub(crate) fn item_key(partition: &PartitionKey, name: &ItemName) -> Vec<u8> {
    let mut key = prefix(partition, name.as_str().len());
    key.extend_from_slice(name.as_str().as_bytes());
    key
}

pub(crate) fn entry_key(partition: &PartitionKey, entry: EntryKey) -> Vec<u8> {
    let mut key = prefix(partition, VERSION_BYTES + 4);
    key.extend_from_slice(&entry.sequence.incarnation.0.to_be_bytes());
    key.extend_from_slice(&entry.sequence.counter.to_be_bytes());
    key.extend_from_slice(&entry.index.to_be_bytes());
    key
}

/// The entry that a key of [`entry_key`] names.
pub(crate) fn entry_of_key(partition: &PartitionKey, key: &[u8]) -> Option<EntryKey> {
    let (incarnation, rest) = key.get(2 + partition.as_str().len()..)?.split_first_chunk()?;
    let (counter, rest) = rest.split_first_chunk()?;
    let sequence = Sequence {
        incarnation: Incarnation(u64::from_be_bytes(*incarnation)),
        counter: u64::from_be_bytes(*counter),
    };
    Some(EntryKey { sequence, index: u32::from_be_bytes(rest.try_into().ok()?) })
}

pub(crate) fn record_key(partition: &PartitionKey, record: &DeduplicationKey) -> Vec<u8> {
    let mut key = prefix(partition, record.as_str().len());
    key.extend_from_slice(record.as_str().as_bytes());
    key
}

/// Takes the item's name out of a key.
pub(crate) fn item_name(partition: &PartitionKey, key: &[u8]) -> Option<ItemName> {
    let name = key.get(2 + partition.as_str().len()..)?;
    ItemName::new(std::str::from_utf8(name).ok()?).ok()
}

/// Takes the partition out of the key of one of its items, entries or records.
#[cfg(feature = "bench-internals")]
pub(crate) fn partition_of(key: &[u8]) -> Option<PartitionKey> {
    let (length, rest) = key.split_at_checked(2)?;
    let partition = rest.get(..usize::from(u16::from_be_bytes(length.try_into().ok()?)))?;
    PartitionKey::new(std::str::from_utf8(partition).ok()?).ok()
}

pub(crate) fn control_value(version: Version, record: &[u8]) -> Vec<u8> {
    let sequence = version.sequence();
    let mut value = Vec::with_capacity(VERSION_BYTES + record.len());
    value.extend_from_slice(&sequence.incarnation.0.to_be_bytes());
    value.extend_from_slice(&sequence.counter.to_be_bytes());
    value.extend_from_slice(record);
    value
}

/// The version of a stored control record, without decoding the record.
pub(crate) fn version_of(value: &[u8]) -> Option<Version> {
    let incarnation = Incarnation(u64::from_be_bytes(value.get(..8)?.try_into().ok()?));
    let counter = u64::from_be_bytes(value.get(8..VERSION_BYTES)?.try_into().ok()?);
    Some(Version::from_sequence(Sequence { incarnation, counter }))
}

pub(crate) fn control_record(value: &[u8]) -> Option<Bytes> {
    value.get(VERSION_BYTES..).map(Bytes::copy_from_slice)
}

pub(crate) fn item_value_bytes(value: &ItemValue) -> Vec<u8> {
    let tag = match value {
        ItemValue::Json(_) => TAG_JSON,
        ItemValue::Binary(_) => TAG_BINARY,
    };
    let mut bytes = Vec::with_capacity(1 + value.bytes().len());
    bytes.push(tag);
    bytes.extend_from_slice(value.bytes());
    bytes
}

pub(crate) fn item_value(value: &[u8]) -> Option<ItemValue> {
    let (tag, bytes) = value.split_first()?;
    let bytes = Bytes::copy_from_slice(bytes);
    match *tag {
        TAG_JSON => Some(ItemValue::Json(bytes)),
        TAG_BINARY => Some(ItemValue::Binary(bytes)),
        _ => None,
    }
}

pub(crate) fn record_value(expires_at_ms: u64, response: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(EXPIRY_BYTES + response.len());
    value.extend_from_slice(&expires_at_ms.to_be_bytes());
    value.extend_from_slice(response);
    value
}

/// When a record expires, in milliseconds since the Unix epoch, and its response.
pub(crate) fn record(value: &[u8]) -> Option<(u64, &[u8])> {
    let (expiry, response) = value.split_at_checked(EXPIRY_BYTES)?;
    Some((u64::from_be_bytes(expiry.try_into().ok()?), response))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_partitions_keys_begin_like_anothers() {
        let key = |partition: &str, item: &str| {
            item_key(&PartitionKey::new(partition).unwrap(), &ItemName::new(item).unwrap())
        };
        assert_ne!(key("a", "bc"), key("ab", "c"));
        assert!(!key("ab", "c").starts_with(&prefix(&PartitionKey::new("a").unwrap(), 0)));
        assert!(!key("a\0", "c").starts_with(&prefix(&PartitionKey::new("a").unwrap(), 0)));
    }

    #[test]
    fn values_come_back_as_they_went_in() {
        let version = Version::first(Incarnation(7)).next();
        let value = control_value(version, b"record");
        assert_eq!(version_of(&value), Some(version));
        assert_eq!(control_record(&value).unwrap(), "record");
        for item in [ItemValue::Json("{}".into()), ItemValue::Binary(Bytes::new())] {
            assert_eq!(item_value(&item_value_bytes(&item)), Some(item));
        }
        assert_eq!(record(&record_value(9, b"x")), Some((9, &b"x"[..])));
        assert_eq!((version_of(b"short"), item_value(b""), record(b"1234567")), (None, None, None));
    }
}
