//! What a run is about: how many messages of which size go to which partitions, who delivers them how often and when, and what
//! the network is like. All of it is data, is printed with the figures, and holds for every contender alike.

use serde::{Deserialize, Serialize};

use super::BenchError;
use super::latency::Latency;

/// One scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scenario {
    /// What it is called in reports.
    pub name: String,
    /// Messages that are handled, about: chains are not cut short.
    pub messages: u64,
    /// How many partitions they go to.
    pub partitions: u64,
    /// How they are spread.
    pub skew: Skew,
    /// What a message that goes on sends: one that goes on itself, the others end where they arrive.
    pub outputs: u64,
    /// Messages in a chain: each but the last one goes on.
    pub chain: u64,
    /// Bytes in a message's body beside what steers it.
    pub body_bytes: usize,
    /// Bytes in a partition's state beside what is counted.
    pub state_bytes: usize,
    /// Which part of all deliveries are copies, from 0 to below 1.
    pub duplicates: f64,
    /// Which part of the copies comes late, when their original has probably been processed; the others race it.
    pub late_copies: f64,
    /// When messages arrive.
    pub arrival: Arrival,
    /// Messages that a contender may have taken and not settled.
    pub in_flight: usize,
    /// Calls to the store that may be under way at a time: connections. 0: no bound.
    pub connections: usize,
    /// What each call to the store waits for.
    pub latency: Latency,
    /// How many deletions of tokens one call takes.
    pub deletions: Deletions,
    /// Which store.
    pub store: StoreKind,
    /// From which all randomness follows.
    pub seed: u64,
}

/// How messages are spread over partitions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Skew {
    /// Each is as likely as any other.
    Uniform,
    /// By Zipf's law with this exponent.
    Zipf(f64),
    /// All go to one.
    OneHot,
}

/// When messages arrive.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arrival {
    /// They all wait at the beginning. Latency counts from delivery.
    Closed,
    /// So many messages a second begin to be due, whether or not anybody is ready. Latency counts from when a message was
    /// due: a contender that is slow can't hide it by taking messages late (no coordinated omission).
    Open(f64),
}

/// How many tokens Tollgate's store deletes by one call over the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deletions {
    /// A batch of them, as `DynamoDB` does where each is an item of its own.
    Batched,
    /// One, as `DynamoDB` does where entries lie in their partition's main item.
    OneByOne,
}

/// Which store a run is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreKind {
    /// In memory.
    Memory,
    /// The durable embedded one, in a directory for temporary files.
    Embedded,
    /// `DynamoDB`, emulated in this process.
    #[serde(rename = "dynamodb")]
    DynamoDb,
    /// The same emulator as a server on a file.
    #[serde(rename = "dynamodb-server")]
    DynamoDbServer,
    /// Cosmos DB, emulated in this process.
    Cosmos,
}

impl StoreKind {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Memory, Self::Embedded, Self::DynamoDb, Self::DynamoDbServer, Self::Cosmos];

    /// What it is called on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Embedded => "embedded",
            Self::DynamoDb => "dynamodb",
            Self::DynamoDbServer => "dynamodb-server",
            Self::Cosmos => "cosmos",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl Scenario {
    /// The scenario of the main comparison: 5 ms to the store, 1,000 partitions, one output, 64 connections.
    pub fn headline() -> Self {
        Self {
            name: "headline".to_owned(),
            messages: 16_000,
            partitions: 1_000,
            skew: Skew::Uniform,
            outputs: 1,
            chain: 16,
            body_bytes: 500,
            state_bytes: 500,
            duplicates: 0.0,
            late_copies: 0.5,
            arrival: Arrival::Closed,
            in_flight: 256,
            connections: 64,
            latency: Latency::Fixed { ms: 5.0 },
            deletions: Deletions::Batched,
            store: StoreKind::Memory,
            seed: 4711,
        }
    }

    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// [`BenchError::Scenario`] with what is wrong.
    pub fn check(&self) -> Result<(), BenchError> {
        let wrong = |what: &str| Err(BenchError::Scenario(what.to_owned()));
        if self.messages == 0 || self.partitions == 0 || self.chain == 0 || self.in_flight == 0 {
            return wrong("messages, partitions, the length of chains and messages in flight begin at 1");
        }
        if !(0.0..=DUPLICATES_MAX).contains(&self.duplicates) {
            return wrong("duplicates are a part of all deliveries, from 0 to 0.99");
        }
        if matches!(self.arrival, Arrival::Open(rate) if rate.is_nan() || rate <= 0.0) {
            return wrong("the arrival rate is a number of messages a second");
        }
        Ok(())
    }
}

/// Largest part of all deliveries that may be copies: 99 copies of each message.
const DUPLICATES_MAX: f64 = 0.99;
