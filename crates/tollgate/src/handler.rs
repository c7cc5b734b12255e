//! Handlers: what users write. A handler gets one message and a transaction over one partition; it is found by endpoint
//! and message type. How it is run, how often and when, is not decided here.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foldhash::fast::RandomState;
use futures_util::FutureExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tollgate_proto::{BoxFuture, EndpointName, ItemName, MessageType};

use crate::error::{HandlerError, TollgateError};
use crate::retry_policy::RetryPolicy;
use crate::transaction::Tx;

/// A message: anything that serde can write and read, with a type name that every process agrees on.
///
/// ```
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct PlaceOrder {
///     amount_cents: u64,
/// }
///
/// impl tollgate::Message for PlaceOrder {
///     const TYPE: &'static str = "shop.place-order";
/// }
/// ```
pub trait Message: Serialize + DeserializeOwned + Send + 'static {
    /// The name under which it travels. Never reuse one for something else.
    const TYPE: &'static str;
}

/// How messages that carry no token are deduplicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deduplicate {
    /// By their id, for producers that know no tokens. The guarantee holds within the retention and no longer.
    ByIdentity {
        /// How long an id is remembered.
        retention: Duration,
    },
    /// Not at all: the handler is idempotent, says its author. What it sends is sent each time it runs.
    Natural,
}

/// A logical consumer: a queue, the handlers of its messages, and how many messages it takes at a time.
pub struct Endpoint {
    pub(crate) name: String,
    pub(crate) handlers: Vec<(&'static str, Box<dyn AnyHandler>, Option<Deduplicate>)>,
    pub(crate) preload: Vec<String>,
    pub(crate) concurrency: usize,
    pub(crate) store: Option<String>,
    pub(crate) foreign: Option<ForeignReader>,
    pub(crate) driver: Driver,
    pub(crate) handler_time_max: Duration,
    pub(crate) requests_max: usize,
    pub(crate) retry: Option<RetryPolicy>,
    pub(crate) retry_of: Vec<(&'static str, RetryPolicy)>,
}

/// Who delivers an endpoint's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    /// The gate takes them from the broker.
    Gate,
    /// The caller hands them in.
    Caller,
}

/// Makes sense of a broker message that is no envelope of Tollgate's.
pub(crate) type ForeignReader = Box<dyn Fn(&Bytes) -> Result<Foreign, String> + Send + Sync>;

/// A message of a producer that knows nothing of Tollgate: what its bytes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// What its producer recognises it by. It is deduplicated by this, so it must be the same in every copy.
    pub id: String,
    /// The partition that handles it.
    pub partition: String,
    /// The type that selects the handler, declared with [`Endpoint::on_tokenless`].
    pub message_type: String,
    /// The body, as JSON that the handler's message type understands.
    pub body: Bytes,
}

/// Messages of one endpoint in flight at a time, unless it says otherwise.
pub const CONCURRENCY_DEFAULT: usize = 256;

/// Requests that an endpoint's edges take at a time, unless it says otherwise.
pub const REQUESTS_MAX_DEFAULT: usize = 4096;

/// The part of an endpoint's window that one partition's waiting messages may fill: others are parked.
const SHARE: usize = 4;

/// The smallest share: below it there is nothing to divide.
const SHARE_MIN: usize = 16;

/// Windows' worth of messages that wait for their partitions without a place in the window.
const PARKED_WINDOWS: usize = 4;

/// The part of the requests taken that may wait for one partition.
const REQUESTS_SHARE: usize = 4;

/// The time after which a handler is dropped, unless its endpoint says otherwise.
pub const HANDLER_TIME_MAX_DEFAULT: Duration = Duration::from_secs(60);

impl Endpoint {
    /// An endpoint without handlers. It can serve as an edge as it is.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            handlers: Vec::new(),
            preload: Vec::new(),
            concurrency: CONCURRENCY_DEFAULT,
            store: None,
            foreign: None,
            driver: Driver::Gate,
            handler_time_max: HANDLER_TIME_MAX_DEFAULT,
            requests_max: REQUESTS_MAX_DEFAULT,
            retry: None,
            retry_of: Vec::new(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Handles messages of type `M` by their token.
    #[must_use]
    pub fn on<M, H, F>(mut self, handler: H) -> Self
    where
        M: Message,
        H: Fn(Tx, M) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.handlers.push((M::TYPE, Box::new(Typed { handler, message: PhantomData }), None));
        self
    }

