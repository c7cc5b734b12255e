//! Bounded waiting: the engine awaits no foreign future for ever, and a panic in one ends nothing but that future.
//!
//! Foreign are handlers, stores, the broker, blob storage and side effects.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use tollgate_proto::BoxFuture;

use crate::runtime::Runtime;

/// The reason why a foreign future gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// It was dropped at its time limit.
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
    /// It panicked, with this text.
    #[error("it panicked: {0}")]
    Panicked(String),
}

/// Awaits a foreign future, for at most `limit`. A future that is ready at once costs no timer.
pub(crate) async fn within<T>(
    runtime: &dyn Runtime,
    limit: Duration,
    future: impl Future<Output = T>,
) -> Result<T, NoAnswer> {
    let mut future = pin!(future);
    let mut end: Option<BoxFuture<'static, ()>> = None;
    std::future::poll_fn(|context| {
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(Poll::Ready(answer)) => return Poll::Ready(Ok(answer)),
            Ok(Poll::Pending) => {}
            Err(panic) => return Poll::Ready(Err(NoAnswer::Panicked(panic_text(&*panic)))),
        }
        let end = end.get_or_insert_with(|| runtime.sleep(limit));
        end.as_mut().poll(context).map(|()| Err(NoAnswer::Late(limit)))
    })
    .await
}

/// Awaits a foreign future that has a time limit of its own.
pub(crate) async fn caught<T>(future: impl Future<Output = T>) -> Result<T, NoAnswer> {
    AssertUnwindSafe(future).catch_unwind().await.map_err(|panic| NoAnswer::Panicked(panic_text(&*panic)))
}

/// Calls foreign code that does not wait.
pub(crate) fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, NoAnswer> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| NoAnswer::Panicked(panic_text(&*panic)))
}

/// The text of a panic, as `panic!` was given it.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
    text.unwrap_or_else(|| "with something that is no text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::TokioRuntime;

    const LIMIT: Duration = Duration::from_secs(3);

    #[tokio::test(start_paused = true)]
    async fn a_future_that_hangs_is_given_up_at_its_limit() {
        let runtime = TokioRuntime::new();
        let start = tokio::time::Instant::now();
        let answer = within(&runtime, LIMIT, std::future::pending::<()>()).await;
        assert_eq!(answer, Err(NoAnswer::Late(LIMIT)));
        assert_eq!(start.elapsed().as_secs(), 3);
        let slow = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            7
        };
        assert_eq!(within(&runtime, LIMIT, slow).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_becomes_an_answer_with_its_text() {
        let runtime = TokioRuntime::new();
        let later = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(LIMIT.is_zero(), "{} is too much", 7);
        };
        let panicked = |text: &str| Err(NoAnswer::Panicked(text.to_owned()));
        assert_eq!(within(&runtime, LIMIT, later).await, panicked("7 is too much"));
        assert_eq!(guarded(|| assert!(LIMIT.is_zero(), "no")), panicked("no"));
    }
}
