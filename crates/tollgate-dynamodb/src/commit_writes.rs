//! What a commit writes and under which conditions: one update of the main item, and beside it what lies apart. Everything
//! follows from what is known of the partition at the version that the commit expects, and the update is conditional on that
//! version. Sending it is [`crate::committing`]'s business.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{AttributeValue, Delete, Put, TransactWriteItem, Update as UpdateOfItem};
use tollgate_proto::{DeduplicationKey, ItemName, Placement};

use crate::capacity::{self, ITEM_BYTES_MAX, Layout, TRANSACTION_FACTOR};
use crate::expression::Update;
use crate::item_size::{item_bytes, value_bytes};
use crate::main_item::{Known, Spill, version_attribute};
use crate::names::{self, APART, CONTROL, EXPIRES_AT_MS, Item, MAIN, SPILLED, TableNames, VERSION};
use crate::prepared_commit::{PreparedCommit, attribute_bytes};
use crate::waiting_entries::Charge;

/// Characters of a transaction's client token: DynamoDB takes 36, and 128 bits make 32 of them.
const CLIENT_TOKEN_CHARACTERS: usize = 32;

/// A commit as DynamoDB is to execute it.
#[derive(Clone, Debug)]
pub(crate) struct CommitWrites {
    /// The update of the main item, conditional on the version.
    pub(crate) main: Update,
    /// What happens to other items, in the same transaction.
    pub(crate) own: Vec<TransactWriteItem>,
    /// The deduplication records among `own`, by their place in the transaction: the main item is at 0.
    pub(crate) records: HashMap<usize, DeduplicationKey>,
    /// What is known of the partition once it is done.
    pub(crate) after: Known,
    /// Write units of `own`, each item by itself; a deletion counts one, since the size of what it deletes is
    /// unknown.
    own_units: u64,
    deletes_apart: bool,
}

impl CommitWrites {
    /// Describes the writes. `layout` says where the items go that the commit changes; `moved` are others that leave the main
    /// item along with them.
    pub(crate) fn new(
        names: &TableNames,
        prepared: &PreparedCommit,
        known: &Known,
        layout: Layout,
        moved: &[(ItemName, AttributeValue)],
    ) -> Self {
        let commit = &prepared.commit;
        let mut writes = Self {
            main: Update::default(),
            own: Vec::new(),
            records: HashMap::new(),
            after: Known {
                version: Some(commit.version),
                changed: prepared.items.iter().map(|(name, _)| name.clone()).collect(),
                ..known.clone()
            },
            own_units: 0,
            deletes_apart: false,
        };
        writes.main.require(VERSION, commit.expected.map(version_attribute));
        writes.main.set(VERSION, version_attribute(commit.version));
        writes.main.set(CONTROL, AttributeValue::B(commit.control.to_vec().into()));
        for (name, value) in &prepared.items {
            let goes_apart = match layout {
                Layout::Stay => known.apart.may_hold(name),
                Layout::Compact => false,
                Layout::Wide => true,
            };
            match value {
                Some(value) if goes_apart => writes.put_apart(names, prepared, name, value),
                Some(value) => writes.put_together(names, prepared, name, value),
                None => {
                    writes.remove_from_main(name);
                    writes.delete_apart(names, prepared, name);
                }
            }
        }
        for (name, value) in moved {
            writes.put_apart(names, prepared, name, value);
        }
        if writes.after.apart != known.apart {
            match writes.after.apart.attribute() {
                Some(attribute) => writes.main.set(APART, attribute),
                None => writes.main.remove(APART),
            }
        }
        writes.add_entries(names, prepared);
        writes.delete_entries(names, prepared, known);
        writes.add_records(names, prepared);
        writes
    }

    /// Size of the main item as the units of the whole commit tell it.
    ///
    /// An item of its own is counted as large as it is afterwards. One that has shrunk was charged as it was
    /// before; the error lasts until the next commit.
    pub(crate) fn charge_of_main(&self, units: Option<u64>) -> Charge {
        match units {
            None => Charge::Untold,
            Some(units) if self.is_single() => Charge::Exactly(units),
            Some(units) => {
                let main = (units / TRANSACTION_FACTOR).saturating_sub(self.own_units);
                if self.deletes_apart { Charge::AtMost(main) } else { Charge::Exactly(main) }
            }
        }
    }

    /// Whether one update does it all.
    pub(crate) fn is_single(&self) -> bool {
        self.own.is_empty()
    }

    /// The items of the transaction, the main one first.
    pub(crate) fn transaction(
        &self,
        names: &TableNames,
        prepared: &PreparedCommit,
    ) -> Vec<TransactWriteItem> {
        let update = UpdateOfItem::builder()
            .table_name(&names.table)
            .set_key(Some(names.key(&prepared.commit.partition, MAIN)))
            .update_expression(self.main.update())
            .condition_expression(self.main.condition())
            .set_expression_attribute_names(Some(self.main.names()))
            .set_expression_attribute_values(self.main.values())
            .build()
            .expect("table, key and expression are given");
        let main = TransactWriteItem::builder().update(update).build();
        std::iter::once(main).chain(self.own.iter().cloned()).collect()
    }

