//! What a process has of its own: a durable store, a durable broker that misbehaves, and a place for blobs, all in one directory.
//! Whose process it is makes no difference here.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::time::Instant;
use tollgate::proto::{EndpointName, StoreAlias};
use tollgate::{Backoff, Blobs, Broker, Gate, GateBuilder, Store};
use tollgate_brokers::{InProcessBroker, RecoveryLogError};
use tollgate_embedded::{DirectoryBlobs, EmbeddedError, EmbeddedStore};
use tollgate_testkit::{ChaosBroker, ChaosCounts};

use crate::Failure;
use crate::leftovers::Leftovers;

/// How much goes wrong in the broker.
const DUPLICATES: f64 = 0.3;
const REORDERED: usize = 50;
const LOST_ACKNOWLEDGEMENTS: f64 = 0.1;
const FAILING_SENDS: f64 = 0.02;

/// How long the broker waits for a delivery to be settled before it delivers again.
const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(1);

/// Deliveries after which a message that still fails is dead-lettered: many, for this broker delivers many times by design.
const DELIVERIES_MAX: u32 = 1_000;

/// How a message is put back that could not be processed now.
const REDELIVERY: Backoff = Backoff { first: Duration::from_millis(20), cap: Duration::from_millis(500) };

/// After this time an attempt makes no more calls and no more blobs, and what is left of it can be cleaned up. A minute would
/// be usual, and a minute is what the show would then wait for at its end.
const ATTEMPT_MAX: Duration = Duration::from_secs(3);

/// How long what was sent off may be under way: everything is on this machine.
const UNDER_WAY_MAX: Duration = Duration::from_secs(1);

/// How often the store is searched for what the dead have left.
const SWEEP_EVERY: Duration = Duration::from_secs(2);

/// How long a partition is left alone before its finished entries are flushed.
const FLUSH_AFTER: Duration = Duration::from_millis(500);

/// How long a directory may belong to somebody who is about to end, and how often it is looked whether he has.
const RELEASED_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Where a process is, as it is told when it is started.
#[derive(Args)]
pub struct Place {
    /// Its directory.
    #[arg(long)]
    pub data: PathBuf,
    /// Where it is found.
    #[arg(long)]
    pub listen: SocketAddr,
    /// What its broker's misbehaviour is drawn from.
    #[arg(long)]
    pub seed: u64,
}

/// What a process has of its own.
pub struct House {
    pub store: Arc<dyn Store>,
    pub blobs: Arc<dyn Blobs>,
    queues: Arc<InProcessBroker>,
    chaos: Arc<ChaosBroker>,
    endpoints: Vec<EndpointName>,
}

impl House {
    /// Opens a directory, also one that a dead process has left, or one that was left alone and is about to end.
    pub async fn open(data: &Path, alias: &str, endpoints: &[&str], seed: u64) -> Result<Self, Failure> {
        let alias = StoreAlias::new(alias)?;
        let store = || EmbeddedStore::open(data.join("store"), alias.clone());
        let store = released(store, |error| matches!(error, EmbeddedError::InUse { .. })).await?;
        let queues = || {
            let queues = InProcessBroker::builder().visibility_timeout(VISIBILITY_TIMEOUT);
            queues.durable(data.join("broker")).open()
        };
        let queues = released(queues, |error| matches!(error, RecoveryLogError::InUse { .. })).await?;
        let blobs = DirectoryBlobs::open(data.join("blobs"))?;
        let queues = Arc::new(queues);
        let chaos = ChaosBroker::builder(Arc::clone(&queues) as Arc<dyn Broker>)
            .seed(seed)
            .duplicates(DUPLICATES)
            .reorder(REORDERED)
            .lose_acks(LOST_ACKNOWLEDGEMENTS)
            .failing_sends(FAILING_SENDS)
            .build();
        let endpoints = endpoints.iter().map(|name| EndpointName::new(*name)).collect::<Result<_, _>>()?;
        Ok(Self { store: Arc::new(store), blobs: Arc::new(blobs), queues, chaos: Arc::new(chaos), endpoints })
    }

    /// The beginning of a gate.
    pub fn gate(&self) -> GateBuilder {
        Gate::builder()
            .store(Arc::clone(&self.store))
            .broker(Arc::clone(&self.chaos) as Arc<dyn Broker>)
            .blobs(Arc::clone(&self.blobs))
            .deliveries_max(DELIVERIES_MAX)
            .redelivery(REDELIVERY)
            .attempt_max(ATTEMPT_MAX)
            .under_way_max(UNDER_WAY_MAX)
            .sweep_every(Some(SWEEP_EVERY))
            .flush_after(FLUSH_AFTER)
    }

    /// How many messages are under way, by endpoint.
    pub fn under_way(&self) -> Vec<(String, u64)> {
        let depth = |endpoint: &EndpointName| {
            let depth = self.queues.depth(endpoint);
            (endpoint.to_string(), (depth.ready + depth.delayed + depth.in_flight) as u64)
        };
        self.endpoints.iter().map(depth).collect()
    }

    /// What went wrong in the broker so far.
    pub fn chaos(&self) -> ChaosCounts {
        self.chaos.counts()
    }

    /// What is there and should not be, once all is quiet.
    pub async fn leftovers(&self) -> Result<Leftovers, Failure> {
        let mut left = Leftovers::of_store(&*self.store).await?;
        left.messages = self.under_way().iter().map(|(_, messages)| messages).sum();
        left.dead_letters =
            self.endpoints.iter().map(|endpoint| self.queues.depth(endpoint).dead as u64).sum();
        Ok(left)
    }

    /// Writes what is left to write, and frees the directory.
    pub async fn close(self) -> Result<(), Failure> {
        Ok(self.queues.close().await?)
    }
}

/// Opens something as soon as nobody else has it open.
async fn released<T, E>(open: impl Fn() -> Result<T, E>, is_in_use: impl Fn(&E) -> bool) -> Result<T, E> {
    let asked = Instant::now();
    loop {
        match open() {
            Err(error) if is_in_use(&error) && asked.elapsed() < RELEASED_WITHIN => {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            opened => return opened,
        }
    }
}
