//! How the engine talks to one store: loads, token reads and deletions of concurrent messages travel together, commits
//! alone; passing faults are tried again in place for a while, and every call is counted. The store's own errors come
//! through unchanged.

use std::sync::Arc;

use bytes::Bytes;
use tollgate_proto::{
    BoxFuture, Commit, CommitOutcome, EntryRead, LoadRequest, LoadedPartition, SessionMark, Store,
    StoreAlias, StoreError, StoreLimits, TokenRef,
};

use crate::backoff::Backoff;
use crate::coalescer::Coalescer;
use crate::runtime::Tasks;
use crate::statistics::Counters;
use crate::trouble::Trouble;

/// Most repetitions of a call in place, before its message is put back.
const REPETITIONS_MAX: u32 = 4;

/// One store, with its coalescers.
pub(crate) struct StoreClient {
    store: Arc<dyn Store>,
    limits: StoreLimits,
    tasks: Tasks,
    counters: Arc<Counters>,
    trouble: Arc<Trouble>,
    loads: Coalescer<LoadRequest, Result<LoadedPartition, StoreError>>,
    reads: Coalescer<EntryRead, Result<Option<Bytes>, StoreError>>,
    deletions: Coalescer<TokenRef, Result<Option<SessionMark>, StoreError>>,
}

impl StoreClient {
    pub(crate) fn new(store: Arc<dyn Store>, tasks: Tasks, counters: Arc<Counters>) -> Self {
        let limits = store.limits();
        let trouble = Arc::new(Trouble::none());
        let calling = Calling { store: Arc::clone(&store), tasks, counters, trouble };
        let loads = calling.coalesce::<Load>(limits.read_batch_max);
        let reads = calling.coalesce::<ReadEntries>(limits.read_batch_max);
        let deletions = calling.coalesce::<DeleteEntries>(limits.delete_batch_max);
        let Calling { tasks, counters, trouble, .. } = calling;
        Self { store, limits, tasks, counters, trouble, loads, reads, deletions }
    }

    /// Whether it can be reached just now.
    pub(crate) fn trouble(&self) -> &Trouble {
        &self.trouble
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
        let answers = self.loads.ask(vec![request]).await;
        answers.and_then(|mut answers| answers.pop()).unwrap_or_else(|| Err(self.gone()))
    }

    pub(crate) async fn read_entries(&self, reads: Vec<EntryRead>) -> Vec<Result<Option<Bytes>, StoreError>> {
        let count = reads.len();
        self.reads.ask(reads).await.unwrap_or_else(|| self.all_gone(count))
    }

    pub(crate) async fn delete_entries(
        &self,
        tokens: Vec<TokenRef>,
    ) -> Vec<Result<Option<SessionMark>, StoreError>> {
        let count = tokens.len();
        self.deletions.ask(tokens).await.unwrap_or_else(|| self.all_gone(count))
    }

    /// Commits, again if the store says that nothing happened and that it may later: then `again` gives the same commit once
    /// more. A lost answer is not repeated: the machine looks for the marker (R7).
    pub(crate) fn commit<'a>(
        &'a self,
        commit: Commit,
        again: impl Fn() -> Commit + 'a,
    ) -> impl Future<Output = Result<CommitOutcome, StoreError>> + 'a {
        // Given to the store before there is a future, which would else hold it twice.
        let mut call = self.store.commit(commit);
        async move {
            let mut failures = 0;
            loop {
                self.counters.commit_calls.add(1);
                let error = match call.await {
                    Err(error @ (StoreError::Throttled { .. } | StoreError::Unavailable { .. })) => error,
                    Ok(answer) => {
                        self.trouble.succeeded(self.alias());
                        return Ok(answer);
                    }
                    answer @ Err(_) => return answer,
                };
                failures += 1;
                if failures > REPETITIONS_MAX {
                    self.trouble.failed(&error, self.tasks.runtime().now_ms());
                    return Err(error);
                }
                wait(&self.tasks, failures, std::slice::from_ref(&error)).await;
                call = self.store.commit(again());
            }
        }
    }

    fn gone(&self) -> StoreError {
        let reason = "the call was given up, and whether it was made is not known".to_owned();
        StoreError::Unavailable { store: self.alias().clone(), reason }
    }

    fn all_gone<T>(&self, count: usize) -> Vec<Result<T, StoreError>> {
        (0..count).map(|_| Err(self.gone())).collect()
    }
}

/// One of the batched calls of a store.
trait StoreCall: 'static {
    type Request: Clone + Send + 'static;
    type Answer: Send + 'static;

    fn counter_add(counters: &Counters);

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
    trouble: Arc<Trouble>,
}

impl Calling {
    fn coalesce<C: StoreCall>(
        &self,
        batch_max: usize,
    ) -> Coalescer<C::Request, Result<C::Answer, StoreError>> {
        let calling = self.clone();
        Coalescer::new(self.tasks.clone(), batch_max, move |requests| {
            Box::pin(call_repeatedly::<C>(calling.clone(), requests))
        })
    }
}

/// Makes a call, and repeats the part of it that failed for a passing reason. What is asked here is idempotent.
async fn call_repeatedly<C: StoreCall>(
    calling: Calling,
    requests: Vec<C::Request>,
) -> Vec<Result<C::Answer, StoreError>> {
    let Calling { store, tasks, counters, trouble } = calling;
    let copies = requests.clone();
    C::counter_add(&counters);
    let mut answers = C::call(&*store, requests).await;
    if answers.len() != copies.len() {
        // The coalescer fails all of them: nothing tells which answer belongs to which request.
        return answers;
    }
    for failures in 1..=REPETITIONS_MAX {
        let failed: Vec<usize> = (0..answers.len())
            .filter(|place| answers[*place].as_ref().is_err_and(StoreError::is_retryable))
            .collect();
        if failed.is_empty() {
            break;
        }
        let errors: Vec<StoreError> =
            failed.iter().filter_map(|place| answers[*place].as_ref().err().cloned()).collect();
        wait(&tasks, failures, &errors).await;
        C::counter_add(&counters);
        let again = C::call(&*store, failed.iter().map(|place| copies[*place].clone()).collect()).await;
        if again.len() == failed.len() {
            for (place, answer) in failed.into_iter().zip(again) {
                answers[place] = answer;
            }
        }
    }
    let failure =
        answers.iter().filter_map(|answer| answer.as_ref().err()).find(|error| error.is_retryable());
    match failure {
        Some(error) => trouble.failed(error, tasks.runtime().now_ms()),
        None => trouble.succeeded(store.alias()),
    }
    answers
}

/// Waits as long as the back-off says, or longer if the store asks for it.
async fn wait(tasks: &Tasks, failures: u32, errors: &[StoreError]) {
    let asked = errors.iter().filter_map(|error| match error {
        StoreError::Throttled { retry_after, .. } => *retry_after,
        _ => None,
    });
    let wait = asked.fold(Backoff::IN_PLACE.after(failures, tasks.runtime()), std::time::Duration::max);
    tracing::debug!(failures, error = %errors[0], "a store call failed and is repeated");
    tasks.runtime().sleep(wait).await;
}
