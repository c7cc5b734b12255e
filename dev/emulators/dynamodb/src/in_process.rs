//! The emulator in process: dynoxide in memory, the SDK's client for it, faults, counts, and a clock that is set by hand.
//! Servers beside the process are in [`crate::external`].

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{
    BehaviorVersion, Builder, Config, Credentials, Region, StalledStreamProtectionConfig,
};
use dynoxide::Database;
use dynoxide::storage_backend::ManualClock;

use crate::connector::InProcessConnector;
use crate::continuous_backups::ContinuousBackups;
use crate::dispatch::dispatch;
use crate::fault::{Fault, WireAnswer};
use crate::fault_plan::{FaultPlan, FaultSource, WireCall};
use crate::operation::Operation;
use crate::wire_counts::WireCounts;

/// How many requests may be on their way late at a time; beyond it the oldest takes effect at once.
pub const LATE_REQUESTS_MAX: usize = 1024;
/// How many of the calls, on average, let the oldest late request take effect first: one in so many.
const CALLS_FOR_A_LATE_REQUEST: usize = 3;
/// Never looked up: the connector has no network.
const ENDPOINT: &str = "http://dynamodb.invalid";

/// A DynamoDB of one's own, in memory, behind the whole SDK: requests are built, signed, retried and parsed as ever, and
/// only the socket is missing. Clones share it. Each call is executed on the thread that polls it, in 0.1 ms or so.
///
/// It believes what dynoxide believes, which is not in everything what AWS does: `docs/stores/dynamodb-emulators.md`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use tollgate_dynamodb_emulator::{Effect, Fault, InProcessDynamoDb, Operation};
///
/// let dynamo = InProcessDynamoDb::new();
/// // The answer to the first call is lost, and the SDK repeats it.
/// dynamo.fail_next(Operation::ListTables, Fault::Disconnect(Effect::Done));
/// dynamo.client().list_tables().send().await.expect("the second try is answered");
/// assert_eq!(dynamo.counts().of(Operation::ListTables).calls, 2);
/// # }
/// ```
#[derive(Clone)]
pub struct InProcessDynamoDb {
    emulator: Arc<Emulator>,
}

impl InProcessDynamoDb {
    /// An empty one. Its clock stands at the present time and moves by [`Self::advance_clock`] only.
    ///
    /// # Panics
    /// If `SQLite` can't open a database in memory.
    pub fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let clock = ManualClock::new(now.as_secs());
        let database = Database::memory_with_clock(clock.arc()).expect("SQLite opens a database in memory");
        let emulator = Emulator {
            database,
            backups: ContinuousBackups::default(),
            clock,
            faults: Mutex::new(FaultSource::new()),
            counts: Mutex::new(WireCounts::default()),
            late: Mutex::new(VecDeque::new()),
        };
        Self { emulator: Arc::new(emulator) }
    }

    /// A client for it, with the SDK's standard retries.
    pub fn client(&self) -> Client {
        Client::from_conf(self.client_config().build())
    }

    /// The configuration of a client for it, to add to: retries, timeouts, interceptors.
    pub fn client_config(&self) -> Builder {
        offline_config()
            .endpoint_url(ENDPOINT)
            .http_client(InProcessConnector::new(Arc::clone(&self.emulator)))
    }

    /// From now on calls suffer by this plan. [`FaultPlan::none`] ends it. Ordered faults and the hook stay.
    pub fn set_faults(&self, plan: FaultPlan) {
        self.emulator.faults().set_plan(plan);
    }

    /// Injects `fault` into the next call of `operation`; of several orders each concerns one call, in their order.
    ///
    /// # Panics
    /// If the fault can't happen to the operation ([`Fault::applies_to`]), or [`crate::fault_plan::ORDERED_MAX`] are
    /// ordered already.
    pub fn fail_next(&self, operation: Operation, fault: Fault) {
        self.emulator.faults().order(operation, fault);
    }

    /// Takes back all faults that were ordered by [`Self::fail_next`] and have not struck yet.
    pub fn forget_ordered_faults(&self) {
        self.emulator.faults().forget_ordered();
    }

    /// Asks `decide` about each call, before the plan. It must not call the emulator. What can't happen to the operation is
    /// ignored.
    pub fn decide_faults(&self, decide: impl FnMut(WireCall<'_>) -> Option<Fault> + Send + 'static) {
        self.emulator.faults().set_decide(Some(Box::new(decide)));
    }

    /// What has been counted so far.
    pub fn counts(&self) -> WireCounts {
        self.emulator.counts_mut().clone()
    }

    /// Moves the clock by which items expire.
    pub fn advance_clock(&self, by: Duration) {
        self.emulator.clock.tick(by);
    }

    /// Sets the clock by which items expire, in seconds since the Unix epoch.
    pub fn set_clock(&self, unix_seconds: u64) {
        self.emulator.clock.set(unix_seconds);
    }

    /// Deletes the items whose time to live is over by the clock. Returns how many. It never happens by itself: as on AWS,
    /// an expired item stays readable until somebody gets round to it.
    ///
    /// # Panics
    /// If the database in memory fails.
    pub fn expire_items(&self) -> usize {
        self.emulator.database.sweep_ttl().expect("a database in memory can be swept")
    }

    /// Lets all requests take effect that are on their way late ([`crate::Effect::Late`]). Returns how many there were.
    pub fn settle_late_requests(&self) -> usize {
        let mut settled = 0;
        while self.emulator.settle_oldest_late_request() {
            settled += 1;
        }
        settled
    }
}

impl Default for InProcessDynamoDb {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for InProcessDynamoDb {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("InProcessDynamoDb").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

/// What every client of an emulator is configured with: somebody's credentials, some region. No emulator looks at either.
pub(crate) fn offline_config() -> Builder {
    Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new("emulator", "emulator", None, None, "emulator"))
        // It measures on the system's clock, which a paused tokio clock leaves behind.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
}

/// What clients and tests share.
pub(crate) struct Emulator {
    database: Database,
    backups: ContinuousBackups,
    clock: ManualClock,
    faults: Mutex<FaultSource>,
    counts: Mutex<WireCounts>,
    late: Mutex<VecDeque<(Operation, Vec<u8>)>>,
}

impl Emulator {
    /// Executes a request and counts what it consumes, whether or not anybody hears of it.
    pub(crate) fn execute(&self, operation: Operation, body: &[u8]) -> WireAnswer {
        let answer = dispatch(&self.database, &self.backups, operation, body);
        self.counts_mut().count_capacity(operation, &answer.body);
        answer
    }

    pub(crate) fn postpone(&self, operation: Operation, body: &[u8]) {
        self.late().push_back((operation, body.to_vec()));
        if self.late().len() > LATE_REQUESTS_MAX {
            self.settle_oldest_late_request();
        }
    }

    /// Before a call: now and then a request from earlier takes effect first.
    pub(crate) fn settle_some_late_requests(&self) {
        // Nothing is drawn when nothing is late, so that the sequence of faults depends on faults alone.
        if !self.late().is_empty() && self.faults().below(CALLS_FOR_A_LATE_REQUEST) == 0 {
            self.settle_oldest_late_request();
        }
    }

    fn settle_oldest_late_request(&self) -> bool {
        let oldest = self.late().pop_front();
        let Some((operation, body)) = oldest else { return false };
        drop(self.execute(operation, &body));
        true
    }

    pub(crate) fn faults(&self) -> MutexGuard<'_, FaultSource> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn counts_mut(&self) -> MutexGuard<'_, WireCounts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn late(&self) -> MutexGuard<'_, VecDeque<(Operation, Vec<u8>)>> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
