//! Natural batching: whoever is ready at the same time travels together, and while all calls that there may be are in flight,
//! the next batch collects. There is no timer, so nothing waits when the engine is idle, and the busier it is the larger the
//! batches become. It knows neither stores nor brokers: only requests, answers and a call that takes many of the first and
//! gives as many of the second.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use tokio::sync::oneshot;
use tollgate_proto::BoxFuture;

use crate::runtime::{Tasks, yield_once};

/// Joins concurrent requests into batched calls.
pub(crate) struct Coalescer<Request, Answer> {
    shared: Arc<Shared<Request, Answer>>,
}

impl<Request, Answer> Clone for Coalescer<Request, Answer> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

type Call<Request, Answer> = Box<dyn Fn(Vec<Request>) -> BoxFuture<'static, Vec<Answer>> + Send + Sync>;

struct Shared<Request, Answer> {
    call: Call<Request, Answer>,
    batch_max: usize,
    tasks: Tasks,
    state: Mutex<State<Request, Answer>>,
}

struct State<Request, Answer> {
    /// Bounded by the engine's window of messages in flight: each waits for at most one call at a time.
    waiting: VecDeque<Group<Request, Answer>>,
    waiting_requests: usize,
    /// Tasks that make calls, those included that are about to.
    callers: usize,
    /// Those of them that are about to take a batch: what waits is theirs.
    collecting: usize,
}

impl<Request, Answer> State<Request, Answer> {
    /// Whether another caller is to be started; if so, it is counted.
    fn admit_caller(&mut self, batch_max: usize) -> bool {
        let is_wanted = self.waiting_requests > self.collecting.saturating_mul(batch_max);
        if !is_wanted || self.callers >= CALLS_MAX {
            return false;
        }
        self.callers += 1;
        self.collecting += 1;
        true
    }
}

/// Whether a request may start a call of its own while others are in flight.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Haste {
    Departs,
    Waits,
}

/// Requests that were made together and are answered together.
struct Group<Request, Answer> {
    requests: Requests<Request>,
    reply: Option<oneshot::Sender<Vec<Answer>>>,
}

enum Requests<Request> {
    One(Request),
    Many(Vec<Request>),
}

impl<Request> Requests<Request> {
    fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(requests) => requests.len(),
        }
    }
}

/// Most calls of one kind in flight at a time. With one, whoever is not in step with it waits half a call for its departure;
/// with four, an eighth. More would make the batches smaller and save next to nothing.
const CALLS_MAX: usize = 4;

impl<Request: Send + 'static, Answer: Send + 'static> Coalescer<Request, Answer> {
    /// `call` takes at most `batch_max` requests and must give one answer to each, in order.
    pub(crate) fn new(
        tasks: Tasks,
        batch_max: usize,
        call: impl Fn(Vec<Request>) -> BoxFuture<'static, Vec<Answer>> + Send + Sync + 'static,
    ) -> Self {
        let state = State { waiting: VecDeque::new(), waiting_requests: 0, callers: 0, collecting: 0 };
        let shared =
            Shared { call: Box::new(call), batch_max: batch_max.max(1), tasks, state: Mutex::new(state) };
        Self { shared: Arc::new(shared) }
    }

    /// Makes requests and waits for their answers. `None`: the runtime is going away, and nothing is known.
    pub(crate) async fn ask(&self, requests: Vec<Request>) -> Option<Vec<Answer>> {
        self.ask_with(requests, Haste::Departs).await
    }

    /// As [`Coalescer::ask`], for repetitions: while a call is in flight they wait for the next one, and take none from others.
    pub(crate) async fn ask_again(&self, requests: Vec<Request>) -> Option<Vec<Answer>> {
        self.ask_with(requests, Haste::Waits).await
    }

    async fn ask_with(&self, mut requests: Vec<Request>, haste: Haste) -> Option<Vec<Answer>> {
        let requests = match requests.len() {
            0 => return Some(Vec::new()),
            1 => Requests::One(requests.pop().expect("there is one")),
            _ => Requests::Many(requests),
        };
        let (reply, answer) = oneshot::channel();
        self.enqueue(Group { requests, reply: Some(reply) }, haste);
        answer.await.ok()
    }

    /// Makes a request whose answer nobody waits for.
    pub(crate) fn tell(&self, request: Request) {
        self.enqueue(Group { requests: Requests::One(request), reply: None }, Haste::Departs);
    }

    fn enqueue(&self, group: Group<Request, Answer>, haste: Haste) {
        let mut state = self.shared.lock();
        state.waiting_requests += group.requests.len();
        state.waiting.push_back(group);
        // Whoever makes a call looks for more when it is answered.
        let is_met = haste == Haste::Waits && state.callers > 0;
        if !is_met && state.admit_caller(self.shared.batch_max) {
            drop(state);
            Shared::start(&self.shared);
        }
    }
}

