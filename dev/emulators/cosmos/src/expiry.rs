//! Time to live, which the emulator does not have: documents whose `ttl` is over are deleted when somebody says so, at the time that he
//! says. It knows the field and the service's time stamp, and nothing else of a document.

use azure_data_cosmos::feed::{FeedScope, Query};
use azure_data_cosmos::models::PartitionKeyValue;
use azure_data_cosmos::options::{FeedOptions, ItemWriteOptions, Precondition, QueryOptions};
use azure_data_cosmos::{CosmosClient, CosmosError, PartitionKey};
use futures_util::StreamExt as _;
use serde_json::{Map, Value};

use crate::emulator::CosmosEmulator;
use crate::error::EmulatorError;

impl CosmosEmulator {
    /// Deletes the documents of all containers that have expired by a time (in seconds since the Unix epoch), and tells how many. The
    /// client is one of this account.
    ///
    /// # Errors
    /// [`EmulatorError::Client`] if the SDK refuses.
    pub async fn delete_expired(
        &self,
        client: &CosmosClient,
        unix_seconds: u64,
    ) -> Result<usize, EmulatorError> {
        let mut deleted = 0;
        for (database, container, paths) in &self.containers {
            let expired = delete_expired_of(client, database, container, paths, unix_seconds).await;
            deleted += expired.map_err(|error| EmulatorError::client(&error))?;
        }
        Ok(deleted)
    }
}

async fn delete_expired_of(
    client: &CosmosClient,
    database: &str,
    container: &str,
    paths: &[String],
    unix_seconds: u64,
) -> Result<usize, CosmosError> {
    let database_client = client.database_client(database.to_owned());
    let container = database_client.container_client(container.to_owned(), None).await?;
    let options =
        QueryOptions::default().with_feed_options(FeedOptions::default().with_max_fan_out(u32::MAX));
    let query = Query::from("SELECT * FROM c WHERE IS_DEFINED(c.ttl)");
    let scope = FeedScope::full_container();
    let mut pages =
        container.query_items::<Map<String, Value>>(query, scope, Some(options)).await?.into_pages();
    let mut deleted = 0;
    while let Some(page) = pages.next().await {
        for document in page?.into_items() {
            let Some((id, key, etag)) = expired(&document, paths, unix_seconds) else { continue };
            let unchanged = ItemWriteOptions::default().with_precondition(Precondition::if_match(etag));
            // Written anew or deleted meanwhile: both are fine.
            deleted += usize::from(container.delete_item(key, &id, Some(unchanged)).await.is_ok());
        }
    }
    Ok(deleted)
}

/// Id, partition key and etag of a document that has expired.
fn expired(
    document: &Map<String, Value>,
    paths: &[String],
    unix_seconds: u64,
) -> Option<(String, PartitionKey, String)> {
    let text = |field: &str| document.get(field).and_then(Value::as_str).map(str::to_owned);
    let written = document.get("_ts")?.as_u64()?;
    // -1: never.
    let lifetime = document.get("ttl")?.as_u64()?;
    if written + lifetime > unix_seconds {
        return None;
    }
    let values = paths.iter().map(|path| text(path.trim_start_matches('/')).map(PartitionKeyValue::from));
    let key = PartitionKey::try_from(values.collect::<Option<Vec<_>>>()?).ok()?;
    Some((text("id")?, key, text("_etag")?))
}
