//! A client from the environment, with TLS: region and credentials from where AWS's own tools take them.

use aws_config::BehaviorVersion;
use aws_sdk_dynamodb::Client;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;

use crate::builder::DynamoDbStoreBuilder;
use crate::error::DynamoDbError;
use crate::store::DynamoDbStore;

impl DynamoDbStore {
    /// Begins a store with region and credentials from the environment: variables, profile, container or instance.
    ///
    /// # Errors
    /// [`DynamoDbError::Environment`] if no region is set.
    pub async fn from_environment() -> Result<DynamoDbStoreBuilder, DynamoDbError> {
        let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
        let config = aws_config::defaults(BehaviorVersion::latest()).http_client(http).load().await;
        if config.region().is_none() {
            return Err(DynamoDbError::Environment {
                reason: "no region is set: set AWS_REGION or choose a profile that has one".to_owned(),
            });
        }
        Ok(Self::builder(Client::new(&config)))
    }
}