    /// The same for the same commit written in the same way, so that DynamoDB recognises the repetition of a transaction whose
    /// answer was lost. The control record holds the attempt, which no other commit has.
    pub(crate) fn client_token(&self, prepared: &PreparedCommit) -> String {
        let commit = &prepared.commit;
        let mut hasher = blake3::Hasher::new();
        hasher.update(commit.partition.as_str().as_bytes());
        hasher.update(&commit.version.sequence().incarnation.0.to_le_bytes());
        hasher.update(&commit.version.sequence().counter.to_le_bytes());
        hasher.update(&commit.now_ms.to_le_bytes());
        hasher.update(&commit.control);
        // Another way of writing it is another request, which DynamoDB would refuse under the same token.
        hasher.update(self.main.condition().as_bytes());
        hasher.update(self.main.update().as_bytes());
        hasher.update(&self.own.len().to_le_bytes());
        let mut token = hasher.finalize().to_hex().to_string();
        token.truncate(CLIENT_TOKEN_CHARACTERS);
        token
    }

    fn put_together(
        &mut self,
        names: &TableNames,
        prepared: &PreparedCommit,
        name: &ItemName,
        value: &AttributeValue,
    ) {
        self.main.set(names::item_attribute(name), value.clone());
        self.after.items.insert(name.clone(), attribute_bytes(name, value));
        // An item has one place.
        self.delete_apart(names, prepared, name);
    }

    fn put_apart(
        &mut self,
        names: &TableNames,
        prepared: &PreparedCommit,
        name: &ItemName,
        value: &AttributeValue,
    ) {
        self.put_own(names, prepared.own_item(names, name, value.clone()));
        self.after.apart.insert(name);
        self.remove_from_main(name);
    }

    fn put_own(&mut self, names: &TableNames, item: Item) {
        self.own_units += capacity::write_units(item_bytes(&item));
        self.own.push(put(names, item));
    }

    fn delete_own(&mut self, names: &TableNames, key: Item) {
        self.own_units += 1;
        self.deletes_apart = true;
        self.own.push(delete(names, key));
    }

    fn remove_from_main(&mut self, name: &ItemName) {
        if self.after.items.remove(name).is_some() {
            self.main.remove(names::item_attribute(name));
        }
    }

    fn delete_apart(&mut self, names: &TableNames, prepared: &PreparedCommit, name: &ItemName) {
        if self.after.apart.may_hold(name) {
            let key = names.key(&prepared.commit.partition, &names::item_sort(name));
            self.delete_own(names, key);
            self.after.apart.remove(name);
        }
    }

    fn add_entries(&mut self, names: &TableNames, prepared: &PreparedCommit) {
        let together: usize = prepared
            .commit
            .entries
            .iter()
            .filter(|(key, _)| key.placement() == Placement::Together)
            .map(|(key, entry)| names::entry_attribute(*key).len() + entry.len())
            .sum();
        let main =
            prepared.base_bytes(names, &self.after) + self.after.waiting.bytes() + self.after.item_bytes();
        // Chosen by cost they would not lie here; but whoever numbered them could not know how full the main item is now.
        let spills = together > 0 && main + together > ITEM_BYTES_MAX;
        for (key, entry) in &prepared.commit.entries {
            if key.placement() == Placement::Apart || spills {
                self.put_own(names, prepared.own_entry(names, *key, entry));
            } else {
                let attribute = names::entry_attribute(*key);
                self.after.waiting.insert(*key, attribute.len() + entry.len());
                self.main.set(attribute, AttributeValue::B(entry.to_vec().into()));
            }
        }
        if spills && self.after.spill == Spill::Never {
            self.main.set(SPILLED, AttributeValue::Bool(true));
            self.after.spill = Spill::Happened;
        }
    }

    fn delete_entries(&mut self, names: &TableNames, prepared: &PreparedCommit, known: &Known) {
        for key in &prepared.commit.deleted_entries {
            let together = key.placement() == Placement::Together;
            if together {
                self.main.remove(names::entry_attribute(*key));
                self.after.waiting.remove(*key);
            }
            if !together || known.spill == Spill::Happened {
                let key = names.key(&prepared.commit.partition, &names::entry_sort(*key));
                self.delete_own(names, key);
            }
        }
    }

    fn add_records(&mut self, names: &TableNames, prepared: &PreparedCommit) {
        for record in &prepared.commit.records {
            let item = prepared.record_item(names, record);
            self.own_units += capacity::write_units(item_bytes(&item));
            let put = Put::builder()
                .table_name(&names.table)
                .set_item(Some(item))
                // DynamoDB deletes expired records when it likes: what has expired by the commit's time counts as absent.
                .condition_expression("attribute_not_exists(#expires) OR #expires <= :now")
                .expression_attribute_names("#expires", EXPIRES_AT_MS)
                .expression_attribute_values(":now", AttributeValue::N(prepared.commit.now_ms.to_string()))
                .build()
                .expect("table and item are given");
            self.own.push(TransactWriteItem::builder().put(put).build());
            self.records.insert(self.own.len(), record.key.clone());
        }
    }
}

/// Bytes of business items that leave the main item.
pub(crate) fn moved_bytes(moved: &[(ItemName, AttributeValue)]) -> usize {
    moved.iter().map(|(name, value)| names::item_attribute(name).len() + value_bytes(value)).sum()
}

fn put(names: &TableNames, item: Item) -> TransactWriteItem {
    let put = Put::builder()
        .table_name(&names.table)
        .set_item(Some(item))
        .build()
        .expect("table and item are given");
    TransactWriteItem::builder().put(put).build()
}

fn delete(names: &TableNames, key: Item) -> TransactWriteItem {
    let delete = Delete::builder()
        .table_name(&names.table)
        .set_key(Some(key))
        .build()
        .expect("table and key are given");
    TransactWriteItem::builder().delete(delete).build()
}
