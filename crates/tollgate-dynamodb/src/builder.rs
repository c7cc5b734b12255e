//! How a store is put together: client, alias, names of the table and its attributes, bounds. Nothing is sent to DynamoDB here.

use std::num::NonZeroU32;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use moka::sync::Cache;
use tollgate_proto::{PartitionKey, StoreAlias, StoreLimits};

use crate::calls::Calls;
use crate::error::DynamoDbError;
use crate::names::{EXPIRY, TableNames};
use crate::prepared_commit::LIMITS;
use crate::store::DynamoDbStore;

/// Most calls under way at a time, unless said otherwise.
const CONCURRENCY_MAX: usize = 256;
/// Longest wait for an answer, unless said otherwise or by the client. What takes longer is looked up (R7).
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The partition on which actions are tried, unless said otherwise.
const VERIFIED_PARTITION: &str = "tollgate#verify";
/// Partitions whose sizes are remembered: about 200 bytes each.
const KNOWN_MAX: u64 = 100_000;
/// Longest name of an attribute that is a key, and of any that we make.
const ATTRIBUTE_BYTES_MAX: usize = 255;

/// Builds a [`DynamoDbStore`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct DynamoDbStoreBuilder {
    client: Client,
    alias: String,
    table: String,
    partition_key: String,
    sort_key: String,
    expiry: String,
    concurrency_max: usize,
    call_timeout: Duration,
    known_max: u64,
    survey_units_max: Option<NonZeroU32>,
    verified_partition: String,
    limits: StoreLimits,
}

impl DynamoDbStoreBuilder {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            alias: "main".to_owned(),
            table: "tollgate".to_owned(),
            partition_key: "pk".to_owned(),
            sort_key: "sk".to_owned(),
            expiry: EXPIRY.to_owned(),
            concurrency_max: CONCURRENCY_MAX,
            call_timeout: CALL_TIMEOUT,
            known_max: KNOWN_MAX,
            survey_units_max: None,
            verified_partition: VERIFIED_PARTITION.to_owned(),
            limits: LIMITS,
        }
    }

    /// The alias by which tokens refer to the store. `main` if it is not said. Never change it: tokens that are on their way
    /// carry it.
    pub fn alias(mut self, alias: impl Into<String>) -> Self {
        self.alias = alias.into();
        self
    }

    /// The table's name or ARN. `tollgate` if it is not said.
    pub fn table(mut self, table: impl Into<String>) -> Self {
        self.table = table.into();
        self
    }

    /// The attribute that is the table's partition key, a text. `pk` if it is not said.
    pub fn partition_key_attribute(mut self, name: impl Into<String>) -> Self {
        self.partition_key = name.into();
        self
    }

    /// The attribute that is the table's sort key, a text. `sk` if it is not said. All our sort keys begin with `tollgate`.
    pub fn sort_key_attribute(mut self, name: impl Into<String>) -> Self {
        self.sort_key = name.into();
        self
    }

    /// The attribute by which DynamoDB expires deduplication records. `expires_at` if it is not said.
    pub fn expiry_attribute(mut self, name: impl Into<String>) -> Self {
        self.expiry = name.into();
        self
    }

    /// Most calls under way at a time, 256 if it is not said. Under throttling the store goes below it by itself.
    pub fn concurrency_max(mut self, calls: usize) -> Self {
        self.concurrency_max = calls;
        self
    }

    /// Longest wait for one answer, 5 seconds if it is not said. A timeout of the client's own goes before.
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// Partitions whose sizes and items are remembered, 100,000 if it is not said. A commit on one that is not takes a read more.
    pub fn remembered_partitions_max(mut self, partitions: u64) -> Self {
        self.known_max = partitions;
        self
    }

    /// The partition key on which the store tries its actions at start, none of which changes anything.
    /// `tollgate#verify` if it is not said. Name one that a policy with `dynamodb:LeadingKeys` allows.
    pub fn verification_partition(mut self, key: impl Into<String>) -> Self {
        self.verified_partition = key.into();
        self
    }

    /// Most read units a second that a sweep takes, for tables whose throughput it would take from messages.
    /// As many as it gets, if it is not said: a unit is 8 KB of the table.
    pub fn sweep_units_per_second_max(mut self, units: NonZeroU32) -> Self {
        self.survey_units_max = Some(units);
        self
    }

    /// Most bytes in one commit, for servers that take less than DynamoDB, of which each commit may have 3.6 MB beside the main
    /// item. More than that is not believed.
    pub fn transaction_bytes_max(mut self, bytes: usize) -> Self {
        self.limits.transaction_bytes_max = bytes.min(LIMITS.transaction_bytes_max);
        self
    }

    /// Makes the store. Whether the table is there is found out by [`tollgate_proto::Store::verify`].
    ///
    /// # Errors
    /// [`DynamoDbError::InvalidName`]: which name, and which rule it breaks.
    pub fn build(self) -> Result<DynamoDbStore, DynamoDbError> {
        let alias = StoreAlias::new(&self.alias).map_err(|_| DynamoDbError::InvalidName {
            what: "the alias of the store",
            name: self.alias.clone(),
            reason: "it is empty or too long",
        })?;
        let verified_partition =
            PartitionKey::new(&self.verified_partition).map_err(|_| DynamoDbError::InvalidName {
                what: "the partition for verification",
                name: self.verified_partition.clone(),
                reason: "it is empty or too long",
            })?;
        if self.table.is_empty() {
            return Err(DynamoDbError::InvalidName {
                what: "the table",
                name: self.table,
                reason: "it is empty",
            });
        }
        let attributes = [
            ("the partition key", &self.partition_key),
            ("the sort key", &self.sort_key),
            ("the attribute of the expiry", &self.expiry),
        ];
        for (at, (what, name)) in attributes.iter().enumerate() {
            let taken_before = attributes.iter().take(at).any(|(_, before)| before == name);
            let reason = if name.is_empty() || name.len() > ATTRIBUTE_BYTES_MAX {
                "it must have 1 to 255 bytes"
            } else if TableNames::is_taken(name) {
                "the store uses it for something else"
            } else if taken_before {
                "two of the attributes have the same name"
            } else {
                continue;
            };
            return Err(DynamoDbError::InvalidName { what, name: (*name).clone(), reason });
        }
        let names = TableNames {
            table: self.table,
            partition_key: self.partition_key,
            sort_key: self.sort_key,
            expiry: self.expiry,
        };
        let calls = Calls::new(&self.client, &alias, self.concurrency_max.max(1), self.call_timeout);
        Ok(DynamoDbStore {
            alias,
            names,
            limits: self.limits,
            calls,
            known: Cache::new(self.known_max),
            survey_units_max: self.survey_units_max,
            verified_partition,
        })
    }
}
