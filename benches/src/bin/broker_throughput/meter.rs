//! What is counted of a run: acknowledgements, when they came, and how long each delivery took. The first ones warm up and are not
//! measured.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tollgate_bench::watched_broker::{Percentiles, Times};

/// Counts one run.
pub struct Meter {
    warm_up: u64,
    last: u64,
    acknowledged: AtomicU64,
    times: Times,
    begin: OnceLock<Instant>,
    end: OnceLock<Instant>,
    ended: Notify,
}

impl Meter {
    /// For so many messages, after so many others.
    pub fn new(warm_up: u64, messages: u64) -> Self {
        Self {
            warm_up,
            last: warm_up + messages,
            acknowledged: AtomicU64::new(0),
            times: Times::default(),
            begin: OnceLock::new(),
            end: OnceLock::new(),
            ended: Notify::new(),
        }
    }

    /// One has been acknowledged, so long after it was delivered.
    pub fn note(&self, time: Duration) {
        let count = self.acknowledged.fetch_add(1, Ordering::Relaxed) + 1;
        if count > self.warm_up {
            self.times.note(time);
        }
        if count == self.warm_up {
            let _ = self.begin.set(Instant::now());
        }
        if count == self.last {
            let _ = self.end.set(Instant::now());
            self.ended.notify_one();
        }
    }

    /// Waits until as many have been acknowledged as there are.
    pub async fn until_ended(&self) {
        self.ended.notified().await;
    }

    /// Messages a second, and how long deliveries took. To be called when it has ended.
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub fn read(&self) -> (f64, Percentiles) {
        let begin = self.begin.get().expect("it has begun when the last one of the warm-up came");
        let end = self.end.get().expect("it has ended when the last one came");
        let rate = (self.last - self.warm_up) as f64 / end.duration_since(*begin).as_secs_f64();
        (rate, self.times.take())
    }
}
