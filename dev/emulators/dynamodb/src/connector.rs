//! Where the SDK meets the emulator: its HTTP client, without HTTP. Requests arrive here as the SDK signed and serialized
//! them, suffer their fate and are executed on the calling thread. Which fate is decided in [`crate::fault_plan`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;

use crate::fault::{Effect, Fault, Throttling, WireAnswer};
use crate::fault_plan::WireCall;
use crate::in_process::Emulator;
use crate::operation::Operation;
use crate::unprocessed::SplitBatch;

/// What the header `x-amz-target` starts with in DynamoDB's protocol.
const TARGET_PREFIX: &str = "DynamoDB_20120810.";
/// The media type of DynamoDB's protocol.
const CONTENT_TYPE: &str = "application/x-amz-json-1.0";

/// The SDK's HTTP client whose other end is an emulator in this process.
#[derive(Clone)]
pub struct InProcessConnector {
    emulator: Arc<Emulator>,
}

impl InProcessConnector {
    pub(crate) const fn new(emulator: Arc<Emulator>) -> Self {
        Self { emulator }
    }

    async fn answer(emulator: Arc<Emulator>, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let target =
            request.headers().get("x-amz-target").and_then(|target| target.strip_prefix(TARGET_PREFIX));
        let Some(operation) = target.and_then(Operation::of_name) else {
            let message = format!("the emulator doesn't answer {target:?}: add it to Operation and dispatch");
            return response(&WireAnswer::error(400, "UnknownOperationException", &message));
        };
        let Some(body) = request.body().bytes() else {
            return Err(ConnectorError::other("the request's body is not in memory".into(), None));
        };
        let earlier = emulator.counts_mut().count_call(operation, body.len());
        emulator.settle_some_late_requests();
        let fate = emulator.faults().fate(WireCall { operation, body, earlier });
        let half_latency = fate.latency / 2;
        pass(half_latency).await;
        let answer = Self::suffer(&emulator, operation, body, fate.fault);
        pass(half_latency).await;
        answer.and_then(|answer| {
            emulator.counts_mut().count_answer(operation, answer.status, answer.body.len());
            response(&answer)
        })
    }

    fn suffer(
        emulator: &Emulator,
        operation: Operation,
        body: &[u8],
        fault: Option<Fault>,
    ) -> Result<WireAnswer, ConnectorError> {
        let Some(fault) = fault else { return Ok(emulator.execute(operation, body)) };
        emulator.counts_mut().count_fault(operation, fault);
        let take_effect = |effect| match effect {
            Effect::None => {}
            Effect::Done => drop(emulator.execute(operation, body)),
            Effect::Late => emulator.postpone(operation, body),
        };
        match fault {
            Fault::Throttle(by) => Ok(WireAnswer::throttled(by)),
            Fault::Cancel(by) => {
                Ok(WireAnswer::canceled(by, operation, body, |items| emulator.faults().below(items)))
            }
            Fault::TransactionInProgress => Ok(WireAnswer::in_progress()),
            Fault::BackupsUnavailable => Ok(WireAnswer::backups_unavailable()),
            Fault::LeaveUnprocessed => Ok(leave_unprocessed(emulator, operation, body)),
            Fault::InternalError(effect) => {
                take_effect(effect);
                Ok(WireAnswer::internal_error())
            }
            Fault::Disconnect(effect) => {
                take_effect(effect);
                Err(ConnectorError::io("injected: the connection was reset".into()))
            }
            Fault::Timeout(effect) => {
                take_effect(effect);
                Err(ConnectorError::timeout("injected: no answer in time".into()))
            }
        }
    }
}

fn leave_unprocessed(emulator: &Emulator, operation: Operation, body: &[u8]) -> WireAnswer {
    let split = SplitBatch::draw(operation, body, |bound| emulator.faults().below(bound));
    let Some(split) = split else { return WireAnswer::throttled(Throttling::ProvisionedThroughput) };
    let answer = emulator.execute(operation, &split.processed);
    if answer.status != 200 {
        return answer;
    }
    WireAnswer { status: answer.status, body: split.complete(&answer.body) }
}

/// Takes time on tokio's clock. No time needs no timer, and so no runtime with one.
async fn pass(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

fn response(answer: &WireAnswer) -> Result<HttpResponse, ConnectorError> {
    let status =
        StatusCode::try_from(answer.status).map_err(|error| ConnectorError::other(error.into(), None))?;
    let mut response = HttpResponse::new(status, SdkBody::from(answer.body.as_str()));
    response.headers_mut().insert("content-type", CONTENT_TYPE);
    Ok(response)
}

impl HttpConnector for InProcessConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(Self::answer(Arc::clone(&self.emulator), request))
    }
}

impl HttpClient for InProcessConnector {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl fmt::Debug for InProcessConnector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("InProcessConnector").finish_non_exhaustive()
    }
}
