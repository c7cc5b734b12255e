//! The trait that a store implements and what it must promise. A store keeps partitions: a control record, business
//! items, outbox entries and deduplication records under one partition key. It knows no broker, no handler and not
//! the algorithm; it stores control records and outbox entries as the bytes that [`crate::codec`] made.

use std::time::Duration;

use bytes::Bytes;

pub use crate::future::BoxFuture;
use crate::ids::{DeduplicationKey, ItemName, PartitionKey, StoreAlias};
use crate::limits::{LimitExceeded, StoreLimits};
use crate::sequence::{EntryKey, Placement, SessionMark, TokenRef, Version};

/// A database that offers conditional transactions inside one partition.
///
/// # Promises
///
/// 1. **Linearizable conditional transaction**: [`Store::commit`] applies all of a [`Commit`] or nothing, and only if
///    the control record has the expected version (or is absent, if none is expected) and no deduplication record of
///    the commit exists. Of commits that race on one version at most one wins.
/// 2. **Reads observe every write that happened before**, in [`Store::load`] and [`Store::read_entries`]: strongly
///    consistent, or made so by the session marks that are presented.
/// 3. **Deletions are final and durable when confirmed**: after [`Store::delete_entries`] has answered, no read
///    returns the entry, not even after a crash. Deleting a missing entry succeeds.
/// 4. **Limits are declared** in [`Store::limits`], and a commit that exceeds them is refused and leaves nothing behind.
/// 5. **A lost answer is said to be one**: if a commit may or may not have happened, the error is
///    [`StoreError::OutcomeUnknown`] and nothing else.
///
/// Answers come in the order of the requests, one for each. A failure of one is not a failure of all, unless nothing
/// can be said about any of them. Futures may be dropped at any time: a dropped commit may or may not happen.
///
/// `tollgate-testkit` has a conformance suite that checks these promises on any implementation.
pub trait Store: Send + Sync + 'static {
    /// The alias by which tokens refer to this store.
    fn alias(&self) -> &StoreAlias;

    /// What a transaction, an item and a batch may hold.
    fn limits(&self) -> StoreLimits;

    /// Checks at start that the store can keep its promises: it exists, has the right shape and consistency, and may
    /// be written to.
    fn verify(&self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Loads control records and the items asked for, one request a partition.
    fn load(&self, requests: Vec<LoadRequest>) -> BoxFuture<'_, Vec<Result<LoadedPartition, StoreError>>>;

    /// Reads outbox entries. `None`: the entry was consumed, or never existed.
    fn read_entries(&self, reads: Vec<EntryRead>) -> BoxFuture<'_, Vec<Result<Option<Bytes>, StoreError>>>;

    /// Where this store wants the outbox entries of `commit` to lie. It is asked before each commit that has some, and the
    /// commit that follows has its entries numbered accordingly. Stores with one place need not implement it.
    fn placement(&self, commit: &Commit) -> Placement {
        let _ = commit;
        Placement::Together
    }

    /// Commits one partition's changes, all or nothing, conditional on its version.
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, StoreError>>;

    /// Deletes outbox entries (of any partitions). The answer for each carries the session mark of its deletion, where
    /// the store has such marks.
    fn delete_entries(
        &self,
        tokens: Vec<TokenRef>,
    ) -> BoxFuture<'_, Vec<Result<Option<SessionMark>, StoreError>>>;

    /// Lists partitions in a stable order of the store's own, `limit` at most, after `cursor`. For the sweep and the
    /// audit; not on the path of any message.
    fn scan(&self, cursor: Option<ScanCursor>, limit: usize) -> BoxFuture<'_, Result<ScanPage, StoreError>>;

    /// Lists partitions as [`Store::scan`] does, perhaps as they were a moment ago, and pages of any length:
    /// enough for a sweep, which loads what it visits, and cheaper where consistency or a page's exact length
    /// costs something.
    fn survey(
        &self,
        cursor: Option<ScanCursor>,
        limit: usize,
    ) -> BoxFuture<'_, Result<ScanPage, StoreError>> {
        self.scan(cursor, limit)
    }

    /// What a scan of the whole store costs. A store whose scans are paid for is swept only if somebody asks for it.
    fn scan_price(&self) -> ScanPrice {
        ScanPrice::Free
    }

    /// Deletes deduplication records whose time is over. Returns how many. Stores that expire them by themselves
    /// return 0.
    fn expire(&self, now_ms: u64) -> BoxFuture<'_, Result<u64, StoreError>>;
}

