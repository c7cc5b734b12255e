//! The edge: where work enters that no message brought. A request handler changes its own partition and sends messages,
//! exactly once for each request, without an incoming token.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tollgate_proto::blobs::BlobStream;
use tollgate_proto::processing::{Request, RequestDeduplication};
use tollgate_proto::{
    BoxFuture, DeduplicationKey, EffectName, EndpointName, ItemName, LoadRequest, MessageId, PartitionKey,
    ScanCursor, ScanPage, StoreLimits,
};

use crate::backoff::Backoff;
use crate::blob_reference::BlobReference;
use crate::claims::Claim;
use crate::engine::{Engine, expiry};
use crate::error::{HandlerError, TollgateError};
use crate::inside::{Inside, run_inside};
use crate::lanes::{Job, LaneKey, RequestHandler, RequestJob, RequestOutcome};
use crate::transaction::Tx;

/// Most executions of one request before its caller is told to come again.
const EXECUTIONS_MAX: u32 = 6;

/// Executes requests in the name of an endpoint, whose queue gets the wake-ups.
#[derive(Clone)]
pub struct Edge {
    engine: Arc<Engine>,
    endpoint: EndpointName,
    /// The endpoint's place among the gate's.
    place: usize,
    store: usize,
}

impl Edge {
    pub(crate) fn new(engine: Arc<Engine>, endpoint: &str) -> Result<Self, TollgateError> {
        let endpoint = EndpointName::new(endpoint)?;
        let place = engine.endpoints.iter().position(|checked| checked.name == endpoint).ok_or_else(|| {
            TollgateError::Configuration(format!(
                "an edge needs an endpoint that receives its wake-ups, and the gate has no endpoint {endpoint}"
            ))
        })?;
        let store = engine.endpoints[place].store;
        Ok(Self { engine, endpoint, place, store })
    }

    /// The endpoint in whose name requests are executed.
    pub fn endpoint(&self) -> &EndpointName {
        &self.endpoint
    }

