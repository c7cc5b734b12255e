//! A client for a DynamoDB that answers without TLS and asks nobody who he is: an emulator, on this machine or the next one.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Config, Credentials, Region};
use aws_smithy_http_client::Builder;

use crate::builder::DynamoDbStoreBuilder;
use crate::store::DynamoDbStore;

/// Emulators want a signature and don't look at whose.
const NOBODY: &str = "emulator";

impl DynamoDbStore {
    /// Begins a store on an emulator at this URL (`http://127.0.0.1:8000`).
    pub fn at_emulator(url: &str) -> DynamoDbStoreBuilder {
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("us-east-1"))
            .credentials_provider(Credentials::new(NOBODY, NOBODY, None, None, NOBODY))
            .endpoint_url(url)
            .http_client(Builder::new().build_http());
        Self::builder(Client::from_conf(config.build()))
    }
}