impl<Request: Send + 'static, Answer: Send + 'static> Shared<Request, Answer> {
    /// Starts a task that makes calls; it has been counted already. If a call panics, the requests in it are answered by
    /// dropped senders, and the task goes on with those that wait: nobody waits for ever.
    fn start(shared: &Arc<Self>) {
        let own = Arc::clone(shared);
        shared.tasks.spawn(async move {
            while AssertUnwindSafe(Self::run(&own)).catch_unwind().await.is_err() {
                tracing::error!("a batched call has panicked; its requests fail");
                own.lock().collecting += 1;
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, State<Request, Answer>> {
        // A panic while the lock is held can't happen between two consistent states: every section only moves values.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes calls until nothing waits.
    async fn run(self: &Arc<Self>) {
        loop {
            // Whoever is ready to ask may do so before the call departs.
            yield_once().await;
            let Some(batch) = self.take_batch() else { return };
            let mut requests = Vec::with_capacity(self.batch_max.min(batch.len()));
            let mut replies = Vec::with_capacity(batch.len());
            for group in batch {
                replies.push((group.requests.len(), group.reply));
                match group.requests {
                    Requests::One(request) => requests.push(request),
                    Requests::Many(many) => requests.extend(many),
                }
            }
            if let Some(answers) = self.answers(requests).await {
                let mut answers = answers.into_iter();
                for (count, reply) in replies {
                    let share: Vec<Answer> = answers.by_ref().take(count).collect();
                    if let Some(reply) = reply {
                        // The asker may have been cancelled; the call has happened all the same.
                        let _ = reply.send(share);
                    }
                }
            }
            self.lock().collecting += 1;
        }
    }

    /// Calls until all requests are answered. `None`: a call has not given one answer to each of its requests, so it is not
    /// known which answer belongs to which, and all of them fail.
    async fn answers(&self, mut requests: Vec<Request>) -> Option<Vec<Answer>> {
        let mut all = Vec::new();
        while !requests.is_empty() {
            let rest = requests.split_off(requests.len().min(self.batch_max));
            let count = requests.len();
            let answers = (self.call)(requests).await;
            if answers.len() != count {
                tracing::error!(
                    count,
                    answers = answers.len(),
                    "a batched call has miscounted; its requests fail"
                );
                return None;
            }
            if all.is_empty() {
                all = answers;
            } else {
                all.extend(answers);
            }
            requests = rest;
        }
        Some(all)
    }

    fn take_batch(self: &Arc<Self>) -> Option<Vec<Group<Request, Answer>>> {
        let mut state = self.lock();
        state.collecting -= 1;
        if state.waiting.is_empty() {
            state.callers -= 1;
            return None;
        }
        let mut batch = Vec::with_capacity(state.waiting.len().min(self.batch_max));
        let mut size = 0;
        while let Some(group) = state.waiting.front() {
            let len = group.requests.len();
            if !batch.is_empty() && size + len > self.batch_max {
                break;
            }
            size += len;
            batch.extend(state.waiting.pop_front());
        }
        state.waiting_requests -= size;
        // What this call could not take need not wait for its end.
        if state.admit_caller(self.batch_max) {
            drop(state);
            Self::start(self);
        }
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::TokioRuntime;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Semaphore;

    fn doubling(batch_max: usize, gate: Arc<Semaphore>, calls: Arc<AtomicUsize>) -> Coalescer<u64, u64> {
        let tasks = Tasks::new(Arc::new(TokioRuntime::new()));
        Coalescer::new(tasks, batch_max, move |requests: Vec<u64>| {
            calls.fetch_add(1, Ordering::SeqCst);
            let gate = Arc::clone(&gate);
            Box::pin(async move {
                gate.acquire().await.unwrap().forget();
                requests.iter().map(|n| n * 2).collect()
            })
        })
    }

    #[tokio::test]
    async fn requests_made_while_a_call_is_in_flight_travel_together_in_the_next() {
        let (gate, calls) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let coalescer = doubling(100, Arc::clone(&gate), Arc::clone(&calls));
        let first = tokio::spawn({
            let coalescer = coalescer.clone();
            async move { coalescer.ask(vec![1]).await }
        });
        while calls.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let others: Vec<_> = (2..50)
            .map(|n| {
                let coalescer = coalescer.clone();
                tokio::spawn(async move { coalescer.ask(vec![n]).await })
            })
            .collect();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(2);
        assert_eq!(first.await.unwrap(), Some(vec![2]));
        for (n, other) in (2..50).zip(others) {
            assert_eq!(other.await.unwrap(), Some(vec![n * 2]));
        }
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_request_does_not_wait_for_a_call_in_flight_until_there_are_as_many_as_there_may_be() {
        let (gate, calls) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let coalescer = doubling(100, Arc::clone(&gate), Arc::clone(&calls));
        let ask = |n| {
            let coalescer = coalescer.clone();
            tokio::spawn(async move { coalescer.ask(vec![n]).await })
        };
        let mut asked = Vec::new();
        for n in 1..=CALLS_MAX {
            asked.push(ask(n as u64));
            while calls.load(Ordering::SeqCst) < n {
                tokio::task::yield_now().await;
            }
        }
        asked.extend([ask(100), ask(200)]);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(calls.load(Ordering::SeqCst), CALLS_MAX, "the last two wait, and travel together");
        gate.add_permits(CALLS_MAX + 1);
        let mut sum = 0;
        for one in asked {
            sum += one.await.unwrap().unwrap()[0];
        }
        assert_eq!(sum, 2 * (300 + (1..=CALLS_MAX as u64).sum::<u64>()));
        assert_eq!(calls.load(Ordering::SeqCst), CALLS_MAX + 1);
    }

    #[tokio::test]
    async fn a_repetition_waits_for_the_next_call_while_one_is_in_flight_and_departs_at_once_otherwise() {
        let (gate, calls) = (Arc::new(Semaphore::new(1)), Arc::new(AtomicUsize::new(0)));
        let coalescer = doubling(100, Arc::clone(&gate), Arc::clone(&calls));
        assert_eq!(coalescer.ask_again(vec![1]).await, Some(vec![2]), "nothing is in flight");
        let ask = |n, again| {
            let coalescer = coalescer.clone();
            tokio::spawn(async move {
                if again { coalescer.ask_again(vec![n]).await } else { coalescer.ask(vec![n]).await }
            })
        };
        let first = ask(2, false);
        while calls.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
        let again = ask(3, true);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(calls.load(Ordering::SeqCst), 2, "it takes no call of its own");
        gate.add_permits(2);
        assert_eq!(first.await.unwrap(), Some(vec![4]));
        assert_eq!(again.await.unwrap(), Some(vec![6]));
    }

    #[tokio::test]
    async fn a_group_larger_than_a_batch_is_split_and_answered_whole() {
        let (gate, calls) = (Arc::new(Semaphore::new(100)), Arc::new(AtomicUsize::new(0)));
        let coalescer = doubling(4, gate, Arc::clone(&calls));
        let answers = coalescer.ask((0..10).collect()).await.unwrap();
        assert_eq!(answers, (0..10).map(|n| n * 2).collect::<Vec<_>>());
        assert_eq!(calls.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_call_that_panics_fails_its_own_requests_and_no_others() {
        let tasks = Tasks::new(Arc::new(TokioRuntime::new()));
        let coalescer: Coalescer<u64, u64> = Coalescer::new(tasks, 1, |requests: Vec<u64>| {
            Box::pin(async move {
                assert_ne!(requests, [13], "unlucky");
                requests
            })
        });
        let asked: Vec<_> = [1, 13, 2, 3]
            .into_iter()
            .map(|n| {
                let coalescer = coalescer.clone();
                tokio::spawn(async move { coalescer.ask(vec![n]).await })
            })
            .collect();
        let mut answers = Vec::new();
        for one in asked {
            answers.push(one.await.unwrap());
        }
        assert_eq!(answers, [Some(vec![1]), None, Some(vec![2]), Some(vec![3])]);
        assert_eq!(coalescer.ask(vec![4]).await, Some(vec![4]));
    }

    #[tokio::test]
    async fn a_call_that_gives_too_few_or_too_many_answers_fails_its_requests_and_no_others() {
        let tasks = Tasks::new(Arc::new(TokioRuntime::new()));
        let coalescer: Coalescer<u64, u64> = Coalescer::new(tasks, 2, |requests: Vec<u64>| {
            Box::pin(async move {
                match requests[..] {
                    [13, _] => vec![1],
                    [14, _] => vec![1, 2, 3],
                    _ => requests,
                }
            })
        });
        assert_eq!(coalescer.ask(vec![1, 2]).await, Some(vec![1, 2]));
        assert_eq!(coalescer.ask(vec![13, 2]).await, None);
        assert_eq!(coalescer.ask(vec![14, 2]).await, None);
        assert_eq!(coalescer.ask(vec![1, 2, 13, 4]).await, None, "one of its two calls");
        assert_eq!(coalescer.ask(vec![3, 4]).await, Some(vec![3, 4]));
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_does_not_disturb_the_others() {
        let (gate, calls) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let coalescer = doubling(100, Arc::clone(&gate), calls);
        let gone = tokio::spawn({
            let coalescer = coalescer.clone();
            async move { coalescer.ask(vec![1]).await }
        });
        let stays = tokio::spawn({
            let coalescer = coalescer.clone();
            async move { coalescer.ask(vec![2]).await }
        });
        tokio::task::yield_now().await;
        gone.abort();
        gate.add_permits(10);
        assert_eq!(stays.await.unwrap(), Some(vec![4]));
    }
}
