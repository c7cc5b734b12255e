//! What flows during a soak, and what is right in the end. Producers send payments to accounts; each account passes every payment on to
//! its branch, so half of all messages are sent by handlers. What must have come to where is known from counters, one
//! pair a partition: no list of messages is kept anywhere.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tollgate::proto::{EndpointName, ItemName, LoadRequest, PartitionKey};
use tollgate::{Edge, Endpoint, Gate, HandlerError, Message, Store, TollgateError, Tx};
use tollgate_bench::watched_broker::Times;

use tollgate_demo::audit::Leftovers;
use tollgate_demo::error::DemoError;

/// The endpoint in whose name producers send.
pub const PRODUCER: &str = "soak-producer";
const ACCOUNT: &str = "soak-account";
const BRANCH: &str = "soak-branch";

/// The item of an account or a branch.
const TOTAL: &str = "total";
/// The item of a producer: how many payments it has sent.
const SENT: &str = "sent";

/// How many partitions send at a time.
const PRODUCERS: u32 = 4;
/// Accounts of a branch.
const ACCOUNTS_OF_A_BRANCH: u32 = 32;
/// Payments in one commit of a producer.
const CHUNK: u64 = 64;
/// How often a producer sends what is due by then: one commit, and one wake-up, each time.
const TICK: Duration = Duration::from_millis(50);
/// How often a producer that sends all it can looks whether there is room.
const ROOM_TICK: Duration = Duration::from_millis(5);
/// How long a producer waits when a chunk could not be committed.
const PAUSE: Duration = Duration::from_millis(100);
/// Amounts are from 1 to this.
const AMOUNT_MAX: u64 = 100;
/// A payment is a message to an account, and one to a branch.
const MESSAGES_OF_A_PAYMENT: u64 = 2;
/// Partitions in one page of a scan, and in one load.
const PAGE: usize = 256;

/// When messages arrive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrivals {
    /// As soon as there is room.
    AtOnce,
    /// So many a second.
    Rate(f64),
}

/// Money that moves.
#[derive(Serialize, Deserialize)]
struct Payment {
    account: u32,
    amount: u64,
    /// When it was due, in microseconds since the begin.
    due_us: u64,
}

impl Message for Payment {
    const TYPE: &'static str = "soak.payment";
}

/// What has come to an account or a branch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    payments: u64,
    amount: u64,
}

impl Total {
    fn add(&mut self, other: Self) {
        self.payments += other.payments;
        self.amount += other.amount;
    }
}

/// By account, and by branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Books {
    accounts: Vec<Total>,
    branches: Vec<Total>,
}

/// What everybody in a run shares.
pub struct Plan {
    accounts: u32,
    seed: u64,
    /// When it began.
    pub begin: Instant,
    /// From a delivery to its acknowledgement.
    pub delivery: Times,
    /// From when a payment is due until its branch handles it.
    pub whole_way: Times,
}

fn account_partition(account: u32) -> String {
    format!("account:{account}")
}

fn branch_partition(branch: u32) -> String {
    format!("branch:{branch}")
}

