//! What contenders other than Tollgate share: workers that take messages one by one, the message as JSON, and the calls to the table
//! in the words of the techniques. What a technique does with them is in its own file.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tollgate::proto::BoxFuture;

use super::BenchError;
use super::contender::{Contender, Left, Promise, Reported, Running, Stage};
use super::plan::{Account, Hop, mix};
use super::table::{Answer, Call, Condition, Key, Record, Table, TableError, Write};

/// The sort key of a partition's state.
pub const STATE: &str = "state";

/// A message that failed is left alone for up to this long, drawn evenly, so that those who met do not meet again.
const PUT_BACK_MAX: Duration = Duration::from_millis(20);
/// Keys in one batch of deletions: what `DynamoDB` takes.
const BATCH_MAX: usize = 25;

/// A message on the wire.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Carried {
    /// The same in every copy.
    pub id: String,
    /// The right to process it, where the technique knows tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// What it says. Techniques with a claim check take the body out.
    pub hop: Hop,
}

impl Carried {
    /// A message without a token. Its id follows from its number, so that every attempt gives it the same one.
    pub fn new(hop: Hop) -> Self {
        Self { id: format!("{:016x}{:016x}", mix(hop.number), hop.number), token: None, hop }
    }

    /// As bytes.
    pub fn encode(&self) -> Bytes {
        encode(self)
    }
}

/// Anything as JSON.
///
/// # Panics
/// If it has keys that are no texts.
pub fn encode<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value).expect("what is stored here has text keys only").into()
}

/// Something from JSON.
///
/// # Errors
/// If it isn't what was expected.
pub fn decode<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, TableError> {
    serde_json::from_slice(bytes).map_err(|error| TableError(format!("unreadable: {error}")))
}

/// What becomes of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settle {
    /// It is done.
    Acknowledge,
    /// Somebody else was faster or has it in hand: later again.
    PutBack,
}

/// A technique on a table.
pub trait Rival: Send + Sync + 'static {
    /// What it is called, in one word.
    const NAME: &'static str;
    /// What it is, in a few words.
    const TITLE: &'static str;
    /// Where it comes from.
    const SOURCE: &'static str;
    /// What it promises.
    const PROMISE: Promise = Promise::ExactlyOnce;

    /// What the sender of a message that begins a chain has put into the store, and what it sends.
    fn admit(hop: Hop) -> (Carried, Vec<Write>) {
        (Carried::new(hop), Vec::new())
    }

    /// Processes one delivery.
    fn process(desk: &Desk, message: Carried) -> impl Future<Output = Result<Settle, TableError>> + Send;

    /// The account in a partition's state.
    ///
    /// # Errors
    /// If it is unreadable.
    fn account(state: &Bytes) -> Result<Account, TableError> {
        decode(state)
    }

    /// Bytes of a record of the state that are there for deduplication only. Other records are as a whole.
    fn deduplication_in_state(_state: &Bytes) -> usize {
        0
    }
}

/// What a worker has at hand.
pub struct Desk {
    stage: Stage,
    table: Arc<dyn Table>,
    aside: TaskTracker,
}

/// An account that was loaded, with the version by which it may be written.
pub struct Loaded<T> {
    /// What it says.
    pub value: T,
    version: Option<u64>,
}

impl<T> Loaded<T> {
    /// What a write of it insists on.
    pub fn condition(&self) -> Condition {
        self.version.map_or(Condition::Absent, Condition::Version)
    }

    /// The version that it has after the write.
    pub fn next(&self) -> u64 {
        self.version.unwrap_or_default() + 1
    }

    /// It was written, and can be written again.
    pub fn written(&mut self) {
        self.version = Some(self.next());
    }

    /// The write of what it says now.
    pub fn write(&self, key: Key) -> Write
    where
        T: Serialize,
    {
        Write::put(key, self.next(), encode(&self.value), self.condition())
    }
}

impl Desk {
    /// The partition that a message is for.
    pub fn partition(&self, hop: &Hop) -> String {
        self.stage.plan.destination(hop.number)
    }

    /// Runs the handler.
    pub fn handle(&self, account: &mut Account, hop: &Hop) -> Vec<Hop> {
        self.stage.plan.handle(account, hop)
    }