    /// Executes a request exactly once, however often it is made under the same id, and returns its response: the one of
    /// the execution that committed.
    ///
    /// `request_id` recognises the request (an `Idempotency-Key`); it is remembered, with the response, for `retention`.
    /// The handler may run more than once, but commits at most once.
    ///
    /// # Errors
    /// [`TollgateError::RequestFailed`], [`TollgateError::TimedOut`] or [`TollgateError::Overloaded`] if it could not be executed now;
    /// [`TollgateError::RequestRefused`] if it never will be; [`TollgateError::WaitsForItself`] if a handler asks its own partition;
    /// [`TollgateError::Closed`] if the gate takes no more.
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
        let request = self.request(partition, request_id, Some(retention))?;
        from_json(self.run(partition, request, as_json(handler)).await?)
    }

    /// As [`Edge::execute`], with a response that is any bytes, and told apart: executed now, or answered again.
    ///
    /// # Errors
    /// As for [`Edge::execute`].
    pub async fn execute_bytes<H, F>(
        &self,
        partition: &str,
        request_id: &str,
        retention: Duration,
        handler: H,
    ) -> Result<Answer, TollgateError>
    where
        H: Fn(Tx) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Bytes, HandlerError>> + Send + 'static,
    {
        let request = self.request(partition, request_id, Some(retention))?;
        let handler = Arc::new(move |tx| -> BoxFuture<'static, _> {
            let response = handler(tx);
            Box::pin(async move { Ok(Answer::Executed(response.await?)) })
        });
        self.run(partition, request, handler).await
    }

    /// Executes one step of a source that keeps its position in the partition: a file that is read, a feed that is
    /// followed. Nothing is remembered of the step but what the handler stores; it must look at the stored position and do
    /// nothing that was done before.
    ///
    /// `step` names the step, e.g. by its position. Ids of the messages that it sends are derived from it and from the partition's version, so
    /// it need not be unique.
    ///
    /// # Errors
    /// As for [`Edge::execute`].
    pub async fn advance<R, H, F>(&self, partition: &str, step: &str, handler: H) -> Result<R, TollgateError>
    where
        R: Serialize + DeserializeOwned,
        H: Fn(Tx) -> F + Send + Sync + 'static,
        F: Future<Output = Result<R, HandlerError>> + Send + 'static,
    {
        let request = self.request(partition, step, None)?;
        from_json(self.run(partition, request, as_json(handler)).await?)
    }

    /// As [`Edge::advance`], for a handler that says itself whether it has done something ([`Answer::Executed`]: it is
    /// committed) or finds that it was done before ([`Answer::Replayed`]: nothing is committed).
    ///
    /// What it sees of the partition may be older than the store, if another process has changed it since: a commit finds out and
    /// the handler runs again, but where nothing is committed nobody does. So answer with [`Answer::Replayed`] only what is true
    /// for ever once it is, and with [`Answer::Executed`] otherwise, even if there is nothing to change.
    ///
    /// # Errors
    /// As for [`Edge::execute`].
    pub async fn advance_bytes<H, F>(
        &self,
        partition: &str,
        step: &str,
        handler: H,
    ) -> Result<Answer, TollgateError>
    where
        H: Fn(Tx) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Answer, HandlerError>> + Send + 'static,
    {
        let request = self.request(partition, step, None)?;
        self.run(partition, request, Arc::new(move |tx| Box::pin(handler(tx)))).await
    }

    /// Reads an item of any partition as it is in the store now, outside any transaction: what was committed before this call
    /// is seen.
    ///
    /// # Errors
    /// A store error.
    pub async fn read(&self, partition: &str, item: &str) -> Result<Option<Bytes>, TollgateError> {
        let key = LaneKey { store: self.store, partition: PartitionKey::new(partition)? };
        let items = vec![ItemName::new(item)?];
        let request = LoadRequest { partition: key.partition.clone(), items, records: Vec::new() };
        let loaded = self.engine.store(&key).load(request).await?;
        let value = loaded.items.into_iter().next().and_then(|(_, value)| value);
        Ok(value.map(|value| value.bytes().clone()))
    }

    /// Reads what is remembered of a request ([`Edge::execute_bytes`]) as it is in the store now: its response.
    ///
    /// `None`: it was not executed, or its retention is over.
    ///
    /// # Errors
    /// A store error.
    pub async fn recorded(&self, partition: &str, request_id: &str) -> Result<Option<Bytes>, TollgateError> {
        let key = LaneKey { store: self.store, partition: PartitionKey::new(partition)? };
        let records = vec![DeduplicationKey::of_request(&self.endpoint, request_id)?];
        let request = LoadRequest { partition: key.partition.clone(), items: Vec::new(), records };
        let loaded = self.engine.store(&key).load(request).await?;
        Ok(loaded.records.into_iter().next().and_then(|(_, response)| response))
    }

    /// Lists partitions of the endpoint's store with the names of their items, page by page.
    ///
    /// A scan reads the whole store: it is for operators, not for requests.
    ///
    /// # Errors
    /// A store error.
    pub async fn scan(&self, cursor: Option<ScanCursor>, limit: usize) -> Result<ScanPage, TollgateError> {
        Ok(self.engine.stores[self.store].store().scan(cursor, limit).await?)
    }

    /// Reserves a name on this gate, on the endpoint's store, until the answer is dropped.
    ///
    /// Components that keep items under a name of their own claim it, so that no two of them share it by mistake.
    ///
    /// # Errors
    /// [`TollgateError::Configuration`] if the name is claimed already.
    pub fn claim(&self, name: &str) -> Result<Claim, TollgateError> {
        let alias = self.engine.stores[self.store].store().alias();
        self.engine.claims.claim(format!("{alias}/{name}")).ok_or_else(|| {
            TollgateError::Configuration(format!(
                "the name {name} is used twice on this gate: choose another"
            ))
        })
    }

    /// Reads a blob as a stream. `None`: there is none.
    ///
    /// # Errors
    /// What blob storage says.
    pub async fn read_blob(&self, blob: &BlobReference) -> Result<Option<BlobStream>, TollgateError> {
        let blobs = self.engine.effects.required_blobs()?;
        Ok(blobs.get(blob.name()).await?.map(|content| blob.verified(content)))
    }

    /// Deletes a blob that no item names any more. Repeating it does no harm.
    ///
    /// # Errors
    /// What blob storage says.
    pub async fn delete_blob(&self, blob: &EffectName) -> Result<(), TollgateError> {
        Ok(self.engine.effects.required_blobs()?.delete(blob).await?)
    }

    /// Does something to its end, even if whoever waits for it goes away. The gate waits for it when it closes.
    ///
    /// # Errors
    /// [`TollgateError::Closed`] if the gate takes no more.
    pub async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, TollgateError> {
        if self.engine.tasks.is_ending() {
            return Err(TollgateError::Closed);
        }
        let (reply, outcome) = oneshot::channel();
        // A handler that waits for the work still holds its partition.
        let work = run_inside(Inside::current(), work);
        self.engine.tasks.spawn(async move {
            // The caller may have gone away.
            let _ = reply.send(work.await);
        });
        outcome.await.map_err(|_| TollgateError::Closed)
    }

    /// What the store of the endpoint's partitions takes.
    pub fn store_limits(&self) -> StoreLimits {
        self.engine.stores[self.store].store().limits()
    }

    /// Whether the gate has blob storage.
    pub fn has_blobs(&self) -> bool {
        self.engine.effects.blobs().is_some()
    }

    /// `retention`: how long the request is remembered by its id. `None`: it is recognised by the partition's state.
    fn request(
        &self,
        partition: &str,
        name: &str,
        retention: Option<Duration>,
    ) -> Result<Request, TollgateError> {
        Ok(Request {
            message_id: MessageId::from_name(&format!("{}/{partition}", self.endpoint), name),
            endpoint: self.endpoint.clone(),
            deduplication: match retention {
                Some(retention) => RequestDeduplication::ByKey {
                    key: DeduplicationKey::of_request(&self.endpoint, name)?,
                    expires_at_ms: expiry(self.engine.now_ms(), retention),
                },
                None => RequestDeduplication::ByState,
            },
        })
    }

    fn overloaded(&self, place: String, requests: usize) -> TollgateError {
        self.engine.counters.requests_shed.add(1);
        TollgateError::Overloaded { place, requests }
    }

    async fn run(
        &self,
        partition: &str,
        request: Request,
        run: RequestHandler,
    ) -> Result<Answer, TollgateError> {
        let key = LaneKey { store: self.store, partition: PartitionKey::new(partition)? };
        let caller = Inside::current();
        if caller.as_ref().is_some_and(|inside| inside.holds(self.engine.process, &key)) {
            return Err(TollgateError::WaitsForItself { partition: key.partition });
        }
        let checked = &self.engine.endpoints[self.place];
        let Ok(_place) = checked.requests.try_acquire() else {
            return Err(self.overloaded(format!("at endpoint {}", self.endpoint), checked.requests_max));
        };
        let mut failures = 0;
        loop {
            if self.engine.tasks.is_ending() {
                return Err(TollgateError::Closed);
            }
            let (reply, outcome) = oneshot::channel();
            let (id, now_ms) = (request.message_id, self.engine.now_ms());
            let ticket = self.engine.in_progress.enter_request(self.place, id, &key.partition, now_ms);
            let (request, run, caller) = (request.clone(), Arc::clone(&run), caller.clone());
            let job = RequestJob { request, endpoint: self.place, caller, _ticket: ticket, run, reply };
            if !self.engine.submit(key.clone(), Job::Request(job)) {
                let place = format!("for partition {}", key.partition);
                return Err(self.overloaded(place, checked.partition_requests_max()));
            }
            match outcome.await.map_err(|_| TollgateError::Closed)? {
                RequestOutcome::Answered(answer) => return Ok(answer),
                RequestOutcome::Refused { reason } => return Err(TollgateError::RequestRefused { reason }),
                RequestOutcome::TimedOut { reason } => return Err(TollgateError::TimedOut { reason }),
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

/// What a request is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was executed now, and this is its response.
    Executed(Bytes),
    /// It had been executed before, and this is the response it got then.
    Replayed(Bytes),
}

impl Answer {
    /// The response.
    pub fn into_response(self) -> Bytes {
        match self {
            Self::Executed(response) | Self::Replayed(response) => response,
        }
    }
}

fn as_json<R, H, F>(handler: H) -> RequestHandler
where
    R: Serialize,
    H: Fn(Tx) -> F + Send + Sync + 'static,
    F: Future<Output = Result<R, HandlerError>> + Send + 'static,
{
    Arc::new(move |tx| {
        let response = handler(tx);
        Box::pin(async move {
            let bytes = serde_json::to_vec(&response.await?).map_err(|error| {
                HandlerError::permanent(format!("the response can't be written as JSON: {error}"))
            })?;
            Ok(Answer::Executed(bytes.into()))
        })
    })
}

fn from_json<R: DeserializeOwned>(answer: Answer) -> Result<R, TollgateError> {
    serde_json::from_slice(&answer.into_response()).map_err(|error| TollgateError::RequestRefused {
        reason: format!("the stored response is not what this request expects: {error}"),
    })
}
