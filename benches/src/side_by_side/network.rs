//! The way to the store, the same for every contender: a bounded number of connections, a wait for each call, and a meter of what
//! went over it. It knows neither stores nor tables.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::latency::Latency;

/// The way to the store.
pub struct Network {
    latency: Latency,
    connections: Semaphore,
    random: Mutex<fastrand::Rng>,
    calls: AtomicU64,
    write_units: AtomicU64,
    read_units: AtomicU64,
    /// In hundredths.
    request_units: AtomicU64,
}

/// What went over the network, or a part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// Calls: round trips.
    pub calls: u64,
    /// Write capacity units of `DynamoDB`, by its published rules.
    pub write_units: u64,
    /// Read capacity units, likewise.
    pub read_units: u64,
    /// Request units of Cosmos DB, by its published table.
    pub request_units: f64,
}

const HUNDREDTHS: f64 = 100.0;

impl Network {
    /// A network of so many connections (0: no bound).
    pub fn new(latency: Latency, connections: usize, seed: u64) -> Self {
        let connections = if connections == 0 { Semaphore::MAX_PERMITS } else { connections };
        Self {
            latency,
            connections: Semaphore::new(connections),
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            calls: AtomicU64::new(0),
            write_units: AtomicU64::new(0),
            read_units: AtomicU64::new(0),
            request_units: AtomicU64::new(0),
        }
    }

    /// Makes a call: waits for a connection, then for the way, then does what the call is about. The connection is taken until
    /// it is done.
    ///
    /// # Panics
    /// Never: connections are not closed.
    pub async fn call<T>(&self, call: impl Future<Output = T>) -> T {
        let connection = self.connections.acquire().await.expect("the connections are never closed");
        self.calls.fetch_add(1, Ordering::Relaxed);
        let wait = self.latency.draw(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(wait) = wait {
            tokio::time::sleep(wait).await;
        }
        let answer = call.await;
        drop(connection);
        answer
    }

    /// Counts what a call was charged.
    pub fn charge(&self, write_units: u64, read_units: u64, request_units: f64) {
        self.write_units.fetch_add(write_units, Ordering::Relaxed);
        self.read_units.fetch_add(read_units, Ordering::Relaxed);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "charges are small and positive"
        )]
        let hundredths = (request_units * HUNDREDTHS).round() as u64;
        self.request_units.fetch_add(hundredths, Ordering::Relaxed);
    }

    /// What went over it so far.
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    pub fn traffic(&self) -> Traffic {
        Traffic {
            calls: self.calls.load(Ordering::Relaxed),
            write_units: self.write_units.load(Ordering::Relaxed),
            read_units: self.read_units.load(Ordering::Relaxed),
            request_units: self.request_units.load(Ordering::Relaxed) as f64 / HUNDREDTHS,
        }
    }
}

impl Traffic {
    /// What went over it after `earlier` was read.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            calls: self.calls - earlier.calls,
            write_units: self.write_units - earlier.write_units,
            read_units: self.read_units - earlier.read_units,
            request_units: self.request_units - earlier.request_units,
        }
    }
}