    /// Reads records. One call.
    ///
    /// # Errors
    /// If the table fails.
    pub async fn get(&self, keys: Vec<Key>) -> Result<Vec<Option<Record>>, TableError> {
        match self.table.call(Call::Get(keys)).await? {
            Answer::Records(records) => Ok(records),
            other => Err(TableError(format!("a get was answered by {other:?}"))),
        }
    }

    /// Reads a record. One call.
    ///
    /// # Errors
    /// If the table fails.
    pub async fn get_one(&self, key: Key) -> Result<Option<Record>, TableError> {
        Ok(self.get(vec![key]).await?.pop().flatten())
    }

    /// Reads a partition's state. One call.
    ///
    /// # Errors
    /// If the table fails.
    pub async fn load<T: DeserializeOwned + Default>(
        &self,
        partition: &str,
    ) -> Result<Loaded<T>, TableError> {
        loaded(self.get_one(Key::new(partition, STATE)).await?)
    }

    /// Reads what begins so in a partition. One call.
    ///
    /// # Errors
    /// If the table fails.
    pub async fn query(&self, partition: &str, prefix: &str) -> Result<Vec<(String, Record)>, TableError> {
        let call = Call::Query { partition: partition.to_owned(), prefix: prefix.to_owned() };
        match self.table.call(call).await? {
            Answer::Found(found) => Ok(found),
            other => Err(TableError(format!("a query was answered by {other:?}"))),
        }
    }

    /// Writes to one partition, all or nothing. One call. Says whether the conditions held.
    ///
    /// # Errors
    /// If the table fails.
    pub async fn write(&self, writes: Vec<Write>) -> Result<bool, TableError> {
        match self.table.call(Call::Write(writes)).await? {
            Answer::Written => Ok(true),
            Answer::Refused => Ok(false),
            other => Err(TableError(format!("a write was answered by {other:?}"))),
        }
    }

    /// Writes anywhere, each for itself. One call for up to 25.
    ///
    /// # Errors
    /// If the table fails.
    pub async fn batch(&self, writes: Vec<Write>) -> Result<(), TableError> {
        for some in writes.chunks(BATCH_MAX) {
            self.table.call(Call::Batch(some.to_vec())).await?;
        }
        Ok(())
    }

    /// The same, when nobody waits for it. It uses connections like everything else, and is waited for in the end.
    pub fn batch_aside(&self, writes: Vec<Write>) {
        let table = Arc::clone(&self.table);
        self.aside.spawn(async move {
            for some in writes.chunks(BATCH_MAX) {
                // What could not be deleted expires.
                drop(table.call(Call::Batch(some.to_vec())).await);
            }
        });
    }

    /// Sends messages.
    pub fn send(&self, messages: impl IntoIterator<Item = Carried>) {
        let messages: Vec<_> = messages.into_iter().map(|message| message.encode()).collect();
        if !messages.is_empty() {
            self.stage.queue.publish(messages);
        }
    }

    /// A time in so many seconds, since the Unix epoch.
    pub fn in_seconds(seconds: u64) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() + seconds
    }
}

/// What a record says, or what nothing says.
///
/// # Errors
/// If it is unreadable.
pub fn loaded<T: DeserializeOwned + Default>(record: Option<Record>) -> Result<Loaded<T>, TableError> {
    Ok(match record {
        Some(record) => Loaded { value: decode(&record.value)?, version: Some(record.version) },
        None => Loaded { value: T::default(), version: None },
    })
}

/// A rival as a contender.
pub struct OnTable<R>(std::marker::PhantomData<fn() -> R>);

impl<R> OnTable<R> {
    /// It.
    pub const fn new() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<R> Default for OnTable<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R: Rival> Contender for OnTable<R> {
    fn name(&self) -> &'static str {
        R::NAME
    }

    fn title(&self) -> &'static str {
        R::TITLE
    }

    fn source(&self) -> &'static str {
        R::SOURCE
    }

    fn promise(&self) -> Promise {
        R::PROMISE
    }

    fn open(&self, stage: Stage) -> BoxFuture<'static, Result<Box<dyn Running>, BenchError>> {
        Box::pin(async move {
            let backing = super::backing::table(R::NAME, &stage).await?;
            let running = AtWork::<R>::start(stage, backing);
            Ok(Box::new(running) as Box<dyn Running>)
        })
    }
}

