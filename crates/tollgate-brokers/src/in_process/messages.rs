//! The messages of one endpoint and where each of them is: ready, delayed, in flight or dead. Pure
//! bookkeeping that is told the time; no lock, no waiting and no log may enter. [`super::queue`] puts a lock
//! and a bell around it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tollgate_proto::{Delivery, Receipt, Verdict};

use super::{DeadLetter, Depth};

/// How many bits of a receipt tell the slot; the others tell which of the slot's deliveries it is. 2^28 slots
/// are more than memory holds, and a slot that is delivered a million times a second reuses one of 2^36
/// numbers after 19 hours: a receipt would have to be as old to be mistaken.
const SLOT_BITS: u32 = 28;

/// Most messages of one endpoint that wait, whatever capacity was asked for. As many more may be in flight.
pub(crate) const CAPACITY_MAX: usize = (1 << (SLOT_BITS - 1)) - 1;

/// Settled entries that the list of flights may hold beyond the live ones before it is swept. Sweeping at
/// twice the live length makes its cost constant for each message; this floor keeps short lists from being
/// swept all the time.
const FLIGHTS_SWEPT_MIN: usize = 1024;

/// A delay that ends beyond what the clock can count ends then: for a broker's purposes, never.
const FAR_FUTURE: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// The bounds of one endpoint's queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueLimits {
    pub(crate) capacity: usize,
    pub(crate) visibility_timeout: Duration,
    pub(crate) delivery_limit: Option<NonZeroU32>,
}

/// Under which number the recovery log knows a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LogNumber(pub(crate) NonZeroU64);

/// What the recovery log has to be told some time soon. Nothing is lost if it never is: the message comes
/// again.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "durable"), expect(dead_code, reason = "without a log nobody reads them"))]
pub(crate) enum Change {
    /// The message is done.
    Acknowledged(LogNumber),
    /// The message was put aside.
    DeadLettered(LogNumber, DeadLetter),
    /// A dead letter became a message again.
    Redriven(LogNumber, Bytes),
    /// The broker is closing, and the message has been delivered that often.
    Delivered(LogNumber, Bytes, u32),
}

/// A message on its way into the queue.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) envelope: Bytes,
    pub(crate) delay: Duration,
    pub(crate) delivery_count: u32,
    pub(crate) record: Option<LogNumber>,
}

/// Who has to be woken after messages arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// A receiver that waits for messages: there is one.
    One,
    /// All that wait: something falls due earlier than they know.
    All,
    /// Nobody.
    Nobody,
}

/// All messages of one endpoint.
#[derive(Debug)]
pub(crate) struct Messages {
    limits: QueueLimits,
    slots: Vec<Slot>,
    free: Vec<u32>,
    ready: VecDeque<u32>,
    /// In the order of their deadlines, because the timeout is the same for all. Settled ones stay until they
    /// reach the front or the list is swept.
    flights: VecDeque<Flight>,
    flights_live: usize,
    delayed: BinaryHeap<Reverse<Due>>,
    delays_ever: u64,
    dead: Vec<DeadMessage>,
    /// Room promised to messages that the log is writing.
    reserved: usize,
    /// What the log has not been told yet. Stays empty for messages without a record.
    pub(crate) changes: Vec<Change>,
}

#[derive(Debug)]
struct Slot {
    envelope: Bytes,
    generation: u64,
    delivery_count: u32,
    /// The count in the log's record; at closing the record is brought up to date where they differ.
    recorded_count: u32,
    place: Place,
    record: Option<LogNumber>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Free,
    Ready,
    Delayed,
    InFlight,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    deadline: Instant,
    slot: u32,
    generation: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Instant,
    serial: u64,
    slot: u32,
}

#[derive(Debug)]
struct DeadMessage {
    letter: DeadLetter,
    record: Option<LogNumber>,
}

impl Messages {
    pub(crate) fn new(limits: QueueLimits) -> Self {
        Self {
            limits,
            slots: Vec::new(),
            free: Vec::new(),
            ready: VecDeque::new(),
            flights: VecDeque::new(),
            flights_live: 0,
            delayed: BinaryHeap::new(),
            delays_ever: 0,
            dead: Vec::new(),
            reserved: 0,
            changes: Vec::new(),
        }
    }

