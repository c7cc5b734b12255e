//! What the store asked of Cosmos DB and what it was charged, by operation: for tests, measurements and dashboards. Counting
//! decides nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::Counter;
use tollgate_proto::StoreAlias;

/// What a request to Cosmos DB was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Control records, items and deduplication records read.
    Load,
    /// Outbox entries read.
    ReadEntry,
    /// Transactional batches that commit.
    Commit,
    /// Control records read because the etag of a version was forgotten, and records because one was in the way.
    BeforeCommit,
    /// Outbox entries deleted.
    DeleteEntry,
    /// Pages of a scan.
    Scan,
    /// Expired records looked for and deleted.
    Expire,
    /// Questions at start.
    Verify,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Load,
        Self::ReadEntry,
        Self::Commit,
        Self::BeforeCommit,
        Self::DeleteEntry,
        Self::Scan,
        Self::Expire,
        Self::Verify,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::ReadEntry => "read_entry",
            Self::Commit => "commit",
            Self::BeforeCommit => "before_commit",
            Self::DeleteEntry => "delete_entry",
            Self::Scan => "scan",
            Self::Expire => "expire",
            Self::Verify => "verify",
        }
    }
}

/// What one operation has cost since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct OperationCosts {
    /// Requests to the service, the SDK's own retries not counted.
    pub requests: u64,
    /// Those that were throttled (429).
    pub throttled: u64,
    /// Those that failed otherwise; a failed condition and a missing document are not failures.
    pub failed: u64,
    /// Request units that the answers reported.
    pub request_units: f64,
}

/// What a store has cost since it was opened.
///
/// The same figures go to the `metrics` recorder that was installed when the store was opened, as
/// `tollgate_cosmos_requests_total`, `…_throttled_total`, `…_failed_total` and `…_request_units_hundredths_total`, labelled
/// with the `store`'s alias and the `operation`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CosmosStatistics {
    operations: [OperationCosts; Operation::ALL.len()],
}

impl CosmosStatistics {
    /// The costs of one operation.
    pub const fn of(&self, operation: Operation) -> OperationCosts {
        self.operations[operation as usize]
    }

    /// The costs of all operations together.
    pub fn total(&self) -> OperationCosts {
        let mut total = OperationCosts::default();
        for costs in &self.operations {
            total.requests += costs.requests;
            total.throttled += costs.throttled;
            total.failed += costs.failed;
            total.request_units += costs.request_units;
        }
        total
    }
}

pub(crate) struct Tallies {
    operations: [Tally; Operation::ALL.len()],
}

struct Tally {
    requests: Figure,
    throttled: Figure,
    failed: Figure,
    hundredths: Figure,
}

struct Figure {
    count: AtomicU64,
    recorded: Counter,
}

impl Figure {
    fn new(recorded: Counter) -> Self {
        Self { count: AtomicU64::new(0), recorded }
    }

    fn add(&self, more: u64) {
        self.count.fetch_add(more, Ordering::Relaxed);
        self.recorded.increment(more);
    }

    fn read(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Tallies {
    pub(crate) fn new(alias: &StoreAlias) -> Self {
        let operations = Operation::ALL.map(|operation| {
            let labels = [("store", alias.to_string()), ("operation", operation.label().to_owned())];
            Tally {
                requests: Figure::new(metrics::counter!("tollgate_cosmos_requests_total", &labels)),
                throttled: Figure::new(metrics::counter!("tollgate_cosmos_throttled_total", &labels)),
                failed: Figure::new(metrics::counter!("tollgate_cosmos_failed_total", &labels)),
                hundredths: Figure::new(metrics::counter!(
                    "tollgate_cosmos_request_units_hundredths_total",
                    &labels
                )),
            }
        });
        Self { operations }
    }

    pub(crate) fn count_request(&self, operation: Operation) {
        self.operations[operation as usize].requests.add(1);
    }

    pub(crate) fn count_throttled(&self, operation: Operation) {
        self.operations[operation as usize].throttled.add(1);
    }

    pub(crate) fn count_failed(&self, operation: Operation) {
        self.operations[operation as usize].failed.add(1);
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "charges are small and positive"
    )]
    pub(crate) fn count_charge(&self, operation: Operation, request_units: f64) {
        self.operations[operation as usize].hundredths.add((request_units.max(0.0) * 100.0).round() as u64);
    }

    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    pub(crate) fn read(&self) -> CosmosStatistics {
        let operations = self.operations.each_ref().map(|tally| OperationCosts {
            requests: tally.requests.read(),
            throttled: tally.throttled.read(),
            failed: tally.failed.read(),
            request_units: tally.hundredths.read() as f64 / 100.0,
        });
        CosmosStatistics { operations }
    }
}
