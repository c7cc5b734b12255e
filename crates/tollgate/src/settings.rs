//! The engine's bounds and times, with their defaults. Every one is a promise about memory or about garbage; none is
//! needed for safety.

use std::time::Duration;

use tollgate_proto::ScanPrice;
use tollgate_proto::control_record::PENDING_MAX;

use crate::call_limits::CallLimits;
use crate::error::TollgateError;
use crate::retry_policy::RetryPolicy;

/// How often stores are swept whose scans cost nothing.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// The bounds and times of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Most messages of one partition in one commit.
    pub(crate) fold_max: usize,
    /// Memory for views of partitions, in bytes.
    pub(crate) cache_bytes: u64,
    /// How many consumed tokens are remembered; each takes about 100 bytes.
    pub(crate) consumed_max: usize,
    /// How often messages are tried whose endpoint and type have no policy of their own.
    pub(crate) retry: RetryPolicy,
    /// How long a partition is left alone before its finished entries are flushed.
    pub(crate) flush_after: Duration,
    /// How often the stores are swept for what dead processes have left.
    pub(crate) sweeps: Sweeps,
    /// How long the broker holds a wake-up back, where it can: by then its attempt has usually finished by itself.
    pub(crate) wake_up_after: Duration,
    /// After this time an attempt creates no more side effects.
    pub(crate) attempt_max: Duration,
    /// How long what an attempt has sent off may be under way when the attempt is over.
    pub(crate) under_way_max: Duration,
    /// How long calls to something outside may take.
    pub(crate) calls: CallLimits,
    /// Bodies of more bytes are moved to blob storage, where there is one.
    pub(crate) inline_bytes_max: usize,
    /// Most bytes of one blob.
    pub(crate) blob_bytes_max: u64,
    /// Most bytes of a body, which a handler gets as a whole.
    pub(crate) body_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            fold_max: PENDING_MAX,
            cache_bytes: 64 * 1024 * 1024,
            consumed_max: 200_000,
            retry: RetryPolicy::DEFAULT,
            flush_after: Duration::from_secs(5),
            sweeps: Sweeps::WhereFree,
            wake_up_after: Duration::from_secs(1),
            attempt_max: Duration::from_secs(60),
            // As long as the clients of blob storage wait for an answer.
            under_way_max: Duration::from_secs(30),
            calls: CallLimits::default(),
            inline_bytes_max: 256 * 1024,
            blob_bytes_max: 5 << 30,
            body_bytes_max: 64 << 20,
        }
    }
}

impl Settings {
    /// Checks the settings of a gate that is opened.
    pub(crate) fn check(&self) -> Result<(), TollgateError> {
        if !(1..=PENDING_MAX).contains(&self.fold_max) {
            let problem = format!("fold_max is {}, and must be from 1 to {PENDING_MAX}", self.fold_max);
            return Err(TollgateError::Configuration(problem));
        }
        self.retry.check("the gate")
    }
}

/// When stores are swept without being asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sweeps {
    /// Those whose scans cost nothing, every [`SWEEP_EVERY`].
    WhereFree,
    /// All of them, so often.
    Every(Duration),
    /// Never.
    Never,
}

impl Sweeps {
    /// The pause between two sweeps. `None`: there are none.
    pub(crate) const fn pause(self) -> Option<Duration> {
        match self {
            Self::WhereFree => Some(SWEEP_EVERY),
            Self::Every(pause) => Some(pause),
            Self::Never => None,
        }
    }

    /// Whether a store with such scans is swept.
    pub(crate) const fn includes(self, price: ScanPrice) -> bool {
        match self {
            Self::WhereFree => matches!(price, ScanPrice::Free),
            Self::Every(_) => true,
            Self::Never => false,
        }
    }
}