    /// Handles messages of type `M` that carry no token as well; those that do are deduplicated by it.
    #[must_use]
    pub fn on_tokenless<M, H, F>(mut self, deduplicate: Deduplicate, handler: H) -> Self
    where
        M: Message,
        H: Fn(Tx, M) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.handlers.push((M::TYPE, Box::new(Typed { handler, message: PhantomData }), Some(deduplicate)));
        self
    }

    /// Takes messages that are no envelopes of Tollgate's: from producers that know nothing of it. `read` says what such
    /// bytes mean, or why they mean nothing; then they are put back, since another release may know them, and dead-lettered at the
    /// limit of deliveries. They carry no token, so their type must be
    /// declared with [`Endpoint::on_tokenless`]; what their handlers send is deduplicated by token like everything else.
    #[must_use]
    pub fn foreign(
        mut self,
        read: impl Fn(&Bytes) -> Result<Foreign, String> + Send + Sync + 'static,
    ) -> Self {
        self.foreign = Some(Box::new(read));
        self
    }

    /// Names an item that handlers need: it is loaded together with the control record. Others are read when a handler
    /// asks for them, which costs one more call when the partition is not cached.
    #[must_use]
    pub fn preload(mut self, item: impl Into<String>) -> Self {
        self.preload.push(item.into());
        self
    }

    /// Leaves the loop to the caller: the gate takes no messages of this endpoint from the broker, they are handed in with
    /// [`Gate::process`](crate::Gate::process).
    #[must_use]
    pub fn driven(mut self) -> Self {
        self.driver = Driver::Caller;
        self
    }

    /// The most messages that are processed at a time: taken from the broker, or handed in, and not committed yet. Default: 256.
    ///
    /// As many again may be committed and wait for their outputs to be sent and their tokens to be consumed. A partition for which
    /// more than a quarter of the window waits parks what comes for it beyond that, up to four windows in all, so that a burst for
    /// one partition leaves room for the others. So up to six times as many deliveries are not settled.
    #[must_use]
    pub fn concurrency(mut self, messages: usize) -> Self {
        self.concurrency = messages;
        self
    }

    /// The time limit of one run of a handler. Default: 60 s.
    ///
    /// A handler that is not done by then is dropped, at whatever it awaits, and nothing of it commits: the message is put back,
    /// which counts as a delivery; a request fails with [`TollgateError::TimedOut`]. Its partition goes on. Code that does not
    /// await can't be dropped: give it to a thread of its own.
    #[must_use]
    pub fn handler_time_max(mut self, limit: Duration) -> Self {
        self.handler_time_max = limit;
        self
    }

    /// The most requests that this endpoint's edges have waiting or running at a time. Default: 4,096.
    ///
    /// A quarter of them may be for one partition. More are refused at once with [`TollgateError::Overloaded`].
    #[must_use]
    pub fn requests_max(mut self, requests: usize) -> Self {
        self.requests_max = requests;
        self
    }

    /// Sets how often this endpoint's messages are tried, instead of the gate's policy.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = Some(policy);
        self
    }

    /// Sets how often messages of type `M` are tried, instead of the endpoint's policy. The endpoint must handle them.
    #[must_use]
    pub fn retry_of<M: Message>(mut self, policy: RetryPolicy) -> Self {
        self.retry_of.push((M::TYPE, policy));
        self
    }

    /// The alias of the store that holds this endpoint's partitions, where a gate has several. The first otherwise.
    #[must_use]
    pub fn store(mut self, alias: impl Into<String>) -> Self {
        self.store = Some(alias.into());
        self
    }
}

/// A handler whose message type has been forgotten.
pub(crate) trait AnyHandler: Send + Sync {
    fn handle(&self, tx: Tx, body: &Bytes) -> BoxFuture<'static, Result<(), HandlerError>>;
}

struct Typed<M, H> {
    handler: H,
    message: PhantomData<fn(M)>,
}

impl<M, H, F> AnyHandler for Typed<M, H>
where
    M: Message,
    H: Fn(Tx, M) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), HandlerError>> + Send + 'static,
{
    fn handle(&self, tx: Tx, body: &Bytes) -> BoxFuture<'static, Result<(), HandlerError>> {
        match serde_json::from_slice(body) {
            Ok(message) => Box::pin((self.handler)(tx, message)),
            Err(error) => {
                // A later version of its sender may have written it, and a later version of this process may read it.
                tracing::warn!(
                    endpoint = %tx.endpoint(), message_type = M::TYPE, message_id = %tx.message_id(), %error,
                    "message body not readable; put back"
                );
                let error = HandlerError::retry(format!("the body is not a {}: {error}", M::TYPE));
                std::future::ready(Err(error)).boxed()
            }
        }
    }
}

