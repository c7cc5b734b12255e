//! One life of a process: every call that it makes to a store, to a broker or over the network is a numbered step, and one of
//! them may go wrong. A process that has died makes no call any more; it just stops, as processes do. One that stalls goes on
//! when everybody has long forgotten it: a zombie.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tollgate::proto::blobs::BlobStream;
use tollgate::proto::{
    BlobError, BoxFuture, BrokerError, BrokerWrapper, Commit, CommitOutcome, Delivery, EffectName,
    EndpointName, EntryRead, LoadRequest, LoadedPartition, OutgoingMessage, ScanCursor, ScanPage,
    SessionMark, Settlement, StoreError, StoreWrapper, TokenRef,
};
use tollgate::{Blobs, Broker, Store};

/// How long a stalled process stalls: longer than all deadlines of the scene.
const STALL: Duration = Duration::from_secs(100);

/// How long a process that has stalled may be busy with what it was about to do.
const AFTERMATH: Duration = Duration::from_secs(60);

/// What goes wrong at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// The process dies before it makes the call.
    CrashBefore,
    /// The process dies when the call has had its effect.
    CrashAfter,
    /// The process stalls before it makes the call, and makes it when another one has taken its place and all deadlines are past.
    StallBefore,
    /// The process stalls when the call has had its effect, and goes on with the answer.
    StallAfter,
    /// The call does not get through.
    LostBefore,
    /// The call has its effect, and its answer is lost.
    LostAfter,
    /// The call is made twice: a broker's duplicate, a proxy's retry.
    Twice,
    /// A copy of the call gets through a moment later as well.
    CopySoon,
    /// A copy of the call gets through when everything is over.
    CopyLate,
    /// The call is answered with 503, and has no effect.
    Busy,
    /// The call has its effect, and is answered with 502 all the same.
    BadGateway,
}

/// What kind of call a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Store,
    Blob,
    Send,
    Settle,
    Http,
}

impl Call {
    /// What can go wrong with it.
    pub fn faults(self) -> &'static [Fault] {
        use Fault::{
            BadGateway, Busy, CopyLate, CopySoon, CrashAfter, CrashBefore, LostAfter, LostBefore, StallAfter,
            StallBefore, Twice,
        };
        match self {
            Self::Store | Self::Blob | Self::Settle => {
                &[CrashBefore, CrashAfter, StallBefore, StallAfter, LostBefore, LostAfter]
            }
            Self::Send => &[CrashBefore, CrashAfter, StallBefore, StallAfter, LostBefore, LostAfter, Twice],
            Self::Http => &[
                CrashBefore,
                CrashAfter,
                StallBefore,
                StallAfter,
                LostBefore,
                LostAfter,
                Twice,
                CopySoon,
                CopyLate,
                Busy,
                BadGateway,
            ],
        }
    }
}

/// A life.
#[derive(Default)]
pub struct Life {
    plan: Option<(usize, Fault)>,
    steps: Mutex<Vec<(Call, String)>>,
    dead: AtomicBool,
    stalled_until: Mutex<Option<Instant>>,
    spared: AtomicBool,
}

impl Life {
    pub fn new(plan: Option<(usize, Fault)>) -> Arc<Self> {
        Arc::new(Self { plan, ..Self::default() })
    }

    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// Whether it stalls now.
    fn is_stalled(&self) -> bool {
        self.stalled_until.lock().unwrap().is_some_and(|until| Instant::now() < until)
    }

    /// Whether it stalls now, or has gone on so shortly ago that it may still be busy with what it was about to do.
    pub fn is_up_to_something(&self) -> bool {
        self.stalled_until.lock().unwrap().is_some_and(|until| Instant::now() < until + AFTERMATH)
    }

    /// Whether somebody else has taken its place, for good or not.
    pub fn is_replaced(&self) -> bool {
        self.is_dead() || self.stalled_until.lock().unwrap().is_some()
    }

    /// The test is over: nothing goes wrong any more, and nothing is taken down.
    pub fn spare(&self) {
        self.spared.store(true, Ordering::SeqCst);
    }

    /// What was called, in order.
    pub fn steps(&self) -> Vec<(Call, String)> {
        self.steps.lock().unwrap().clone()
    }

