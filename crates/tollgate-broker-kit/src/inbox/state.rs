//! What is in an inbox, and what is on its way to it. Nothing here waits, locks or talks to a broker.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tollgate_proto::BrokerError;

use super::{Arrival, InboxSettings};

/// A failure that is older tells a receiver nothing about now.
const FAILURE_KEPT: Duration = Duration::from_secs(30);

/// The messages of one endpoint in this process.
pub(super) struct State<H> {
    /// The numbers of those that no receiver has seen, the oldest first.
    waiting: VecDeque<u64>,
    /// Everything that is unsettled.
    held: HashMap<u64, Held<H>>,
    next_number: u64,
    /// How many messages receivers wait for.
    pub(super) demand: usize,
    /// How many messages fetchers were told to bring and have not brought.
    ordered: usize,
    /// Why the last fetch failed and when, until a receiver is told.
    failure: Option<(BrokerError, Instant)>,
    /// Whether messages are fetched that no receiver has asked for yet. Not after some were given back: this
    /// process takes less than it could have, and others may be idle.
    is_prefetching: bool,
}

struct Held<H> {
    arrival: Arrival<H>,
    extend_at: Instant,
    phase: Phase,
}

#[derive(Clone, Copy)]
enum Phase {
    Waiting { since: Instant },
    HandedOut { since: Instant },
}

impl<H> State<H> {
    pub(super) fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            held: HashMap::new(),
            // Not from 0: a receipt that somebody kept from an earlier inbox must mean nothing here.
            next_number: u64::from(fastrand::u32(..)) << 32,
            demand: 0,
            ordered: 0,
            failure: None,
            is_prefetching: true,
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn arrive(&mut self, arrivals: Vec<Arrival<H>>, now: Instant, extend_after: Duration) {
        self.failure = None;
        for arrival in arrivals {
            let number = self.next_number;
            self.next_number += 1;
            let phase = Phase::Waiting { since: now };
            self.held.insert(number, Held { arrival, extend_at: now + extend_after, phase });
            self.waiting.push_back(number);
        }
    }

    /// Marks up to `max` messages as seen by a receiver.
    pub(super) fn hand_out(&mut self, max: usize, now: Instant) -> Vec<(u64, Bytes, u32)> {
        let count = max.min(self.waiting.len());
        let mut handed_out = Vec::with_capacity(count);
        for number in self.waiting.drain(..count) {
            if let Some(held) = self.held.get_mut(&number) {
                held.phase = Phase::HandedOut { since: now };
                handed_out.push((number, held.arrival.envelope.clone(), held.arrival.delivery_count));
            }
        }
        handed_out
    }

    pub(super) fn take(&mut self, number: u64) -> Option<Arrival<H>> {
        self.held.remove(&number).map(|held| held.arrival)
    }

    pub(super) fn take_waiting(&mut self) -> Vec<H> {
        let numbers = std::mem::take(&mut self.waiting);
        numbers.into_iter().filter_map(|number| self.take(number)).map(|arrival| arrival.handle).collect()
    }

    /// Takes out what has waited for a whole visibility timeout. It may be with an idle process instead.
    pub(super) fn take_unwanted(&mut self, settings: &InboxSettings, now: Instant) -> Vec<H> {
        let is_unwanted = |held: &Held<H>| matches!(held.phase, Phase::Waiting { since } if since + settings.visibility_timeout <= now);
        let mut unwanted = Vec::new();
        // The oldest are in front.
        while let Some(number) = self.waiting.front().copied() {
            if !self.held.get(&number).is_some_and(is_unwanted) {
                break;
            }
            self.waiting.pop_front();
            unwanted.extend(self.take(number).map(|arrival| arrival.handle));
        }
        if !unwanted.is_empty() {
            self.is_prefetching = false;
        }
        unwanted
    }

    /// A receiver has asked for so many: one that takes several at a time may have some prepared.
    pub(super) fn note_demand(&mut self, max: usize) {
        self.is_prefetching |= max > 1;
    }

    /// Forgets everything. Numbers go on, so that receipts of what is forgotten mean nothing.
    pub(super) fn forget(&mut self) {
        self.waiting.clear();
        self.held.clear();
    }

    pub(super) fn fail(&mut self, failure: BrokerError, now: Instant) {
        self.failure = Some((failure, now));
    }

    /// The last failure, if it is recent enough to mean anything.
    pub(super) fn take_failure(&mut self, now: Instant) -> Option<BrokerError> {
        let (failure, since) = self.failure.take()?;
        (now < since + FAILURE_KEPT).then_some(failure)
    }

    /// Decides how many messages are to be fetched now, and notes that they are on their way.
    pub(super) fn order(&mut self, settings: &InboxSettings, fetch_max: usize) -> usize {
        let here = self.waiting.len() + self.ordered;
        let prefetch = if self.is_prefetching { settings.prefetch } else { 0 };
        let wanted = (self.demand + prefetch).saturating_sub(here);
        let room = settings.in_flight_max.saturating_sub(self.held.len() + self.ordered);
        let count = wanted.min(room).min(fetch_max);
        self.ordered += count;
        count
    }

    /// So many have come or are not on their way any more.
    pub(super) fn end_order(&mut self, count: usize) {
        self.ordered = self.ordered.saturating_sub(count);
    }

    /// Those for which more time is to be asked now.
    pub(super) fn due(&mut self, settings: &InboxSettings, one_in: u32, now: Instant) -> Vec<H>
    where
        H: Clone,
    {
        let next = now + settings.visibility_timeout / one_in;
        let mut due = Vec::new();
        for held in self.held.values_mut() {
            let is_kept = match held.phase {
                Phase::Waiting { .. } => true,
                Phase::HandedOut { since } => now < since + settings.hold_max,
            };
            if is_kept && held.extend_at <= now {
                held.extend_at = next;
                due.push(held.arrival.handle.clone());
            }
        }
        due
    }

    /// Forgets those that come again by now, and tells how many they were.
    pub(super) fn give_up(&mut self, settings: &InboxSettings, now: Instant) -> usize {
        let before = self.held.len();
        self.held.retain(|_, held| match held.phase {
            Phase::Waiting { .. } => true,
            Phase::HandedOut { since } => now < since + settings.hold_max + settings.visibility_timeout,
        });
        before - self.held.len()
    }
}