struct AtWork<R> {
    desk: Arc<Desk>,
    backing: super::backing::TableBacking,
    stop: CancellationToken,
    workers: JoinSet<()>,
    rival: std::marker::PhantomData<fn() -> R>,
}

impl<R: Rival> AtWork<R> {
    fn start(stage: Stage, backing: super::backing::TableBacking) -> Self {
        let stop = CancellationToken::new();
        let in_flight = stage.scenario.in_flight;
        let desk = Arc::new(Desk { stage, table: Arc::clone(&backing.table), aside: TaskTracker::new() });
        let mut workers = JoinSet::new();
        for _ in 0..in_flight {
            let (desk, stop) = (Arc::clone(&desk), stop.clone());
            workers.spawn(async move {
                while let Some(taken) = stop.run_until_cancelled(desk.stage.queue.take(1)).await {
                    for taking in taken {
                        desk.settle::<R>(taking.receipt, &taking.message).await;
                    }
                }
            });
        }
        Self { desk, backing, stop, workers, rival: std::marker::PhantomData }
    }

    fn failed(error: &TableError) -> BenchError {
        BenchError::Contender { contender: R::NAME, reason: error.to_string() }
    }
}

impl Desk {
    async fn settle<R: Rival>(&self, receipt: u64, message: &Bytes) {
        let processed = match decode::<Carried>(message) {
            Ok(message) => R::process(self, message).await,
            Err(error) => Err(error),
        };
        match processed {
            Ok(Settle::Acknowledge) => self.stage.queue.acknowledge(receipt),
            Ok(Settle::PutBack) => self.put_back(receipt),
            Err(error) => {
                tracing::warn!(contender = R::NAME, %error, "a message is put back");
                self.put_back(receipt);
            }
        }
    }

    fn put_back(&self, receipt: u64) {
        self.stage.queue.put_back(receipt, PUT_BACK_MAX.mul_f64(fastrand::f64()));
    }
}

impl<R: Rival> Running for AtWork<R> {
    fn admit(&self, hops: Vec<Hop>) -> BoxFuture<'_, Result<Vec<Bytes>, BenchError>> {
        Box::pin(async move {
            let mut messages = Vec::with_capacity(hops.len());
            let mut writes = Vec::new();
            for hop in hops {
                let (message, of_message) = R::admit(hop);
                messages.push(message.encode());
                writes.extend(of_message);
            }
            for some in writes.chunks(BATCH_MAX) {
                self.backing.seed(some.to_vec()).await.map_err(|error| Self::failed(&error))?;
            }
            Ok(messages)
        })
    }

    fn finish(&mut self) -> BoxFuture<'_, Result<(), BenchError>> {
        Box::pin(async move {
            self.stop.cancel();
            while self.workers.join_next().await.is_some() {}
            self.desk.aside.close();
            self.desk.aside.wait().await;
            Ok(())
        })
    }

    fn reported(&self) -> Reported {
        self.backing.reported()
    }

    fn inspect(&self) -> BoxFuture<'_, Result<Left, BenchError>> {
        Box::pin(async move {
            let contents = self.backing.table.contents().await.map_err(|error| Self::failed(&error))?;
            let mut left = Left::default();
            for (key, record) in contents {
                let bytes = key.partition.len() + key.sort.len() + record.value.len();
                left.bytes += bytes as u64;
                if key.sort == STATE {
                    let account = R::account(&record.value).map_err(|error| Self::failed(&error))?;
                    left.deduplication_bytes += R::deduplication_in_state(&record.value) as u64;
                    left.accounts.push((key.partition, account));
                } else {
                    left.deduplication_bytes += bytes as u64;
                }
            }
            Ok(left)
        })
    }
}

/// The name of a partition that holds nothing but tokens: each token is a partition of its own, so that they spread.
pub fn token_partition(token: &str) -> String {
    format!("token/{token}")
}