/// Asks for one partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LoadRequest {
    /// Which partition.
    pub partition: PartitionKey,
    /// Business items to bring along. The control record always comes.
    pub items: Vec<ItemName>,
    /// Deduplication records to bring along.
    pub records: Vec<DeduplicationKey>,
}

/// One partition as it was at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LoadedPartition {
    /// The control record's bytes. `None`: the partition has none yet.
    pub control: Option<Bytes>,
    /// The items asked for, in that order. `None`: there is no such item.
    pub items: Vec<(ItemName, Option<ItemValue>)>,
    /// The deduplication records asked for, in that order. `None`: absent. A record whose time is over may still be there
    /// until the store has deleted it.
    pub records: Vec<(DeduplicationKey, Option<Bytes>)>,
    /// What a later read must present to be sure to see at least what this load saw, where the store has such marks.
    pub session: Option<SessionMark>,
}

/// The value of a business item.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ItemValue {
    /// A JSON document. A store with documents of its own stores it natively, readable by other tools.
    Json(Bytes),
    /// Anything else, stored as it is.
    Binary(Bytes),
}

impl ItemValue {
    /// The bytes, whatever they mean.
    pub const fn bytes(&self) -> &Bytes {
        match self {
            Self::Json(bytes) | Self::Binary(bytes) => bytes,
        }
    }
}

/// Asks for one outbox entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EntryRead {
    /// Which one.
    pub token: TokenRef,
    /// What the read must present, so that a stale replica can't answer it. Empty for stores that
    /// have no session marks.
    pub sessions: Vec<SessionMark>,
}

/// One conditional, partition-local transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Commit {
    /// Which partition.
    pub partition: PartitionKey,
    /// The version that the control record must have. `None`: there must be no control record.
    pub expected: Option<Version>,
    /// The version that it has afterwards.
    pub version: Version,
    /// The new control record's bytes.
    pub control: Bytes,
    /// Business items to put (`Some`) or delete (`None`), each at most once.
    pub items: Vec<(ItemName, Option<ItemValue>)>,
    /// Outbox entries to create: where, and their bytes.
    pub entries: Vec<(EntryKey, Bytes)>,
    /// Outbox entries of this partition to delete: those for consumers that know no tokens.
    pub deleted_entries: Vec<EntryKey>,
    /// Deduplication records to create; the commit fails if one of them exists and has not expired.
    pub records: Vec<RecordWrite>,
    /// The time by which records are judged expired, in milliseconds since the Unix epoch.
    pub now_ms: u64,
}

/// A deduplication record: a message or request that was handled without a token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecordWrite {
    /// What it is recognised by.
    pub key: DeduplicationKey,
    /// What is answered to a repeated request. Empty for messages.
    pub response: Bytes,
    /// When it may be forgotten, in milliseconds since the Unix epoch.
    pub expires_at_ms: u64,
}

impl Commit {
    /// Checks this commit against a store's limits, with `overhead` bytes for the keys of each item.
    ///
    /// # Errors
    /// The first limit that is exceeded.
    pub fn check(&self, limits: &StoreLimits, overhead: usize) -> Result<(), LimitExceeded> {
        let overhead = overhead + self.partition.as_str().len();
        let mut items = 0;
        let mut bytes = 0;
        let mut add = |size: usize, name: &dyn Fn() -> String| {
            let size = size + overhead;
            items += 1;
            bytes += size;
            if size > limits.item_bytes_max {
                return Err(LimitExceeded::ItemBytes {
                    item: name(),
                    bytes: size,
                    max: limits.item_bytes_max,
                });
            }
            Ok(())
        };
        add(self.control.len(), &|| format!("the control record of partition {}", self.partition))?;
        for (name, value) in &self.items {
            let size = name.as_str().len() + value.as_ref().map_or(0, |value| value.bytes().len());
            add(size, &|| format!("item {name} of partition {}", self.partition))?;
        }
        for (key, entry) in &self.entries {
            add(entry.len(), &|| format!("outgoing message {key} of partition {}", self.partition))?;
        }
        for record in &self.records {
            let size = record.key.as_str().len() + record.response.len();
            add(size, &|| format!("response to {} in partition {}", record.key, self.partition))?;
        }
        let items = items + self.deleted_entries.len();
        if items > limits.transaction_items_max {
            return Err(LimitExceeded::TransactionItems { items, max: limits.transaction_items_max });
        }
        if bytes > limits.transaction_bytes_max {
            return Err(LimitExceeded::TransactionBytes { bytes, max: limits.transaction_bytes_max });
        }
        Ok(())
    }
}

