//! How the engine talks to one store: loads, token reads and deletions of concurrent messages travel together, commits
//! alone; every call is counted, and the store's own errors come through unchanged.
//!
//! A batch is answered as soon as its call is: what succeeded waits for nothing. A request that failed for a passing
//! reason is repeated apart, by whoever made it, with a back-off of its own; one whose partition is known to be
//! throttled fails at once. So a throttled partition slows down what needs that partition, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tollgate_proto::{
    BoxFuture, Commit, CommitOutcome, EntryRead, LoadRequest, LoadedPartition, PartitionKey, SessionMark,
    Store, StoreAlias, StoreError, StoreLimits, TokenRef,
};

use crate::backoff::Backoff;
use crate::circuit_breaker::{Admittance, CircuitBreaker, PartitionBreakers};
use crate::coalescer::Coalescer;
use crate::runtime::Tasks;
use crate::statistics::Counters;

/// Most repetitions of a call in place, before its message is put back.
const REPETITIONS_MAX: u32 = 4;

/// Most repetitions of a call whose partition is throttled, as the store says: waiting in place would only hold the places of others.
const THROTTLED_REPETITIONS_MAX: u32 = 1;

/// Most repetitions of those requests of a group that failed, while the others of the group wait for their answers.
const PARTIAL_REPETITIONS_MAX: u32 = 2;

/// If so many partitions fail and no call succeeds, it is the store that fails.
const FAILING_PARTITIONS_MAX: usize = 64;

/// One store, with its coalescers.
pub(crate) struct StoreClient {
    store: Arc<dyn Store>,
    limits: StoreLimits,
    tasks: Tasks,
    counters: Arc<Counters>,
    sides: Arc<Sides>,
    loads: Coalescer<LoadRequest, Result<LoadedPartition, StoreError>>,
    reads: Coalescer<EntryRead, Result<Option<Bytes>, StoreError>>,
    deletions: Coalescer<TokenRef, Result<Option<SessionMark>, StoreError>>,
}

impl StoreClient {
    pub(crate) fn new(store: Arc<dyn Store>, tasks: Tasks, counters: Arc<Counters>) -> Self {
        let limits = store.limits();
        let sides = Arc::new(Sides::default());
        let calling = Calling { store, tasks, counters, sides };
        let loads = calling.coalesce::<Load>(limits.read_batch_max);
        let reads = calling.coalesce::<ReadEntries>(limits.read_batch_max);
        let deletions = calling.coalesce::<DeleteEntries>(limits.delete_batch_max);
        let Calling { store, tasks, counters, sides } = calling;
        Self { store, limits, tasks, counters, sides, loads, reads, deletions }
    }

    /// How long to wait before another message is taken, and then one only. `None`: calls succeed.
    pub(crate) fn pause(&self) -> Option<Duration> {
        let runtime = self.tasks.runtime();
        self.sides.reads.store.pause(runtime).max(self.sides.writes.store.pause(runtime))
    }

    /// Whether calls of one kind fail just now, whatever they are for.
    pub(crate) fn is_failing(&self) -> bool {
        let now_ms = self.tasks.runtime().now_ms();
        self.sides.reads.store.is_open(now_ms) || self.sides.writes.store.is_open(now_ms)
    }

    pub(crate) fn alias(&self) -> &StoreAlias {
        self.store.alias()
    }

