//! The wires between the processes and what they call: every call takes a seeded time before its effect and again before its
//! answer, so that calls overtake each other; it is taken down in the run's trace, and some fail. An upload whose last byte was sent
//! takes effect whatever becomes of whoever sent it.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use foldhash::quality::FixedState;
use tokio::sync::oneshot;
use tollgate_proto::blobs::{collect, whole};
use tollgate_proto::control_record::RegistrationState;
use tollgate_proto::{
    BlobError, BlobStream, Blobs, BoxFuture, Broker, BrokerError, BrokerWrapper, Commit, CommitOutcome,
    Delivery, EffectName, EndpointName, EntryRead, LoadRequest, LoadedPartition, OutgoingMessage, ScanCursor,
    ScanPage, SessionMark, Settlement, Store, StoreError, StoreWrapper, TokenRef, codec,
};

use super::faults::{FaultTally, Faults};

/// How long a call takes that takes very long: longer than the broker's patience.
const SPIKE_MAX: Duration = Duration::from_secs(20);

/// What all wires of a run share: the dice, the trace and the tally.
pub(super) struct Wires {
    faults: Faults,
    state: Mutex<WireState>,
    began: tokio::time::Instant,
}

struct WireState {
    random: fastrand::Rng,
    trace: foldhash::quality::FoldHasher<'static>,
    tally: FaultTally,
    blobs: BlobBook,
    panic: Option<String>,
}

/// What was seen of blobs and of the attempts that registered them.
#[derive(Default)]
struct BlobBook {
    made: BTreeSet<EffectName>,
    deleted: BTreeSet<EffectName>,
    /// Of attempts that have lost.
    condemned: BTreeSet<EffectName>,
}

impl Wires {
    pub(super) fn new(faults: Faults, seed: u64, began: tokio::time::Instant) -> Arc<Self> {
        let state = WireState {
            random: fastrand::Rng::with_seed(seed),
            trace: FixedState::with_seed(0).build_hasher(),
            tally: FaultTally::default(),
            blobs: BlobBook::default(),
            panic: None,
        };
        Arc::new(Self { faults, state: Mutex::new(state), began })
    }

    /// Something to be counted.
    pub(super) fn count(&self, what: impl FnOnce(&mut FaultTally)) {
        what(&mut self.lock().tally);
    }

    pub(super) fn tally(&self) -> FaultTally {
        let state = self.lock();
        let of_losers = state.blobs.made.intersection(&state.blobs.condemned).count();
        FaultTally { blobs_of_losers: of_losers as u64, ..state.tally }
    }

    /// Something of a process has panicked, which nobody else would hear of.
    pub(super) fn panicked(&self, text: String) {
        self.lock().panic.get_or_insert(text);
    }

    /// The first panic.
    pub(super) fn panic(&self) -> Option<String> {
        self.lock().panic.clone()
    }

    /// A random duration, at most so long.
    pub(super) fn random_duration(&self, max: Duration) -> Duration {
        micros(&mut self.lock().random, max)
    }

    /// A blob is there now.
    fn blob_made(&self, name: &EffectName, maker: Maker) {
        let mut state = self.lock();
        state.tally.blobs_made += 1;
        state.tally.uploads_of_the_gone += u64::from(maker == Maker::Gone);
        state.tally.blobs_made_after_their_clean_up += u64::from(state.blobs.deleted.contains(name));
        state.blobs.made.insert(name.clone());
    }

    /// A control record was written, in which it can be seen which attempts have lost.
    fn note_condemned(&self, control: &Bytes) {
        let Ok(control) = codec::decode_control(control) else { return };
        let lost = control.registrations.into_iter().filter(|r| r.state == RegistrationState::Condemned);
        self.lock().blobs.condemned.extend(lost.map(|registration| registration.name));
    }

    pub(super) fn trace(&self) -> u64 {
        self.lock().trace.finish()
    }

    /// Throws the dice of this run.
    pub(super) fn unlucky(&self, rate: f64) -> bool {
        let rate = if self.faults.failing_calls > 0.0 { rate } else { 0.0 };
        rate > 0.0 && self.lock().random.f64() < rate
    }

    /// Takes something down in the trace.
    pub(super) fn note(&self, what: &str, about: &impl Hash) {
        let now = self.began.elapsed();
        let mut state = self.lock();
        (what, now).hash(&mut state.trace);
        about.hash(&mut state.trace);
    }

    /// Whether a handler never returns.
    pub(super) fn handler_hangs(&self) -> bool {
        self.draws(self.faults.hanging_handlers)
    }

    /// Whether a call is never answered, and how.
    fn hang(&self) -> Option<Hang> {
        if !self.draws(self.faults.hanging_calls) {
            return None;
        }
        // A lock in the head of the `match` would be held in its arms.
        let way = self.lock().random.u8(0..3);
        let hang = match way {
            0 => Hang::Before,
            1 => Hang::After,
            _ => Hang::Late(self.random_duration(LATE_MAX)),
        };
        Some(hang)
    }

