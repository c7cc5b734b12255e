//! Counts what the answers of a server report: the same figures that the emulator in process counts by itself, seen from the client. It
//! looks at answers and changes none.

use std::sync::{Arc, Mutex, PoisonError};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::AfterDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;

use crate::operation::Operation;
use crate::wire_counts::WireCounts;

/// An interceptor for clients of a server: `endpoint.client_config().interceptor(counter.clone())`. Clones share their counts. What was
/// charged for an answer that was lost on the way is not seen.
#[derive(Clone, Debug, Default)]
pub struct WireCounter {
    counts: Arc<Mutex<WireCounts>>,
}

impl WireCounter {
    /// What has been counted so far.
    pub fn counts(&self) -> WireCounts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[dyn_dispatch_hint]
impl Intercept for WireCounter {
    fn name(&self) -> &'static str {
        "WireCounter"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let operation = bag.load::<Metadata>().and_then(|metadata| Operation::of_name(metadata.name()));
        let response = context.response();
        let body = response.body().bytes().and_then(|body| std::str::from_utf8(body).ok());
        let (Some(operation), Some(body)) = (operation, body) else { return Ok(()) };
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.count_call(operation, 0);
        counts.count_answer(operation, response.status().as_u16(), body.len());
        counts.count_capacity(operation, body);
        drop(counts);
        Ok(())
    }
}