    pub(crate) fn limits(&self) -> StoreLimits {
        self.limits
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub(crate) async fn load(&self, request: LoadRequest) -> Result<LoadedPartition, StoreError> {
        let mut tries = self.begin(&self.sides.reads, &request.partition)?;
        loop {
            let one = vec![request.clone()];
            let answers =
                if tries.is_first() { self.loads.ask(one).await } else { self.loads.ask_again(one).await };
            let answer = answers.and_then(|mut answers| answers.pop()).unwrap_or_else(|| Err(self.gone()));
            if let Some(answer) = tries.take(answer).await {
                return answer;
            }
        }
    }

    pub(crate) async fn read_entries(&self, reads: Vec<EntryRead>) -> Vec<Result<Option<Bytes>, StoreError>> {
        self.ask_all(&self.sides.reads, &self.reads, |read| &read.token.partition, reads).await
    }

    pub(crate) async fn delete_entries(
        &self,
        tokens: Vec<TokenRef>,
    ) -> Vec<Result<Option<SessionMark>, StoreError>> {
        self.ask_all(&self.sides.writes, &self.deletions, |token| &token.partition, tokens).await
    }

    /// Commits, again if the store says that nothing happened and that it may later: then `again` gives the same commit once
    /// more. A lost answer is not repeated: the machine looks for the marker (R7).
    pub(crate) fn commit<'a>(
        &'a self,
        commit: Commit,
        again: impl Fn() -> Commit + 'a,
    ) -> impl Future<Output = Result<CommitOutcome, StoreError>> + 'a {
        let begun = self.begin(&self.sides.writes, &commit.partition);
        // Given to the store before there is a future, which would else hold it twice.
        let first = begun.map(|tries| (tries, self.store.commit(commit)));
        async move {
            let (mut tries, mut call) = first?;
            loop {
                self.counters.commit_calls.add(1);
                let answer = call.await;
                if answer.is_ok() {
                    self.sides.writes.store.close(self.alias());
                }
                if let Some(answer) = tries.take(answer).await {
                    return answer;
                }
                call = self.store.commit(again());
            }
        }
    }

    /// Begins to call for one partition; or fails at once, if that partition's breaker is open.
    fn begin<'a>(&'a self, side: &'a Side, partition: &PartitionKey) -> Result<Tries<'a>, StoreError> {
        let admittance = side.partitions.admit(partition, self.tasks.runtime().now_ms());
        if let Admittance::Open(left) = admittance {
            return Err(self.throttled(partition, left));
        }
        let (successes, partition) = (side.store.successes(), partition.clone());
        Ok(Tries { client: self, side, partition, admittance, successes, failures: 0 })
    }

    /// Makes requests together, and repeats those that failed for a passing reason. What is asked here is idempotent.
    async fn ask_all<Q, A>(
        &self,
        side: &Side,
        calls: &Coalescer<Q, Result<A, StoreError>>,
        partition_of: fn(&Q) -> &PartitionKey,
        requests: Vec<Q>,
    ) -> Vec<Result<A, StoreError>>
    where
        Q: Clone + Send + 'static,
        A: Send + 'static,
    {
        let now_ms = self.tasks.runtime().now_ms();
        let successes = side.store.successes();
        let admittances: Vec<Admittance> =
            requests.iter().map(|request| side.partitions.admit(partition_of(request), now_ms)).collect();
        let mut answers: Vec<Result<A, StoreError>> = Vec::with_capacity(requests.len());
        let mut asked = Vec::with_capacity(requests.len());
        for (index, (request, admittance)) in requests.iter().zip(&admittances).enumerate() {
            if let Admittance::Open(left) = admittance {
                answers.push(Err(self.throttled(partition_of(request), *left)));
            } else {
                answers.push(Err(self.gone()));
                asked.push(index);
            }
        }
        let mut failures = 0;
        while !asked.is_empty() {
            let some = asked.iter().map(|index| requests[*index].clone()).collect();
            let given = if failures == 0 { calls.ask(some).await } else { calls.ask_again(some).await };
            let given = given.unwrap_or_default();
            for (index, answer) in asked.iter().zip(given) {
                if answer.is_ok() {
                    side.partitions.close(partition_of(&requests[*index]));
                }
                answers[*index] = answer;
            }
            failures += 1;
            let failed = |index: &usize| answers[*index].as_ref().is_err_and(may_be_repeated);
            let succeeded = answers.iter().any(Result::is_ok);
            let max = if succeeded { PARTIAL_REPETITIONS_MAX } else { REPETITIONS_MAX };
            asked.retain(|index| failed(index) && admittances[*index] == Admittance::Closed);
            let Some(Err(error)) = asked.first().map(|index| &answers[*index]) else { break };
            if failures > max {
                break;
            }
            self.wait(failures, error).await;
        }
        let admitted = admittances.iter().map(|admittance| !matches!(admittance, Admittance::Open(_)));
        for ((request, answer), was_asked) in requests.iter().zip(&answers).zip(admitted) {
            if let (Err(error), true) = (answer, was_asked) {
                self.note(side, partition_of(request), error, successes);
            }
        }
        answers
    }

    /// Opens the breaker that a failed call is about: its partition's if the store says so or others succeed meanwhile,
    /// the store's otherwise. `successes`: how many calls had succeeded when the first one of these was made.
    fn note(&self, side: &Side, partition: &PartitionKey, error: &StoreError, successes: u64) {
        let retry_after = match error {
            StoreError::Throttled { retry_after, .. } => *retry_after,
            StoreError::Unavailable { .. } | StoreError::Misconfigured { .. } => None,
            _ => return,
        };
        let names_partition = matches!(error, StoreError::Throttled { partition: Some(_), .. });
        let others_succeed = side.store.successes() != successes;
        let is_partitions = if names_partition {
            others_succeed || side.partitions.count() < FAILING_PARTITIONS_MAX
        } else {
            others_succeed
        };
        if is_partitions {
            side.partitions.open(partition, retry_after, self.tasks.runtime());
        } else {
            side.store.open(error, retry_after, self.tasks.runtime().now_ms());
        }
    }

    /// Waits as long as the back-off says, or longer if the store asks for it.
    async fn wait(&self, failures: u32, error: &StoreError) {
        let asked = match error {
            StoreError::Throttled { retry_after, .. } => retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        };
        tracing::debug!(failures, %error, "a store call failed and is repeated");
        let wait = Backoff::IN_PLACE.after(failures, self.tasks.runtime()).max(asked);
        self.tasks.runtime().sleep(wait).await;
    }

    fn throttled(&self, partition: &PartitionKey, left: Duration) -> StoreError {
        let (store, partition) = (self.alias().clone(), Some(partition.clone()));
        StoreError::Throttled { store, partition, retry_after: Some(left) }
    }

    fn gone(&self) -> StoreError {
        let reason = "the call was given up, and whether it was made is not known".to_owned();
        StoreError::Unavailable { store: self.alias().clone(), reason }
    }
}

