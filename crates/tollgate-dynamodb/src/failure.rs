//! One mapping from what the SDK reports to what it means: did nothing happen, or is nobody to know? Which `StoreError` that is
//! for a read, a commit or a deletion is said here as well, and nowhere else.

use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::batch_get_item::BatchGetItemError;
use aws_sdk_dynamodb::operation::batch_write_item::BatchWriteItemError;
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::describe_continuous_backups::DescribeContinuousBackupsError;
use aws_sdk_dynamodb::operation::describe_table::DescribeTableError;
use aws_sdk_dynamodb::operation::describe_time_to_live::DescribeTimeToLiveError;
use aws_sdk_dynamodb::operation::get_item::GetItemError;
use aws_sdk_dynamodb::operation::query::QueryError;
use aws_sdk_dynamodb::operation::scan::ScanError;
use aws_sdk_dynamodb::operation::transact_get_items::TransactGetItemsError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_continuous_backups::UpdateContinuousBackupsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::operation::update_time_to_live::UpdateTimeToLiveError;
use aws_sdk_dynamodb::types::{CancellationReason, ThrottlingReason};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use tollgate_proto::{PartitionKey, StoreAlias, StoreError};

/// Statuses from here on are the server's own fault: the request may have been executed.
const FIRST_SERVER_ERROR: u16 = 500;

/// What became of a call that was not answered as hoped.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Refused for lack of throughput: nothing happened.
    Throttled {
        /// Table or range of keys whose throughput was exceeded.
        scope: Scope,
        /// Code and message of the answer.
        reason: String,
    },
    /// Refused because a transaction is at work on an item: nothing happened. It says nothing about
    /// throughput.
    Conflicted(String),
    /// No answer, or one that says nothing: it may have happened.
    Unknown(String),
    /// The condition of a single write did not hold.
    ConditionFailed,
    /// A transaction did not happen, for these reasons, one for each of its items.
    Canceled(Vec<CancellationReason>),
    /// A transaction with the same client token is at work or was another one: what became of it is to be looked up.
    TokenInUse(String),
    /// DynamoDB says that the request breaks a rule: nothing happened.
    Invalid(String),
    /// A person has to do something.
    Misconfigured(String),
}

/// Whose throughput was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// That of a range of partition keys: other keys are served.
    Keys,
    /// That of the table or the account, or of what DynamoDB does not say.
    Table,
}

impl Scope {
    fn of(reasons: &[ThrottlingReason]) -> Self {
        let is_of_keys = |reason: &ThrottlingReason| {
            reason.reason().is_some_and(|reason| reason.ends_with("KeyRangeThroughputExceeded"))
        };
        if !reasons.is_empty() && reasons.iter().all(is_of_keys) { Self::Keys } else { Self::Table }
    }
}

/// What the errors of an operation tell beyond code and message.
pub(crate) trait OperationError:
    ProvideErrorMetadata + std::error::Error + Send + Sync + 'static
{
    fn details(&self) -> Option<Failure> {
        None
    }

    /// Why it was throttled, where DynamoDB tells.
    fn throttling_reasons(&self) -> &[ThrottlingReason] {
        &[]
    }
}

macro_rules! without_details {
    ($($error:ty),*) => { $( impl OperationError for $error {} )* };
}

macro_rules! throttling_reasons {
    () => {
        fn throttling_reasons(&self) -> &[ThrottlingReason] {
            match self {
                Self::ProvisionedThroughputExceededException(exceeded) => exceeded.throttling_reasons(),
                Self::RequestLimitExceeded(exceeded) => exceeded.throttling_reasons(),
                Self::ThrottlingException(exceeded) => exceeded.throttling_reasons(),
                _ => &[],
            }
        }
    };
}

macro_rules! only_throttling_reasons {
    ($($error:ty),*) => { $( impl OperationError for $error { throttling_reasons!(); } )* };
}

only_throttling_reasons!(BatchGetItemError, BatchWriteItemError, GetItemError, QueryError, ScanError);

without_details!(
    CreateTableError,
    DescribeContinuousBackupsError,
    DescribeTableError,
    DescribeTimeToLiveError,
    UpdateContinuousBackupsError,
    UpdateTimeToLiveError
);

impl OperationError for UpdateItemError {
    throttling_reasons!();

    fn details(&self) -> Option<Failure> {
        match self {
            Self::ConditionalCheckFailedException(_) => Some(Failure::ConditionFailed),
            _ => None,
        }
    }
}

impl OperationError for DeleteItemError {
    throttling_reasons!();

    fn details(&self) -> Option<Failure> {
        match self {
            Self::ConditionalCheckFailedException(_) => Some(Failure::ConditionFailed),
            _ => None,
        }
    }
}

impl OperationError for TransactWriteItemsError {
    throttling_reasons!();

    fn details(&self) -> Option<Failure> {
        match self {
            Self::TransactionCanceledException(canceled) => {
                Some(Failure::Canceled(canceled.cancellation_reasons().to_vec()))
            }
            _ => None,
        }
    }
}

