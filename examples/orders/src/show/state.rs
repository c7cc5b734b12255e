//! What the page shows: how things are now, as one JSON object.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::clients::ClientCounts;
use crate::audit::Books;
use crate::lifeline::Counts;
use crate::messages::Totals;

/// How things are.
#[derive(Clone, Debug, Serialize)]
pub struct State {
    pub seed: u64,
    pub orders: usize,
    pub kills_planned: usize,
    pub phase: Phase,
    /// Since the start.
    pub seconds: f64,
    pub shop: Side,
    pub provider: Side,
    pub clients: ClientCounts,
    pub history: Vec<Sample>,
    pub deaths: Vec<Death>,
    /// The audit's result, once it is there.
    pub books: Option<Books>,
}

/// Where the show is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Orders come in, and processes die.
    Running,
    /// Every order has come to its end; what is left over goes away.
    Settling,
    /// The audit has found nothing.
    Balanced,
    /// The audit has found something.
    Unbalanced,
}

/// One of the two processes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Side {
    pub is_up: bool,
    pub kills: u64,
    pub totals: Totals,
    pub under_way: BTreeMap<String, u64>,
    pub counts: Counts,
}

/// How many messages were under way when.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    pub seconds: f64,
    pub in_flight: u64,
}

/// Who was killed when.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Death {
    pub seconds: f64,
    pub victim: Victim,
}

/// Who can be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Victim {
    Shop,
    Provider,
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shop => "the shop",
            Self::Provider => "the provider",
        })
    }
}

/// Most samples: beyond, every second one is forgotten.
const SAMPLES_MAX: usize = 500;

impl State {
    /// Before anything has happened.
    pub fn new(seed: u64, orders: usize, kills_planned: usize) -> Self {
        Self {
            seed,
            orders,
            kills_planned,
            phase: Phase::Running,
            seconds: 0.0,
            shop: Side::default(),
            provider: Side::default(),
            clients: ClientCounts::default(),
            history: Vec::new(),
            deaths: Vec::new(),
            books: None,
        }
    }
    /// How things are in the middle of it.
    pub fn look(&mut self, seconds: f64, shop: Side, provider: Side, clients: ClientCounts) {
        self.seconds = seconds;
        let in_flight = shop.under_way.values().chain(provider.under_way.values()).sum();
        (self.shop, self.provider, self.clients) = (shop, provider, clients);
        self.history.push(Sample { seconds, in_flight });
        if self.history.len() > SAMPLES_MAX {
            let mut is_kept = false;
            self.history.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
        }
    }
    /// How things are in the end.
    pub fn close_books(&mut self, books: Books) {
        self.phase = if books.is_balanced() { Phase::Balanced } else { Phase::Unbalanced };
        self.books = Some(books);
    }
}