/// What became of a commit whose answer arrived.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CommitOutcome {
    /// It happened.
    Committed {
        /// What a read must present to be sure to see it, where the store has such marks.
        session: Option<SessionMark>,
    },
    /// The control record had another version, or existed although none was expected. Nothing happened now; whether an
    /// earlier try of the same commit had happened is for the caller to find out (R7).
    Conflict,
    /// The version was right, but these deduplication records exist. Nothing happened.
    RecordsExist(Vec<DeduplicationKey>),
}

/// What a scan of a whole store costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScanPrice {
    /// Some time.
    Free,
    /// Capacity or money, for every byte that is stored.
    Metered,
}

/// A place in a scan, in the store's own terms.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScanCursor(pub Bytes);

/// Some partitions of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanPage {
    /// The partitions.
    pub partitions: Vec<ScannedPartition>,
    /// Where to go on. `None`: that was all.
    pub next: Option<ScanCursor>,
}

/// What a scan tells of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScannedPartition {
    /// Its key.
    pub partition: PartitionKey,
    /// The control record's bytes, if it has one.
    pub control: Option<Bytes>,
    /// The outbox entries (tokens not consumed yet) that it holds, in no particular order.
    pub entries: Vec<EntryKey>,
    /// How many deduplication records it holds, expired ones included.
    pub records: u64,
    /// The names of its business items.
    pub items: Vec<ItemName>,
}

/// Why a store did not do what it was asked. [`StoreError::is_retryable`] tells whether asking again can help.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Too many requests: nothing happened; back off.
    #[error("store {store} is throttling{}; back off and try again", .partition.as_ref().map(|p| format!(" partition {p}")).unwrap_or_default())]
    Throttled {
        /// Which store.
        store: StoreAlias,
        /// Which partition, where the store says so.
        partition: Option<PartitionKey>,
        /// How long the store asks to wait.
        retry_after: Option<Duration>,
    },
    /// The store could not be reached or answered with a passing fault: nothing happened.
    #[error("store {store} is not available: {reason}; the call is safe to repeat")]
    Unavailable {
        /// Which store.
        store: StoreAlias,
        /// What the store or the transport said.
        reason: String,
    },
    /// The answer to a commit was lost: it may or may not have happened. Reload and look for the marker (R7).
    #[error(
        "the answer to a commit on partition {partition} of store {store} was lost: {reason}; reload and look"
    )]
    OutcomeUnknown {
        /// Which store.
        store: StoreAlias,
        /// Which partition.
        partition: PartitionKey,
        /// What was seen instead of an answer.
        reason: String,
    },
    /// The commit would exceed a limit: nothing happened, and it never will.
    #[error("store {store} refuses a commit on partition {partition}: {limit}")]
    TooLarge {
        /// Which store.
        store: StoreAlias,
        /// Which partition.
        partition: PartitionKey,
        /// Which limit, and what to do.
        limit: LimitExceeded,
    },
    /// The store is missing, of the wrong shape, or may not be used: needs a person.
    #[error("store {store} is not usable: {reason}")]
    Misconfigured {
        /// Which store.
        store: StoreAlias,
        /// What is wrong and what to do.
        reason: String,
    },
    /// Stored bytes are not what was written.
    #[error("store {store}, partition {partition}: {what} is damaged: {reason}; restore it from a backup")]
    Corrupt {
        /// Which store.
        store: StoreAlias,
        /// Which partition.
        partition: PartitionKey,
        /// Which item, in words.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The token belongs to another store.
    #[error("token {token} belongs to a store that is not {store}: configure a store with that alias")]
    ForeignToken {
        /// The store that was asked.
        store: StoreAlias,
        /// What it was asked for.
        token: TokenRef,
    },
}

impl StoreError {
    /// Whether the same call may succeed later, without a person's doing anything.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Throttled { .. } | Self::Unavailable { .. } | Self::OutcomeUnknown { .. })
    }
}
