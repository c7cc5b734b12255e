//! A wrapper that makes a store fail by a seed: before the effect, and after it, when the answer is lost. The same seed and
//! the same order of calls give the same faults. What it says is never untrue: only [`StoreError::OutcomeUnknown`] is said
//! of a commit that may have happened; deletions may fail although they happened, since they may be repeated.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tollgate_proto::{
    BoxFuture, Commit, CommitOutcome, EntryRead, LoadRequest, LoadedPartition, PartitionKey, ScanCursor,
    ScanPage, SessionMark, Store, StoreError, StoreWrapper, TokenRef,
};

use crate::store_gate::{Gate, GateState};
use crate::store_operation::Operation;

/// A store that fails now and then.
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    state: Mutex<State>,
}

struct State {
    random: fastrand::Rng,
    rates: FaultRates,
    counts: FaultCounts,
    gates: Vec<(Operation, Phase, Arc<GateState>)>,
}

/// How often what goes wrong: probabilities between 0 and 1 for each request of a call. All are 0 by default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FaultRates {
    /// Any request: [`StoreError::Unavailable`], and nothing happened.
    pub unavailable: f64,
    /// Any request: [`StoreError::Throttled`], and nothing happened.
    pub throttled: f64,
    /// A commit: [`StoreError::OutcomeUnknown`], and nothing happened.
    pub lost_commit: f64,
    /// A commit: [`StoreError::OutcomeUnknown`], although it was tried; a conflict's answer is lost as well.
    pub lost_commit_answer: f64,
    /// A deletion: [`StoreError::Unavailable`], although it happened.
    pub lost_deletion_answer: f64,
}

impl FaultRates {
    /// Every fault with the same probability.
    pub const fn all(rate: f64) -> Self {
        Self {
            unavailable: rate,
            throttled: rate,
            lost_commit: rate,
            lost_commit_answer: rate,
            lost_deletion_answer: rate,
        }
    }
}

/// How many faults of each kind of [`FaultRates`] were injected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FaultCounts {
    /// Requests refused as unavailable.
    pub unavailable: u64,
    /// Requests throttled.
    pub throttled: u64,
    /// Commits of unknown outcome that did not happen.
    pub lost_commits: u64,
    /// Commits of unknown outcome that were tried.
    pub lost_commit_answers: u64,
    /// Deletions that happened and were answered by an error.
    pub lost_deletion_answers: u64,
}

impl FaultCounts {
    /// All faults together.
    pub const fn total(&self) -> u64 {
        self.unavailable
            + self.throttled
            + self.lost_commits
            + self.lost_commit_answers
            + self.lost_deletion_answers
    }
}

/// On which side of its effect a call is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Before the inner store is called.
    Before,
    /// After the inner store has answered and before the caller is told.
    After,
}

#[derive(Clone, Copy)]
enum CommitFault {
    Lost,
    AnswerLost,
}

impl FaultyStore {
    /// Wraps `inner`. Print the seed where a test fails: it replays the faults.
    pub fn new(inner: Arc<dyn Store>, seed: u64, rates: FaultRates) -> Self {
        let state = State {
            random: fastrand::Rng::with_seed(seed),
            rates,
            counts: FaultCounts::default(),
            gates: Vec::new(),
        };
        Self { inner, state: Mutex::new(state) }
    }

    /// Goes on with other rates: with none, so that a test can wait for what must then become quiet.
    pub fn set_rates(&self, rates: FaultRates) {
        self.state().rates = rates;
    }

    /// The faults so far.
    pub fn counts(&self) -> FaultCounts {
        self.state().counts
    }

