//! A partition's main item: control record, and in it the business items and outbox entries that lie together. Reading it and
//! knowing its sizes is done here; it is written by [`crate::commit_writes`].

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use tollgate_proto::{EntryKey, Incarnation, ItemName, ItemValue, Sequence, Version};

use crate::item_size::value_bytes;
use crate::names::{self, APART, CONTROL, Item, SPILLED, VERSION};
use crate::native_json;
use crate::waiting_entries::WaitingEntries;

/// Bytes of a version: incarnation and counter.
const VERSION_BYTES: usize = 16;
/// Most names that a main item lists of what lies apart: more, and the list would cost more than it saves.
pub(crate) const NAMED_MAX: usize = 64;

/// A main item that was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MainItem<'a>(&'a Item);

/// What is known of a partition at one version. All that a commit's writes depend on changes only together with the version, so
/// the condition on the version is a condition on this too; only entries go without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) version: Option<Version>,
    /// Business items in the main item, with their bytes.
    pub(crate) items: BTreeMap<ItemName, usize>,
    /// Outbox entries that probably wait in the main item. An estimate: others consume them and don't say so.
    pub(crate) waiting: WaitingEntries,
    /// Business items that the commit before changed, if this process made it: what changes often should lie in the main item.
    pub(crate) changed: BTreeSet<ItemName>,
    /// Business items that are items of their own.
    pub(crate) apart: Apart,
    /// Entries that belong into the main item may lie apart.
    pub(crate) spill: Spill,
}

/// Which business items are items of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Apart {
    /// These.
    Named(BTreeSet<ItemName>),
    /// Any, too many to name.
    Spread,
}

/// Whether the main item ever had no room for an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Spill {
    /// Never.
    #[default]
    Never,
    /// Some lie apart, or did.
    Happened,
}

impl Default for Apart {
    fn default() -> Self {
        Self::Named(BTreeSet::new())
    }
}

impl Apart {
    /// Whether there may be an item of this name apart.
    pub(crate) fn may_hold(&self, name: &ItemName) -> bool {
        match self {
            Self::Named(names) => names.contains(name),
            Self::Spread => true,
        }
    }

    /// Now there is.
    pub(crate) fn insert(&mut self, name: &ItemName) {
        if let Self::Named(names) = self {
            names.insert(name.clone());
            if names.len() > NAMED_MAX {
                *self = Self::Spread;
            }
        }
    }

    /// Now there is none.
    pub(crate) fn remove(&mut self, name: &ItemName) {
        if let Self::Named(names) = self {
            names.remove(name);
        }
    }

    /// As it is stored. `None`: not at all.
    pub(crate) fn attribute(&self) -> Option<AttributeValue> {
        match self {
            Self::Named(names) if names.is_empty() => None,
            Self::Named(names) => {
                Some(AttributeValue::Ss(names.iter().map(|name| name.as_str().to_owned()).collect()))
            }
            Self::Spread => Some(AttributeValue::Bool(true)),
        }
    }

    fn of_attribute(attribute: Option<&AttributeValue>) -> Self {
        match attribute {
            None => Self::default(),
            Some(AttributeValue::Ss(names)) => {
                Self::Named(names.iter().filter_map(|name| ItemName::new(name).ok()).collect())
            }
            Some(_) => Self::Spread,
        }
    }
}

impl Known {
    /// A partition that does not exist yet.
    pub(crate) fn nothing() -> Self {
        Self {
            version: None,
            items: BTreeMap::new(),
            waiting: WaitingEntries::default(),
            changed: BTreeSet::new(),
            apart: Apart::default(),
            spill: Spill::Never,
        }
    }

    /// Once there are too many items apart to name them, every change would have to delete what may not be there: such a
    /// partition stays wide.
    pub(crate) fn is_bound_to_wide(&self) -> bool {
        self.apart == Apart::Spread
    }

    /// Business items in the main item: bytes.
    pub(crate) fn item_bytes(&self) -> usize {
        self.items.values().sum()
    }
}

