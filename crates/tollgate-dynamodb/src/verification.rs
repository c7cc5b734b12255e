//! Whether the table can keep the store's promises: it is there, its keys are right, its copies are consistent, and every action
//! that the store takes is allowed. Found out at start, by asking; nothing is changed.

use aws_sdk_dynamodb::types::{
    AttributeValue, KeyType, MultiRegionConsistency, Put, ScalarAttributeType, TableDescription, TableStatus,
    TransactWriteItem,
};
use tollgate_proto::StoreError;

use crate::expression::Update;
use crate::failure::Failure;
use crate::names::{MAIN, VERSION};
use crate::store::DynamoDbStore;

impl DynamoDbStore {
    /// [`tollgate_proto::Store::verify`].
    pub(crate) async fn verify_table(&self) -> Result<(), StoreError> {
        let description =
            self.describe().await.map_err(|failure| self.in_verification("DescribeTable", failure))?;
        self.check_description(&description)?;
        self.check_expiry().await?;
        self.check_permissions().await
    }

    /// The table as DynamoDB describes it.
    pub(crate) async fn describe(&self) -> Result<TableDescription, Failure> {
        let output = self
            .calls
            .make("DescribeTable", |client| client.describe_table().table_name(&self.names.table).send())
            .await?;
        output.table.ok_or_else(|| Failure::Unknown("DynamoDB described no table".to_owned()))
    }

    /// A table has one attribute by which items expire: with another one deduplication records would stay for
    /// ever. None at all is the owner's decision.
    async fn check_expiry(&self) -> Result<(), StoreError> {
        let answer = self.expiry_attribute().await;
        let Ok(Some(attribute)) = answer else {
            tracing::debug!(table = self.names.table, ?answer, "time to live is off, or not told");
            return Ok(());
        };
        if attribute == self.names.expiry {
            return Ok(());
        }
        Err(self.misconfigured(format!(
            "items of table {} expire by the attribute {attribute:?} and not by {:?}, so deduplication records would stay for \
             ever: name that attribute (`expiry_attribute`), or change the table's",
            self.names.table, self.names.expiry
        )))
    }

    fn check_description(&self, table: &TableDescription) -> Result<(), StoreError> {
        if let Some(problem) = self.problem_of_keys(table) {
            return Err(self.misconfigured(problem));
        }
        if !matches!(table.table_status(), None | Some(TableStatus::Active | TableStatus::Updating)) {
            let status = table.table_status().map(TableStatus::as_str).unwrap_or_default();
            let reason = format!("table {} is {status}: wait until it is ACTIVE", self.names.table);
            return Err(self.misconfigured(reason));
        }
        if table.multi_region_consistency() == Some(&MultiRegionConsistency::Strong) {
            return Err(self.misconfigured(format!(
                "table {} is a global table with multi-region strong consistency, for which DynamoDB offers neither transactions \
                 nor time to live: commits that write several items could not be made, and deduplication records would stay \
                 for ever. Use a table of one region, without replicas",
                self.names.table
            )));
        }
        if !table.replicas().is_empty() {
            let regions: Vec<&str> =
                table.replicas().iter().filter_map(|replica| replica.region_name()).collect();
            return Err(self.misconfigured(format!(
                "table {} is a global table with replicas in {}: two regions could both commit on one version, and a consumed \
                 token could be read in the other region, so messages would be processed twice. Use a table of one region, \
                 without replicas",
                self.names.table,
                regions.join(", ")
            )));
        }
        Ok(())
    }

    /// What is wrong with the table's keys. `None`: nothing.
    pub(crate) fn problem_of_keys(&self, table: &TableDescription) -> Option<String> {
        let key = |key_type: &KeyType| {
            let element = table.key_schema().iter().find(|element| element.key_type() == key_type)?;
            let name = element.attribute_name();
            let definition =
                table.attribute_definitions().iter().find(|known| known.attribute_name() == name);
            Some((name.to_owned(), definition.map(|definition| definition.attribute_type().clone())))
        };
        let wanted = [
            ("partition", KeyType::Hash, &self.names.partition_key),
            ("sort", KeyType::Range, &self.names.sort_key),
        ];
        wanted.into_iter().find_map(|(word, key_type, name)| match key(&key_type) {
            Some((found, Some(ScalarAttributeType::S))) if &found == name => None,
            Some((found, found_type)) => {
                let found_type = found_type.as_ref().map_or("?", ScalarAttributeType::as_str);
                Some(format!(
                    "the {word} key of table {} is {found:?} of type {found_type} and not {name:?} of type S: name another \
                     attribute (`{word}_key_attribute`) or another table",
                    self.names.table
                ))
            }
            None => Some(format!(
                "table {} has no {word} key, and {name:?} of type S is needed: keys can't be changed, so create another table",
                self.names.table
            )),
        })
    }

