//! What can go wrong with a call, which operations it can happen to, and what DynamoDB puts on the wire then. When a fault
//! strikes is decided in [`crate::fault_plan`]; here is only what it looks like.

use serde_json::{Value, json};

use crate::operation::Operation;

/// The name space that DynamoDB's own errors have on the wire.
const DYNAMODB_ERRORS: &str = "com.amazonaws.dynamodb.v20120810";
/// The name space of errors of the service in front of it: `ThrottlingException` comes from there.
const SERVICE_ERRORS: &str = "com.amazon.coral.availability";

/// Something that goes wrong with one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// Refused for lack of throughput; nothing happened. Any operation.
    Throttle(Throttling),
    /// A `TransactWriteItems` or `TransactGetItems` canceled although its conditions hold; nothing happened. For
    /// [`Cancellation::Conflict`] also a single write that meets a transaction: `TransactionConflictException`.
    Cancel(Cancellation),
    /// `TransactionInProgressException`: the same client token is at work; nothing happened now. `TransactWriteItems`.
    TransactionInProgress,
    /// Some keys of a `BatchGetItem` or `BatchWriteItem` (never all; a batch of one key is throttled instead, as
    /// DynamoDB does) are not processed and come back in the answer.
    LeaveUnprocessed,
    /// `ContinuousBackupsUnavailableException`: for some seconds after a table was created. `UpdateContinuousBackups`.
    BackupsUnavailable,
    /// Status 500, `InternalServerError`. Any operation.
    InternalError(Effect),
    /// The connection breaks before the answer arrives. Any operation.
    Disconnect(Effect),
    /// No answer within the client's time. Any operation. It is said at once: nobody has to wait for it.
    Timeout(Effect),
}

/// What a call whose answer is an error or lost has done nevertheless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// Nothing: it failed before.
    None,
    /// All that it was asked for.
    Done,
    /// Nothing yet: the request is on its way and takes effect between two later calls, or at
    /// [`crate::InProcessDynamoDb::settle_late_requests`].
    Late,
}

/// Why a call is refused for lack of throughput.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Throttling {
    /// `ProvisionedThroughputExceededException`: a hot partition, also in on-demand mode.
    ProvisionedThroughput,
    /// `ThrottlingException`: the table is still growing to the load.
    Rate,
    /// `RequestLimitExceeded`: the account's quota.
    RequestLimit,
    /// `ProvisionedThroughputExceededException` with the reason `KeyRangeThroughputExceeded`: a hot key, beside which others are served.
    KeyRange,
}

/// Why a transaction is canceled although its conditions hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cancellation {
    /// `TransactionConflict`: another request is at work on one of its items.
    Conflict,
    /// `ThrottlingError`.
    Throttling,
    /// `ProvisionedThroughputExceeded`.
    ProvisionedThroughput,
}

impl Fault {
    /// Whether this can happen to `operation`.
    pub const fn applies_to(self, operation: Operation) -> bool {
        let transaction = matches!(operation, Operation::TransactWriteItems | Operation::TransactGetItems);
        match self {
            Self::Cancel(Cancellation::Conflict) => transaction || operation.is_single_write(),
            Self::Cancel(_) => transaction,
            Self::TransactionInProgress => matches!(operation, Operation::TransactWriteItems),
            Self::BackupsUnavailable => matches!(operation, Operation::UpdateContinuousBackups),
            Self::LeaveUnprocessed => {
                matches!(operation, Operation::BatchGetItem | Operation::BatchWriteItem)
            }
            Self::Throttle(_) | Self::InternalError(_) | Self::Disconnect(_) | Self::Timeout(_) => true,
        }
    }
}

/// An answer as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WireAnswer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The JSON body.
    pub(crate) body: String,
}

impl WireAnswer {
    pub(crate) fn error(status: u16, kind: &str, message: &str) -> Self {
        let body = json!({ "__type": format!("{DYNAMODB_ERRORS}#{kind}"), "message": message }).to_string();
        Self { status, body }
    }

    pub(crate) fn internal_error() -> Self {
        Self::error(500, "InternalServerError", "injected: internal server error")
    }

    pub(crate) fn throttled(by: Throttling) -> Self {
        match by {
            Throttling::ProvisionedThroughput => Self::error(
                400,
                "ProvisionedThroughputExceededException",
                "injected: the level of configured provisioned throughput for one or more partitions of the table was exceeded",
            ),
            Throttling::KeyRange => {
                let kind = format!("{DYNAMODB_ERRORS}#ProvisionedThroughputExceededException");
                let body = json!({
                    "__type": kind,
                    "message": "injected: throughput exceeds the current capacity of a range of keys",
                    "ThrottlingReasons": [{
                        "reason": "TableWriteKeyRangeThroughputExceeded",
                        "resource": "arn:aws:dynamodb:us-east-1:000000000000:table/injected",
                    }],
                });
                Self { status: 400, body: body.to_string() }
            }
            Throttling::Rate => {
                let kind = format!("{SERVICE_ERRORS}#ThrottlingException");
                let message = "injected: throughput exceeds the current capacity of your table or index";
                Self { status: 400, body: json!({ "__type": kind, "message": message }).to_string() }
            }
            Throttling::RequestLimit => Self::error(
                400,
                "RequestLimitExceeded",
                "injected: throughput exceeds the current throughput limit for your account",
            ),
        }
    }

    pub(crate) fn backups_unavailable() -> Self {
        Self::error(
            400,
            "ContinuousBackupsUnavailableException",
            "injected: Backups are being enabled for the table: try again later",
        )
    }

    pub(crate) fn in_progress() -> Self {
        Self::error(
            400,
            "TransactionInProgressException",
            "injected: a transaction with the given request token is in progress",
        )
    }

    /// A canceled transaction, or for a single write the exception that DynamoDB has for it. `victim` says which of the
    /// transaction's items is to blame, given how many it has.
    pub(crate) fn canceled(
        by: Cancellation,
        operation: Operation,
        request: &[u8],
        victim: impl FnOnce(usize) -> usize,
    ) -> Self {
        if operation.is_single_write() {
            return Self::error(
                400,
                "TransactionConflictException",
                "injected: a transaction is in progress for the item",
            );
        }
        let (code, message) = match by {
            Cancellation::Conflict => ("TransactionConflict", "Transaction is ongoing for the item"),
            Cancellation::Throttling => ("ThrottlingError", "Throughput exceeds the current capacity"),
            Cancellation::ProvisionedThroughput => (
                "ProvisionedThroughputExceeded",
                "The level of configured provisioned throughput was exceeded",
            ),
        };
        let items = serde_json::from_slice::<Value>(request)
            .ok()
            .and_then(|request| request["TransactItems"].as_array().map(Vec::len))
            .unwrap_or_default()
            .max(1);
        let victim = victim(items);
        let reason = |at| {
            if at == victim { json!({ "Code": code, "Message": message }) } else { json!({ "Code": "None" }) }
        };
        let codes: Vec<&str> = (0..items).map(|at| if at == victim { code } else { "None" }).collect();
        let body = json!({
            "__type": format!("{DYNAMODB_ERRORS}#TransactionCanceledException"),
            "Message": format!(
                "Transaction cancelled, please refer cancellation reasons for specific reasons [{}]",
                codes.join(", ")
            ),
            "CancellationReasons": (0..items).map(reason).collect::<Vec<_>>(),
        });
        Self { status: 400, body: body.to_string() }
    }
}
