//! The edge: where work enters that no message brought. A request handler changes its own partition and sends messages,
//! exactly once for each request, without an incoming token (design section 5).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tollgate_core::processing::{Request, RequestDeduplication};
use tollgate_core::{DeduplicationKey, EndpointName, MessageId, PartitionKey};

use crate::backoff::Backoff;
use crate::engine::{Engine, expiry};
use crate::error::{HandlerError, TollgateError};
use crate::lanes::{Job, LaneKey, RequestHandler, RequestJob, RequestOutcome};
use crate::transaction::Tx;

/// Most executions of one request before its caller is told to come again.
const EXECUTIONS_MAX: u32 = 6;

/// Executes requests in the name of an endpoint, whose queue gets the wake-ups.
#[derive(Clone)]
pub struct Edge {
    engine: Arc<Engine>,
    endpoint: EndpointName,
    store: usize,
}

impl Edge {
    pub(crate) fn new(engine: Arc<Engine>, endpoint: &str) -> Result<Self, TollgateError> {
        let endpoint = EndpointName::new(endpoint)?;
        let checked = engine.endpoints.iter().find(|checked| checked.name == endpoint).ok_or_else(|| {
            TollgateError::Configuration(format!(
                "an edge needs an endpoint that receives its wake-ups, and the gate has no endpoint {endpoint}"
            ))
        })?;
        let store = checked.store;
        Ok(Self { engine, endpoint, store })
    }

    /// Executes a request exactly once, however often it is made under the same id, and returns its response: the one of
    /// the execution that committed.
    ///
    /// `request_id` recognises the request (an `Idempotency-Key`); it is remembered, with the response, for `retention`.
    /// The handler may run more than once, but commits at most once.
    ///
    /// # Errors
    /// [`TollgateError::RequestFailed`] if it could not be executed now; [`TollgateError::RequestRefused`] if it never
    /// will be.
    pub async fn execute<R, H, F>(
        &self,
        partition: &str,
        request_id: &str,
        retention: Duration,
        handler: H,
    ) -> Result<R, TollgateError>
    where
        R: Serialize + DeserializeOwned,
        H: Fn(Tx) -> F + Send + Sync + 'static,
        F: Future<Output = Result<R, HandlerError>> + Send + 'static,
    {
        let request = Request {
            message_id: MessageId::from_name(&format!("{}/{partition}", self.endpoint), request_id),
            endpoint: self.endpoint.clone(),
            deduplication: RequestDeduplication::ByKey {
                key: DeduplicationKey::of_request(request_id)?,
                expires_at_ms: expiry(self.engine.now_ms(), retention),
            },
        };
        self.run(partition, request, handler).await
    }

    /// Executes one step of a source that keeps its position in the partition: a file that is read, a feed that is
    /// followed. Nothing is remembered of the step but what the handler stores; it must look at the stored position and do
    /// nothing that was done before.
    ///
    /// `step` names the step, e.g. by its position: ids of the messages it sends are derived from it.
    ///
    /// # Errors
    /// As for [`Edge::execute`].
    pub async fn advance<R, H, F>(&self, partition: &str, step: &str, handler: H) -> Result<R, TollgateError>
    where
        R: Serialize + DeserializeOwned,
        H: Fn(Tx) -> F + Send + Sync + 'static,
        F: Future<Output = Result<R, HandlerError>> + Send + 'static,
    {
        let request = Request {
            message_id: MessageId::from_name(&format!("{}/{partition}", self.endpoint), step),
            endpoint: self.endpoint.clone(),
            deduplication: RequestDeduplication::ByState,
        };
        self.run(partition, request, handler).await
    }

    async fn run<R, H, F>(&self, partition: &str, request: Request, handler: H) -> Result<R, TollgateError>
    where
        R: Serialize + DeserializeOwned,
        H: Fn(Tx) -> F + Send + Sync + 'static,
        F: Future<Output = Result<R, HandlerError>> + Send + 'static,
    {
        let key = LaneKey { store: self.store, partition: PartitionKey::new(partition)? };
        let handler = Arc::new(handler);
        let run: RequestHandler = Arc::new(move |tx| {
            let handler = Arc::clone(&handler);
            Box::pin(async move {
                let response = handler(tx).await?;
                let bytes = serde_json::to_vec(&response).map_err(|error| {
                    HandlerError::permanent(format!("the response can't be written as JSON: {error}"))
                })?;
                Ok(Bytes::from(bytes))
            })
        });
        let mut failures = 0;
        loop {
            let (reply, outcome) = oneshot::channel();
            let job = RequestJob { request: request.clone(), run: Arc::clone(&run), reply };
            self.engine.submit(key.clone(), Job::Request(job));
            match outcome.await.map_err(|_| TollgateError::Closed)? {
                RequestOutcome::Answered(response) => {
                    return serde_json::from_slice(&response).map_err(|error| {
                        TollgateError::RequestRefused {
                            reason: format!("the stored response is not what this request expects: {error}"),
                        }
                    });
                }
                RequestOutcome::Refused { reason } => return Err(TollgateError::RequestRefused { reason }),
                RequestOutcome::Failed { reason } => {
                    failures += 1;
                    if failures >= EXECUTIONS_MAX {
                        return Err(TollgateError::RequestFailed { reason });
                    }
                    let wait = Backoff::IN_PLACE.after(failures, self.engine.tasks.runtime());
                    self.engine.tasks.runtime().sleep(wait).await;
                }
            }
        }
    }
}