    /// Pauses the next call of `operation` at a gate. Of several gates for the same place each pauses one call, in the order
    /// in which they were made.
    pub fn pause_next(&self, operation: Operation, phase: Phase) -> Gate {
        let (gate, state) = Gate::closed();
        self.state().gates.push((operation, phase, state));
        gate
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pass_gate(&self, operation: Operation, phase: Phase) {
        let gate = {
            let gates = &mut self.state().gates;
            let at = gates.iter().position(|(of, at, _)| (*of, *at) == (operation, phase));
            at.map(|at| gates.remove(at).2)
        };
        if let Some(gate) = gate {
            gate.pass().await;
        }
    }

    /// What goes wrong before a request has an effect.
    fn fault_before(&self, operation: Operation, partition: Option<&PartitionKey>) -> Option<StoreError> {
        let mut state = self.state();
        let rates = state.rates;
        if state.strikes(rates.unavailable) {
            state.counts.unavailable += 1;
            return Some(self.unavailable(format!("injected before {operation}")));
        }
        if state.strikes(rates.throttled) {
            state.counts.throttled += 1;
            let (store, partition) = (self.inner.alias().clone(), partition.cloned());
            return Some(StoreError::Throttled { store, partition, retry_after: None });
        }
        None
    }

    fn commit_fault(&self) -> Option<CommitFault> {
        let mut state = self.state();
        let rates = state.rates;
        if state.strikes(rates.lost_commit) {
            state.counts.lost_commits += 1;
            return Some(CommitFault::Lost);
        }
        state.strikes(rates.lost_commit_answer).then_some(CommitFault::AnswerLost)
    }

    fn loses_deletion_answer(&self) -> bool {
        let mut state = self.state();
        let rate = state.rates.lost_deletion_answer;
        let loses = state.strikes(rate);
        state.counts.lost_deletion_answers += u64::from(loses);
        loses
    }

    fn unavailable(&self, reason: String) -> StoreError {
        StoreError::Unavailable { store: self.inner.alias().clone(), reason }
    }

    /// Lets some requests of a batch fail, sends the others on and puts the answers where they belong.
    async fn batch<Q, A, F: Future<Output = Vec<Result<A, StoreError>>>>(
        &self,
        operation: Operation,
        requests: Vec<Q>,
        partition: impl Fn(&Q) -> &PartitionKey,
        call: impl FnOnce(Vec<Q>) -> F,
    ) -> Vec<Result<A, StoreError>> {
        self.pass_gate(operation, Phase::Before).await;
        let mut passed = Vec::new();
        let mut faults = Vec::with_capacity(requests.len());
        for request in requests {
            let fault = self.fault_before(operation, Some(partition(&request)));
            if fault.is_none() {
                passed.push(request);
            }
            faults.push(fault);
        }
        let mut answers = if passed.is_empty() { Vec::new() } else { call(passed).await }.into_iter();
        let unanswered =
            || Err(self.unavailable("the wrapped store answered fewer requests than it was asked".into()));
        let merged = faults.into_iter().map(|fault| match fault {
            Some(fault) => Err(fault),
            None => answers.next().unwrap_or_else(unanswered),
        });
        let merged = merged.collect();
        self.pass_gate(operation, Phase::After).await;
        merged
    }
}

impl State {
    fn strikes(&mut self, rate: f64) -> bool {
        // A rate of 0 draws nothing, so that switching one fault off leaves the sequence of the others as it was.
        rate > 0.0 && self.random.f64() < rate
    }
}

impl StoreWrapper for FaultyStore {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    fn load(&self, requests: Vec<LoadRequest>) -> BoxFuture<'_, Vec<Result<LoadedPartition, StoreError>>> {
        Box::pin(self.batch(
            Operation::Load,
            requests,
            |request| &request.partition,
            |requests| self.inner.load(requests),
        ))
    }

    fn read_entries(&self, reads: Vec<EntryRead>) -> BoxFuture<'_, Vec<Result<Option<Bytes>, StoreError>>> {
        Box::pin(self.batch(
            Operation::ReadEntries,
            reads,
            |read| &read.token.partition,
            |reads| self.inner.read_entries(reads),
        ))
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, StoreError>> {
        Box::pin(async move {
            self.pass_gate(Operation::Commit, Phase::Before).await;
            if let Some(fault) = self.fault_before(Operation::Commit, Some(&commit.partition)) {
                return Err(fault);
            }
            let (store, partition) = (self.inner.alias().clone(), commit.partition.clone());
            let unknown =
                |reason: &str| StoreError::OutcomeUnknown { store, partition, reason: reason.into() };
            let answer = match self.commit_fault() {
                Some(CommitFault::Lost) => Err(unknown("injected: it did not happen")),
                Some(CommitFault::AnswerLost) => match self.inner.commit(commit).await {
                    Ok(_) => {
                        self.state().counts.lost_commit_answers += 1;
                        Err(unknown("injected: it was answered"))
                    }
                    Err(error) => Err(error),
                },
                None => self.inner.commit(commit).await,
            };
            self.pass_gate(Operation::Commit, Phase::After).await;
            answer
        })
    }

    fn delete_entries(
        &self,
        tokens: Vec<TokenRef>,
    ) -> BoxFuture<'_, Vec<Result<Option<SessionMark>, StoreError>>> {
        let delete = async |tokens| {
            let answers = self.inner.delete_entries(tokens).await.into_iter();
            let lose_some = |answer: Result<_, _>| match answer {
                Ok(_) if self.loses_deletion_answer() => {
                    Err(self.unavailable("injected after a deletion that happened".into()))
                }
                answer => answer,
            };
            answers.map(lose_some).collect()
        };
        Box::pin(self.batch(Operation::DeleteEntries, tokens, |token| &token.partition, delete))
    }

    fn scan(&self, cursor: Option<ScanCursor>, limit: usize) -> BoxFuture<'_, Result<ScanPage, StoreError>> {
        Box::pin(async move {
            self.pass_gate(Operation::Scan, Phase::Before).await;
            let answer = match self.fault_before(Operation::Scan, None) {
                Some(fault) => Err(fault),
                None => self.inner.scan(cursor, limit).await,
            };
            self.pass_gate(Operation::Scan, Phase::After).await;
            answer
        })
    }

    fn expire(&self, now_ms: u64) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            self.pass_gate(Operation::Expire, Phase::Before).await;
            let answer = match self.fault_before(Operation::Expire, None) {
                Some(fault) => Err(fault),
                None => self.inner.expire(now_ms).await,
            };
            self.pass_gate(Operation::Expire, Phase::After).await;
            answer
        })
    }
}
