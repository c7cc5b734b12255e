//! Where a container keeps its partition key, and how the one text that Tollgate calls a partition key becomes the values
//! that Cosmos DB wants. Nothing here knows what else is in a document.

use std::borrow::Cow;

use azure_data_cosmos::PartitionKey as CosmosKey;
use azure_data_cosmos::models::{
    ContainerProperties, IndexingMode, IndexingPolicy, PartitionKeyDefinition, PartitionKeyValue, TimeToLive,
};
use serde_json::{Map, Value};
use tollgate_proto::PartitionKey;

use crate::document::{RESERVED_FIELDS, TOLLGATE_FIELD};
use crate::error::CosmosStoreError;

/// Most levels of a hierarchical partition key (Cosmos DB: three).
pub const KEY_LEVELS_MAX: usize = 3;

/// The partition key of a container.
///
/// ```
/// use tollgate_cosmos::ContainerLayout;
///
/// // The default: one path, `/pk`, that holds the whole key.
/// let simple = ContainerLayout::default();
/// // Two levels: partition `contoso/order-4711` has `tenant` = `contoso` and `order` = `order-4711`.
/// let hierarchical = ContainerLayout::hierarchical(["/tenant", "/order"], '/')?;
/// # Ok::<(), tollgate_cosmos::CosmosStoreError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerLayout {
    fields: Vec<String>,
    separator: char,
}

impl Default for ContainerLayout {
    fn default() -> Self {
        Self { fields: vec!["pk".to_owned()], separator: '/' }
    }
}

impl ContainerLayout {
    /// The whole key at one path, such as `/pk`.
    ///
    /// # Errors
    /// [`CosmosStoreError::Layout`] if the path is not `/` and one plain field name, or one that Tollgate needs itself.
    pub fn single(path: impl AsRef<str>) -> Result<Self, CosmosStoreError> {
        Self::hierarchical([path], '/')
    }

    /// A hierarchical key: the text up to the first separator at the first path, and so on; the last path takes the rest.
    /// A partition key with too few separators is refused when it is used.
    ///
    /// # Errors
    /// [`CosmosStoreError::Layout`] if there are no paths or more than three, or one is not `/` and a plain field name.
    pub fn hierarchical<P: AsRef<str>>(
        paths: impl IntoIterator<Item = P>,
        separator: char,
    ) -> Result<Self, CosmosStoreError> {
        let refuse = |reason: String| Err(CosmosStoreError::Layout { reason });
        let mut fields: Vec<String> = Vec::new();
        for path in paths {
            let path = path.as_ref();
            let Some(field) = path.strip_prefix('/') else {
                return refuse(format!("partition key path {path:?} does not begin with a slash"));
            };
            if field.is_empty() || !field.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                return refuse(format!(
                    "partition key path {path:?} is not one plain field: letters, digits and underscores"
                ));
            }
            if RESERVED_FIELDS.contains(&field) || fields.iter().any(|known| known == field) {
                return refuse(format!("partition key path {path:?} is taken: choose another field"));
            }
            fields.push(field.to_owned());
        }
        if fields.is_empty() || fields.len() > KEY_LEVELS_MAX {
            return refuse(format!("a partition key has 1 to {KEY_LEVELS_MAX} paths, not {}", fields.len()));
        }
        Ok(Self { fields, separator })
    }

    /// The paths, as the container's definition has them.
    pub fn paths(&self) -> Vec<String> {
        self.fields.iter().map(|field| format!("/{field}")).collect()
    }

    /// How a container of this layout is to be created: with time to live on and without a default, and with all that is Tollgate's
    /// own kept out of the index, which is charged for with every write.
    ///
    /// ```no_run
    /// # async fn example(client: azure_data_cosmos::CosmosClient) -> Result<(), Box<dyn std::error::Error>> {
    /// use tollgate_cosmos::ContainerLayout;
    ///
    /// let orders = ContainerLayout::default().container_properties("orders");
    /// client.database_client("shop").create_container(orders, None).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn container_properties(&self, container: &str) -> ContainerProperties {
        let indexing = IndexingPolicy::default()
            .with_indexing_mode(IndexingMode::Consistent)
            .with_included_path("/*")
            .with_excluded_path(format!("/{TOLLGATE_FIELD}/*"));
        let key = PartitionKeyDefinition::new(self.paths().into_iter().map(Cow::from).collect::<Vec<_>>());
        ContainerProperties::new(container.to_owned(), key)
            .with_indexing_policy(indexing)
            .with_default_ttl(TimeToLive::NoDefault)
    }

    /// Whether a field of a document is one of the partition key's.
    pub(crate) fn is_key_field(&self, field: &str) -> bool {
        self.fields.iter().any(|known| known == field)
    }

    /// The text of a partition key with these values, one for each level.
    pub(crate) fn join(&self, values: &[&str]) -> String {
        values.join(&self.separator.to_string())
    }

    /// The values of a partition's key. `None`: it has fewer levels than the container.
    pub(crate) fn values<'a>(&self, partition: &'a PartitionKey) -> Option<Vec<&'a str>> {
        let values: Vec<&str> = partition.as_str().splitn(self.fields.len(), self.separator).collect();
        (values.len() == self.fields.len()).then_some(values)
    }

    /// The key as the SDK takes it. `None`: it has fewer levels than the container.
    pub(crate) fn cosmos_key(&self, partition: &PartitionKey) -> Option<CosmosKey> {
        let values = self.values(partition)?;
        let values: Vec<PartitionKeyValue> =
            values.into_iter().map(|value| value.to_owned().into()).collect();
        CosmosKey::try_from(values).ok()
    }

    /// Writes a partition's key into a document of it. Keys that don't fit the layout are refused before.
    pub(crate) fn stamp(&self, document: &mut Map<String, Value>, partition: &PartitionKey) {
        for (field, value) in self.fields.iter().zip(self.values(partition).unwrap_or_default()) {
            document.insert(field.clone(), Value::from(value));
        }
    }

    /// The partition that a document belongs to. `None`: its key is not one of Tollgate's.
    pub(crate) fn partition_of(&self, document: &Map<String, Value>) -> Option<PartitionKey> {
        let mut key = String::new();
        for (level, field) in self.fields.iter().enumerate() {
            if level > 0 {
                key.push(self.separator);
            }
            key.push_str(document.get(field)?.as_str()?);
        }
        PartitionKey::new(key).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> PartitionKey {
        PartitionKey::new(text).unwrap()
    }

    #[test]
    fn a_hierarchical_key_is_split_from_the_left_and_comes_back() {
        let layout = ContainerLayout::hierarchical(["/tenant", "/order"], '/').unwrap();
        assert_eq!(layout.values(&key("contoso/order/4711")), Some(vec!["contoso", "order/4711"]));
        assert_eq!(layout.values(&key("contoso")), None);
        let mut document = Map::new();
        layout.stamp(&mut document, &key("contoso/order/4711"));
        assert_eq!(layout.partition_of(&document), Some(key("contoso/order/4711")));
    }

    #[test]
    fn a_path_that_can_not_be_a_key_is_refused_with_the_reason() {
        for path in ["pk", "/", "/a/b", "/id", "/tollgate", "/größe"] {
            assert!(ContainerLayout::single(path).is_err(), "{path}");
        }
        assert!(ContainerLayout::hierarchical(["/a", "/b", "/c", "/d"], '/').is_err());
        assert!(ContainerLayout::hierarchical(["/a", "/a"], '/').is_err());
    }
}
