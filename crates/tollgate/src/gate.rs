//! The gate: what a program puts together, opens and closes. It owns the engine's tasks; how they work is not told here.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tollgate_proto::{Blobs, Broker, BrokerError, EndpointName, OutgoingMessage, SideEffect, Store};

use crate::backoff::Backoff;
use crate::broker_client::BrokerClient;
use crate::call_limits::LimitedStore;
use crate::claims::Claims;
use crate::consumer;
use crate::edge::Edge;
use crate::engine::Engine;
use crate::error::TollgateError;
use crate::handler::{CheckedEndpoint, Driver, Endpoint, Message};
use crate::idle_flush;
use crate::in_progress::{self, OldestInProgress};
use crate::lanes::Lanes;
use crate::limited::within;
use crate::negative_cache::NegativeCache;
use crate::own_loop::{SendMessages, SendOnly};
use crate::partition_cache::PartitionCache;
use crate::put_backs::PutBacks;
use crate::republishing::Republished;
use crate::runtime::{Runtime, Tasks};
use crate::settings::{Settings, Sweeps};
use crate::side_effects::SideEffects;
use crate::statistics::{Counters, Statistics};
use crate::store_client::StoreClient;
use crate::topology::Topology;

/// The longest that [`Gate::close`] takes.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(90);

/// The time at the end of a close in which handlers that still run are given up.
const GIVING_UP_TIME_MAX: Duration = Duration::from_secs(2);

/// An open gate: it takes messages from the broker until it is closed, and those that are handed in ([`Gate::process`]).
///
/// Dropping it without [`Gate::close`] leaves its tasks running until the runtime ends; that loses nothing, but work in
/// progress is then finished by others.
pub struct Gate {
    pub(crate) engine: Arc<Engine>,
    closing: CancellationToken,
}

impl Gate {
    /// Starts to put a gate together.
    pub fn builder() -> GateBuilder {
        GateBuilder::default()
    }

    /// The edge for requests in the name of an endpoint.
    ///
    /// # Errors
    /// If the gate has no such endpoint.
    pub fn edge(&self, endpoint: &str) -> Result<Edge, TollgateError> {
        Edge::new(Arc::clone(&self.engine), endpoint)
    }

    /// Whether the stores and the broker can be reached and are configured as they must be: for a readiness probe. It takes a
    /// few calls.
    ///
    /// # Errors
    /// What the first one that is not well says of itself.
    pub async fn verify(&self) -> Result<(), TollgateError> {
        for store in &self.engine.stores {
            store.store().verify().await?;
        }
        for endpoint in self.engine.endpoints.iter().filter(|endpoint| endpoint.driver == Driver::Gate) {
            self.engine.broker.verify(&endpoint.name).await?;
        }
        Ok(())
    }

    /// What the gate has done so far.
    pub fn statistics(&self) -> Statistics {
        self.engine.counters.read()
    }

    /// Looks through the stores for partitions with unfinished work of processes that died, completes it, and deletes
    /// expired deduplication records. Returns how many partitions it visited.
    ///
    /// # Errors
    /// If a store can't be scanned.
    pub async fn sweep(&self) -> Result<usize, TollgateError> {
        Ok(idle_flush::sweep(&self.engine, |_| true).await?)
    }

    /// Sends the message of every outbox entry that has existed for `older_than`, in every store of the gate.
    ///
    /// A token's existence is the right to process its message, so this is safe at any time: a copy that is
    /// still in a queue, or whose message is done, is dropped. It is the repair after a broker has lost a
    /// queue and after a store was restored from a backup. It sends dead-lettered messages as well, since
    /// their tokens stay: `older_than` does not exclude them.
    ///
    /// Each store is scanned, which costs what [`tollgate_proto::Store::scan_price`] says. An entry has no
    /// time of its own, so one look finds the entries, and those that are still there `older_than` later are
    /// sent; zero sends at once.
    ///
    /// # Errors
    /// If a store can't be scanned. The others are done all the same.
    pub async fn republish(&self, older_than: Duration) -> Result<Republished, TollgateError> {
        Ok(self.engine.republish(older_than).await?)
    }

