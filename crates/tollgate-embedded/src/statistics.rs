//! What the embedded store counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a store has done since it was opened.
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
    /// Outbox entries deleted.
    pub deletions: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) commits: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) loads: AtomicU64,
    pub(crate) entry_reads: AtomicU64,
    pub(crate) deletions: AtomicU64,
}

impl Counters {
    pub(crate) fn read(&self) -> EmbeddedStatistics {
        EmbeddedStatistics {
            commits: self.commits.load(Ordering::Relaxed),
            syncs: self.syncs.load(Ordering::Relaxed),
            loads: self.loads.load(Ordering::Relaxed),
            entry_reads: self.entry_reads.load(Ordering::Relaxed),
            deletions: self.deletions.load(Ordering::Relaxed),
        }
    }
}
