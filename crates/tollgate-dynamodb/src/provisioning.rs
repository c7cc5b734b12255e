//! Makes the table, or tells in which respects the one that is there differs from what is wanted. A table
//! with items is never changed: it may be shared, and its owner decides. An empty one may be what an
//! interrupted provisioning left: it is completed.

use std::time::Duration;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, PointInTimeRecoverySpecification,
    PointInTimeRecoveryStatus, ProvisionedThroughput, ScalarAttributeType, TableDescription, TableStatus,
    TimeToLiveSpecification, TimeToLiveStatus,
};

use crate::error::DynamoDbError;
use crate::failure::Failure;
use crate::names::TableNames;
use crate::store::DynamoDbStore;

/// Longest wait for a new table.
const ACTIVE_AFTER_MAX: Duration = Duration::from_secs(300);
/// Time between two looks at a new table.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How the table is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableOptions {
    /// Who decides about its throughput.
    pub billing: Billing,
    /// Whether it can be restored to any second of the last 35 days.
    pub point_in_time_recovery: bool,
    /// Whether DynamoDB deletes expired deduplication records. Without it those of identity-based deduplication stay forever.
    pub time_to_live: bool,
    /// Whether it is protected from being deleted.
    pub deletion_protection: bool,
}

/// How a table's throughput is paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Billing {
    /// By request.
    OnDemand,
    /// By the hour, for so many units a second.
    Provisioned {
        /// Read capacity units a second.
        reads: i64,
        /// Write capacity units a second.
        writes: i64,
    },
}

/// What provisioning has found or done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provisioned {
    /// Whether the table was created.
    pub created: bool,
    /// In which respects the table differs from what was asked for, in words. What is wrong with its keys comes first.
    pub differences: Vec<String>,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self {
            billing: Billing::OnDemand,
            point_in_time_recovery: true,
            time_to_live: true,
            deletion_protection: false,
        }
    }
}

impl DynamoDbStore {
    pub(crate) async fn provision_table(&self, options: &TableOptions) -> Result<Provisioned, DynamoDbError> {
        let created = match self.describe().await {
            Ok(_) => false,
            Err(Failure::Misconfigured(reason)) if reason.contains("ResourceNotFound") => {
                self.create(options).await?
            }
            Err(failure) => return Err(self.not_provisioned(failure)),
        };
        let table = self.describe().await.map_err(|failure| self.not_provisioned(failure))?;
        if self.problem_of_keys(&table).is_none() && (created || self.is_empty().await?) {
            self.complete(options).await?;
        }
        Ok(Provisioned { created, differences: self.differences(&table, options).await? })
    }

    /// Whether the table holds no item, of anybody's.
    async fn is_empty(&self) -> Result<bool, DynamoDbError> {
        let answer = self
            .calls
            .make("Scan", |client| {
                client.scan().table_name(&self.names.table).consistent_read(true).limit(1).send()
            })
            .await;
        match answer {
            Ok(output) => Ok(output.items().is_empty()),
            // Without the permission it is left as it is, and the differences are told.
            Err(Failure::Misconfigured(reason)) if reason.contains("AccessDenied") => Ok(false),
            Err(failure) => Err(self.not_provisioned(failure)),
        }
    }

    /// Switches on what is wanted and off.
    async fn complete(&self, options: &TableOptions) -> Result<(), DynamoDbError> {
        if options.time_to_live && self.difference_of_expiry(options).await?.is_some() {
            self.repeat_until_ready(async || self.switch_expiry_on().await).await?;
        }
        if options.point_in_time_recovery && self.difference_of_recovery(options).await?.is_some() {
            self.repeat_until_ready(async || self.switch_recovery_on().await).await?;
        }
        Ok(())
    }

