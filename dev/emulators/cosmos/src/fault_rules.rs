//! Faults between the SDK and the emulator, as the SDK injects them: throttling, lost answers and other refusals of some of
//! the requests for documents. For one kind of request only the first rule that names it counts.

use std::sync::Arc;

use azure_core::http::StatusCode;
use azure_data_cosmos_driver::fault_injection::{
    CustomResponseBuilder, FaultInjectionConditionBuilder, FaultInjectionErrorType, FaultInjectionResult,
    FaultInjectionResultBuilder, FaultInjectionRule, FaultInjectionRuleBuilder, FaultOperationType,
};

/// What a throttled request is asked to wait, in milliseconds.
const RETRY_AFTER_MS: &str = "3";

/// The requests that stores make on the path of messages.
const ITEM_REQUESTS: [FaultOperationType; 3] =
    [FaultOperationType::ReadItem, FaultOperationType::BatchItem, FaultOperationType::DeleteItem];

/// Rules by which requests fail. They are on until [`FaultRules::disable`].
#[derive(Clone, Debug, Default)]
pub struct FaultRules {
    rules: Vec<Arc<FaultInjectionRule>>,
}

impl FaultRules {
    /// No faults.
    pub fn none() -> Self {
        Self::default()
    }

    /// This part of point reads, batches and deletions is throttled (429 with a time to wait).
    pub fn throttling(probability: f32) -> Self {
        Self::of("throttled", &ITEM_REQUESTS, |_| {
            let throttled = CustomResponseBuilder::new(StatusCode::TooManyRequests)
                .with_header("x-ms-retry-after-ms", RETRY_AFTER_MS)
                .with_sub_status(3200)
                .build();
            FaultInjectionResultBuilder::new()
                .with_custom_response(throttled)
                .with_probability(probability)
                .build()
        })
    }

    /// This part of batches and deletions is done, and the answer is lost.
    pub fn losing_answers(probability: f32) -> Self {
        Self::of("answer-lost", &[FaultOperationType::BatchItem, FaultOperationType::DeleteItem], |_| {
            FaultInjectionResultBuilder::new()
                .with_error(FaultInjectionErrorType::ResponseTimeoutAfterService)
                .with_probability(probability)
                .build()
        })
    }

    /// This part of batches is refused with this error and not done.
    pub fn refusing_batches(error: FaultInjectionErrorType, probability: f32) -> Self {
        Self::of("refused", &[FaultOperationType::BatchItem], |_| {
            FaultInjectionResultBuilder::new().with_error(error).with_probability(probability).build()
        })
    }

    fn of(
        name: &str,
        operations: &[FaultOperationType],
        result: impl Fn(FaultOperationType) -> FaultInjectionResult,
    ) -> Self {
        let rules = operations.iter().map(|operation| {
            let condition = FaultInjectionConditionBuilder::new().with_operation_type(*operation).build();
            let rule =
                FaultInjectionRuleBuilder::new(format!("{name}-{}", operation.as_str()), result(*operation));
            Arc::new(rule.with_condition(condition).build())
        });
        Self { rules: rules.collect() }
    }

    /// How many requests have failed by these rules.
    pub fn hits(&self) -> u64 {
        self.rules.iter().map(|rule| u64::from(rule.hit_count())).sum()
    }

    /// Switches the rules off.
    pub fn disable(&self) {
        self.rules.iter().for_each(|rule| rule.disable());
    }

    /// Switches the rules on again.
    pub fn enable(&self) {
        self.rules.iter().for_each(|rule| rule.enable());
    }

    pub(crate) fn rules(&self) -> Vec<Arc<FaultInjectionRule>> {
        self.rules.clone()
    }
}
