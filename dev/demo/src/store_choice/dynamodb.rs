//! A table of DynamoDB for the demo: of an emulator, or of AWS. It is created if it is missing, since a demo should be one command.

use std::sync::Arc;

use tollgate::Store;
use tollgate_dynamodb::{DynamoDbError, DynamoDbStore, DynamoDbStoreBuilder, TableOptions};

use super::{ALIAS, FOUND_WITHIN};
use crate::demo::LOOK_EVERY;
use crate::error::DemoError;

/// Opens the store, waiting a while for its server.
pub async fn open(place: Option<&str>) -> Result<Arc<dyn Store>, DemoError> {
    let place = place.ok_or_else(|| {
        DemoError::Open("--store dynamodb needs --store-at with http://HOST:PORT/TABLE or a table".to_owned())
    })?;
    let store =
        builder(place).await?.alias(ALIAS).build().map_err(|error| DemoError::Open(error.to_string()))?;
    let provisioned = tokio::time::timeout(FOUND_WITHIN, async {
        loop {
            match store.provision(&TableOptions::default()).await {
                Err(DynamoDbError::Provisioning { source, .. }) if source.is_retryable() => {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                provisioned => return provisioned,
            }
        }
    });
    match provisioned.await {
        Ok(Ok(provisioned)) => {
            for difference in provisioned.differences {
                tracing::warn!(place, difference, "the table is not as it would have been created");
            }
            Ok(Arc::new(store))
        }
        Ok(Err(error)) => Err(DemoError::Open(error.to_string())),
        Err(_) => {
            let waited = FOUND_WITHIN.as_secs();
            Err(DemoError::Open(format!("nobody answered at {place} for {waited} s: is DynamoDB running?")))
        }
    }
}

async fn builder(place: &str) -> Result<DynamoDbStoreBuilder, DemoError> {
    if place.starts_with("http://") {
        let (url, table) = place.rsplit_once('/').expect("it has the slashes that it starts with");
        return Ok(DynamoDbStore::at_emulator(url).table(table));
    }
    from_environment().await.map(|builder| builder.table(place))
}

#[cfg(feature = "dynamodb-tls")]
async fn from_environment() -> Result<DynamoDbStoreBuilder, DemoError> {
    DynamoDbStore::from_environment().await.map_err(|error| DemoError::Open(error.to_string()))
}

#[cfg(not(feature = "dynamodb-tls"))]
#[expect(clippy::unused_async, reason = "with TLS it has to ask")]
async fn from_environment() -> Result<DynamoDbStoreBuilder, DemoError> {
    Err(DemoError::Open("AWS is reached by TLS: build with --features dynamodb-tls".to_owned()))
}