impl OperationError for TransactGetItemsError {
    throttling_reasons!();

    fn details(&self) -> Option<Failure> {
        match self {
            Self::TransactionCanceledException(canceled) => {
                Some(Failure::Canceled(canceled.cancellation_reasons().to_vec()))
            }
            _ => None,
        }
    }
}

impl Failure {
    /// What an error of the SDK means.
    pub(crate) fn of<E: OperationError>(error: SdkError<E, HttpResponse>) -> Self {
        let service = match error {
            SdkError::ServiceError(service) => service,
            SdkError::ConstructionFailure(_) => {
                return Self::Misconfigured(format!(
                    "the request could not be built: {}; look at the client's region, endpoint and credentials",
                    DisplayErrorContext(&error)
                ));
            }
            // Refused connections and missing credentials arrive in the same way as connections that broke after the
            // request had been sent: nothing can be said.
            other => return Self::Unknown(DisplayErrorContext(&other).to_string()),
        };
        if let Some(details) = service.err().details() {
            return details.sharpened();
        }
        let status = service.raw().status().as_u16();
        let (code, message) = (service.err().code(), service.err().message());
        match Self::of_code(code.unwrap_or_default(), message.unwrap_or_default(), status) {
            Self::Throttled { reason, .. } => {
                Self::Throttled { scope: Scope::of(service.err().throttling_reasons()), reason }
            }
            failure => failure,
        }
    }

    fn of_code(code: &str, message: &str, status: u16) -> Self {
        let reason = format!("{code}: {message}");
        match code {
            "ProvisionedThroughputExceededException"
            | "ProvisionedThroughputExceeded"
            | "ThrottlingException"
            | "Throttling"
            | "ThrottlingError"
            | "RequestLimitExceeded"
            | "LimitExceededException" => Self::Throttled { scope: Scope::Table, reason },
            "TransactionConflict" | "TransactionConflictException" | "ReplicatedWriteConflictException" => {
                Self::Conflicted(reason)
            }
            "TransactionInProgressException" | "IdempotentParameterMismatchException" => {
                Self::TokenInUse(reason)
            }
            "ValidationException" | "ValidationError" => Self::Invalid(message.to_owned()),
            "ResourceNotFoundException" => Self::Misconfigured(format!(
                "{reason}: create the table (`provision`), or look at the table's name, the region and the account"
            )),
            "AccessDeniedException" => {
                Self::Misconfigured(format!("{reason}: grant the actions that docs/stores/dynamodb.md lists"))
            }
            "ExpiredTokenException"
            | "ExpiredToken"
            | "UnrecognizedClientException"
            | "InvalidSignatureException"
            | "MissingAuthenticationTokenException"
            | "IncompleteSignatureException" => {
                Self::Misconfigured(format!("{reason}: renew or correct the credentials"))
            }
            _ if status >= FIRST_SERVER_ERROR => Self::Unknown(reason),
            _ => Self::Misconfigured(reason),
        }
    }

    /// A canceled transaction is only then a matter of its items if one of them says so; else it is throttled or invalid as a
    /// whole.
    fn sharpened(self) -> Self {
        let Self::Canceled(reasons) = self else { return self };
        let has = |code: &str| reasons.iter().any(|reason| reason.code() == Some(code));
        if has("ConditionalCheckFailed") {
            return Self::Canceled(reasons);
        }
        let told = reasons.iter().find(|reason| !matches!(reason.code(), None | Some("None")));
        let (code, message) = told.map_or(("TransactionConflict", "canceled without a reason"), |reason| {
            (reason.code().unwrap_or_default(), reason.message().unwrap_or_default())
        });
        Self::of_code(code, message, 400)
    }

    /// Whether DynamoDB refused because an item would become too large.
    pub(crate) fn is_of_item_size(&self) -> bool {
        matches!(self, Self::Invalid(message) if message.contains("Item size"))
    }

    /// Whether DynamoDB refused because a transaction is too large as a whole.
    pub(crate) fn is_of_transaction_size(&self) -> bool {
        matches!(self, Self::Invalid(message) if message.contains("4MB") || message.contains("4 MB"))
    }

