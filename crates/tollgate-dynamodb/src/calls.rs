//! The way to DynamoDB: every request goes through here, waits for its place, is repeated while it is throttled and nothing
//! happened, and is counted. What a request says is decided elsewhere; what its failure means in [`crate::failure`].

use std::future::Future;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::types::ConsumedCapacity;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use tollgate_proto::StoreAlias;

use crate::failure::{Failure, OperationError, Scope};
use crate::limiter::{Answer, Limiter};

/// Most repetitions of a throttled call in place, before the engine hears of it (which backs off for longer).
const REPETITIONS_MAX: u32 = 3;
/// Most tries of what may be repeated although its outcome is unknown.
pub(crate) const TRIES_MAX: u32 = 4;
/// The first pause is shorter than this, each further one than twice as much.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
/// No pause is longer.
const PAUSE_MAX: Duration = Duration::from_millis(400);

/// A client with the store's own ideas of retries.
#[derive(Debug)]
pub(crate) struct Calls {
    client: Client,
    store: String,
    limiter: Limiter,
}

impl Calls {
    /// The client's own retries are switched off: it can't know which failures may be repeated (R7). Its timeouts stay, if it
    /// has any.
    pub(crate) fn new(
        client: &Client,
        store: &StoreAlias,
        concurrency_max: usize,
        call_timeout: Duration,
    ) -> Self {
        let config = client.config();
        let has_timeout = config.timeout_config().is_some_and(|timeouts| {
            timeouts.operation_attempt_timeout().is_some() || timeouts.operation_timeout().is_some()
        });
        let mut builder = config.to_builder().retry_config(RetryConfig::disabled());
        if !has_timeout {
            let timeouts = config.timeout_config().map(TimeoutConfig::to_builder).unwrap_or_default();
            builder = builder.timeout_config(timeouts.operation_attempt_timeout(call_timeout).build());
        }
        Self {
            client: Client::from_conf(builder.build()),
            store: store.to_string(),
            limiter: Limiter::new(concurrency_max),
        }
    }

    /// Makes a call. While it is throttled it is repeated for a moment; every other failure is the caller's.
    pub(crate) async fn make<T, E, F>(
        &self,
        operation: &'static str,
        send: impl Fn(&Client) -> F,
    ) -> Result<T, Failure>
    where
        E: OperationError,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        let mut repetitions = 0;
        loop {
            let permit = self.limiter.enter().await;
            let result = send(&self.client).await.map_err(Failure::of);
            self.count("tollgate_dynamodb_calls_total", operation);
            // Throttled keys are left alone by their own calls; all others go on as before.
            let answer = match result {
                Err(Failure::Throttled { scope: Scope::Table, .. }) => Answer::Throttled,
                _ => Answer::Served,
            };
            let limit = self.limiter.answered(permit, answer);
            let (metric, reason) = match &result {
                Err(Failure::Throttled { reason, .. }) => ("tollgate_dynamodb_throttled_total", reason),
                Err(Failure::Conflicted(reason)) => ("tollgate_dynamodb_transaction_conflicts_total", reason),
                _ => return result,
            };
            self.count(metric, operation);
            #[expect(clippy::cast_precision_loss, reason = "nobody makes 2^52 calls at a time")]
            metrics::gauge!("tollgate_dynamodb_concurrency", "store" => self.store.clone()).set(limit as f64);
            repetitions += 1;
            if repetitions > REPETITIONS_MAX {
                return result;
            }
            tracing::debug!(operation, limit, reason, "call throttled or in conflict; repeating");
            pause(repetitions).await;
            self.count("tollgate_dynamodb_repetitions_total", operation);
        }
    }

    /// Counts one of something for one operation.
    pub(crate) fn count(&self, metric: &'static str, operation: &'static str) {
        metrics::counter!(metric, "store" => self.store.clone(), "operation" => operation).increment(1);
    }

    /// Counts what answers say they have consumed. Returns the units, if the answers say any.
    pub(crate) fn consumed<'a>(
        &self,
        operation: &'static str,
        answers: impl IntoIterator<Item = &'a ConsumedCapacity>,
    ) -> Option<u64> {
        let units: f64 = answers.into_iter().filter_map(ConsumedCapacity::capacity_units).sum();
        if units <= 0.0 {
            return None;
        }
        // Whole units: halves, of eventually consistent reads, are rounded up.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is positive and small"
        )]
        let units = units.ceil() as u64;
        metrics::counter!(
            "tollgate_dynamodb_capacity_units_total", "store" => self.store.clone(), "operation" => operation
        )
        .increment(units);
        Some(units)
    }
}

/// Waits with full jitter: those who were throttled together must not come back together.
pub(crate) async fn pause(repetition: u32) {
    let longest = FIRST_PAUSE.saturating_mul(1 << repetition.min(8).saturating_sub(1)).min(PAUSE_MAX);
    tokio::time::sleep(longest.mul_f64(fastrand::f64())).await;
}
