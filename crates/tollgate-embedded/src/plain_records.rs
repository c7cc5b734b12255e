//! Plain records on the durable store's own engine, writer and sync: what a technique without Tollgate's records would write to the same
//! store, at the same price. For the comparison in `benches` (feature `bench-internals`), and not part of the interface.
//!
//! A write waits for the same group and the same sync as a commit; a read is answered from the same view. Records lie where items
//! do, so a directory is used either for them or for Tollgate's partitions.

use bytes::Bytes;
use tokio::sync::oneshot;
use tollgate_proto::{ItemName, PartitionKey, StoreError};

use crate::embedded_store::EmbeddedStore;
use crate::layout::{self, Space};
use crate::writer::WriteRequest;

/// What a write insists on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlainCondition {
    /// Nothing.
    Any,
    /// There is no such record.
    Absent,
    /// There is one that begins so.
    BeginsWith(Bytes),
}

impl PlainCondition {
    pub(crate) fn holds(&self, value: Option<&[u8]>) -> bool {
        match self {
            Self::Any => true,
            Self::Absent => value.is_none(),
            Self::BeginsWith(begin) => value.is_some_and(|value| value.starts_with(begin)),
        }
    }
}

/// A write of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainWrite {
    /// In which partition.
    pub partition: PartitionKey,
    /// Which record.
    pub name: ItemName,
    /// What it says then. `None`: it is deleted.
    pub value: Option<Bytes>,
    /// On which condition.
    pub condition: PlainCondition,
}

impl EmbeddedStore {
    /// Writes records, all or nothing. Says whether their conditions held; then they are durable.
    ///
    /// # Errors
    /// If the disk fails, or has failed before.
    pub async fn write_plain(&self, writes: Vec<PlainWrite>) -> Result<bool, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.writer.send(WriteRequest::Plain(writes, reply)).await;
        answer.await.unwrap_or_else(|_| Err(self.writer_ended()))
    }

    /// Reads a record.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn read_plain(
        &self,
        partition: &PartitionKey,
        name: &ItemName,
    ) -> Result<Option<Bytes>, StoreError> {
        let view = self.view().await?;
        let value = view.get(Space::Items, &layout::item_key(partition, name));
        let value = value.map_err(|error| self.unavailable(&error.to_string()))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// Reads the records of a partition whose names begin so, in the order of names.
    ///
    /// # Errors
    /// If the disk fails, or holds something else.
    pub async fn query_plain(
        &self,
        partition: &PartitionKey,
        begin: &str,
    ) -> Result<Vec<(ItemName, Bytes)>, StoreError> {
        let view = self.view().await?;
        let mut prefix = layout::prefix(partition, begin.len());
        prefix.extend_from_slice(begin.as_bytes());
        let mut found = Vec::new();
        for pair in view.prefix(Space::Items, &prefix) {
            let (key, value) = pair.into_inner().map_err(|error| self.unavailable(&error.to_string()))?;
            let name = layout::item_name(partition, &key);
            let name = name.ok_or_else(|| self.unavailable("a record's name is damaged"))?;
            found.push((name, Bytes::copy_from_slice(&value)));
        }
        Ok(found)
    }

    /// Reads everything.
    ///
    /// # Errors
    /// If the disk fails, or holds something else.
    pub async fn every_plain(&self) -> Result<Vec<(PartitionKey, ItemName, Bytes)>, StoreError> {
        let view = self.view().await?;
        let mut found = Vec::new();
        for pair in view.after(Space::Items, None) {
            let (key, value) = pair.into_inner().map_err(|error| self.unavailable(&error.to_string()))?;
            let place = layout::partition_of(&key)
                .and_then(|partition| Some((partition.clone(), layout::item_name(&partition, &key)?)));
            let (partition, name) = place.ok_or_else(|| self.unavailable("a record's key is damaged"))?;
            found.push((partition, name, Bytes::copy_from_slice(&value)));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use tollgate_proto::StoreAlias;

    use super::*;

    fn write(name: &str, value: Option<&'static str>, condition: PlainCondition) -> PlainWrite {
        PlainWrite {
            partition: PartitionKey::new("p").unwrap(),
            name: ItemName::new(name).unwrap(),
            value: value.map(Bytes::from),
            condition,
        }
    }

    #[tokio::test]
    async fn plain_records_are_written_as_a_whole_or_not_at_all_and_are_there_after_opening_again() {
        let directory = tempfile::tempdir().unwrap();
        let open = || EmbeddedStore::open(directory.path(), StoreAlias::new("main").unwrap()).unwrap();
        let store = open();
        let both = vec![
            write("a#1", Some("1 one"), PlainCondition::Absent),
            write("b", Some("1 two"), PlainCondition::Any),
        ];
        assert!(store.write_plain(both).await.unwrap());
        let half = vec![
            write("a#2", Some("1 three"), PlainCondition::Absent),
            write("a#1", None, PlainCondition::BeginsWith("2".into())),
        ];
        assert!(!store.write_plain(half).await.unwrap());
        let right = write("b", None, PlainCondition::BeginsWith("1".into()));
        assert!(store.write_plain(vec![right]).await.unwrap());
        drop(store);
        let store = open();
        let partition = PartitionKey::new("p").unwrap();
        let found = store.query_plain(&partition, "a").await.unwrap();
        assert_eq!(found, [(ItemName::new("a#1").unwrap(), Bytes::from("1 one"))]);
        assert_eq!(store.every_plain().await.unwrap().len(), 1);
        assert_eq!(store.read_plain(&partition, &ItemName::new("b").unwrap()).await.unwrap(), None);
    }
}
