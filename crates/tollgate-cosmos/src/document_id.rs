//! The ids of documents inside a logical partition: which ids Tollgate's own documents have, and how a business item's
//! name becomes an id. Ids only; what a document says is in `document` and `item_document`.
//!
//! Cosmos DB forbids `/ \ ? #` in ids, clients disagree about other characters, and an id of `.` or `..` is swallowed by
//! everything that normalizes URLs. So an id consists of ASCII letters, digits and `- _ . : @ =` alone: every other byte
//! of the name's UTF-8, and a dot at its beginning, becomes `~` and two hexadecimal digits. This is reversible, no two
//! names share an id, and ordinary names look the same as ids.

use std::fmt::Write as _;

use tollgate_proto::{DeduplicationKey, EntryKey, Incarnation, ItemName, Sequence};

/// The control record's id, in every partition.
pub const CONTROL_ID: &str = "tollgate.control";

/// All ids of Tollgate's own documents begin so. An item with such a name has its first letter escaped.
pub const RESERVED_PREFIX: &str = "tollgate.";

/// Longest id of a document, in bytes (Cosmos DB service quotas, "Maximum length of ID value": 1,023).
pub const ID_BYTES_MAX: usize = 1023;

const RECORD_PREFIX: &str = "tollgate.record.";
const HASHED_RECORD_PREFIX: &str = "tollgate.record-hash.";
const ENTRY_PREFIX: &str = "tollgate.entry.";

/// The id of an outbox entry: `tollgate.entry.` incarnation (16 hexadecimal digits) `.` counter `.` index.
///
/// ```
/// use tollgate_proto::{EntryKey, Incarnation, Sequence};
///
/// let sequence = Sequence { incarnation: Incarnation(0xab), counter: 7 };
/// let id = tollgate_cosmos::document_id::entry_id(EntryKey { sequence, index: 2 });
/// assert_eq!(id, "tollgate.entry.00000000000000ab.7.2");
/// ```
pub fn entry_id(key: EntryKey) -> String {
    format!("{ENTRY_PREFIX}{:016x}.{}.{}", key.sequence.incarnation.0, key.sequence.counter, key.index)
}

/// The outbox entry with this id, as [`entry_id`] made it.
pub(crate) fn entry_of_id(id: &str) -> Option<EntryKey> {
    let mut parts = id.strip_prefix(ENTRY_PREFIX)?.split('.');
    let incarnation = Incarnation(u64::from_str_radix(parts.next()?, 16).ok()?);
    let counter = parts.next()?.parse().ok()?;
    let index = parts.next()?.parse().ok()?;
    Some(EntryKey { sequence: Sequence { incarnation, counter }, index })
}

/// The id of a deduplication record: the escaped key, or the BLAKE3 of a key that is too long for an id.
pub fn record_id(key: &DeduplicationKey) -> String {
    let id = escape(RECORD_PREFIX, key.as_str());
    if id.len() <= ID_BYTES_MAX {
        return id;
    }
    format!("{HASHED_RECORD_PREFIX}{}", blake3::hash(key.as_str().as_bytes()).to_hex())
}

/// The id of a business item.
///
/// ```
/// use tollgate_proto::ItemName;
/// use tollgate_cosmos::document_id::item_id;
///
/// assert_eq!(item_id(&ItemName::new("state")?), "state");
/// assert_eq!(item_id(&ItemName::new("orders/4711")?), "orders~2F4711");
/// assert_eq!(item_id(&ItemName::new("tollgate.control")?), "~74ollgate.control");
/// # Ok::<(), tollgate_proto::InvalidName>(())
/// ```
pub fn item_id(name: &ItemName) -> String {
    let id = escape("", name.as_str());
    match id.strip_prefix(RESERVED_PREFIX) {
        Some(rest) => format!("~74{}{rest}", &RESERVED_PREFIX[1..]),
        None => id,
    }
}

/// The name of the business item with this id. `None`: it is a document of Tollgate's own, or was not named by these rules.
pub fn item_name(id: &str) -> Option<ItemName> {
    if id.starts_with(RESERVED_PREFIX) {
        return None;
    }
    let mut bytes = Vec::with_capacity(id.len());
    let mut rest = id.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'~' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    ItemName::new(String::from_utf8(bytes).ok()?).ok()
}

/// What the document with this id is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Control,
    Entry,
    Record,
    Item,
}

impl Kind {
    pub(crate) fn of_id(id: &str) -> Self {
        if id == CONTROL_ID {
            Self::Control
        } else if id.starts_with(ENTRY_PREFIX) {
            Self::Entry
        } else if id.starts_with(RECORD_PREFIX) || id.starts_with(HASHED_RECORD_PREFIX) {
            Self::Record
        } else {
            Self::Item
        }
    }
}

fn escape(prefix: &str, name: &str) -> String {
    let mut id = String::with_capacity(prefix.len() + name.len());
    id.push_str(prefix);
    for byte in name.bytes() {
        let is_plain = byte.is_ascii_alphanumeric() || b"-_:@=".contains(&byte);
        if is_plain || (byte == b'.' && !id.is_empty()) {
            id.push(char::from(byte));
        } else {
            write!(id, "~{byte:02X}").expect("writing to a string can't fail");
        }
    }
    id
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_of_dots_does_not_become_a_step_in_a_path() {
        assert_eq!(item_id(&ItemName::new("..").unwrap()), "~2E.");
        assert_eq!(item_id(&ItemName::new(".").unwrap()), "~2E");
    }

    #[test]
    fn a_key_that_is_too_long_for_an_id_is_hashed_and_can_not_be_mistaken_for_a_short_one() {
        let long = DeduplicationKey::new("#".repeat(1024)).unwrap();
        let id = record_id(&long);
        assert!(id.len() <= ID_BYTES_MAX);
        let imitation = DeduplicationKey::new(&id[RECORD_PREFIX.len()..]).unwrap();
        assert_ne!(record_id(&imitation), id);
        assert_eq!(Kind::of_id(&id), Kind::Record);
    }

    proptest! {
        #[test]
        fn every_name_becomes_a_legal_id_and_comes_back(name in "\\PC{1,60}|tollgate\\.[a-z]{0,5}|[./\\\\?#~%]{1,5}") {
            let name = ItemName::new(name).unwrap();
            let id = item_id(&name);
            prop_assert!(id.len() <= ID_BYTES_MAX);
            prop_assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:@=~".contains(&byte)));
            prop_assert!(!id.starts_with('.') && Kind::of_id(&id) == Kind::Item);
            prop_assert_eq!(item_name(&id), Some(name));
        }
    }
}
