//! How an in-process broker is made: its bounds, and whether it remembers. Defaults are named here and
//! nowhere else.

use std::collections::HashMap;
use std::num::NonZeroU32;
#[cfg(feature = "durable")]
use std::path::PathBuf;
use std::sync::RwLock;
use std::time::Duration;

use super::messages::{CAPACITY_MAX, QueueLimits};
use super::{InProcessBroker, Life, Queues};
#[cfg(feature = "durable")]
use crate::error::RecoveryLogError;
#[cfg(feature = "durable")]
use crate::log::Log;

/// How long a delivery may stay unsettled. Amazon SQS has the same default, and handlers are written with it
/// in mind.
const VISIBILITY_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// Longest visibility timeout: what Amazon SQS allows, so that a test on this broker promises nothing others
/// can't keep.
const VISIBILITY_TIMEOUT_MAX: Duration = Duration::from_secs(12 * 3600);

/// Shortest visibility timeout: tokio's timers are no finer, and with none at all a receiver that waits would
/// never rest.
const VISIBILITY_TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// Messages of one endpoint. An envelope with a token is about 200 bytes: a full queue takes some 300 MB.
const CAPACITY_DEFAULT: usize = 1_000_000;

/// Makes an [`InProcessBroker`].
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct InProcessBuilder {
    limits: QueueLimits,
}

impl Default for InProcessBuilder {
    fn default() -> Self {
        Self {
            limits: QueueLimits {
                capacity: CAPACITY_DEFAULT,
                visibility_timeout: VISIBILITY_TIMEOUT_DEFAULT,
                delivery_limit: None,
            },
        }
    }
}

impl InProcessBuilder {
    /// How long a delivery may stay unsettled before it is delivered again: 30 s if not given, 1 ms at least,
    /// 12 h at most.
    pub fn visibility_timeout(mut self, timeout: Duration) -> Self {
        self.limits.visibility_timeout = timeout.clamp(VISIBILITY_TIMEOUT_MIN, VISIBILITY_TIMEOUT_MAX);
        self
    }

    /// The messages that wait in one endpoint's queue, dead letters included, before a send is answered `BrokerError::Full`. Default: a
    /// million; 2^27 at most.
    ///
    /// Those in flight do not count: each leaves its place to what it sends, so a full queue whose messages send to it goes on. Where
    /// each message causes several, the queue grows faster than it is emptied, and is full in the end whatever its capacity.
    pub const fn capacity(mut self, messages: usize) -> Self {
        self.limits.capacity = if messages > CAPACITY_MAX { CAPACITY_MAX } else { messages };
        self
    }

    /// After how many deliveries a message that was not acknowledged is put aside instead of being delivered
    /// again. If not given there is no limit: the engine has its own, and knows a better reason.
    pub const fn delivery_limit(mut self, deliveries: NonZeroU32) -> Self {
        self.limits.delivery_limit = Some(deliveries);
        self
    }

    /// A broker that forgets everything when it is dropped.
    pub fn build(self) -> InProcessBroker {
        InProcessBroker {
            limits: self.limits,
            queues: RwLock::new(Queues { by_endpoint: HashMap::new(), life: Life::Open }),
            #[cfg(feature = "durable")]
            log: None,
        }
    }

    /// Goes on to a broker that keeps a recovery log in this directory, which is made if it is not there.
    #[cfg(feature = "durable")]
    pub fn durable(self, directory: impl Into<PathBuf>) -> DurableBuilder {
        DurableBuilder { in_memory: self, directory: directory.into() }
    }
}

/// Opens an [`InProcessBroker`] that remembers.
#[cfg(feature = "durable")]
#[derive(Clone, Debug)]
#[must_use]
pub struct DurableBuilder {
    in_memory: InProcessBuilder,
    directory: PathBuf,
}

#[cfg(feature = "durable")]
impl DurableBuilder {
    /// Opens the directory and brings back every message that was confirmed and not acknowledged. Blocks
    /// while the log is read.
    ///
    /// # Errors
    /// [`RecoveryLogError::InUse`] if another broker has the directory open; others if it can't be read.
    pub fn open(self) -> Result<InProcessBroker, RecoveryLogError> {
        let (log, recovered) = Log::open(&self.directory)?;
        tracing::info!(directory = %self.directory.display(), messages = recovered.len(), "the broker is open");
        let mut broker = self.in_memory.build();
        broker.log = Some(log);
        broker.restore(recovered).map_err(|error| RecoveryLogError::Damaged {
            directory: self.directory,
            what: error.to_string(),
        })?;
        Ok(broker)
    }
}