    /// The number of messages that it takes now.
    ///
    /// A message in flight leaves its place to what it causes: a full queue whose messages send to it, or a ring of such queues, would
    /// never move again.
    pub(crate) fn room(&self) -> usize {
        let waiting = self.ready.len() + self.delayed.len() + self.dead.len();
        self.limits.capacity.saturating_sub(waiting + self.reserved)
    }

    /// Promises room to a message that [`Messages::arrive_reserved`] or [`Messages::release`] will speak of.
    #[cfg(feature = "durable")]
    pub(crate) fn reserve(&mut self) {
        self.reserved += 1;
    }

    /// Takes back a promise: the message will not come.
    #[cfg(feature = "durable")]
    pub(crate) fn release(&mut self) {
        debug_assert!(self.reserved > 0, "what was not reserved is not released");
        self.reserved = self.reserved.saturating_sub(1);
    }

    /// Takes a message in. Whether there is room was asked before: a recovered message is taken in any case.
    pub(crate) fn arrive(&mut self, arrival: Arrival, now: Instant) -> Wake {
        let slot = self.occupy(Slot {
            envelope: arrival.envelope,
            generation: 0,
            delivery_count: arrival.delivery_count,
            recorded_count: arrival.delivery_count,
            place: Place::Free,
            record: arrival.record,
        });
        self.put_back(slot, arrival.delay, now)
    }