    /// Begins a step. `Some`: what goes wrong with it.
    pub async fn begin(&self, call: Call, name: impl Into<String>) -> Option<Fault> {
        self.go_on().await;
        if self.spared.load(Ordering::SeqCst) {
            return None;
        }
        let fault = {
            let mut steps = self.steps.lock().unwrap();
            steps.push((call, name.into()));
            self.plan.filter(|(number, _)| *number == steps.len() - 1).map(|(_, fault)| fault)
        };
        match fault {
            Some(Fault::CrashBefore) => self.die().await,
            Some(Fault::StallBefore) => self.stall().await,
            _ => {}
        }
        fault
    }

    /// Ends a step whose effect is there.
    pub async fn end(&self, fault: Option<Fault>) {
        match fault {
            Some(Fault::CrashAfter) => self.die().await,
            Some(Fault::StallAfter) => self.stall().await,
            _ => {}
        }
        self.go_on().await;
    }

    /// The dead wait for ever, the stalled for long.
    pub async fn go_on(&self) {
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
        let until = *self.stalled_until.lock().unwrap();
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
    }

    async fn stall(&self) {
        // Whoever waits for this call may give up: the process stalls all the same.
        *self.stalled_until.lock().unwrap() = Some(Instant::now() + STALL);
        tokio::time::sleep(STALL).await;
    }

    async fn die(&self) {
        self.dead.store(true, Ordering::SeqCst);
        self.go_on().await;
    }
}

/// A store, as a mortal process sees it.
pub struct MortalStore {
    pub inner: Arc<dyn Store>,
    pub life: Arc<Life>,
}

impl MortalStore {
    /// A call whose answers are one for each of `count`.
    async fn all<T>(
        &self,
        name: String,
        count: usize,
        call: BoxFuture<'_, Vec<Result<T, StoreError>>>,
    ) -> Vec<Result<T, StoreError>> {
        let lost = || (0..count).map(|_| Err(self.lost())).collect();
        let fault = self.life.begin(Call::Store, name).await;
        if fault == Some(Fault::LostBefore) {
            return lost();
        }
        let answer = call.await;
        self.life.end(fault).await;
        if fault == Some(Fault::LostAfter) { lost() } else { answer }
    }

    fn lost(&self) -> StoreError {
        StoreError::Unavailable { store: self.inner.alias().clone(), reason: "the network is down".into() }
    }
}

impl StoreWrapper for MortalStore {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    fn load(&self, requests: Vec<LoadRequest>) -> BoxFuture<'_, Vec<Result<LoadedPartition, StoreError>>> {
        let name =
            format!("load {}", requests.iter().map(|r| r.partition.as_str()).collect::<Vec<_>>().join(" "));
        Box::pin(self.all(name, requests.len(), self.inner.load(requests)))
    }

    fn read_entries(&self, reads: Vec<EntryRead>) -> BoxFuture<'_, Vec<Result<Option<Bytes>, StoreError>>> {
        Box::pin(self.all("read tokens".into(), reads.len(), self.inner.read_entries(reads)))
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, StoreError>> {
        Box::pin(async move {
            let partition = commit.partition.clone();
            let fault = self.life.begin(Call::Store, format!("commit {partition}")).await;
            if fault == Some(Fault::LostBefore) {
                return Err(self.lost());
            }
            let answer = self.inner.commit(commit).await;
            self.life.end(fault).await;
            if fault == Some(Fault::LostAfter) {
                let (store, reason) = (self.inner.alias().clone(), "the answer was lost".into());
                return Err(StoreError::OutcomeUnknown { store, partition, reason });
            }
            answer
        })
    }

    fn delete_entries(
        &self,
        tokens: Vec<TokenRef>,
    ) -> BoxFuture<'_, Vec<Result<Option<SessionMark>, StoreError>>> {
        Box::pin(self.all("consume tokens".into(), tokens.len(), self.inner.delete_entries(tokens)))
    }

    // Sweeps are the answer to faults and not the place for them: how many there are depends on how long it all takes.
    fn scan(&self, cursor: Option<ScanCursor>, limit: usize) -> BoxFuture<'_, Result<ScanPage, StoreError>> {
        Box::pin(async move {
            self.life.go_on().await;
            self.inner.scan(cursor, limit).await
        })
    }

    fn expire(&self, now_ms: u64) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            self.life.go_on().await;
            self.inner.expire(now_ms).await
        })
    }
}

