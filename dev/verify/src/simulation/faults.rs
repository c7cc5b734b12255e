//! What goes wrong in a run, how often, and how often it did.

use std::time::Duration;

/// How much goes wrong. Rates are probabilities for each call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Faults {
    /// Processes that run at a time.
    pub processes: usize,
    /// Processes that die at a random moment, losing their memory; each is replaced.
    pub deaths: usize,
    /// Times that a process stops for longer than the broker's patience and then goes on.
    pub stalls: usize,
    /// How often a call fails: before its effect, after it, or throttled; for stores, brokers and blob storage.
    pub failing_calls: f64,
    /// How often a message is given extra copies.
    pub duplicates: f64,
    /// How many messages are held back to change their order.
    pub reorder: usize,
    /// How often an acknowledgement is lost.
    pub lost_acknowledgements: f64,
    /// How often a call takes very long.
    pub latency_spikes: f64,
    /// How often a call is never answered, whether it takes effect, does not, or does later.
    pub hanging_calls: f64,
    /// How often a handler never returns.
    pub hanging_handlers: f64,
    /// The longest that a call usually takes, before its effect and after it again.
    pub latency_max: Duration,
    /// After how many deliveries a message is dead-lettered. They are redriven from time to time.
    pub deliveries_max: u32,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            processes: 3,
            deaths: 3,
            stalls: 1,
            failing_calls: 0.04,
            duplicates: 0.3,
            reorder: 5,
            lost_acknowledgements: 0.1,
            latency_spikes: 0.002,
            hanging_calls: 0.002,
            hanging_handlers: 0.02,
            latency_max: Duration::from_millis(4),
            deliveries_max: 12,
        }
    }
}

impl Faults {
    /// Nothing goes wrong; calls still take time and so overtake each other.
    pub const NONE: Self = Self {
        processes: 3,
        deaths: 0,
        stalls: 0,
        failing_calls: 0.0,
        duplicates: 0.0,
        reorder: 0,
        lost_acknowledgements: 0.0,
        latency_spikes: 0.0,
        hanging_calls: 0.0,
        hanging_handlers: 0.0,
        latency_max: Duration::from_millis(4),
        deliveries_max: 12,
    };
}

macro_rules! tally {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// How often each kind of fault was injected.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct FaultTally {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl FaultTally {
            /// Each kind with its count.
            pub fn kinds(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }

            /// Adds the faults of another run.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

tally! {
    /// Store calls refused as unavailable.
    store_unavailable,
    /// Store calls throttled.
    store_throttled,
    /// Commits of unknown outcome that did not happen.
    lost_commits,
    /// Commits that were tried and whose answer was lost.
    lost_commit_answers,
    /// Deletions that happened and were answered by an error.
    lost_deletion_answers,
    /// Sends that failed and had no effect.
    sends_failed_before,
    /// Sends that had their effect and failed.
    sends_failed_after,
    /// Receives that failed.
    receives_failed,
    /// Extra copies of messages.
    duplicates,
    /// Publications that a broker dropped because it knew their ids.
    dropped_as_known,
    /// Messages delivered before others that had come earlier.
    reordered,
    /// Acknowledgements that were lost.
    lost_acknowledgements,
    /// Blob calls that failed and had no effect.
    blobs_failed_before,
    /// Blob calls that had their effect and failed.
    blobs_failed_after,
    /// Blobs that came to be.
    blobs_made,
    /// Those among them whose attempts have lost.
    blobs_of_losers,
    /// Those that came to be after they had been deleted: of zombies.
    blobs_made_after_their_clean_up,
    /// Uploads that arrived when whoever had sent them was dead, or waited no more.
    uploads_of_the_gone,
    /// Bodies that were moved to blob storage.
    bodies_moved,
    /// Calls that took very long.
    latency_spikes,
    /// Store calls that were never answered.
    hanging_store_calls,
    /// Commits, deletions and sends that took effect after their caller had given them up.
    late_effects,
    /// Sends and settlements that were never answered.
    hanging_broker_calls,
    /// Calls to blob storage that were never answered.
    hanging_blob_calls,
    /// Handlers that never returned.
    hanging_handlers,
    /// Handlers that dropped a preparation half way and went on.
    dropped_preparations,
    /// Copies that were attached to a message in progress.
    copies_attached,
    /// Processes that died.
    deaths,
    /// Processes that stalled and went on.
    stalls,
    /// Processes that died soon after a stall.
    deaths_after_stalls,
    /// Handlers that failed and might succeed later.
    handler_failures,
    /// Messages that were dead-lettered and redriven.
    redriven,
    /// Clients that lost their patience and asked again, or went away.
    impatient_clients,
    /// Commits that conflicted or whose answer was lost.
    conflicts,
    /// Pending entries that were completed by others.
    recoveries,
}