    fn occupy(&mut self, content: Slot) -> u32 {
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            debug_assert_eq!(slot.place, Place::Free, "only free slots are in the list of free ones");
            let generation = slot.generation;
            *slot = Slot { generation, ..content };
            return index;
        }
        let index = u32::try_from(self.slots.len()).expect("memory ends before 2^28 messages");
        self.slots.push(content);
        index
    }

    fn put_back(&mut self, index: u32, after: Duration, now: Instant) -> Wake {
        if after.is_zero() {
            self.slots[index as usize].place = Place::Ready;
            self.ready.push_back(index);
            return Wake::One;
        }
        let at = later(now, after);
        let earliest = self.next_due();
        self.slots[index as usize].place = Place::Delayed;
        self.delays_ever += 1;
        self.delayed.push(Reverse(Due { at, serial: self.delays_ever, slot: index }));
        if earliest.is_none_or(|earliest| at < earliest) { Wake::All } else { Wake::Nobody }
    }

    /// Gives out up to `max` messages that are ready; each is in flight until settled or timed out.
    pub(crate) fn take(&mut self, max: usize, now: Instant) -> Vec<Delivery> {
        self.advance(now);
        let count = max.min(self.ready.len());
        let deadline = later(now, self.limits.visibility_timeout);
        let mut deliveries = Vec::with_capacity(count);
        for index in self.ready.drain(..count) {
            let slot = &mut self.slots[index as usize];
            slot.place = Place::InFlight;
            slot.generation += 1;
            slot.delivery_count = slot.delivery_count.saturating_add(1);
            self.flights.push_back(Flight { deadline, slot: index, generation: slot.generation });
            deliveries.push(Delivery {
                envelope: slot.envelope.clone(),
                receipt: Receipt::Number(slot.generation << SLOT_BITS | u64::from(index)),
                delivery_count: slot.delivery_count,
            });
        }
        self.flights_live += count;
        deliveries
    }

    /// Whether somebody could take a message now.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Does what a verdict says. A receipt of a delivery that was settled or has timed out changes nothing.
    pub(crate) fn settle(&mut self, receipt: u64, verdict: Verdict, now: Instant) -> Wake {
        let Some(index) = self.in_flight(receipt) else { return Wake::Nobody };
        self.flights_live -= 1;
        match verdict {
            Verdict::Acknowledge => {
                let record = self.slots[index as usize].record;
                self.changes.extend(record.map(Change::Acknowledged));
                self.vacate(index);
                Wake::Nobody
            }
            Verdict::Retry { after } => {
                self.put_back_or_bury(index, after, now, |count| format!("put back after {count} deliveries"))
            }
            Verdict::DeadLetter { reason } => {
                self.bury(index, reason);
                Wake::Nobody
            }
        }
    }

    fn in_flight(&self, receipt: u64) -> Option<u32> {
        let index = u32::try_from(receipt & ((1 << SLOT_BITS) - 1)).expect("28 bits fit in 32");
        let slot = self.slots.get(index as usize)?;
        let is_current = slot.place == Place::InFlight && slot.generation == receipt >> SLOT_BITS;
        is_current.then_some(index)
    }

    fn put_back_or_bury(
        &mut self,
        index: u32,
        after: Duration,
        now: Instant,
        reason: impl FnOnce(u32) -> String,
    ) -> Wake {
        let count = self.slots[index as usize].delivery_count;
        if self.limits.delivery_limit.is_some_and(|limit| count >= limit.get()) {
            self.bury(index, format!("{}, which is this broker's limit", reason(count)));
            return Wake::Nobody;
        }
        self.put_back(index, after, now)
    }

    fn bury(&mut self, index: u32, reason: String) {
        let slot = &self.slots[index as usize];
        let letter =
            DeadLetter { envelope: slot.envelope.clone(), reason, delivery_count: slot.delivery_count };
        let record = slot.record;
        self.changes.extend(record.map(|record| Change::DeadLettered(record, letter.clone())));
        self.dead.push(DeadMessage { letter, record });
        self.vacate(index);
    }

    fn vacate(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.envelope = Bytes::new();
        slot.place = Place::Free;
        slot.record = None;
        self.free.push(index);
    }

    /// Makes ready what is due: delays that are over and deliveries that timed out.
    pub(crate) fn advance(&mut self, now: Instant) {
        while let Some(Reverse(due)) = self.delayed.peek().copied()
            && due.at <= now
        {
            self.delayed.pop();
            self.slots[due.slot as usize].place = Place::Ready;
            self.ready.push_back(due.slot);
        }
        while let Some(flight) = self.flights.front().copied() {
            if self.is_live(flight) {
                if flight.deadline > now {
                    break;
                }
                self.flights_live -= 1;
                let timeout = self.limits.visibility_timeout;
                self.put_back_or_bury(flight.slot, Duration::ZERO, now, |count| {
                    format!("delivered {count} times and not settled within {timeout:?}")
                });
            }
            self.flights.pop_front();
        }
        if self.flights.len() > 2 * self.flights_live + FLIGHTS_SWEPT_MIN {
            let slots = &self.slots;
            self.flights.retain(|flight| is_live(slots, *flight));
        }
    }

    fn is_live(&self, flight: Flight) -> bool {
        is_live(&self.slots, flight)
    }

    /// When [`Messages::advance`] will have something to do.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let timeout = self.flights.front().map(|flight| flight.deadline);
        let delay = self.delayed.peek().map(|Reverse(due)| due.at);
        timeout.into_iter().chain(delay).min()
    }

    pub(crate) fn depth(&self) -> Depth {
        Depth {
            ready: self.ready.len(),
            delayed: self.delayed.len(),
            in_flight: self.flights_live,
            dead: self.dead.len(),
        }
    }

    pub(crate) fn dead_letters(&self) -> Vec<DeadLetter> {
        self.dead.iter().map(|message| message.letter.clone()).collect()
    }

    /// Takes in a dead letter that the log has kept.
    #[cfg(feature = "durable")]
    pub(crate) fn restore_dead(&mut self, letter: DeadLetter, record: LogNumber) {
        self.dead.push(DeadMessage { letter, record: Some(record) });
    }

    /// Makes all dead letters messages again that were never delivered. Returns how many.
    pub(crate) fn redrive(&mut self, now: Instant) -> usize {
        let dead = std::mem::take(&mut self.dead);
        let count = dead.len();
        for DeadMessage { letter, record } in dead {
            let envelope = letter.envelope;
            self.changes.extend(record.map(|record| Change::Redriven(record, envelope.clone())));
            self.arrive(Arrival { envelope, delay: Duration::ZERO, delivery_count: 0, record }, now);
        }
        count
    }

    /// Notes for the log how often each message was delivered, where the log knows less.
    pub(crate) fn note_delivery_counts(&mut self) {
        for slot in &mut self.slots {
            if slot.place == Place::Free || slot.delivery_count == slot.recorded_count {
                continue;
            }
            slot.recorded_count = slot.delivery_count;
            let (envelope, count) = (&slot.envelope, slot.delivery_count);
            self.changes.extend(slot.record.map(|r| Change::Delivered(r, envelope.clone(), count)));
        }
    }
}

