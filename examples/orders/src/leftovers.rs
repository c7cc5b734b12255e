//! What a quiet system must not hold. All of it is there while work goes on, and all of it has to go by itself.

use std::fmt;

use serde::{Deserialize, Serialize};
use tollgate::Store;
use tollgate::proto::{ScannedPartition, codec};

use crate::Failure;

/// Partitions in one page of a scan.
const PAGE: usize = 256;

/// What is left over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftovers {
    /// Outbox entries: each is the token of a message that nobody has finished.
    pub tokens: u64,
    /// Commits that are not known to be finished.
    pub markers: u64,
    /// Side effects that attempts have registered.
    pub registrations: u64,
    /// Requests and responses of exactly-once HTTP.
    pub requests: u64,
    /// Messages in the broker.
    pub messages: u64,
    /// Messages that were given up.
    pub dead_letters: u64,
    /// Blobs that nothing names.
    pub orphan_blobs: u64,
}

impl Leftovers {
    /// How many altogether.
    pub const fn count(&self) -> u64 {
        let Self { tokens, markers, registrations, requests, messages, dead_letters, orphan_blobs } = self;
        *tokens + *markers + *registrations + *requests + *messages + *dead_letters + *orphan_blobs
    }

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            tokens: self.tokens + other.tokens,
            markers: self.markers + other.markers,
            registrations: self.registrations + other.registrations,
            requests: self.requests + other.requests,
            messages: self.messages + other.messages,
            dead_letters: self.dead_letters + other.dead_letters,
            orphan_blobs: self.orphan_blobs + other.orphan_blobs,
        }
    }

    /// Those of a store.
    pub async fn of_store(store: &dyn Store) -> Result<Self, Failure> {
        let mut left = Self::default();
        for scanned in &partitions(store).await? {
            left.add(scanned)?;
        }
        Ok(left)
    }

    fn add(&mut self, scanned: &ScannedPartition) -> Result<(), Failure> {
        self.tokens += scanned.entries.len() as u64;
        let of_http = |item: &str| item.starts_with("request/") || item.starts_with("http-response/");
        self.requests += scanned.items.iter().filter(|item| of_http(item.as_str())).count() as u64;
        if let Some(control) = &scanned.control {
            let control = codec::decode_control(control)?;
            self.markers += control.pending.len() as u64;
            self.registrations += control.registrations.len() as u64;
        }
        Ok(())
    }
}

/// All partitions of a store, with what is in them.
pub async fn partitions(store: &dyn Store) -> Result<Vec<ScannedPartition>, Failure> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let page = store.scan(cursor, PAGE).await?;
        all.extend(page.partitions);
        cursor = page.next;
        if cursor.is_none() {
            return Ok(all);
        }
    }
}

impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tokens, markers, registrations, requests, messages, dead_letters, orphan_blobs } = self;
        write!(
            f,
            "tokens {tokens}, markers {markers}, registrations {registrations}, stored requests {requests}, \
             messages {messages}, dead letters {dead_letters}, orphan blobs {orphan_blobs}"
        )
    }
}
