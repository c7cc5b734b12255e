//! The questions at start: whether the container and its account can keep a store's promises. The SDK tells nobody an
//! account's consistency or whether it has several write regions, so both are found out by what the account does; each
//! refusal says what to change.

use azure_data_cosmos::CosmosError;
use azure_data_cosmos::models::TimeToLive;
use azure_data_cosmos::options::{
    ExcludedRegions, ItemReadOptions, ItemWriteOptions, OperationOptions, ReadConsistencyStrategy,
    ReadContainerOptions, Region,
};
use tollgate_proto::{PartitionKey, SessionMark, StoreError};

use crate::cosmos_store::{CosmosStore, RecordExpiry};
use crate::failure::{Failure, status};
use crate::session::mark_of;
use crate::statistics::Operation;

/// A document that nobody writes, in a partition that nobody uses. With room for every level of a hierarchical key.
const PROBE_ID: &str = "tollgate.probe";
const PROBE_LEVEL: &str = "tollgate.probe";

/// A session token this far ahead of a replica can't be honoured by it for weeks.
const FAR_AHEAD_LSN: u64 = 1_000_000_000;

impl CosmosStore {
    pub(crate) async fn verify_all(&self) -> Result<(), StoreError> {
        self.verify_container().await?;
        let probe = self.probe_partition()?;
        let (wrote_to, mark) = self.verify_writing(&probe).await?;
        self.verify_single_write_region(&probe, wrote_to).await?;
        if self.is_strong(&probe).await? {
            return Ok(());
        }
        self.verify_sessions(&probe, mark).await
    }

    async fn verify_container(&self) -> Result<(), StoreError> {
        let options = ReadContainerOptions::default().with_operation_options(self.requests.options());
        self.requests.tallies.count_request(Operation::Verify);
        let read = self.requests.container.read(Some(options)).await;
        let properties = read
            .and_then(azure_data_cosmos::models::ResourceResponse::into_model)
            .map_err(|error| self.fail_verify(&error))?;
        let actual: Vec<String> = properties.partition_key.paths().iter().map(ToString::to_string).collect();
        let expected = self.requests.layout.paths();
        if actual != expected {
            return Err(self.refuse(format!(
                "the container's partition key is {}, but the store was told {}: correct the store's layout, or use \
                 another container",
                actual.join(", "),
                expected.join(", ")
            )));
        }
        if self.expiry == RecordExpiry::ByService && properties.default_ttl == TimeToLive::Forever {
            return Err(self.refuse(
                "time to live is off for the container, so deduplication records would stay for ever: set its default \
                 time to live to -1 (on, no default)"
                    .to_owned(),
            ));
        }
        if let TimeToLive::Seconds(seconds) = properties.default_ttl {
            return Err(self.refuse(format!(
                "the container deletes every document after {seconds} s, outbox entries and control records included: \
                 set its default time to live to -1 (on, no default)"
            )));
        }
        Ok(())
    }

    fn probe_partition(&self) -> Result<PartitionKey, StoreError> {
        let levels = vec![PROBE_LEVEL; self.requests.layout.paths().len()];
        let key = self.requests.layout.join(&levels);
        PartitionKey::new(key).map_err(|error| self.refuse(error.to_string()))
    }

    /// Deletes what does not exist: tells whether writing is allowed, where it is done and the session token there.
    async fn verify_writing(
        &self,
        probe: &PartitionKey,
    ) -> Result<(Option<Region>, SessionMark), StoreError> {
        let (region, code, session) = self.probe_delete(probe, self.requests.options()).await?;
        if code == status::UNAUTHORIZED || code == status::FORBIDDEN {
            return Err(self.refuse(
                "writing is not allowed: give this identity the role `Cosmos DB Built-in Data Contributor`, or one with \
                 the actions that docs/stores/cosmos.md lists"
                    .to_owned(),
            ));
        }
        let mark = session.and_then(|token| mark_of(&self.requests.alias, &token));
        let mark = mark.ok_or_else(|| {
            self.refuse("the account answers writes without session tokens, which Tollgate needs".to_owned())
        })?;
        Ok((region, mark))
    }

    /// With the region that took the write excluded, a single write region takes it again, or another one refuses.
    async fn verify_single_write_region(
        &self,
        probe: &PartitionKey,
        wrote_to: Option<Region>,
    ) -> Result<(), StoreError> {
        let Some(first) = wrote_to else { return Ok(()) };
        let mut options = self.requests.options();
        options.excluded_regions = Some([first.clone()].into_iter().collect::<ExcludedRegions>());
        let (second, code, _) = self.probe_delete(probe, options).await?;
        match second {
            Some(second) if second != first && code == status::NOT_FOUND => Err(self.refuse(format!(
                "the account takes writes in more than one region ({first} and {second}): two of them could each commit \
                 on the same version. Switch multi-region writes off"
            ))),
            _ => Ok(()),
        }
    }