    /// Removes finished entries from control records now, instead of waiting until their partitions have been idle for a
    /// while. Returns how many partitions it visited.
    pub async fn flush(&self) -> usize {
        idle_flush::flush(&self.engine, u64::MAX).await
    }

    /// The message or request that each endpoint has had in progress for the longest time; nothing for endpoints that are idle.
    ///
    /// It is also a gauge, `tollgate_oldest_in_progress_seconds`, and a warning from 30 s on.
    pub fn oldest_in_progress(&self) -> Vec<OldestInProgress> {
        self.engine.oldest_in_progress()
    }

    /// Closes as [`Gate::close_within`] does, within 90 s: as long as a handler may take by default, and what follows it.
    pub async fn close(self) -> Statistics {
        self.close_within(CLOSE_TIME_MAX).await
    }

    /// Stops taking messages, finishes those that were taken, flushes the markers, and waits for every task, for so long at most.
    /// Returns what the gate has done.
    ///
    /// In the last fifth of the time, 2 s at most, handlers that still run are dropped: their messages are put back and their
    /// requests fail. What has not ended by then is counted ([`Statistics::unfinished`]) and logged; it ends by itself at its own
    /// limits, or with the runtime, and others finish it.
    pub async fn close_within(self, limit: Duration) -> Statistics {
        self.closing.cancel();
        let engine = &self.engine;
        let closing = async {
            engine.tasks.join().await;
            // No task is left that could add marks, except those of the flush itself.
            idle_flush::flush(engine, u64::MAX).await;
            engine.tasks.join().await;
        };
        let mut closing = pin!(closing);
        let grace = (limit / 5).min(GIVING_UP_TIME_MAX);
        let runtime = engine.tasks.runtime();
        if within(runtime, limit.saturating_sub(grace), closing.as_mut()).await.is_err() {
            engine.warn_of_the_oldest(
                "the gate is closed while a message is in progress; its handler is dropped",
            );
            engine.giving_up.cancel();
            if within(runtime, grace, closing).await.is_err() {
                engine.counters.unfinished.add(engine.in_progress.len());
                engine.warn_of_the_oldest("the gate has closed with a message in progress");
            }
        }
        engine.counters.read()
    }
}

/// Puts a gate together.
#[derive(Default)]
pub struct GateBuilder {
    stores: Vec<Arc<dyn Store>>,
    broker: Option<Arc<dyn Broker>>,
    sender: Option<SendMessages>,
    blobs: Option<Arc<dyn Blobs>>,
    side_effects: Vec<Arc<dyn SideEffect>>,
    runtime: Option<Arc<dyn Runtime>>,
    endpoints: Vec<Endpoint>,
    topology: Topology,
    settings: Settings,
    problem: Option<TollgateError>,
}

