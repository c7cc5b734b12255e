//! How many calls may be under way at a time: as many as allowed while DynamoDB keeps up, fewer each time it throttles, more
//! again as it recovers (additive increase, multiplicative decrease). What waits here holds back the engine's workers, and they
//! the consumers. It knows no operation and decides nothing about retries.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

/// After throttling this part of the calls may be under way: seven tenths, gentler than TCP's half, since a throttled
/// call has lost nothing but time.
const DECREASE: (usize, usize) = (7, 10);
/// However DynamoDB throttles, this part of the calls may be under way: one sixteenth. What is throttled is a partition or a table,
/// and the others must not wait for it one by one.
const LEAST_ONE_IN: usize = 16;

/// A bound of concurrent calls that adapts.
#[derive(Debug)]
pub(crate) struct Limiter {
    permits: Semaphore,
    max: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limit: usize,
    /// Permits to be withdrawn as soon as they are given back.
    owed: usize,
    /// Answers since the limit last changed.
    answers: usize,
}

/// How DynamoDB answered, as far as the limiter is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It had the capacity, whatever else it said.
    Served,
    /// It had not.
    Throttled,
}

impl Limiter {
    /// At most `max` calls, and so many at first.
    pub(crate) fn new(max: usize) -> Self {
        let state = State { limit: max, owed: 0, answers: 0 };
        Self { permits: Semaphore::new(max), max, state: Mutex::new(state) }
    }

    /// Waits for a place. It is given back when the permit is dropped or, better, by [`Self::answered`].
    pub(crate) async fn enter(&self) -> SemaphorePermit<'_> {
        self.permits.acquire().await.expect("the limiter's semaphore is never closed")
    }

    /// Gives a place back and learns from the answer. Returns how many calls are allowed from now on.
    pub(crate) fn answered(&self, permit: SemaphorePermit<'_>, answer: Answer) -> usize {
        let mut state = self.state();
        state.answers += 1;
        // One window of calls is one experience: what was under way when the limit fell says nothing about the new limit.
        let window_is_over = state.answers >= state.limit;
        match answer {
            Answer::Throttled if window_is_over || state.limit == self.max => {
                let limit = (state.limit * DECREASE.0 / DECREASE.1).max(self.max.div_ceil(LEAST_ONE_IN));
                state.owed += state.limit - limit;
                state.limit = limit;
                state.answers = 0;
            }
            Answer::Served if window_is_over && state.limit < self.max => {
                state.limit += 1;
                state.answers = 0;
                if state.owed > 0 {
                    state.owed -= 1;
                } else {
                    self.permits.add_permits(1);
                }
            }
            _ => {}
        }
        if state.owed > 0 {
            state.owed -= 1;
            permit.forget();
            state.owed -= self.permits.forget_permits(state.owed);
        }
        state.limit
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn call(limiter: &Limiter, answer: Answer) -> usize {
        let permit = limiter.enter().await;
        limiter.answered(permit, answer)
    }

    #[tokio::test]
    async fn throttling_closes_it_to_a_sixteenth_and_success_opens_it_again() {
        let limiter = Limiter::new(16);
        let mut limit = 16;
        for _ in 0..1000 {
            limit = call(&limiter, Answer::Throttled).await;
        }
        assert_eq!(limit, 1);
        assert_eq!(limiter.permits.available_permits(), 1);
        for _ in 0..1000 {
            limit = call(&limiter, Answer::Served).await;
        }
        assert_eq!(limit, 16);
        assert_eq!(limiter.permits.available_permits(), 16);
    }

    #[tokio::test]
    async fn places_that_are_taken_are_withdrawn_when_they_are_given_back() {
        let limiter = Limiter::new(10);
        let mut taken = Vec::new();
        for _ in 0..10 {
            taken.push(limiter.enter().await);
        }
        let last = taken.pop().unwrap();
        assert_eq!(limiter.answered(last, Answer::Throttled), 7);
        limiter.answered(taken.pop().unwrap(), Answer::Served);
        limiter.answered(taken.pop().unwrap(), Answer::Served);
        assert_eq!(limiter.permits.available_permits(), 0);
        limiter.answered(taken.pop().unwrap(), Answer::Served);
        assert_eq!(limiter.permits.available_permits(), 1);
    }

    #[tokio::test]
    async fn one_burst_of_throttling_counts_once() {
        let limiter = Limiter::new(100);
        let mut taken = Vec::new();
        for _ in 0..20 {
            taken.push(limiter.enter().await);
        }
        let limits: Vec<usize> =
            taken.into_iter().map(|permit| limiter.answered(permit, Answer::Throttled)).collect();
        assert_eq!(limits.last(), Some(&70));
    }
}