    /// Repeats a change of the table for as long as DynamoDB says that the table is not ready for it: backups
    /// are enabled only some seconds after a table is active.
    async fn repeat_until_ready(
        &self,
        change: impl AsyncFn() -> Result<(), Failure>,
    ) -> Result<(), DynamoDbError> {
        let start = tokio::time::Instant::now();
        loop {
            let failure = match change().await {
                Ok(()) => return Ok(()),
                Err(failure) if is_unknown_to_server(&failure) || is_done(&failure) => return Ok(()),
                Err(failure) => failure,
            };
            if !is_passing(&failure) || start.elapsed() >= ACTIVE_AFTER_MAX {
                return Err(self.not_provisioned(failure));
            }
            tracing::debug!(table = self.names.table, ?failure, "table not ready; repeating");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn switch_expiry_on(&self) -> Result<(), Failure> {
        let TableNames { table, expiry, .. } = &self.names;
        let specification = TimeToLiveSpecification::builder().enabled(true).attribute_name(expiry);
        let specification = specification.build().expect("name and switch are given");
        let change = self.calls.make("UpdateTimeToLive", |client| {
            let update = client.update_time_to_live().table_name(table);
            update.time_to_live_specification(specification.clone()).send()
        });
        change.await.map(drop)
    }

    async fn switch_recovery_on(&self) -> Result<(), Failure> {
        let specification = PointInTimeRecoverySpecification::builder().point_in_time_recovery_enabled(true);
        let specification = specification.build().expect("the switch is given");
        let change = self.calls.make("UpdateContinuousBackups", |client| {
            let update = client.update_continuous_backups().table_name(&self.names.table);
            update.point_in_time_recovery_specification(specification.clone()).send()
        });
        change.await.map(drop)
    }

    /// Creates the table. Returns false if somebody else has done so in the meantime.
    async fn create(&self, options: &TableOptions) -> Result<bool, DynamoDbError> {
        let TableNames { table, partition_key, sort_key, .. } = &self.names;
        let attribute = |name: &str| {
            let definition =
                AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S);
            definition.build().expect("name and type are given")
        };
        let key = |name: &str, key_type: KeyType| {
            let element = KeySchemaElement::builder().attribute_name(name).key_type(key_type);
            element.build().expect("name and type are given")
        };
        let (mode, throughput) = match options.billing {
            Billing::OnDemand => (BillingMode::PayPerRequest, None),
            Billing::Provisioned { reads, writes } => {
                let throughput =
                    ProvisionedThroughput::builder().read_capacity_units(reads).write_capacity_units(writes);
                (BillingMode::Provisioned, Some(throughput.build().expect("both are given")))
            }
        };
        let created = self
            .calls
            .make("CreateTable", |client| {
                client
                    .create_table()
                    .table_name(table)
                    .attribute_definitions(attribute(partition_key))
                    .attribute_definitions(attribute(sort_key))
                    .key_schema(key(partition_key, KeyType::Hash))
                    .key_schema(key(sort_key, KeyType::Range))
                    .billing_mode(mode.clone())
                    .set_provisioned_throughput(throughput.clone())
                    .deletion_protection_enabled(options.deletion_protection)
                    .send()
            })
            .await;
        match created {
            Ok(_) => self.wait_until_active().await?,
            Err(Failure::Misconfigured(reason)) if reason.contains("ResourceInUse") => {
                self.wait_until_active().await?;
                return Ok(false);
            }
            Err(failure) => return Err(self.not_provisioned(failure)),
        }
        Ok(true)
    }

    async fn wait_until_active(&self) -> Result<(), DynamoDbError> {
        let start = tokio::time::Instant::now();
        while start.elapsed() < ACTIVE_AFTER_MAX {
            // A table that was created a moment ago may not be known yet.
            if let Ok(table) = self.describe().await
                && table.table_status() == Some(&TableStatus::Active)
            {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let waited_ms =
            u64::try_from(ACTIVE_AFTER_MAX.as_millis()).expect("five minutes are few milliseconds");
        Err(DynamoDbError::NotActive { table: self.names.table.clone(), waited_ms })
    }

    async fn differences(
        &self,
        table: &TableDescription,
        options: &TableOptions,
    ) -> Result<Vec<String>, DynamoDbError> {
        let mut differences: Vec<String> = self.problem_of_keys(table).into_iter().collect();
        let on_demand = table
            .billing_mode_summary()
            .and_then(|summary| summary.billing_mode())
            .is_some_and(|mode| *mode == BillingMode::PayPerRequest);
        let throughput = table.provisioned_throughput();
        match options.billing {
            Billing::OnDemand if !on_demand => {
                differences.push("billing is provisioned, and was to be on demand".to_owned());
            }
            Billing::Provisioned { .. } if on_demand => {
                differences.push("billing is on demand, and was to be provisioned".to_owned());
            }
            Billing::Provisioned { reads, writes } => {
                let units =
                    throughput.map(|units| (units.read_capacity_units(), units.write_capacity_units()));
                if units != Some((Some(reads), Some(writes))) {
                    differences.push(format!(
                        "the provisioned throughput is not {reads} read and {writes} write units"
                    ));
                }
            }
            Billing::OnDemand => {}
        }
        if table.deletion_protection_enabled().unwrap_or(false) != options.deletion_protection {
            differences.push(switch("the protection from deletion", options.deletion_protection));
        }
        differences.extend(self.difference_of_expiry(options).await?);
        differences.extend(self.difference_of_recovery(options).await?);
        Ok(differences)
    }

    async fn difference_of_expiry(&self, options: &TableOptions) -> Result<Option<String>, DynamoDbError> {
        let attribute = match self.expiry_attribute().await {
            Err(failure) if is_unknown_to_server(&failure) => return Ok(Some(unsaid("the time to live"))),
            answer => answer.map_err(|failure| self.not_provisioned(failure))?,
        };
        if attribute.is_some() != options.time_to_live {
            return Ok(Some(switch("the time to live", options.time_to_live)));
        }
        let expiry = &self.names.expiry;
        let other = attribute.filter(|attribute| attribute != expiry);
        Ok(other.map(|other| {
            format!("the time to live is taken from {other:?}, and was to be taken from {expiry:?}")
        }))
    }

    async fn difference_of_recovery(&self, options: &TableOptions) -> Result<Option<String>, DynamoDbError> {
        let answer = self
            .calls
            .make("DescribeContinuousBackups", |client| {
                client.describe_continuous_backups().table_name(&self.names.table).send()
            })
            .await;
        let output = match answer {
            Err(failure) if is_unknown_to_server(&failure) => {
                let wanted = options.point_in_time_recovery;
                return Ok(wanted.then(|| unsaid("point-in-time recovery")));
            }
            answer => answer.map_err(|failure| self.not_provisioned(failure))?,
        };
        let enabled = output
            .continuous_backups_description()
            .and_then(|description| description.point_in_time_recovery_description())
            .and_then(|description| description.point_in_time_recovery_status())
            .is_some_and(|status| *status == PointInTimeRecoveryStatus::Enabled);
        let wanted = options.point_in_time_recovery;
        Ok((enabled != wanted).then(|| switch("point-in-time recovery", wanted)))
    }

    /// The attribute by which items of the table expire. `None`: they don't.
    pub(crate) async fn expiry_attribute(&self) -> Result<Option<String>, Failure> {
        let output = self
            .calls
            .make("DescribeTimeToLive", |client| {
                client.describe_time_to_live().table_name(&self.names.table).send()
            })
            .await?;
        let description = output.time_to_live_description;
        let enabled = description.filter(|description| {
            matches!(
                description.time_to_live_status(),
                Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)
            )
        });
        Ok(enabled.map(|description| description.attribute_name.unwrap_or_default()))
    }

    fn not_provisioned(&self, failure: Failure) -> DynamoDbError {
        let source = Box::new(failure.of_repeatable_call(&self.alias, None));
        DynamoDbError::Provisioning { table: self.names.table.clone(), source }
    }
}

/// Emulators don't know every operation.
fn is_unknown_to_server(failure: &Failure) -> bool {
    matches!(failure, Failure::Misconfigured(reason) if reason.contains("UnknownOperation"))
}

/// The table is as it was to be: another process has done the same.
fn is_done(failure: &Failure) -> bool {
    matches!(failure, Failure::Invalid(message) if message.contains("already enabled"))
}

/// The table is not ready for the change, or nothing is known of it: the same change may be made again.
fn is_passing(failure: &Failure) -> bool {
    let not_ready = ["ContinuousBackupsUnavailable", "ResourceInUse", "being enabled", "being updated"];
    match failure {
        Failure::Unknown(_) | Failure::Throttled { .. } | Failure::Conflicted(_) => true,
        Failure::Misconfigured(reason) | Failure::Invalid(reason) => {
            not_ready.iter().any(|word| reason.contains(word))
        }
        _ => false,
    }
}

fn switch(what: &str, wanted: bool) -> String {
    let (is, wanted) = if wanted { ("off", "on") } else { ("on", "off") };
    format!("{what} is {is}, and was to be {wanted}")
}

fn unsaid(what: &str) -> String {
    format!("the server does not say whether {what} is on")
}