impl GateBuilder {
    /// Adds a store. Endpoints use the first one unless they name another; tokens of all of them are understood.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.stores.push(store);
        self
    }

    /// Sets the broker.
    #[must_use]
    pub fn broker(mut self, broker: Arc<dyn Broker>) -> Self {
        self.broker = Some(broker);
        self
    }

    /// Sets what sends messages, for a gate without a broker: all its endpoints are [`driven`](Endpoint::driven) by the caller.
    ///
    /// The sender gives one answer for each message, in their order. `Ok` means that the message will be delivered, sooner or
    /// later and perhaps more than once; with `Err` it may or may not have been sent, and it is sent again.
    #[must_use]
    pub fn sender<F>(mut self, send: impl Fn(Vec<OutgoingMessage>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Vec<Result<(), BrokerError>>> + Send + 'static,
    {
        self.sender = Some(Box::new(move |messages| Box::pin(send(messages))));
        self
    }

    /// Sets the blob storage: for handlers that use it, and for bodies too large for an item.
    #[must_use]
    pub fn blobs(mut self, blobs: Arc<dyn Blobs>) -> Self {
        self.blobs = Some(blobs);
        self
    }

    /// Adds a kind of side effect, for handlers that prepare some and messages that carry some.
    #[must_use]
    pub fn side_effect(mut self, effect: Arc<dyn SideEffect>) -> Self {
        self.side_effects.push(effect);
        self
    }

    /// Sets where tasks, time and random numbers come from. The default is tokio and the wall clock.
    #[must_use]
    pub fn runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Adds an endpoint that this process consumes.
    #[must_use]
    pub fn endpoint(mut self, endpoint: Endpoint) -> Self {
        self.endpoints.push(endpoint);
        self
    }

    /// Declares that an endpoint, of this process or another, subscribes to events of type `M`: [`crate::Tx::publish`]
    /// sends it one message for each event, for the partition that `partition` computes.
    #[must_use]
    pub fn subscribe<M: Message>(
        mut self,
        endpoint: &str,
        partition: impl Fn(&M) -> String + Send + Sync + 'static,
    ) -> Self {
        match EndpointName::new(endpoint) {
            Ok(endpoint) => self.topology.subscribe::<M>(endpoint, Box::new(partition)),
            Err(error) => self.problem = Some(error.into()),
        }
        self
    }

    /// Memory for views of partitions, in bytes. Default: 64 MiB.
    #[must_use]
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.settings.cache_bytes = bytes;
        self
    }

    /// How many consumed tokens are remembered, about 100 bytes each: a copy of such a message is dropped without asking the
    /// store. 0: none. Default: 200,000.
    #[must_use]
    pub fn consumed_tokens(mut self, tokens: usize) -> Self {
        self.settings.consumed_max = tokens;
        self
    }

    /// Most messages of one partition in one commit, from 1 to 64. Default: 64.
    #[must_use]
    pub fn fold_max(mut self, messages: usize) -> Self {
        self.settings.fold_max = messages;
        self
    }

    /// After this many failures of its handler a message is dead-lettered. Default: 10. Endpoints and message types can have
    /// a policy of their own ([`Endpoint::retry`], [`Endpoint::retry_of`]); [`crate::RetryPolicy`] says what counts.
    #[must_use]
    pub fn deliveries_max(mut self, deliveries: u32) -> Self {
        self.settings.retry.deliveries_max = deliveries;
        self
    }

    /// How long a message that failed is left alone before it is delivered again. Default: 0.1 s doubled up to 60 s.
    #[must_use]
    pub fn redelivery(mut self, backoff: Backoff) -> Self {
        self.settings.retry.backoff = backoff;
        self
    }

    /// How long a partition is left alone before its finished entries are flushed. Default: 5 s.
    #[must_use]
    pub fn flush_after(mut self, idle: Duration) -> Self {
        self.settings.flush_after = idle;
        self
    }

    /// How often the stores are swept for what dead processes have left; `None`: only by [`Gate::sweep`]. Default: every 60 s,
    /// but not the stores whose scans are paid for ([`tollgate_proto::Store::scan_price`]).
    #[must_use]
    pub fn sweep_every(mut self, pause: Option<Duration>) -> Self {
        self.settings.sweeps = pause.map_or(Sweeps::Never, Sweeps::Every);
        self
    }

    /// How long the broker holds a wake-up back, where it can: by then what it guarantees has usually happened without
    /// it. Default: 1 s.
    #[must_use]
    pub fn wake_up_after(mut self, delay: Duration) -> Self {
        self.settings.wake_up_after = delay;
        self
    }

    /// After this time an attempt creates no more side effects. Default: 60 s.
    #[must_use]
    pub fn attempt_max(mut self, duration: Duration) -> Self {
        self.settings.attempt_max = duration;
        self
    }

    /// The time limit of one call to a store. Default: 30 s.
    ///
    /// A call over it counts as failed, a commit as one whose answer was lost. It should be longer than the store's own limits.
    #[must_use]
    pub fn store_call_max(mut self, limit: Duration) -> Self {
        self.settings.calls.store = limit;
        self
    }

    /// The time limit of one call to the broker, except the wait for messages. Default: 60 s.
    ///
    /// Messages of a send over it count as not sent, and are sent again.
    #[must_use]
    pub fn broker_call_max(mut self, limit: Duration) -> Self {
        self.settings.calls.broker = limit;
        self
    }

    /// The time limit of one call to blob storage and of one step of a side effect. Default: 60 s.
    ///
    /// Of a download it is the time between two pieces; uploads and preparations end with their attempt
    /// ([`GateBuilder::attempt_max`]).
    #[must_use]
    pub fn effect_call_max(mut self, limit: Duration) -> Self {
        self.settings.calls.effect = limit;
        self
    }

    /// How long what an attempt has sent off may be under way when the attempt is over: an upload takes effect although its sender has
    /// died or waits no more. What was not confirmed is deleted once more after that time. Default: 30 s.
    #[must_use]
    pub fn under_way_max(mut self, duration: Duration) -> Self {
        self.settings.under_way_max = duration;
        self
    }

    /// Bodies of outgoing messages with more bytes than this are moved to blob storage, if the gate has one, and deleted there
    /// when their message is done; handlers see no difference. Default: 256 KiB. Bodies that the store would not take are
    /// moved in any case.
    #[must_use]
    pub fn inline_bytes_max(mut self, bytes: usize) -> Self {
        self.settings.inline_bytes_max = bytes;
        self
    }

    /// Most bytes of a blob that a handler stores. Default: 5 GiB.
    #[must_use]
    pub fn blob_bytes_max(mut self, bytes: u64) -> Self {
        self.settings.blob_bytes_max = bytes;
        self
    }

    /// Most bytes of a body that was moved to blob storage: its handler gets it as a whole, so this bounds memory.
    /// Default: 64 MiB.
    #[must_use]
    pub fn body_bytes_max(mut self, bytes: usize) -> Self {
        self.settings.body_bytes_max = bytes;
        self
    }

    /// Checks everything, verifies the stores and the queues of its endpoints, and starts to take messages.
    ///
    /// # Errors
    /// [`TollgateError::Configuration`] if something is missing or contradicts itself, or what a store or the broker says of
    /// itself.
    pub async fn open(self) -> Result<Gate, TollgateError> {
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        let tasks = Tasks::new(self.runtime.map_or_else(default_runtime, Ok)?);
        let (broker, has_queues) = broker_or_sender(self.broker, self.sender)?;
        if self.stores.is_empty() {
            return Err(TollgateError::Configuration("it has no store".into()));
        }
        self.settings.check()?;
        let calls = self.settings.calls;
        let stores = verified_stores(self.stores, &tasks, calls.store).await?;
        let endpoints = check_endpoints(self.endpoints, &stores, has_queues)?;
        let counters = Arc::new(Counters::new());
        let names = endpoints.iter().map(|endpoint| &endpoint.name);
        let broker = BrokerClient::new(&broker, names, &tasks, Arc::clone(&counters), calls.broker);
        for endpoint in endpoints.iter().filter(|endpoint| endpoint.driver == Driver::Gate) {
            broker.verify(&endpoint.name).await?;
        }
        let effects = SideEffects::new(self.blobs, self.side_effects, &tasks, &counters, calls.effect)?;
        let stores = stores
            .into_iter()
            .map(|store| StoreClient::new(store, tasks.clone(), Arc::clone(&counters)))
            .collect();
        let engine = Arc::new(Engine {
            cache: PartitionCache::new(self.settings.cache_bytes),
            consumed: NegativeCache::new(self.settings.consumed_max),
            put_backs: PutBacks::default(),
            settings: self.settings,
            endpoints,
            topology: self.topology,
            stores,
            broker,
            effects,
            lanes: Lanes::default(),
            in_progress: Arc::default(),
            giving_up: CancellationToken::new(),
            counters,
            process: tasks.runtime().random(),
            claims: Claims::default(),
            serial: AtomicU64::new(0),
            tasks,
        });
        let closing = CancellationToken::new();
        for (endpoint, checked) in engine.endpoints.iter().enumerate() {
            if checked.driver == Driver::Gate {
                engine.tasks.spawn(consumer::consume(Arc::clone(&engine), endpoint, closing.clone()));
            }
        }
        engine.tasks.spawn(in_progress::watch(Arc::clone(&engine), closing.clone()));
        engine.tasks.spawn(idle_flush::flush_idle(Arc::clone(&engine), closing.clone()));
        engine.tasks.spawn(idle_flush::sweep_regularly(Arc::clone(&engine), closing.clone()));
        engine.tasks.spawn(idle_flush::retry_unfinished(Arc::clone(&engine), closing.clone()));
        Ok(Gate { engine, closing })
    }
}