    /// The error of a call that changes nothing, or that may simply be repeated.
    pub(crate) fn of_repeatable_call(
        self,
        store: &StoreAlias,
        partition: Option<&PartitionKey>,
    ) -> StoreError {
        let store = store.clone();
        match self {
            // A partition is only named where it is alone to blame.
            Self::Throttled { scope: Scope::Table, .. } => {
                StoreError::Throttled { store, partition: None, retry_after: None }
            }
            Self::Throttled { scope: Scope::Keys, .. } | Self::Conflicted(_) => {
                StoreError::Throttled { store, partition: partition.cloned(), retry_after: None }
            }
            Self::Unknown(reason) | Self::TokenInUse(reason) => StoreError::Unavailable { store, reason },
            Self::Misconfigured(reason) => StoreError::Misconfigured { store, reason },
            Self::Invalid(message) if message.contains("Index Key") => StoreError::Misconfigured {
                store,
                reason: format!(
                    "a business item is the key of an index and has another type than the index wants: {message}; write the \
                     type that it wants, or drop the index"
                ),
            },
            Self::Invalid(message) => StoreError::Misconfigured {
                store,
                reason: format!(
                    "DynamoDB calls a request invalid: {message}; is the table as `verify` wants it?"
                ),
            },
            Self::ConditionFailed | Self::Canceled(_) => StoreError::Unavailable {
                store,
                reason: "a condition failed where none was expected to; somebody else was quicker".to_owned(),
            },
        }
    }

    /// The error of a call about several partitions, for each of them.
    pub(crate) fn of_each<'a>(self, store: &StoreAlias) -> impl Fn(&'a PartitionKey) -> StoreError + use<'a> {
        let is_of_keys = matches!(self, Self::Throttled { scope: Scope::Keys, .. } | Self::Conflicted(_));
        let (error, alias) = (self.of_repeatable_call(store, None), store.clone());
        move |partition| {
            if is_of_keys {
                let partition = Some(partition.clone());
                return StoreError::Throttled { store: alias.clone(), partition, retry_after: None };
            }
            error.clone()
        }
    }

    /// The error of a commit that was neither done nor refused by its conditions.
    pub(crate) fn of_commit(self, store: &StoreAlias, partition: &PartitionKey) -> StoreError {
        match self {
            Self::Unknown(reason) | Self::TokenInUse(reason) => {
                StoreError::OutcomeUnknown { store: store.clone(), partition: partition.clone(), reason }
            }
            other => other.of_repeatable_call(store, Some(partition)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(code: &str) -> CancellationReason {
        CancellationReason::builder().code(code).build()
    }

    fn commit_error(failure: Failure) -> StoreError {
        let (store, partition) = (StoreAlias::new("main").unwrap(), PartitionKey::new("p").unwrap());
        failure.of_commit(&store, &partition)
    }

    #[test]
    fn throttling_is_told_from_what_nobody_knows() {
        for code in ["ThrottlingException", "ProvisionedThroughputExceededException", "RequestLimitExceeded"]
        {
            let error = commit_error(Failure::of_code(code, "", 400));
            assert!(matches!(error, StoreError::Throttled { .. }), "{code}: {error}");
        }
        let error = commit_error(Failure::of_code("InternalServerError", "", 500));
        assert!(matches!(error, StoreError::OutcomeUnknown { .. }), "{error}");
    }

    #[test]
    fn throttled_keys_are_told_from_a_throttled_table() {
        let reason = |text: &str| ThrottlingReason::builder().reason(text).build();
        let hot = reason("TableWriteKeyRangeThroughputExceeded");
        assert_eq!(Scope::of(std::slice::from_ref(&hot)), Scope::Keys);
        let both = [hot, reason("TableWriteAccountLimitExceeded")];
        assert_eq!(Scope::of(&both), Scope::Table);
        assert_eq!(Scope::of(&[]), Scope::Table, "who says nothing may mean all");
    }

    #[test]
    fn a_transaction_that_met_another_one_is_neither_throttled_nor_refused_by_a_condition() {
        let met = Failure::Canceled(vec![reason("None"), reason("TransactionConflict")]).sharpened();
        assert!(matches!(met, Failure::Conflicted(_)), "{met:?}");
        assert!(matches!(commit_error(met), StoreError::Throttled { partition: Some(_), .. }));
        let both = vec![reason("ConditionalCheckFailed"), reason("TransactionConflict")];
        assert!(matches!(Failure::Canceled(both).sharpened(), Failure::Canceled(_)));
    }

    #[test]
    fn expired_credentials_need_a_person_and_new_ones() {
        for code in ["ExpiredTokenException", "UnrecognizedClientException", "InvalidSignatureException"] {
            let error = commit_error(Failure::of_code(code, "the security token is expired", 400));
            assert!(!error.is_retryable(), "{error}");
            assert!(error.to_string().contains("renew or correct the credentials"), "{error}");
        }
    }

    #[test]
    fn an_item_of_another_type_than_its_index_wants_is_told_with_the_index() {
        let message = "Type mismatch for Index Key item_status Expected: S Actual: N IndexName: by-status";
        let error = commit_error(Failure::of_code("ValidationException", message, 400)).to_string();
        assert!(error.contains("by-status") && error.contains("drop the index"), "{error}");
    }

    #[test]
    fn a_missing_permission_needs_a_person() {
        let error = commit_error(Failure::of_code("AccessDeniedException", "not allowed to UpdateItem", 400));
        assert!(!error.is_retryable());
        assert!(error.to_string().contains("UpdateItem"), "{error}");
    }
}
