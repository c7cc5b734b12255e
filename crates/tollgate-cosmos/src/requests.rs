//! Single requests to Cosmos DB, as the rest of this crate makes them: with the options that the store's promises need, a
//! bound on how many are under way, every request and charge counted, and every error judged. What is asked for, and in
//! which order, is decided in the files that are named after the operations.

use azure_data_cosmos::clients::ContainerClient;
use azure_data_cosmos::models::{TransactionalBatchOperationResult, TransactionalBatchResponse};
use azure_data_cosmos::options::{
    AvailabilityStrategy, BatchOptions, BinaryEncodingOptions, ItemReadOptions, ItemWriteOptions,
    OperationOptions, OperationOptionsBuilder, Precondition, ReadConsistencyStrategy, SessionToken,
    ThrottlingRetryOptionsBuilder,
};
use azure_data_cosmos::{CosmosError, PartitionKey as CosmosKey, TransactionalBatch};
use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};
use tollgate_proto::{PartitionKey, SessionMark, StoreAlias, StoreError};

use crate::container_layout::ContainerLayout;
use crate::failure::{Failure, status};
use crate::session::mark_of;
use crate::statistics::{Operation, Tallies};

/// One container, and how it is spoken to.
pub(crate) struct Requests {
    pub(crate) alias: StoreAlias,
    pub(crate) layout: ContainerLayout,
    pub(crate) container: ContainerClient,
    pub(crate) tallies: Tallies,
    options: OperationOptions,
    under_way: Semaphore,
}

/// The answer of a point read.
pub(crate) struct Answer {
    /// The document. `None`: there is none.
    pub(crate) document: Option<Bytes>,
    /// Which physical partition answered, and how far it was.
    pub(crate) mark: Option<SessionMark>,
}

/// The answer of a batch.
pub(crate) enum BatchAnswer {
    /// All of it was done.
    Done { results: Vec<TransactionalBatchOperationResult>, mark: Option<SessionMark> },
    /// Nothing of it was done, because of this operation.
    Refused { index: usize, failure: Failure },
}

impl Requests {
    pub(crate) fn new(
        alias: StoreAlias,
        layout: ContainerLayout,
        container: ContainerClient,
        under_way_max: usize,
    ) -> Self {
        let tallies = Tallies::new(&alias);
        let under_way = Semaphore::new(under_way_max);
        Self { alias, layout, container, tallies, options: operation_options(), under_way }
    }

    /// The options of every request.
    pub(crate) fn options(&self) -> OperationOptions {
        self.options.clone()
    }

    /// The key of a partition as the SDK takes it.
    pub(crate) fn key(&self, partition: &PartitionKey) -> Result<CosmosKey, StoreError> {
        self.layout.cosmos_key(partition).ok_or_else(|| StoreError::Misconfigured {
            store: self.alias.clone(),
            reason: format!(
                "partition {partition} has fewer levels than the container's key {}: put a separator between them",
                self.layout.paths().join(", ")
            ),
        })
    }