/// The broker of a gate, and whether it has queues to take messages from.
fn broker_or_sender(
    broker: Option<Arc<dyn Broker>>,
    sender: Option<SendMessages>,
) -> Result<(Arc<dyn Broker>, bool), TollgateError> {
    match (broker, sender) {
        (Some(broker), None) => Ok((broker, true)),
        (None, Some(send)) => Ok((Arc::new(SendOnly { send }), false)),
        (None, None) => {
            let problem = "it has no broker, and no sender for what its handlers send";
            Err(TollgateError::Configuration(problem.into()))
        }
        (Some(_), Some(_)) => {
            let problem = "it has a broker and a sender: which of them is to send?";
            Err(TollgateError::Configuration(problem.into()))
        }
    }
}

/// The stores, each of whose calls ends, after they have said that they are as they must be.
async fn verified_stores(
    stores: Vec<Arc<dyn Store>>,
    tasks: &Tasks,
    limit: Duration,
) -> Result<Vec<Arc<dyn Store>>, TollgateError> {
    let mut verified: Vec<Arc<dyn Store>> = Vec::with_capacity(stores.len());
    for inner in stores {
        if verified.iter().any(|known| known.alias() == inner.alias()) {
            let problem =
                format!("two stores have the alias {}: tokens could not tell them apart", inner.alias());
            return Err(TollgateError::Configuration(problem));
        }
        let store: Arc<dyn Store> = Arc::new(LimitedStore { inner, tasks: tasks.clone(), limit });
        store.verify().await?;
        verified.push(store);
    }
    Ok(verified)
}

