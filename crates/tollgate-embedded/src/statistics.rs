//! What the stores of this crate count, for tests, measurements and dashboards. Counting decides nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::Counter;
use tollgate_proto::StoreAlias;

/// What an embedded store has done since it was opened.
///
/// The same figures go to the `metrics` recorder that was installed when the store was opened, as
/// `tollgate_embedded_commits_total`, `…_syncs_total`, `…_loads_total`, `…_entry_reads_total` and `…_deletions_total`,
/// labelled with the `store`'s alias.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EmbeddedStatistics {
    /// Commits that happened.
    pub commits: u64,
    /// Syncs of the journal: concurrent commits and deletions share them.
    pub syncs: u64,
    /// Partitions loaded.
    pub loads: u64,
    /// Outbox entries looked for.
    pub entry_reads: u64,
    /// Outbox entries that were asked to be deleted.
    pub deletions: u64,
}

/// What an in-memory store was asked: calls, and the requests in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryStatistics {
    /// Calls of `load`.
    pub load_calls: u64,
    /// Partitions asked for in them.
    pub loads: u64,
    /// Calls of `read_entries`.
    pub entry_read_calls: u64,
    /// Outbox entries asked for in them.
    pub entry_reads: u64,
    /// Calls of `commit`.
    pub commit_calls: u64,
    /// Those that committed.
    pub commits: u64,
    /// Calls of `delete_entries`.
    pub deletion_calls: u64,
    /// Outbox entries named in them.
    pub deletions: u64,
}

/// One figure, counted here and for the recorder.
pub(crate) struct Tally {
    count: AtomicU64,
    recorded: Counter,
}

impl Tally {
    fn new(recorded: Counter) -> Self {
        Self { count: AtomicU64::new(0), recorded }
    }

    pub(crate) fn add(&self, count: usize) {
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        self.recorded.increment(count as u64);
    }

    fn read(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// What an embedded store counts with.
pub(crate) struct Tallies {
    pub(crate) commits: Tally,
    pub(crate) syncs: Tally,
    pub(crate) loads: Tally,
    pub(crate) entry_reads: Tally,
    pub(crate) deletions: Tally,
}

impl Tallies {
    pub(crate) fn new(store: &StoreAlias) -> Self {
        let store = store.as_str().to_owned();
        Self {
            commits: Tally::new(
                metrics::counter!("tollgate_embedded_commits_total", "store" => store.clone()),
            ),
            syncs: Tally::new(metrics::counter!("tollgate_embedded_syncs_total", "store" => store.clone())),
            loads: Tally::new(metrics::counter!("tollgate_embedded_loads_total", "store" => store.clone())),
            entry_reads: Tally::new(
                metrics::counter!("tollgate_embedded_entry_reads_total", "store" => store.clone()),
            ),
            deletions: Tally::new(metrics::counter!("tollgate_embedded_deletions_total", "store" => store)),
        }
    }

    pub(crate) fn read(&self) -> EmbeddedStatistics {
        EmbeddedStatistics {
            commits: self.commits.read(),
            syncs: self.syncs.read(),
            loads: self.loads.read(),
            entry_reads: self.entry_reads.read(),
            deletions: self.deletions.read(),
        }
    }
}