    /// Waits until there is room for one more request.
    pub(crate) async fn room(&self) -> SemaphorePermit<'_> {
        self.under_way.acquire().await.expect("the semaphore is never closed")
    }

    /// Reads one document, wherever the account's routing sends reads to.
    pub(crate) async fn read(
        &self,
        operation: Operation,
        partition: &PartitionKey,
        id: &str,
        shown: Option<&SessionMark>,
    ) -> Result<Answer, Failure> {
        let key = self.key(partition).map_err(misfit)?;
        let mut options = ItemReadOptions::default().with_operation_options(self.options());
        if let Some(mark) = shown {
            options = options.with_session_token(mark.token.clone());
        }
        let _room = self.room().await;
        self.tallies.count_request(operation);
        match self.container.read_item(key, id, Some(options)).await {
            Ok(response) => {
                self.count_charge(operation, response.headers().request_charge());
                let mark = self.mark(response.headers().session_token().map(SessionToken::as_str));
                let document = response.into_body().single().map_err(|error| unreadable(&error))?;
                Ok(Answer { document: Some(document), mark })
            }
            Err(error) => match self.judge(operation, &error) {
                Failure::Missing { session } => {
                    Ok(Answer { document: None, mark: self.mark(session.as_deref()) })
                }
                failure => Err(failure),
            },
        }
    }

    /// Deletes one document, if it is there. The answer is the mark of the partition without it.
    pub(crate) async fn delete(
        &self,
        operation: Operation,
        partition: &PartitionKey,
        id: &str,
        condition: Option<Precondition>,
    ) -> Result<Option<SessionMark>, Failure> {
        let key = self.key(partition).map_err(misfit)?;
        let mut options = ItemWriteOptions::default().with_operation_options(self.options());
        if let Some(condition) = condition {
            options = options.with_precondition(condition);
        }
        let _room = self.room().await;
        self.tallies.count_request(operation);
        match self.container.delete_item(key, id, Some(options)).await {
            Ok(response) => {
                self.count_charge(operation, response.headers().request_charge());
                Ok(self.mark(response.headers().session_token().map(SessionToken::as_str)))
            }
            Err(error) => match self.judge(operation, &error) {
                Failure::Missing { session } => Ok(self.mark(session.as_deref())),
                failure => Err(failure),
            },
        }
    }

    /// Executes a transactional batch. It is a write to Cosmos DB whatever is in it, and so goes to the write region.
    pub(crate) async fn execute(
        &self,
        operation: Operation,
        batch: TransactionalBatch,
    ) -> Result<BatchAnswer, Failure> {
        let options = BatchOptions::default().with_operation_options(self.options());
        let _room = self.room().await;
        self.tallies.count_request(operation);
        let response = match self.container.execute_transactional_batch(batch, Some(options)).await {
            Ok(response) => response,
            Err(error) => return Err(self.judge(operation, &error)),
        };
        self.count_charge(operation, response.headers().request_charge());
        let mark = self.mark(response.headers().session_token().map(SessionToken::as_str));
        let model: TransactionalBatchResponse = response.into_model().map_err(|error| unreadable(&error))?;
        let refused = model
            .results()
            .iter()
            .position(|result| !result.is_success() && result.status_code() != status::FAILED_DEPENDENCY);
        Ok(match refused {
            None => BatchAnswer::Done { results: model.results().to_vec(), mark },
            Some(index) => {
                let result = &model.results()[index];
                let code = result.status_code();
                let reason = || format!("operation {index} of a batch was answered {code}");
                let sub_status = result.substatus_code().unwrap_or_default();
                let failure = Failure::of_status(code, sub_status, result.retry_after(), reason);
                self.count_failure(operation, &failure);
                BatchAnswer::Refused { index, failure }
            }
        })
    }

    /// The mark in a response's session token.
    pub(crate) fn mark(&self, token: Option<&str>) -> Option<SessionMark> {
        token.and_then(|token| mark_of(&self.alias, token))
    }

    /// Says what an error means, and counts it.
    pub(crate) fn judge(&self, operation: Operation, error: &CosmosError) -> Failure {
        if let Some(response) = error.response() {
            self.count_charge(operation, response.headers().request_charge.as_ref());
        }
        let failure = Failure::of(error);
        self.count_failure(operation, &failure);
        failure
    }

    fn count_failure(&self, operation: Operation, failure: &Failure) {
        match failure {
            Failure::Missing { .. } | Failure::Condition => {}
            Failure::Throttled { .. } => self.tallies.count_throttled(operation),
            other => {
                self.tallies.count_failed(operation);
                tracing::debug!(store = %self.alias, ?operation, failure = ?other, "a request to Cosmos DB failed");
            }
        }
    }

    /// The SDK's type of a charge shows its number by `Display` alone.
    pub(crate) fn count_charge(&self, operation: Operation, charge: Option<&impl ToString>) {
        let charge = charge.and_then(|charge| charge.to_string().parse().ok());
        self.tallies.count_charge(operation, charge.unwrap_or_default());
    }
}

/// What every request is made with.
fn operation_options() -> OperationOptions {
    OperationOptionsBuilder::new()
        // The account's own level, whatever the environment says: `verify` has found it good enough.
        .with_read_consistency_strategy(ReadConsistencyStrategy::Default)
        // A throttled request is the engine's affair: it has the back-off, and others to slow down.
        .with_throttling_retry_options(ThrottlingRetryOptionsBuilder::new().with_max_retry_count(0).build())
        // Asking two regions at once would double the charge of what is slow because it is overloaded.
        .with_availability_strategy(AvailabilityStrategy::Disabled)
        // Microsoft's emulator for Linux does not understand binary documents.
        .with_binary_encoding(BinaryEncodingOptions::new().with_enabled(false))
        .build()
}

fn unreadable(error: &CosmosError) -> Failure {
    Failure::Unknown { reason: format!("the answer can't be read: {error}") }
}

fn misfit(error: StoreError) -> Failure {
    match error {
        StoreError::Misconfigured { reason, .. } => Failure::Misconfigured { reason },
        other => Failure::Misconfigured { reason: other.to_string() },
    }
}
