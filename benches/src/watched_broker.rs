//! A broker that measures how long deliveries take from where the consumer gets them to where it acknowledges them. It changes nothing
//! of what passes through it, and keeps only what is not settled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tollgate::proto::{
    BoxFuture, Broker, BrokerError, BrokerWrapper, Delivery, EndpointName, Receipt, Settlement, Verdict,
};

/// Two digits: a percentile is right within one percent.
const DIGITS: u8 = 2;

/// What is longer counts as so long.
const LONGEST: Duration = Duration::from_secs(3_600);

/// Times, of which percentiles can be told. Its size does not depend on how many there are.
pub struct Times(Mutex<Histogram<u64>>);

/// Percentiles of times, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Percentiles {
    /// Of how many times.
    pub count: u64,
    /// Half are below.
    pub p50: f64,
    /// 99 of 100 are below.
    pub p99: f64,
}

impl Default for Times {
    fn default() -> Self {
        let longest = u64::try_from(LONGEST.as_micros()).expect("an hour has fewer microseconds");
        Self(Mutex::new(Histogram::new_with_bounds(1, longest, DIGITS).expect("the bounds are in order")))
    }
}

impl Times {
    /// Notes one.
    pub fn note(&self, time: Duration) {
        self.lock().saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    /// Those that were noted since the last call.
    #[expect(clippy::cast_precision_loss, reason = "an hour is shorter than 2^52 us")]
    pub fn take(&self) -> Percentiles {
        let mut times = self.lock();
        let at = |part| times.value_at_quantile(part) as f64 / 1_000.0;
        let percentiles = Percentiles { count: times.len(), p50: at(0.5), p99: at(0.99) };
        times.reset();
        percentiles
    }

    fn lock(&self) -> MutexGuard<'_, Histogram<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A broker, watched.
pub struct WatchedBroker<Told> {
    inner: Arc<dyn Broker>,
    unsettled: Mutex<HashMap<(EndpointName, Receipt), Instant>>,
    told: Told,
}

impl<Told: Fn(Duration) + Send + Sync + 'static> WatchedBroker<Told> {
    /// Watches a broker, and tells of each acknowledgement how long its delivery took.
    pub fn around(inner: Arc<dyn Broker>, told: Told) -> Self {
        Self { inner, unsettled: Mutex::default(), told }
    }

    fn unsettled(&self) -> MutexGuard<'_, HashMap<(EndpointName, Receipt), Instant>> {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Told: Fn(Duration) + Send + Sync + 'static> BrokerWrapper for WatchedBroker<Told> {
    fn inner(&self) -> &dyn Broker {
        &*self.inner
    }

    fn receive(
        &self,
        endpoint: &EndpointName,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<Delivery>, BrokerError>> {
        let endpoint = endpoint.clone();
        Box::pin(async move {
            let deliveries = self.inner.receive(&endpoint, max).await?;
            let now = Instant::now();
            let receipts = deliveries.iter().map(|delivery| (endpoint.clone(), delivery.receipt.clone()));
            self.unsettled().extend(receipts.map(|key| (key, now)));
            Ok(deliveries)
        })
    }

    fn settle(
        &self,
        endpoint: &EndpointName,
        settlements: Vec<Settlement>,
    ) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        let endpoint = endpoint.clone();
        Box::pin(async move {
            let settled: Vec<_> = settlements
                .iter()
                .map(|settlement| (settlement.receipt.clone(), settlement.verdict == Verdict::Acknowledge))
                .collect();
            let answers = self.inner.settle(&endpoint, settlements).await;
            for (receipt, is_done) in settled {
                let since = self.unsettled().remove(&(endpoint.clone(), receipt));
                // None: settled twice, or never delivered here.
                if let Some(since) = since.filter(|_| is_done) {
                    (self.told)(since.elapsed());
                }
            }
            answers
        })
    }
}