    fn draws(&self, rate: f64) -> bool {
        rate > 0.0 && self.lock().random.f64() < rate
    }

    /// A call that may never be answered. Its effect, if it has one, happens whatever becomes of the caller.
    async fn call_or_hang<T: Send + 'static>(
        self: &Arc<Self>,
        what: &'static str,
        about: impl Hash,
        tally: fn(&mut FaultTally),
        effect: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let Some(hang) = self.hang() else { return self.call(what, about, effect).await };
        self.count(tally);
        self.note(what, &about);
        match hang {
            Hang::Before => {}
            Hang::After => {
                self.wait().await;
                effect.await;
            }
            Hang::Late(after) => {
                let wires = Arc::clone(self);
                // Not a task of the process: it goes on when the process has died.
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    wires.note("late", &what);
                    effect.await;
                    wires.count(|tally| tally.late_effects += 1);
                });
            }
        }
        std::future::pending().await
    }

    fn fails(&self) -> bool {
        self.unlucky(self.faults.failing_calls)
    }

    async fn wait(&self) {
        let wait = {
            let mut state = self.lock();
            let rate = self.faults.latency_spikes;
            if rate > 0.0 && state.random.f64() < rate {
                state.tally.latency_spikes += 1;
                micros(&mut state.random, SPIKE_MAX)
            } else {
                micros(&mut state.random, self.faults.latency_max)
            }
        };
        tokio::time::sleep(wait).await;
    }

    /// A call: what it waits for before, its effect, and what its answer waits for.
    async fn call<T>(&self, what: &'static str, about: impl Hash, effect: impl Future<Output = T>) -> T {
        self.note(what, &about);
        self.wait().await;
        let answer = effect.await;
        self.wait().await;
        answer
    }

    fn lock(&self) -> MutexGuard<'_, WireState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What becomes of a call that is never answered.
#[derive(Clone, Copy)]
enum Hang {
    /// It has no effect.
    Before,
    /// It has taken effect.
    After,
    /// It takes effect later, when its caller may have given it up.
    Late(Duration),
}

/// The longest that the effect of a call that is not answered is under way: longer than its caller waits.
const LATE_MAX: Duration = Duration::from_secs(15);

/// The sender of an upload.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Maker {
    Waiting,
    /// It has died, or has stopped waiting.
    Gone,
}

fn micros(random: &mut fastrand::Rng, max: Duration) -> Duration {
    Duration::from_micros(random.u64(0..=u64::try_from(max.as_micros()).unwrap_or(u64::MAX)))
}

/// A store at the end of a wire.
pub(super) struct WiredStore {
    pub(super) inner: Arc<dyn Store>,
    pub(super) wires: Arc<Wires>,
}

impl StoreWrapper for WiredStore {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    fn load(&self, requests: Vec<LoadRequest>) -> BoxFuture<'_, Vec<Result<LoadedPartition, StoreError>>> {
        let (inner, about) = (Arc::clone(&self.inner), requests.clone());
        let load = async move { inner.load(requests).await };
        Box::pin(self.wires.call_or_hang("load", about, |tally| tally.hanging_store_calls += 1, load))
    }

    fn read_entries(&self, reads: Vec<EntryRead>) -> BoxFuture<'_, Vec<Result<Option<Bytes>, StoreError>>> {
        let (inner, about) = (Arc::clone(&self.inner), reads.clone());
        let read = async move { inner.read_entries(reads).await };
        Box::pin(self.wires.call_or_hang("read", about, |tally| tally.hanging_store_calls += 1, read))
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, StoreError>> {
        let (inner, wires, about) = (Arc::clone(&self.inner), Arc::clone(&self.wires), commit.clone());
        let control = commit.control.clone();
        let committing = async move {
            let answer = inner.commit(commit).await;
            if matches!(answer, Ok(CommitOutcome::Committed { .. })) {
                wires.note_condemned(&control);
            }
            answer
        };
        Box::pin(self.wires.call_or_hang("commit", about, |tally| tally.hanging_store_calls += 1, committing))
    }

    fn delete_entries(
        &self,
        tokens: Vec<TokenRef>,
    ) -> BoxFuture<'_, Vec<Result<Option<SessionMark>, StoreError>>> {
        let (inner, about) = (Arc::clone(&self.inner), tokens.clone());
        let delete = async move { inner.delete_entries(tokens).await };
        Box::pin(self.wires.call_or_hang("delete", about, |tally| tally.hanging_store_calls += 1, delete))
    }

    fn scan(&self, cursor: Option<ScanCursor>, limit: usize) -> BoxFuture<'_, Result<ScanPage, StoreError>> {
        Box::pin(async move { self.wires.call("scan", limit, self.inner.scan(cursor, limit)).await })
    }
}