impl<'a> MainItem<'a> {
    pub(crate) const fn new(item: &'a Item) -> Self {
        Self(item)
    }

    pub(crate) fn version(self) -> Option<Version> {
        let bytes: [u8; VERSION_BYTES] = self.0.get(VERSION)?.as_b().ok()?.as_ref().try_into().ok()?;
        let (incarnation, counter) = bytes.split_at(VERSION_BYTES / 2);
        let number = |half: &[u8]| half.try_into().ok().map(u64::from_be_bytes);
        let sequence = Sequence { incarnation: Incarnation(number(incarnation)?), counter: number(counter)? };
        Some(Version::from_sequence(sequence))
    }

    pub(crate) fn control(self) -> Option<Bytes> {
        binary(self.0.get(CONTROL)?)
    }

    pub(crate) fn spill(self) -> Spill {
        if self.0.contains_key(SPILLED) { Spill::Happened } else { Spill::Never }
    }

    pub(crate) fn apart(self) -> Apart {
        Apart::of_attribute(self.0.get(APART))
    }

    /// A business item, if it lies here, or what is wrong with it.
    pub(crate) fn item(self, name: &ItemName) -> Option<Result<ItemValue, &'static str>> {
        self.0.get(&names::item_attribute(name)).map(native_json::of_attribute)
    }

    /// The value of a business item as it is stored here.
    pub(crate) fn raw_item(self, name: &ItemName) -> Option<&'a AttributeValue> {
        self.0.get(&names::item_attribute(name))
    }

    /// The names of the business items that lie here.
    pub(crate) fn item_names(self) -> impl Iterator<Item = ItemName> + 'a {
        self.0.keys().filter_map(|attribute| names::item_of_attribute(attribute))
    }

    /// The outbox entries that lie here.
    pub(crate) fn entries(self) -> impl Iterator<Item = EntryKey> + 'a {
        self.0.keys().filter_map(|attribute| names::entry_of_attribute(attribute))
    }

    /// What is to be remembered of it.
    pub(crate) fn known(self) -> Known {
        let mut known =
            Known { version: self.version(), apart: self.apart(), spill: self.spill(), ..Known::nothing() };
        for (attribute, value) in self.0 {
            let bytes = attribute.len() + value_bytes(value);
            if let Some(name) = names::item_of_attribute(attribute) {
                known.items.insert(name, bytes);
            } else if let Some(key) = names::entry_of_attribute(attribute) {
                known.waiting.insert(key, bytes);
            }
        }
        known
    }
}

/// A version as it is stored and compared.
pub(crate) fn version_attribute(version: Version) -> AttributeValue {
    let Sequence { incarnation, counter } = version.sequence();
    let bytes = (u128::from(incarnation.0) << 64) | u128::from(counter);
    AttributeValue::B(bytes.to_be_bytes().to_vec().into())
}

/// The bytes of a binary attribute.
pub(crate) fn binary(value: &AttributeValue) -> Option<Bytes> {
    value.as_b().ok().map(|bytes| Bytes::copy_from_slice(bytes.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_comes_back_from_the_main_item() {
        let sequence = Sequence { incarnation: Incarnation(u64::MAX - 1), counter: 7 };
        let version = Version::from_sequence(sequence);
        let item = Item::from([(VERSION.to_owned(), version_attribute(version))]);
        assert_eq!(MainItem::new(&item).version(), Some(version));
    }

    #[test]
    fn names_of_what_lies_apart_come_back_until_there_are_too_many() {
        let mut apart = Apart::default();
        assert_eq!(apart.attribute(), None);
        for number in 0..NAMED_MAX {
            apart.insert(&ItemName::new(format!("item-{number}")).unwrap());
        }
        assert_eq!(Apart::of_attribute(apart.attribute().as_ref()), apart);
        let name = ItemName::new("one more").unwrap();
        assert!(!apart.may_hold(&name));
        apart.insert(&name);
        assert_eq!(apart, Apart::Spread);
        assert_eq!(Apart::of_attribute(apart.attribute().as_ref()), Apart::Spread);
    }
}