    /// Where a deletion of the probe was answered, with which status and session token.
    async fn probe_delete(
        &self,
        probe: &PartitionKey,
        options: OperationOptions,
    ) -> Result<(Option<Region>, u16, Option<String>), StoreError> {
        let key = self.requests.key(probe)?;
        let options = ItemWriteOptions::default().with_operation_options(options);
        self.requests.tallies.count_request(Operation::Verify);
        let region_of = |diagnostics: &azure_data_cosmos::diagnostics::DiagnosticsContext| {
            diagnostics.requests().last().and_then(|request| request.region().cloned())
        };
        match self.requests.container.delete_item(key, PROBE_ID, Some(options)).await {
            Ok(response) => {
                let session = response.headers().session_token().map(|token| token.as_str().to_owned());
                Ok((region_of(&response.diagnostics()), status::NOT_FOUND, session))
            }
            Err(error) => match Failure::of(&error) {
                Failure::Missing { session } => {
                    let region = error.diagnostics().and_then(|diagnostics| region_of(&diagnostics));
                    Ok((region, status::NOT_FOUND, session))
                }
                Failure::Misconfigured { .. } | Failure::Unavailable { .. }
                    if u16::from(error.status().status_code()) == status::FORBIDDEN =>
                {
                    let region = error.diagnostics().and_then(|diagnostics| region_of(&diagnostics));
                    Ok((region, status::FORBIDDEN, None))
                }
                failure => Err(failure.of_repeatable(&self.requests.alias, None)),
            },
        }
    }

    /// The SDK refuses a globally strong read on every account that is not strong, before it asks anybody.
    async fn is_strong(&self, probe: &PartitionKey) -> Result<bool, StoreError> {
        let mut options = self.requests.options();
        options.read_consistency_strategy = Some(ReadConsistencyStrategy::GlobalStrong);
        match self.probe_read(probe, options, None).await {
            Ok(()) => Ok(true),
            Err(error) => match u16::from(error.status().status_code()) {
                status::NOT_FOUND => Ok(true),
                status::BAD_REQUEST => Ok(false),
                _ => Err(self.fail_verify(&error)),
            },
        }
    }

    /// A read that is shown a session token from the future is refused by session consistency. Every weaker level, and bounded
    /// staleness, would answer.
    async fn verify_sessions(&self, probe: &PartitionKey, mark: SessionMark) -> Result<(), StoreError> {
        let mut options = self.requests.options();
        options.max_session_retry_count = Some(0);
        let answer = self.probe_read(probe, options, Some(from_the_future(&mark))).await;
        let Err(error) = answer else { return Err(self.refuse_consistency()) };
        let sub_status = error.status().sub_status().map_or(0, |code| u32::from(code.value()));
        match u16::from(error.status().status_code()) {
            code if status::is_session_not_available(code, sub_status) => Ok(()),
            status::NOT_FOUND => Err(self.refuse_consistency()),
            _ => Err(self.fail_verify(&error)),
        }
    }

    async fn probe_read(
        &self,
        probe: &PartitionKey,
        options: OperationOptions,
        session: Option<String>,
    ) -> Result<(), CosmosError> {
        let Some(key) = self.requests.layout.cosmos_key(probe) else { return Ok(()) };
        let mut options = ItemReadOptions::default().with_operation_options(options);
        if let Some(session) = session {
            options = options.with_session_token(session);
        }
        self.requests.tallies.count_request(Operation::Verify);
        self.requests.container.read_item(key, PROBE_ID, Some(options)).await.map(drop)
    }

    fn refuse_consistency(&self) -> StoreError {
        self.refuse(
            "the account does not honour session tokens: its default consistency is eventual, consistent prefix or \
             bounded staleness, and a stale read would process a message twice or lose it. Set the default consistency to \
             session or strong"
                .to_owned(),
        )
    }

    fn refuse(&self, reason: String) -> StoreError {
        StoreError::Misconfigured { store: self.requests.alias.clone(), reason }
    }

    fn fail_verify(&self, error: &CosmosError) -> StoreError {
        match self.requests.judge(Operation::Verify, error) {
            Failure::Missing { .. } => {
                self.refuse("the container does not exist; create it or correct its name".to_owned())
            }
            failure => failure.of_repeatable(&self.requests.alias, None),
        }
    }
}

/// The session token of a mark, with all its sequence numbers raised.
fn from_the_future(mark: &SessionMark) -> String {
    let Some((scope, vector)) = mark.token.split_once(':') else { return mark.token.clone() };
    let raise = |number: &str| match number.parse::<u64>() {
        Ok(lsn) => (lsn + FAR_AHEAD_LSN).to_string(),
        Err(_) => number.to_owned(),
    };
    let parts: Vec<&str> = vector.split('#').collect();
    let raised: Vec<String> = parts
        .iter()
        .enumerate()
        .map(|(place, part)| match part.split_once('=') {
            Some((region, lsn)) => format!("{region}={}", raise(lsn)),
            // The first part is the version of the vector clock, if there is more than one.
            None if place == 0 && parts.len() > 1 => (*part).to_owned(),
            None => raise(part),
        })
        .collect();
    format!("{scope}:{}", raised.join("#"))
}

#[cfg(test)]
mod tests {
    use tollgate_proto::StoreAlias;

    use super::*;

    #[test]
    fn a_token_from_the_future_keeps_its_partition_and_its_version() {
        let future = |token| from_the_future(&mark_of(&StoreAlias::new("main").unwrap(), token).unwrap());
        assert_eq!(future("3:1#100#0=90"), "3:1#1000000100#0=1000000090");
        assert_eq!(future("3:-1#5"), "3:-1#1000000005");
        assert_eq!(future("3:5"), "3:1000000005");
    }
}