const fn branch_of(account: u32) -> u32 {
    account / ACCOUNTS_OF_A_BRANCH
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The names of all endpoints.
///
/// # Errors
/// If one breaks a rule.
pub fn endpoint_names() -> Result<[EndpointName; 3], DemoError> {
    Ok([EndpointName::new(PRODUCER)?, EndpointName::new(ACCOUNT)?, EndpointName::new(BRANCH)?])
}

impl Plan {
    /// A run that begins now.
    pub fn new(accounts: NonZeroU32, seed: u64) -> Self {
        Self {
            accounts: accounts.get(),
            seed,
            begin: Instant::now(),
            delivery: Times::default(),
            whole_way: Times::default(),
        }
    }

    /// The account and the amount of a producer's n-th payment: the same whenever it is asked.
    fn payment(&self, producer: u32, n: u64) -> (u32, u64) {
        let place = (u64::from(producer) << 48) ^ n;
        let mut random = fastrand::Rng::with_seed(self.seed ^ place.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        (random.u32(..self.accounts), random.u64(1..=AMOUNT_MAX))
    }

    fn empty_books(&self) -> Books {
        let branches = branch_of(self.accounts - 1) + 1;
        let of = |count: u32| vec![Total::default(); usize::try_from(count).expect("it fits into memory")];
        Books { accounts: of(self.accounts), branches: of(branches) }
    }

    /// The endpoints.
    pub fn endpoints(self: &Arc<Self>, workers: usize) -> [Endpoint; 3] {
        let accounts = Endpoint::new(ACCOUNT).concurrency(workers).preload(TOTAL).on(pay_in);
        let plan = Arc::clone(self);
        let count = move |tx: Tx, payment: Payment| {
            let plan = Arc::clone(&plan);
            async move {
                add(&tx, payment.amount).await?;
                plan.whole_way
                    .note(plan.begin.elapsed().saturating_sub(Duration::from_micros(payment.due_us)));
                Ok(())
            }
        };
        let branches = Endpoint::new(BRANCH).concurrency(workers).preload(TOTAL).on(count);
        [Endpoint::new(PRODUCER).preload(SENT), accounts, branches]
    }

    /// What is in the store, and what is left over there.
    ///
    /// # Errors
    /// If it can't be read, or something else is in it.
    pub async fn stored(&self, store: &dyn Store) -> Result<(Books, Leftovers), DemoError> {
        let mut books = self.empty_books();
        let mut leftovers = Leftovers::default();
        let mut cursor = None;
        loop {
            let page = store.scan(cursor, PAGE).await?;
            for scanned in &page.partitions {
                leftovers.add(scanned)?;
            }
            let partitions = page.partitions.iter().map(|scanned| scanned.partition.clone());
            books.load(store, partitions.collect()).await?;
            cursor = page.next;
            if cursor.is_none() {
                return Ok((books, leftovers));
            }
        }
    }
}

async fn add(tx: &Tx, amount: u64) -> Result<(), HandlerError> {
    let mut total: Total = tx.get(TOTAL).await?.unwrap_or_default();
    total.add(Total { payments: 1, amount });
    tx.put(TOTAL, &total)?;
    Ok(())
}

async fn pay_in(tx: Tx, payment: Payment) -> Result<(), HandlerError> {
    add(&tx, payment.amount).await?;
    tx.send(BRANCH, &branch_partition(branch_of(payment.account)), &payment)?;
    Ok(())
}

impl Books {
    async fn load(&mut self, store: &dyn Store, partitions: Vec<PartitionKey>) -> Result<(), DemoError> {
        let item = ItemName::new(TOTAL)?;
        let request = |partition: &PartitionKey| LoadRequest {
            partition: partition.clone(),
            items: vec![item.clone()],
            records: Vec::new(),
        };
        let loaded = store.load(partitions.iter().map(request).collect()).await;
        for (partition, loaded) in partitions.iter().zip(loaded) {
            let Some((_, Some(value))) = loaded?.items.into_iter().next() else { continue };
            let total: Total = serde_json::from_slice(value.bytes()).map_err(|source| DemoError::Stored {
                item: item.to_string(),
                partition: partition.to_string(),
                source,
            })?;
            let Some(place) = self.place(partition.as_str()) else {
                return Err(DemoError::Open(format!("partition {partition} is none of this soak's")));
            };
            *place = total;
        }
        Ok(())
    }

    fn place(&mut self, partition: &str) -> Option<&mut Total> {
        let (totals, number) = match partition.split_once(':')? {
            ("account", number) => (&mut self.accounts, number),
            ("branch", number) => (&mut self.branches, number),
            _ => return None,
        };
        totals.get_mut(number.parse::<usize>().ok()?)
    }

    fn note(&mut self, account: u32, amount: u64) {
        let payment = Total { payments: 1, amount };
        let place = |number: u32| usize::try_from(number).expect("it is the place of a partition");
        self.accounts[place(account)].add(payment);
        self.branches[place(branch_of(account))].add(payment);
    }

    fn merge(&mut self, other: &Self) {
        for (mine, theirs) in [(&mut self.accounts, &other.accounts), (&mut self.branches, &other.branches)] {
            mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| mine.add(*theirs));
        }
    }

    /// How many messages these are.
    pub fn messages(&self) -> u64 {
        self.accounts.iter().chain(&self.branches).map(|total| total.payments).sum()
    }

    /// Where the stored ones are not these, in words.
    pub fn differences(&self, stored: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        for (kind, right, found) in
            [("account", &self.accounts, &stored.accounts), ("branch", &self.branches, &stored.branches)]
        {
            for (number, (right, found)) in right.iter().zip(found).enumerate() {
                if right != found {
                    differences.push(format!("{kind} {number}: stored {found:?}, right is {right:?}"));
                }
            }
        }
        differences
    }
}

/// Whoever sends.
pub struct Producers {
    tasks: JoinSet<Result<Books, DemoError>>,
    books: Books,
    shared: Arc<Shared>,
}

/// What producers share with whoever watches them.
struct Shared {
    plan: Arc<Plan>,
    gate: Arc<Gate>,
    arrivals: Arrivals,
    /// Most payments of each producer.
    payments_max: u64,
    /// Most messages under way.
    window: u64,
    /// Payments of all producers.
    sent: AtomicU64,
    closing: CancellationToken,
}

/// Messages that have committed; the producers' requests are none.
pub fn messages(gate: &Gate) -> u64 {
    let statistics = gate.statistics();
    statistics.committed.saturating_sub(statistics.requests)
}

impl Producers {
    /// Begins to send, up to so many messages, with at most `window` under way.
    ///
    /// # Errors
    /// If the gate has no endpoint for producers.
    pub fn start(
        gate: &Arc<Gate>,
        plan: &Arc<Plan>,
        arrivals: Arrivals,
        messages_max: Option<u64>,
        window: u64,
    ) -> Result<Self, DemoError> {
        let edge = gate.edge(PRODUCER)?;
        let shared = Arc::new(Shared {
            plan: Arc::clone(plan),
            gate: Arc::clone(gate),
            arrivals,
            payments_max: messages_max
                .map_or(u64::MAX, |max| max / MESSAGES_OF_A_PAYMENT / u64::from(PRODUCERS)),
            window,
            sent: AtomicU64::new(0),
            closing: CancellationToken::new(),
        });
        let mut tasks = JoinSet::new();
        for producer in 0..PRODUCERS {
            tasks.spawn(Arc::clone(&shared).produce(edge.clone(), producer));
        }
        Ok(Self { tasks, books: plan.empty_books(), shared })
    }

    /// Messages that should have been processed by now, if none took any time.
    pub fn due(&self) -> u64 {
        let sent = self.shared.sent.load(Ordering::Relaxed);
        let due = match self.shared.arrivals {
            Arrivals::AtOnce => sent,
            Arrivals::Rate(_) => {
                (self.shared.due_of_each().min(self.shared.payments_max) * u64::from(PRODUCERS)).max(sent)
            }
        };
        due * MESSAGES_OF_A_PAYMENT
    }

    /// Waits until the last one has sent what it was to send. It may be dropped and called again.
    ///
    /// # Errors
    /// If one can't go on.
    pub async fn until_all_sent(&mut self) -> Result<(), DemoError> {
        while let Some(ended) = self.tasks.join_next().await {
            let sent = ended.map_err(|error| DemoError::process("a producer", &error))??;
            self.books.merge(&sent);
        }
        Ok(())
    }

    /// Ends sending, and tells what must have come to whom.
    ///
    /// # Errors
    /// If a producer could not go on.
    pub async fn stop(mut self) -> Result<Books, DemoError> {
        self.shared.closing.cancel();
        self.until_all_sent().await?;
        Ok(self.books)
    }
}

impl Shared {
    /// Payments that each producer should have sent by now, at a set rate.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate and a time are positive, and their product is far below 2^52"
    )]
    fn due_of_each(&self) -> u64 {
        match self.rate_of_each() {
            Some(rate) => (self.plan.begin.elapsed().as_secs_f64() * rate) as u64,
            None => u64::MAX,
        }
    }

    /// Payments a second of each producer.
    #[expect(clippy::cast_precision_loss, reason = "it is 2")]
    fn rate_of_each(&self) -> Option<f64> {
        match self.arrivals {
            Arrivals::AtOnce => None,
            Arrivals::Rate(rate) => Some(rate / MESSAGES_OF_A_PAYMENT as f64 / f64::from(PRODUCERS)),
        }
    }

    fn under_way(&self) -> u64 {
        let sent = self.sent.load(Ordering::Relaxed) * MESSAGES_OF_A_PAYMENT;
        sent.saturating_sub(messages(&self.gate))
    }

    async fn produce(self: Arc<Self>, edge: Edge, producer: u32) -> Result<Books, DemoError> {
        let mut books = self.plan.empty_books();
        let mut sent = 0;
        let mut clock = tokio::time::interval(match self.arrivals {
            Arrivals::AtOnce => ROOM_TICK,
            Arrivals::Rate(_) => TICK,
        });
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while sent < self.payments_max {
            let due = self.due_of_each().min(self.payments_max);
            if due <= sent || self.under_way() >= self.window {
                tokio::select! {
                    _ = clock.tick() => continue,
                    () = self.closing.cancelled() => break,
                }
            }
            if self.closing.is_cancelled() {
                break;
            }
            match self.send_chunk(&edge, producer, sent, due.min(sent + CHUNK)).await {
                Ok(end) => {
                    for n in sent..end {
                        let (account, amount) = self.plan.payment(producer, n);
                        books.note(account, amount);
                    }
                    self.sent.fetch_add(end - sent, Ordering::Relaxed);
                    sent = end;
                }
                // Whether it has committed is seen by the next try: the stored position decides. So one that is tried is not given up.
                Err(error) if error.is_retryable() => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(books)
    }

    /// Sends payments up to `end`, and says up to where they have been sent.
    async fn send_chunk(
        self: &Arc<Self>,
        edge: &Edge,
        producer: u32,
        sent: u64,
        end: u64,
    ) -> Result<u64, TollgateError> {
        let shared = Arc::clone(self);
        let handler = move |tx: Tx| {
            let shared = Arc::clone(&shared);
            async move {
                let stored: u64 = tx.get(SENT).await?.unwrap_or_default();
                if stored >= end {
                    return Ok(stored);
                }
                for n in stored..end {
                    let (account, amount) = shared.plan.payment(producer, n);
                    let payment = Payment { account, amount, due_us: shared.due_us(n) };
                    tx.send(ACCOUNT, &account_partition(account), &payment)?;
                }
                tx.put(SENT, &end)?;
                Ok::<_, HandlerError>(end)
            }
        };
        edge.advance(&format!("producer:{producer}"), &sent.to_string(), handler).await
    }

    /// When the n-th payment of a producer is due, in microseconds since the begin.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a number and a rate are positive, and their quotient is far below 2^52 us"
    )]
    fn due_us(&self, n: u64) -> u64 {
        match self.rate_of_each() {
            Some(rate) => (n as f64 / rate * 1e6) as u64,
            None => micros(self.plan.begin.elapsed()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn books() -> Books {
        let plan = Plan::new(NonZeroU32::new(40).unwrap(), 1);
        let mut books = plan.empty_books();
        for n in 0..1_000 {
            let (account, amount) = plan.payment(0, n);
            books.note(account, amount);
        }
        books
    }

    #[test]
    fn a_payment_is_the_same_whenever_it_is_asked_for() {
        assert_eq!(books(), books());
        assert_eq!(books().messages(), 2_000);
    }

    #[test]
    fn a_payment_that_was_lost_doubled_or_changed_is_a_difference() {
        let right = books();
        assert_eq!(right.differences(&right), Vec::<String>::new());
        for spoil in [
            |total: &mut Total| total.payments -= 1,
            |total: &mut Total| total.add(Total { payments: 1, amount: 5 }),
            |total: &mut Total| total.amount += 1,
        ] {
            let mut stored = books();
            spoil(&mut stored.accounts[7]);
            spoil(&mut stored.branches[1]);
            assert_eq!(right.differences(&stored).len(), 2);
        }
    }

    #[test]
    fn a_partition_of_somebody_else_has_no_place() {
        let mut books = books();
        assert!(books.place("account:39").is_some());
        assert!(books.place("branch:1").is_some());
        for foreign in ["account:40", "branch:2", "account:x", "aircraft:N1", "account"] {
            assert!(books.place(foreign).is_none(), "{foreign}");
        }
    }
}
