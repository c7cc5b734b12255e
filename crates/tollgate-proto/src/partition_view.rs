//! What a process knows of a partition between two messages: its control record and the business items it has seen.
//! A view is safe to be stale: a commit made on a stale view conflicts (R3). Whether to keep one is the cache's
//! business, not this file's.

use std::sync::Arc;

use crate::control_record::ControlRecord;
use crate::ids::ItemName;
use crate::marks::Marks;
use crate::sequence::{SessionMark, Version};
use crate::store::ItemValue;

/// A partition as this process last saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PartitionView {
    /// The control record. `None`: the partition has none yet.
    pub control: Option<ControlRecord>,
    /// The business items seen so far.
    pub items: Items,
    /// What a read must present to see at least this, where the store has such marks.
    pub session: Option<Arc<SessionMark>>,
}

impl PartitionView {
    /// Whether this view is newer than the version that a wake-up names, and everything in it is finished: then the
    /// wake-up has nothing to do, and the partition need not be loaded for it.
    pub fn is_settled_after(&self, expected: Option<Version>, marks: &Marks) -> bool {
        let Some(control) = &self.control else { return false };
        let is_newer = match expected.map(Version::sequence) {
            None => true,
            Some(expected) => {
                let version = control.version.sequence();
                version.incarnation == expected.incarnation && version.counter > expected.counter
            }
        };
        is_newer && control.pending.iter().all(|entry| marks.is_finished(entry.id))
    }

    /// Roughly how many bytes of memory this view takes.
    pub fn weight(&self) -> usize {
        const FIXED: usize = 256;
        const PER_ITEM: usize = 96;
        const PER_PENDING: usize = 160;
        let pending = self.control.as_ref().map_or(0, |control| control.pending.len());
        let items: usize = self
            .items
            .0
            .iter()
            .map(|(name, value)| {
                PER_ITEM + name.as_str().len() + value.as_ref().map_or(0, |value| value.bytes().len())
            })
            .sum();
        FIXED + items + pending * PER_PENDING
    }
}

/// Business items by name; a name with `None` is known to be absent, a name that is missing is not known.
///
/// Kept sorted by name in one allocation: partitions rarely have more than a few items in view.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Items(Vec<(ItemName, Option<ItemValue>)>);

impl Items {
    /// What is known of an item.
    pub fn get(&self, name: &ItemName) -> Option<&Option<ItemValue>> {
        let place = self.0.binary_search_by(|(known, _)| known.cmp(name)).ok()?;
        Some(&self.0[place].1)
    }

    /// Remembers an item, or its absence.
    pub fn set(&mut self, name: ItemName, value: Option<ItemValue>) {
        match self.0.binary_search_by(|(known, _)| known.cmp(&name)) {
            Ok(place) => self.0[place].1 = value,
            Err(place) => self.0.insert(place, (name, value)),
        }
    }

    /// All that is known, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&ItemName, &Option<ItemValue>)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// How many names are known.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lays `changes` over these items.
    pub fn apply(&mut self, changes: Self) {
        if self.0.is_empty() {
            *self = changes;
            return;
        }
        for (name, value) in changes.0 {
            self.set(name, value);
        }
    }
}

impl IntoIterator for Items {
    type Item = (ItemName, Option<ItemValue>);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl FromIterator<(ItemName, Option<ItemValue>)> for Items {
    fn from_iter<I: IntoIterator<Item = (ItemName, Option<ItemValue>)>>(pairs: I) -> Self {
        let mut items = Self::default();
        for (name, value) in pairs {
            items.set(name, value);
        }
        items
    }
}
