//! The idle flush and the sweep: what removes finished entries from partitions that are not visited any more (step 9
//! of the algorithm), and completes what dead processes have left behind (R5). Both only send visits to lanes.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tollgate_proto::{ScanCursor, ScanPrice, StoreError, codec};

use crate::engine::Engine;
use crate::lanes::{Job, LaneKey, Visit, VisitJob};
use crate::limited::within;

/// Most partitions that are visited at a time by a flush or a sweep.
const VISITS_MAX: usize = 256;

/// The longest that a flush or a sweep waits for the partitions that it visits at a time. Their lanes go on without it.
const VISITS_TIME_MAX: Duration = Duration::from_secs(60);

/// Least time between two rounds of retries.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Most partitions in one page of a sweep.
const SWEEP_PAGE: usize = 512;

/// Flushes idle partitions until `closing`.
pub(crate) async fn flush_idle(engine: Arc<Engine>, closing: CancellationToken) {
    let pause = engine.settings.flush_after / 2;
    let flush_after_ms = u64::try_from(engine.settings.flush_after.as_millis()).unwrap_or(u64::MAX);
    while closing.run_until_cancelled(engine.tasks.runtime().sleep(pause)).await.is_some() {
        let before_ms = engine.now_ms().saturating_sub(flush_after_ms);
        flush(&engine, before_ms).await;
    }
}

/// Flushes partitions that were not used since `before_ms`. Returns how many visits it made.
pub(crate) async fn flush(engine: &Arc<Engine>, before_ms: u64) -> usize {
    let mut idle = engine.lanes.idle_with_marks(before_ms);
    let mut visited = 0;
    while !idle.is_empty() {
        // While something is out of order, one visit tells whether it still is; the others can wait for the next flush.
        let is_failing = engine.is_failing();
        let some: Vec<LaneKey> =
            idle.drain(..idle.len().min(if is_failing { 1 } else { VISITS_MAX })).collect();
        visited += some.len();
        visit_all(engine, some, Visit::Flush).await;
        if is_failing && engine.is_failing() {
            break;
        }
    }
    visited
}

/// Visits partitions whose unfinished entries are due for another try, until `closing`.
pub(crate) async fn retry_unfinished(engine: Arc<Engine>, closing: CancellationToken) {
    let runtime = engine.tasks.runtime();
    while !closing.is_cancelled() {
        // While something is out of order, one visit tells whether it still is.
        let max = if engine.is_failing() { 1 } else { VISITS_MAX };
        let (due, next_ms) = engine.lanes.take_due(max, engine.now_ms());
        for key in due {
            // Nobody waits for its end: it may be long.
            let (done, _) = oneshot::channel();
            engine.submit(key, Job::Visit(VisitJob { visit: Visit::Sweep, _ends_by_drop: done }));
        }
        let pause = next_ms.map(|next_ms| Duration::from_millis(next_ms.saturating_sub(engine.now_ms())));
        let wait = async {
            match pause {
                Some(pause) => {
                    drop(select(pin!(engine.lanes.failed().notified()), runtime.sleep(pause)).await);
                }
                None => engine.lanes.failed().notified().await,
            }
            // Not for every failure by itself.
            runtime.sleep(RETRY_PAUSE).await;
        };
        closing.run_until_cancelled(wait).await;
    }
}

/// Sweeps the stores from time to time until `closing`.
pub(crate) async fn sweep_regularly(engine: Arc<Engine>, closing: CancellationToken) {
    let sweeps = engine.settings.sweeps;
    let Some(pause) = sweeps.pause() else { return };
    while closing.run_until_cancelled(engine.tasks.runtime().sleep(pause)).await.is_some() {
        // It has logged what has failed; the next one starts again.
        let _ = closing.run_until_cancelled(sweep(&engine, |price| sweeps.includes(price))).await;
    }
}

/// Visits every partition whose control record lists something unfinished, in the stores that are included. Returns how many it
/// visited, or the first error when all other stores were swept.
pub(crate) async fn sweep(
    engine: &Arc<Engine>,
    includes: impl Fn(ScanPrice) -> bool,
) -> Result<usize, StoreError> {
    let mut visited = 0;
    let mut failure = None;
    for (index, client) in engine.stores.iter().enumerate() {
        if !includes(client.store().scan_price()) {
            continue;
        }
        if let Err(error) = sweep_store(engine, index, &mut visited).await {
            tracing::warn!(store = %client.alias(), %error, "sweep of a store broken off");
            failure.get_or_insert(error);
        }
    }
    failure.map_or(Ok(visited), Err)
}

async fn sweep_store(engine: &Arc<Engine>, index: usize, visited: &mut usize) -> Result<(), StoreError> {
    let client = &engine.stores[index];
    client.store().expire(engine.now_ms()).await?;
    let mut cursor: Option<ScanCursor> = None;
    loop {
        let page = client.store().survey(cursor, SWEEP_PAGE).await?;
        let unfinished: Vec<LaneKey> = page
            .partitions
            .into_iter()
            .filter(|scanned| {
                let control = scanned.control.as_deref().map(codec::decode_control);
                match control {
                    Some(Ok(control)) => !control.pending.is_empty() || !control.registrations.is_empty(),
                    Some(Err(error)) => {
                        tracing::error!(partition = %scanned.partition, %error, "a control record is damaged");
                        false
                    }
                    None => false,
                }
            })
            .map(|scanned| LaneKey { store: index, partition: scanned.partition })
            // What this process is at work on needs no visitor.
            .filter(|key| !engine.lanes.knows(key))
            .collect();
        *visited += unfinished.len();
        visit_all(engine, unfinished, Visit::Sweep).await;
        cursor = page.next;
        if cursor.is_none() {
            return Ok(());
        }
    }
}

async fn visit_all(engine: &Arc<Engine>, keys: Vec<LaneKey>, visit: Visit) {
    for some in keys.chunks(VISITS_MAX) {
        let mut visits = Vec::with_capacity(some.len());
        for key in some {
            let (done, visited) = oneshot::channel();
            engine.submit(key.clone(), Job::Visit(VisitJob { visit, _ends_by_drop: done }));
            visits.push(visited);
        }
        let count = visits.len();
        let ended = async {
            for visited in visits {
                // The visit ends by dropping its sender, whether it succeeded or not.
                let _ = visited.await;
            }
        };
        if within(engine.tasks.runtime(), VISITS_TIME_MAX, ended).await.is_err() {
            tracing::warn!(
                partitions = count,
                "some of the partitions visited have not answered; going on without them"
            );
        }
    }
}
