//! A container of Cosmos DB for the demo: of an emulator, or of an account. It must exist: containers are made by whoever decides
//! about an account's consistency.

use std::env;
use std::sync::Arc;

use tollgate::Store;
use tollgate::proto::StoreAlias;
use tollgate_cosmos::{CosmosStore, RecordExpiry};

use super::{ALIAS, FOUND_WITHIN};
use crate::demo::LOOK_EVERY;
use crate::error::DemoError;

/// Where the account's key is.
const KEY_VARIABLE: &str = "TOLLGATE_COSMOS_KEY";

/// A key for emulators, which check none.
const NO_KEY: &str = "bm9uZQ==";

/// Opens the store, waiting a while for its server.
pub async fn open(place: Option<&str>) -> Result<Arc<dyn Store>, DemoError> {
    let wrong = || {
        DemoError::Open("--store cosmos needs --store-at with https://ACCOUNT/DATABASE/CONTAINER".to_owned())
    };
    let (rest, container) = place.and_then(|place| place.rsplit_once('/')).ok_or_else(wrong)?;
    let (account, database) =
        rest.rsplit_once('/').filter(|(account, _)| account.contains("//")).ok_or_else(wrong)?;
    // An emulator expires nothing.
    let (key, expiry) = match env::var(KEY_VARIABLE) {
        Ok(key) => (key, RecordExpiry::ByService),
        Err(_) => (NO_KEY.to_owned(), RecordExpiry::ByStore),
    };
    let opened = tokio::time::timeout(FOUND_WITHIN, async {
        loop {
            let builder = CosmosStore::builder(StoreAlias::new(ALIAS)?).expiry(expiry);
            match builder.open_with_key(account, key.clone(), database, container).await {
                Err(error) if error.is_retryable() => tokio::time::sleep(LOOK_EVERY).await,
                opened => return opened.map_err(|error| DemoError::Open(error.to_string())),
            }
        }
    });
    let Ok(store) = opened.await else {
        let waited = FOUND_WITHIN.as_secs();
        return Err(DemoError::Open(format!(
            "nobody answered at {account} for {waited} s: is Cosmos DB running?"
        )));
    };
    Ok(Arc::new(store?))
}
