//! What the engine counts, for operators, tests and audits. Each count is kept twice: as a number that
//! [`crate::Gate::statistics`] reads, and as a counter of the `metrics` facade, in the recorder that is installed when the
//! gate is opened.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! statistics {
    ($($(#[$doc:meta])* $name:ident => $metric:literal,)*) => {
        /// What a gate has done since it was opened.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Statistics {
            $($(#[$doc])* pub $name: u64,)*
        }

        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        impl std::iter::Sum for Statistics {
            fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
                all.fold(Self::default(), |sum, one| Self { $($name: sum.$name + one.$name,)* })
            }
        }

        impl Counters {
            /// Counts into the recorder that is installed now.
            pub(crate) fn new() -> Self {
                Self { $($name: Counter::new(metrics::counter!($metric)),)* }
            }

            pub(crate) fn read(&self) -> Statistics {
                Statistics { $($name: self.$name.value.load(Ordering::Relaxed),)* }
            }
        }
    };
}

statistics! {
    /// Messages taken from the broker.
    deliveries => "tollgate_deliveries",
    /// Messages that committed.
    committed => "tollgate_committed",
    /// Commits, each of one or more messages.
    commits => "tollgate_commits",
    /// Duplicates dropped because their token was known to be consumed.
    duplicates_by_cache => "tollgate_duplicates_by_cache",
    /// Duplicates dropped because their token was gone, or their id or key was found.
    duplicates_by_store => "tollgate_duplicates_by_store",
    /// Duplicates found by a marker: committed and not finished.
    duplicates_by_marker => "tollgate_duplicates_by_marker",
    /// Copies that were attached to their message, which was still in progress.
    copies_attached => "tollgate_copies_attached",
    /// Messages' partitions that were found in the cache, one for each run of a lane.
    cache_hits => "tollgate_partition_cache_hits",
    /// Messages' partitions that had to be loaded: not seen before, evicted, or changed by another process.
    cache_misses => "tollgate_partition_cache_misses",
    /// Times that receiving was held back because a store or the broker was out of order.
    pauses => "tollgate_receive_pauses",
    /// Commits that conflicted, or whose answer was lost.
    conflicts => "tollgate_conflicts",
    /// Completions of pending entries that others have left, or that this process has failed to complete
    /// before.
    recoveries => "tollgate_recoveries",
    /// Messages put back because an earlier commit of their partition is not finished.
    blocked => "tollgate_blocked",
    /// Messages put back for another reason.
    retries => "tollgate_retries",
    /// Messages dead-lettered.
    dead_letters => "tollgate_dead_letters",
    /// Messages sent.
    published => "tollgate_published",
    /// Side effects, carried by messages, that were made to happen.
    effects_published => "tollgate_effects_published",
    /// Side effects that were deleted: of lost attempts, or because the message that carried them is done.
    effects_cleaned_up => "tollgate_effects_cleaned_up",
    /// Bodies that were moved to blob storage because of their size.
    bodies_stored => "tollgate_bodies_stored",
    /// Requests executed at the edge.
    requests => "tollgate_requests",
    /// Requests answered again from the stored response.
    replays => "tollgate_replays",
    /// Requests that were not executed because their callers had gone, or were refused because too many waited.
    requests_shed => "tollgate_requests_shed",
    /// Messages and requests that were still in progress when the gate's time to close was over.
    unfinished => "tollgate_unfinished",
    /// Panics of handlers, foreign readers and completions.
    panics => "tollgate_panics",
    /// Handlers that were dropped at their time limit.
    handlers_timed_out => "tollgate_handlers_timed_out",
    /// Calls to stores: loads.
    load_calls => "tollgate_store_load_calls",
    /// Calls to stores: token reads and other reads of outbox entries.
    read_calls => "tollgate_store_read_calls",
    /// Calls to stores: commits, registrations and flushes included.
    commit_calls => "tollgate_store_commit_calls",
    /// Calls to stores: deletions.
    delete_calls => "tollgate_store_delete_calls",
}

impl Statistics {
    /// All calls to stores.
    pub const fn store_calls(&self) -> u64 {
        self.load_calls + self.read_calls + self.commit_calls + self.delete_calls
    }

    /// Of the partitions that messages were for, which part was found in the cache: between 0 and 1.
    #[allow(clippy::cast_precision_loss, reason = "a rate for people, of counts far below 2^52")]
    pub fn cache_hit_rate(&self) -> f64 {
        self.cache_hits as f64 / (self.cache_hits + self.cache_misses).max(1) as f64
    }

    /// All duplicates that were dropped.
    pub const fn duplicates(&self) -> u64 {
        self.duplicates_by_cache + self.duplicates_by_store + self.duplicates_by_marker + self.copies_attached
    }
}

/// One count.
pub(crate) struct Counter {
    value: AtomicU64,
    metric: metrics::Counter,
}

impl Counter {
    fn new(metric: metrics::Counter) -> Self {
        Self { value: AtomicU64::new(0), metric }
    }

    pub(crate) fn add(&self, count: usize) {
        if count == 0 {
            return;
        }
        self.value.fetch_add(count as u64, Ordering::Relaxed);
        self.metric.increment(count as u64);
    }
}
