//! A consumer that can die: a gate on a runtime of its own. To crash it is to drop the runtime, which ends every task
//! where it happens to wait: its memory, its cache and what it had taken from the broker are lost, as with a process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Runtime;
use tollgate::{Backoff, Broker, Gate, Statistics, Store};

use crate::error::DemoError;
use crate::flights::Input;
use crate::source::{self, Progress};
use crate::{aircraft, airports};

/// A running consumer.
pub struct Consumer {
    runtime: Runtime,
    gate: Gate,
    /// Set by the source's task when every flight has been sent, by whomever.
    sent_everything: Arc<AtomicBool>,
}

/// Deliveries after which a message that still fails is dead-lettered. The demo's broker delivers many times by design:
/// acknowledgements are lost, consumers die.
const DELIVERIES_MAX: u32 = 1_000;

impl Consumer {
    /// Starts a consumer of all endpoints, which also sends what the source has not sent yet.
    ///
    /// # Errors
    /// If the gate can't be opened.
    pub fn start(
        store: Arc<dyn Store>,
        broker: Arc<dyn Broker>,
        workers: usize,
        input: &Arc<Input>,
    ) -> Result<Self, DemoError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            // A store may have connections of its own.
            .enable_all()
            .thread_name("consumer")
            .build()
            .map_err(|error| DemoError::Open(format!("a consumer's runtime can't be started: {error}")))?;
        let gate = runtime.block_on(
            Gate::builder()
                .store(store)
                .broker(broker)
                .endpoint(source::endpoint())
                .endpoint(aircraft::endpoint(workers))
                .endpoint(airports::endpoint(workers))
                .deliveries_max(DELIVERIES_MAX)
                .redelivery(Backoff { first: Duration::from_millis(20), cap: Duration::from_millis(500) })
                .sweep_every(None)
                .open(),
        )?;
        let edge = gate.edge(source::ENDPOINT)?;
        let input = Arc::clone(input);
        let sent_everything = Arc::new(AtomicBool::new(false));
        let done = Arc::clone(&sent_everything);
        runtime.spawn(async move {
            let mut sent = 0;
            while sent < input.flights.len() {
                match source::send_chunk(&edge, &input, sent).await {
                    Ok(Progress::Sent(count)) => sent = count,
                    Err(error) if error.is_retryable() => {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    // The demo has looked at the stored fingerprint before it started consumers.
                    Ok(Progress::OtherInput) | Err(_) => return,
                }
            }
            done.store(true, Ordering::Release);
        });
        Ok(Self { runtime, gate, sent_everything })
    }

    /// Whether it knows that every flight has been sent.
    pub fn has_sent_everything(&self) -> bool {
        self.sent_everything.load(Ordering::Acquire)
    }

    /// What it has done so far.
    pub fn statistics(&self) -> Statistics {
        self.gate.statistics()
    }

    /// Dies, without finishing anything.
    pub fn crash(self) -> Statistics {
        let statistics = self.gate.statistics();
        self.runtime.shutdown_background();
        statistics
    }

    /// Stops taking messages, finishes what it has, sweeps the store if asked, and ends.
    ///
    /// # Errors
    /// If the sweep fails.
    pub fn close(self, cleaning: Cleaning) -> Result<Statistics, DemoError> {
        let Self { runtime, gate, .. } = self;
        runtime.block_on(async move {
            if cleaning == Cleaning::Sweep {
                gate.flush().await;
                gate.sweep().await?;
                gate.flush().await;
            }
            Ok(gate.close().await)
        })
    }
}

/// What a consumer does before it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleaning {
    /// Only its own work.
    Own,
    /// What crashed consumers have left as well.
    Sweep,
}