/// A call for one partition, which is repeated while it fails for a passing reason and nothing happened.
struct Tries<'a> {
    client: &'a StoreClient,
    side: &'a Side,
    partition: PartitionKey,
    admittance: Admittance,
    /// How many calls of this kind had succeeded at its begin.
    successes: u64,
    failures: u32,
}

impl Tries<'_> {
    /// Whether nothing is known against the call: a repetition or a probe takes no call from others.
    fn is_first(&self) -> bool {
        self.failures == 0 && self.admittance == Admittance::Closed
    }

    /// Takes an answer: it is the last one, or the call is to be made again, after the wait that lies in here.
    async fn take<T>(&mut self, answer: Result<T, StoreError>) -> Option<Result<T, StoreError>> {
        let Err(error) = answer else {
            self.side.partitions.close(&self.partition);
            return Some(answer);
        };
        self.failures += 1;
        let names_partition = matches!(error, StoreError::Throttled { partition: Some(_), .. });
        let max = if names_partition { THROTTLED_REPETITIONS_MAX } else { REPETITIONS_MAX };
        let is_last = self.failures > max || self.admittance == Admittance::Probe;
        if is_last || !may_be_repeated(&error) {
            self.client.note(self.side, &self.partition, &error, self.successes);
            return Some(Err(error));
        }
        self.client.wait(self.failures, &error).await;
        None
    }
}

/// The breakers of a store: reads and writes fail apart, e.g. with a full disk or throttled writes.
#[derive(Default)]
struct Sides {
    /// Of loads and reads of outbox entries.
    reads: Side,
    /// Of commits and deletions.
    writes: Side,
}

#[derive(Default)]
struct Side {
    store: CircuitBreaker,
    partitions: PartitionBreakers,
}

/// Whether nothing happened, so that the same call may be made again in place; and soon enough for that.
fn may_be_repeated(error: &StoreError) -> bool {
    match error {
        StoreError::Throttled { retry_after, .. } => {
            retry_after.is_none_or(|asked| asked <= Backoff::IN_PLACE.cap)
        }
        error => matches!(error, StoreError::Unavailable { .. }),
    }
}

/// One of the batched calls of a store.
trait StoreCall: 'static {
    type Request: Send + 'static;
    type Answer: Send + 'static;

    fn counter_add(counters: &Counters);

    fn side(sides: &Sides) -> &Side;

    fn call(store: &dyn Store, requests: Vec<Self::Request>) -> Answers<'_, Self::Answer>;
}

type Answers<'a, Answer> = BoxFuture<'a, Vec<Result<Answer, StoreError>>>;

struct Load;
struct ReadEntries;
struct DeleteEntries;

impl StoreCall for Load {
    type Request = LoadRequest;
    type Answer = LoadedPartition;

    fn counter_add(counters: &Counters) {
        counters.load_calls.add(1);
    }

    fn side(sides: &Sides) -> &Side {
        &sides.reads
    }

    fn call(store: &dyn Store, requests: Vec<LoadRequest>) -> Answers<'_, LoadedPartition> {
        store.load(requests)
    }
}

impl StoreCall for ReadEntries {
    type Request = EntryRead;
    type Answer = Option<Bytes>;

    fn counter_add(counters: &Counters) {
        counters.read_calls.add(1);
    }

    fn side(sides: &Sides) -> &Side {
        &sides.reads
    }

    fn call(store: &dyn Store, reads: Vec<EntryRead>) -> Answers<'_, Option<Bytes>> {
        store.read_entries(reads)
    }
}

impl StoreCall for DeleteEntries {
    type Request = TokenRef;
    type Answer = Option<SessionMark>;

    fn counter_add(counters: &Counters) {
        counters.delete_calls.add(1);
    }

    fn side(sides: &Sides) -> &Side {
        &sides.writes
    }

    fn call(store: &dyn Store, tokens: Vec<TokenRef>) -> Answers<'_, Option<SessionMark>> {
        store.delete_entries(tokens)
    }
}

/// What batched calls need.
#[derive(Clone)]
struct Calling {
    store: Arc<dyn Store>,
    tasks: Tasks,
    counters: Arc<Counters>,
    sides: Arc<Sides>,
}

impl Calling {
    fn coalesce<C: StoreCall>(
        &self,
        batch_max: usize,
    ) -> Coalescer<C::Request, Result<C::Answer, StoreError>> {
        let calling = self.clone();
        Coalescer::new(self.tasks.clone(), batch_max, move |requests| {
            Box::pin(call_once::<C>(calling.clone(), requests))
        })
    }
}

/// Makes one call. Whoever asked repeats what failed.
async fn call_once<C: StoreCall>(
    calling: Calling,
    requests: Vec<C::Request>,
) -> Vec<Result<C::Answer, StoreError>> {
    C::counter_add(&calling.counters);
    let answers = C::call(&*calling.store, requests).await;
    if answers.iter().any(Result::is_ok) {
        C::side(&calling.sides).store.close(calling.store.alias());
    }
    answers
}