/// An endpoint whose names have been checked.
pub(crate) struct CheckedEndpoint {
    pub(crate) name: EndpointName,
    pub(crate) handlers: HashMap<MessageType, CheckedHandler, RandomState>,
    pub(crate) preload: Vec<ItemName>,
    pub(crate) concurrency: usize,
    /// Room for messages that are processed, as many as `concurrency` says.
    pub(crate) window: Arc<Semaphore>,
    /// Room for messages that are committed and not settled: they leave the window of those that are processed, unless there
    /// are as many of them.
    pub(crate) finishing: Arc<Semaphore>,
    /// Room for messages that wait for a partition which has its share of the window.
    pub(crate) parked: Arc<Semaphore>,
    /// Messages of one partition that wait in the window.
    pub(crate) share: usize,
    /// Room for requests.
    pub(crate) requests: Arc<Semaphore>,
    pub(crate) requests_max: usize,
    pub(crate) foreign: Option<ForeignReader>,
    pub(crate) driver: Driver,
    pub(crate) handler_time_max: Duration,
    /// Index of the store among the gate's.
    pub(crate) store: usize,
    /// `None`: the gate's.
    pub(crate) retry: Option<RetryPolicy>,
}

pub(crate) struct CheckedHandler {
    pub(crate) handler: Box<dyn AnyHandler>,
    pub(crate) tokenless: Option<Deduplicate>,
    /// `None`: the endpoint's.
    pub(crate) retry: Option<RetryPolicy>,
}

impl CheckedEndpoint {
    /// The most requests that wait for one partition.
    pub(crate) fn partition_requests_max(&self) -> usize {
        (self.requests_max / REQUESTS_SHARE).max(1)
    }

    pub(crate) fn check(endpoint: Endpoint, store: usize) -> Result<Self, TollgateError> {
        let name = EndpointName::new(&endpoint.name)?;
        if endpoint.concurrency == 0 {
            return Err(TollgateError::Configuration(format!(
                "endpoint {name} has a concurrency of 0 and would never process anything"
            )));
        }
        let mut handlers: HashMap<MessageType, CheckedHandler, RandomState> = HashMap::default();
        for (message_type, handler, tokenless) in endpoint.handlers {
            let message_type = MessageType::new(message_type)?;
            if handlers
                .insert(message_type.clone(), CheckedHandler { handler, tokenless, retry: None })
                .is_some()
            {
                return Err(TollgateError::Configuration(format!(
                    "endpoint {name} has two handlers for message type {message_type}"
                )));
            }
        }
        if let Some(policy) = &endpoint.retry {
            policy.check(&format!("endpoint {name}"))?;
        }
        for (message_type, policy) in endpoint.retry_of {
            policy.check(&format!("message type {message_type} of endpoint {name}"))?;
            let handler = handlers.get_mut(&MessageType::new(message_type)?).ok_or_else(|| {
                TollgateError::Configuration(format!(
                    "endpoint {name} has a retry policy for message type {message_type}, and no handler for it"
                ))
            })?;
            handler.retry = Some(policy);
        }
        let preload = endpoint.preload.iter().map(ItemName::new).collect::<Result<Vec<_>, _>>()?;
        let Endpoint { concurrency, foreign, driver, handler_time_max, requests_max, retry, .. } = endpoint;
        let concurrency = concurrency.min(Semaphore::MAX_PERMITS);
        let window = Arc::new(Semaphore::new(concurrency));
        let finishing = Arc::new(Semaphore::new(concurrency));
        let parked = concurrency.saturating_mul(PARKED_WINDOWS).min(Semaphore::MAX_PERMITS);
        let requests_max = requests_max.min(Semaphore::MAX_PERMITS);
        Ok(Self {
            name,
            handlers,
            preload,
            concurrency,
            window,
            finishing,
            parked: Arc::new(Semaphore::new(parked)),
            share: (concurrency / SHARE).max(SHARE_MIN).min(concurrency),
            requests: Arc::new(Semaphore::new(requests_max)),
            requests_max,
            foreign,
            driver,
            handler_time_max,
            store,
            retry,
        })
    }
}
