//! Blobs on Azure Blob Storage.

use std::sync::Arc;

use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};

use crate::error::BlobsError;
use crate::object_blobs::ObjectStoreBlobs;
use crate::requests::{TIMES, retries};

/// The account of Azurite, Microsoft's emulator.
const EMULATOR_ACCOUNT: &str = "devstoreaccount1";

/// Its key, which is the same everywhere and published with the emulator.
const EMULATOR_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

impl ObjectStoreBlobs {
    /// Blobs in a container, with account and credentials as the environment variables (`AZURE_STORAGE_ACCOUNT_NAME`,
    /// `AZURE_CLIENT_ID`, `AZURE_FEDERATED_TOKEN_FILE`...) or the machine's managed identity give them.
    ///
    /// # Errors
    /// [`BlobsError::Settings`], if something is missing. Whether the container may be used is found by [`Self::verify`].
    pub fn azure(container: &str) -> Result<Self, BlobsError> {
        Self::azure_with(container, MicrosoftAzureBuilder::from_env())
    }

    /// The same with settings of one's own. Times and repetitions are set here.
    ///
    /// # Errors
    /// As [`Self::azure`].
    pub fn azure_with(container: &str, builder: MicrosoftAzureBuilder) -> Result<Self, BlobsError> {
        let account = builder.get_config_value(&AzureConfigKey::AccountName).unwrap_or_default();
        let place = format!("azure://{account}/{container}");
        let builder = TIMES
            .into_iter()
            .fold(builder, |builder, (key, value)| builder.with_config(AzureConfigKey::Client(key), value));
        match builder.with_container_name(container).with_retry(retries()).build() {
            Ok(store) => Ok(Self::of(Arc::new(store), place)),
            Err(source) => Err(BlobsError::Settings { place, source }),
        }
    }

    /// Blobs in a container of Azurite, e.g. at `http://127.0.0.1:10000`.
    ///
    /// # Errors
    /// As [`Self::azure`].
    pub fn azure_at_emulator(endpoint: &str, container: &str) -> Result<Self, BlobsError> {
        let builder = MicrosoftAzureBuilder::new()
            .with_account(EMULATOR_ACCOUNT)
            .with_access_key(EMULATOR_KEY)
            .with_endpoint(format!("{}/{EMULATOR_ACCOUNT}", endpoint.trim_end_matches('/')))
            .with_allow_http(true);
        Self::azure_with(container, builder)
    }
}