/// Blob storage, as a mortal process sees it.
pub struct MortalBlobs {
    pub inner: Arc<dyn Blobs>,
    pub life: Arc<Life>,
}

impl MortalBlobs {
    async fn one<T>(
        &self,
        step: &str,
        name: &EffectName,
        call: BoxFuture<'_, Result<T, BlobError>>,
    ) -> Result<T, BlobError> {
        let lost = || BlobError::Unavailable { name: name.clone(), reason: "the network is down".into() };
        let fault = self.life.begin(Call::Blob, step).await;
        if fault == Some(Fault::LostBefore) {
            return Err(lost());
        }
        let answer = call.await;
        self.life.end(fault).await;
        if fault == Some(Fault::LostAfter) { Err(lost()) } else { answer }
    }
}

impl Blobs for MortalBlobs {
    fn put(&self, name: &EffectName, content: BlobStream) -> BoxFuture<'_, Result<(), BlobError>> {
        let name = name.clone();
        Box::pin(async move { self.one("put blob", &name, self.inner.put(&name, content)).await })
    }

    fn get(&self, name: &EffectName) -> BoxFuture<'_, Result<Option<BlobStream>, BlobError>> {
        let name = name.clone();
        Box::pin(async move { self.one("get blob", &name, self.inner.get(&name)).await })
    }

    fn delete(&self, name: &EffectName) -> BoxFuture<'_, Result<(), BlobError>> {
        let name = name.clone();
        Box::pin(async move { self.one("delete blob", &name, self.inner.delete(&name)).await })
    }

    fn list(&self, prefix: &str) -> BoxFuture<'_, Result<Vec<EffectName>, BlobError>> {
        self.inner.list(prefix)
    }
}

/// A broker, as a mortal process sees it.
pub struct MortalBroker {
    pub inner: Arc<dyn Broker>,
    pub life: Arc<Life>,
}

fn down(endpoint: &EndpointName) -> BrokerError {
    BrokerError::Unavailable { endpoint: endpoint.clone(), reason: "the network is down".into() }
}

impl BrokerWrapper for MortalBroker {
    fn inner(&self) -> &dyn Broker {
        &*self.inner
    }

    fn send(&self, messages: Vec<OutgoingMessage>) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        Box::pin(async move {
            let endpoints: Vec<EndpointName> =
                messages.iter().map(|message| message.endpoint.clone()).collect();
            let names = endpoints.iter().map(EndpointName::as_str).collect::<Vec<_>>().join(" ");
            let lost = || endpoints.iter().map(|endpoint| Err(down(endpoint))).collect();
            let fault = self.life.begin(Call::Send, format!("send to {names}")).await;
            if fault == Some(Fault::LostBefore) {
                return lost();
            }
            if fault == Some(Fault::Twice) {
                self.inner.send(messages.clone()).await;
            }
            let answer = self.inner.send(messages).await;
            self.life.end(fault).await;
            if fault == Some(Fault::LostAfter) { lost() } else { answer }
        })
    }

    fn receive(
        &self,
        endpoint: &EndpointName,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<Delivery>, BrokerError>> {
        let endpoint = endpoint.clone();
        Box::pin(async move {
            self.life.go_on().await;
            let received = self.inner.receive(&endpoint, max).await;
            self.life.go_on().await;
            received
        })
    }

    fn settle(
        &self,
        endpoint: &EndpointName,
        settlements: Vec<Settlement>,
    ) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        let endpoint = endpoint.clone();
        Box::pin(async move {
            let lost = |count: usize| (0..count).map(|_| Err(down(&endpoint))).collect();
            let count = settlements.len();
            let fault = self.life.begin(Call::Settle, format!("settle {endpoint}")).await;
            if fault == Some(Fault::LostBefore) {
                return lost(count);
            }
            let answer = self.inner.settle(&endpoint, settlements).await;
            self.life.end(fault).await;
            if fault == Some(Fault::LostAfter) { lost(count) } else { answer }
        })
    }
}