/// A broker at the end of a wire.
pub(super) struct WiredBroker {
    pub(super) inner: Arc<dyn Broker>,
    pub(super) wires: Arc<Wires>,
}

impl BrokerWrapper for WiredBroker {
    fn inner(&self) -> &dyn Broker {
        &*self.inner
    }

    fn send(&self, messages: Vec<OutgoingMessage>) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        let (inner, about) = (Arc::clone(&self.inner), messages.clone());
        let send = async move { inner.send(messages).await };
        Box::pin(self.wires.call_or_hang("send", about, |tally| tally.hanging_broker_calls += 1, send))
    }

    fn receive(
        &self,
        endpoint: &EndpointName,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<Delivery>, BrokerError>> {
        let endpoint = endpoint.clone();
        Box::pin(async move {
            // Waiting for messages is not a call that takes time by itself: only what it brings is under way.
            let received = self.inner.receive(&endpoint, max).await;
            if self.wires.fails() {
                // What it brought comes again when the broker's patience has ended.
                self.wires.count(|tally| tally.receives_failed += 1);
                let reason = "the connection broke".to_owned();
                return Err(BrokerError::Unavailable { endpoint, reason });
            }
            self.wires.note("receive", &received.as_ref().map_or(0, Vec::len));
            self.wires.wait().await;
            received
        })
    }

    fn settle(
        &self,
        endpoint: &EndpointName,
        settlements: Vec<Settlement>,
    ) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        let (inner, about, endpoint) = (Arc::clone(&self.inner), settlements.clone(), endpoint.clone());
        let settle = async move { inner.settle(&endpoint, settlements).await };
        Box::pin(self.wires.call_or_hang("settle", about, |tally| tally.hanging_broker_calls += 1, settle))
    }
}

/// Blob storage at the end of a wire, which fails like the others.
pub(super) struct WiredBlobs {
    pub(super) inner: Arc<dyn Blobs>,
    pub(super) wires: Arc<Wires>,
}

impl WiredBlobs {
    async fn try_to<T>(
        &self,
        name: EffectName,
        call: impl Future<Output = Result<T, BlobError>>,
    ) -> Result<T, BlobError> {
        if self.wires.fails() {
            self.wires.count(|tally| tally.blobs_failed_before += 1);
            return Err(unavailable(name));
        }
        let hang = self.wires.hang();
        if hang.is_some() {
            self.wires.count(|tally| tally.hanging_blob_calls += 1);
        }
        if matches!(hang, Some(Hang::Before)) {
            std::future::pending::<()>().await;
        }
        let answer = call.await;
        if hang.is_some() {
            std::future::pending::<()>().await;
        }
        if self.wires.fails() {
            self.wires.count(|tally| tally.blobs_failed_after += 1);
            return Err(unavailable(name));
        }
        answer
    }

    /// An upload whose content was sent as a whole: on its way to the storage.
    async fn upload(&self, name: EffectName, content: Bytes) -> Result<(), BlobError> {
        let (inner, wires) = (Arc::clone(&self.inner), Arc::clone(&self.wires));
        let (answering, answer) = oneshot::channel();
        let sent = name.clone();
        // Not a task of the process: it goes on when the process has died.
        tokio::spawn(async move {
            wires.note("put", &sent.as_str());
            wires.wait().await;
            let maker = if answering.is_closed() { Maker::Gone } else { Maker::Waiting };
            let answer = inner.put(&sent, whole(content)).await;
            wires.blob_made(&sent, maker);
            wires.wait().await;
            drop(answering.send(answer));
        });
        answer.await.unwrap_or_else(|_| Err(unavailable(name)))
    }
}

impl Blobs for WiredBlobs {
    fn put(&self, name: &EffectName, content: BlobStream) -> BoxFuture<'_, Result<(), BlobError>> {
        let name = name.clone();
        Box::pin(async move {
            let content = collect(&name, content, usize::MAX).await?;
            self.try_to(name.clone(), self.upload(name, content)).await
        })
    }

    fn get(&self, name: &EffectName) -> BoxFuture<'_, Result<Option<BlobStream>, BlobError>> {
        let name = name.clone();
        Box::pin(async move {
            let call = self.wires.call("get", name.as_str(), self.inner.get(&name));
            self.try_to(name.clone(), call).await
        })
    }

    fn delete(&self, name: &EffectName) -> BoxFuture<'_, Result<(), BlobError>> {
        let name = name.clone();
        Box::pin(async move {
            let call = self.wires.call("remove", name.as_str(), async {
                let answer = self.inner.delete(&name).await;
                self.wires.lock().blobs.deleted.insert(name.clone());
                answer
            });
            self.try_to(name.clone(), call).await
        })
    }

    fn list(&self, prefix: &str) -> BoxFuture<'_, Result<Vec<EffectName>, BlobError>> {
        self.inner.list(prefix)
    }
}

fn unavailable(name: EffectName) -> BlobError {
    BlobError::Unavailable { name, reason: "the connection broke".to_owned() }
}