fn is_live(slots: &[Slot], flight: Flight) -> bool {
    let slot = &slots[flight.slot as usize];
    slot.place == Place::InFlight && slot.generation == flight.generation
}

fn later(now: Instant, after: Duration) -> Instant {
    now.checked_add(after).unwrap_or_else(|| now + FAR_FUTURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn messages() -> Messages {
        Messages::new(QueueLimits { capacity: 8192, visibility_timeout: TIMEOUT, delivery_limit: None })
    }

    fn arrival(envelope: &'static str) -> Arrival {
        Arrival {
            envelope: Bytes::from_static(envelope.as_bytes()),
            delay: Duration::ZERO,
            delivery_count: 0,
            record: None,
        }
    }

    fn number(delivery: &Delivery) -> u64 {
        match delivery.receipt {
            Receipt::Number(number) => number,
            Receipt::Text(_) => panic!("this broker hands out numbers"),
        }
    }

    #[test]
    fn one_stuck_message_does_not_make_the_list_of_flights_grow_with_the_traffic_behind_it() {
        let (mut messages, now) = (messages(), Instant::now());
        messages.arrive(arrival("stuck"), now);
        assert_eq!(messages.take(1, now).len(), 1);
        for _ in 0..20 * FLIGHTS_SWEPT_MIN {
            messages.arrive(arrival("next"), now);
            let next = messages.take(1, now);
            messages.settle(number(&next[0]), Verdict::Acknowledge, now);
        }
        assert!(messages.flights.len() <= 2 + FLIGHTS_SWEPT_MIN + 1, "{} flights", messages.flights.len());
        assert_eq!(messages.take(1, now + TIMEOUT)[0].envelope, "stuck");
    }

    #[test]
    fn a_receipt_is_good_until_its_delivery_times_out_and_never_again() {
        let (mut messages, now) = (messages(), Instant::now());
        messages.arrive(arrival("a"), now);
        let first = messages.take(1, now);
        let second = messages.take(1, now + TIMEOUT);
        assert_eq!(second[0].delivery_count, 2);
        messages.settle(number(&first[0]), Verdict::Acknowledge, now + TIMEOUT);
        assert_eq!(messages.depth(), Depth { in_flight: 1, ..Depth::default() });
        messages.settle(number(&second[0]), Verdict::Acknowledge, now + TIMEOUT);
        assert_eq!(messages.depth(), Depth::default());
    }

    #[test]
    fn a_slot_that_holds_the_next_message_ignores_receipts_of_the_one_before() {
        let (mut messages, now) = (messages(), Instant::now());
        messages.arrive(arrival("a"), now);
        let first = messages.take(1, now);
        messages.settle(number(&first[0]), Verdict::Acknowledge, now);
        messages.arrive(arrival("b"), now);
        assert_eq!(messages.slots.len(), 1);
        messages.settle(number(&first[0]), Verdict::Acknowledge, now);
        let second = messages.take(1, now);
        messages.settle(number(&first[0]), Verdict::Acknowledge, now);
        assert_eq!(second[0].envelope, "b");
        assert_eq!(messages.depth().in_flight, 1);
    }

    #[test]
    fn a_delay_beyond_the_end_of_the_clock_is_taken_for_never() {
        let (mut messages, now) = (messages(), Instant::now());
        messages.arrive(Arrival { delay: Duration::MAX, ..arrival("a") }, now);
        assert_eq!(messages.depth().delayed, 1);
    }
}