fn check_endpoints(
    endpoints: Vec<Endpoint>,
    stores: &[Arc<dyn Store>],
    has_queues: bool,
) -> Result<Vec<CheckedEndpoint>, TollgateError> {
    let mut checked: Vec<CheckedEndpoint> = Vec::with_capacity(endpoints.len());
    for endpoint in endpoints {
        let store = match &endpoint.store {
            None => 0,
            Some(alias) => {
                stores.iter().position(|known| known.alias().as_str() == alias).ok_or_else(|| {
                    TollgateError::Configuration(format!(
                        "endpoint {} uses store {alias}, which the gate does not have",
                        endpoint.name
                    ))
                })?
            }
        };
        let endpoint = CheckedEndpoint::check(endpoint, store)?;
        let name = &endpoint.name;
        if checked.iter().any(|known| known.name == *name) {
            return Err(TollgateError::Configuration(format!("endpoint {name} is declared twice")));
        }
        if endpoint.driver == Driver::Gate && !has_queues {
            return Err(TollgateError::Configuration(format!(
                "endpoint {name} takes its messages from a broker, and the gate has only a sender: give it a broker, or leave the \
                 loop to the caller (Endpoint::driven)"
            )));
        }
        checked.push(endpoint);
    }
    Ok(checked)
}

#[cfg(feature = "tokio-runtime")]
#[allow(clippy::unnecessary_wraps, reason = "without the feature there is no default, and that is an error")]
fn default_runtime() -> Result<Arc<dyn Runtime>, TollgateError> {
    Ok(Arc::new(crate::runtime::TokioRuntime::new()))
}

#[cfg(not(feature = "tokio-runtime"))]
fn default_runtime() -> Result<Arc<dyn Runtime>, TollgateError> {
    Err(TollgateError::Configuration("it has no runtime, and the feature `tokio-runtime` is off".into()))
}
