//! The engine's bounds and times, with their defaults. Every one is a promise about memory or about garbage; none is
//! needed for safety.

use std::time::Duration;

use tollgate_core::control_record::PENDING_MAX;

use crate::backoff::Backoff;

/// The bounds and times of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Most messages of one partition in one commit.
    pub(crate) fold_max: usize,
    /// Memory for views of partitions, in bytes.
    pub(crate) cache_bytes: u64,
    /// How many consumed tokens are remembered; each takes about 100 bytes.
    pub(crate) consumed_max: usize,
    /// After this many deliveries a message that still fails is dead-lettered.
    pub(crate) deliveries_max: u32,
    /// How a message is put back.
    pub(crate) redelivery: Backoff,
    /// How long a partition is left alone before its finished entries are flushed.
    pub(crate) flush_after: Duration,
    /// How often the stores are swept for what dead processes have left. `None`: only when asked.
    pub(crate) sweep_every: Option<Duration>,
    /// How long the broker holds a wake-up back, where it can: by then its attempt has usually finished by itself.
    pub(crate) wake_up_after: Duration,
    /// After this time an attempt creates no more side effects.
    pub(crate) attempt_max: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            fold_max: PENDING_MAX,
            cache_bytes: 64 * 1024 * 1024,
            consumed_max: 200_000,
            deliveries_max: 10,
            redelivery: Backoff::REDELIVERY,
            flush_after: Duration::from_secs(5),
            sweep_every: Some(Duration::from_secs(60)),
            wake_up_after: Duration::from_secs(1),
            attempt_max: Duration::from_secs(60),
        }
    }
}