    /// Tries every action in a way that can't succeed, or changes nothing.
    async fn check_permissions(&self) -> Result<(), StoreError> {
        let nobody = self.verified_partition.clone();
        let key = self.names.key(&nobody, MAIN);
        let mut impossible = Update::default();
        impossible.require_some(VERSION);
        impossible.require(VERSION, None);
        impossible.remove(VERSION);

        self.read_main(&nobody).await?;
        self.read_places(vec![(nobody.clone(), MAIN.to_owned())], None)
            .await
            .at(&(nobody.clone(), MAIN.to_owned()))?;
        let update = self.update_main(&nobody, &impossible).await;
        self.refused_by_condition("UpdateItem", update.map(drop))?;
        let delete = self
            .calls
            .make("DeleteItem", |client| {
                client
                    .delete_item()
                    .table_name(&self.names.table)
                    .set_key(Some(key.clone()))
                    .condition_expression(impossible.condition())
                    .set_expression_attribute_names(Some(impossible.names()))
                    .send()
            })
            .await;
        self.refused_by_condition("DeleteItem", delete.map(drop))?;
        let mut item = key.clone();
        item.insert(VERSION.to_owned(), AttributeValue::Null(true));
        let put = Put::builder()
            .table_name(&self.names.table)
            .set_item(Some(item))
            .condition_expression(impossible.condition())
            .set_expression_attribute_names(Some(impossible.names()))
            .build()
            .expect("table and item are given");
        let put = TransactWriteItem::builder().put(put).build();
        let transaction = self
            .calls
            .make("TransactWriteItems", |client| {
                client.transact_write_items().transact_items(put.clone()).send()
            })
            .await;
        self.refused_by_condition("PutItem", transaction.map(drop))?;
        let deletions = self.delete_places(vec![(nobody, MAIN.to_owned())]).await;
        deletions.into_values().collect()
    }

    fn refused_by_condition(&self, action: &str, answer: Result<(), Failure>) -> Result<(), StoreError> {
        match answer {
            Ok(()) | Err(Failure::ConditionFailed | Failure::Canceled(_)) => Ok(()),
            Err(failure) => Err(self.in_verification(action, failure)),
        }
    }

    fn in_verification(&self, action: &str, failure: Failure) -> StoreError {
        match failure.of_repeatable_call(&self.alias, None) {
            StoreError::Misconfigured { store, reason } => StoreError::Misconfigured {
                store,
                reason: format!("table {}, action {action}: {reason}", self.names.table),
            },
            other => other,
        }
    }

    fn misconfigured(&self, reason: String) -> StoreError {
        StoreError::Misconfigured { store: self.alias.clone(), reason }
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::Client;
    use aws_sdk_dynamodb::config::{BehaviorVersion, Config};
    use aws_sdk_dynamodb::types::{AttributeDefinition, KeySchemaElement, ReplicaDescription};

    use super::*;

    fn store() -> DynamoDbStore {
        let config = Config::builder().behavior_version(BehaviorVersion::latest()).build();
        DynamoDbStore::builder(Client::from_conf(config)).table("orders").build().unwrap()
    }

    fn table() -> aws_sdk_dynamodb::types::builders::TableDescriptionBuilder {
        let keys = [("pk", KeyType::Hash), ("sk", KeyType::Range)];
        keys.into_iter().fold(TableDescription::builder(), |table, (name, key_type)| {
            let definition =
                AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S);
            let element = KeySchemaElement::builder().attribute_name(name).key_type(key_type);
            table.attribute_definitions(definition.build().unwrap()).key_schema(element.build().unwrap())
        })
    }

    #[test]
    fn a_global_table_is_refused_with_the_reason_and_a_way_out_that_is_one() {
        let replica = ReplicaDescription::builder().region_name("eu-west-1").build();
        let eventual = table().replicas(replica.clone()).build();
        let strong = table().replicas(replica).multi_region_consistency(MultiRegionConsistency::Strong);
        for (table, reason) in
            [(eventual, "eu-west-1"), (strong.build(), "neither transactions nor time to live")]
        {
            let error = store().check_description(&table).unwrap_err();
            assert!(!error.is_retryable());
            let text = error.to_string();
            assert!(text.contains(reason) && text.contains("one region, without replicas"), "{text}");
        }
        assert!(store().check_description(&table().build()).is_ok());
    }

    #[test]
    fn a_table_that_is_being_deleted_is_refused() {
        let error = store().check_description(&table().table_status(TableStatus::Deleting).build());
        assert!(error.unwrap_err().to_string().contains("DELETING"));
    }
}
