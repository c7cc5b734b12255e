//! The messages that one consumer holds and RabbitMQ waits to hear of: what has come, what was given out, for
//! how long, and which acknowledgements can travel as one. No I/O and no clock; the lock and the channel are
//! in `consumer`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use tollgate_proto::{Delivery, Receipt};

use super::message::Message;

/// The messages of one consumer.
///
/// A receipt is a serial number, which goes on counting when the channel is opened again: so a receipt of an
/// older channel is told from all of the present one, and settling it does nothing. RabbitMQ has put its
/// message back long before. Its lowest bits count how often the message was given out from here, so that a
/// receipt settles one delivery and not the next one of the same message.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    /// The serial number before the first one of this channel: delivery tags count from 1.
    base: u64,
    entries: BTreeMap<u64, Entry>,
    /// Serial numbers of messages that wait for a receiver, in the order of their arrival.
    ready: VecDeque<u64>,
    /// When those come that wait here for their time.
    due: BTreeSet<(Instant, u64)>,
}

#[derive(Debug)]
struct Entry {
    message: Message,
    place: Place,
    /// How often it was given out from here.
    round: u8,
}

/// Bits of a receipt that count the rounds of a message.
const ROUND_BITS: u32 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Waiting for a receiver.
    Ready { since: Instant },
    /// Waiting for its time, here: a short retry, or a message that came too early.
    Later { until: Instant },
    /// With a receiver, who is believed to be alive until then.
    GivenOut { until: Instant },
    /// With the task, which settles it.
    Settling,
    /// To be put back then: what was asked for could not be done.
    Held { until: Instant },
}

/// An acknowledgement as RabbitMQ wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acknowledgement {
    /// Of one message.
    One(u64),
    /// Of all messages up to this delivery tag.
    UpTo(u64),
}

impl Unsettled {
    /// A new channel was opened: RabbitMQ delivers again what the old one held.
    pub(super) fn begin_channel(&mut self) {
        self.base = self.entries.keys().next_back().map_or(self.base, |last| self.base.max(*last));
        self.entries.clear();
        self.ready.clear();
        self.due.clear();
    }

    /// Takes what came with a delivery tag of the present channel, and tells its serial number.
    pub(super) fn arrive(&mut self, tag: u64, message: Message, now: Instant) -> u64 {
        let serial = self.base + tag;
        self.entries.insert(serial, Entry { message, place: Place::Ready { since: now }, round: 0 });
        self.ready.push_back(serial);
        serial
    }

    /// The number of messages that wait for a receiver.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Gives out up to `max` messages, which are to be settled in time.
    pub(super) fn take(&mut self, max: usize, until: Instant) -> Vec<Delivery> {
        let count = max.min(self.ready.len());
        let mut deliveries = Vec::with_capacity(count);
        for serial in self.ready.drain(..count) {
            let entry = self.entries.get_mut(&serial).expect("what is ready has an entry");
            entry.place = Place::GivenOut { until };
            entry.round = entry.round.wrapping_add(1);
            deliveries.push(entry.message.delivery(receipt(serial, entry.round)));
        }
        deliveries
    }

    /// The message of a receipt, to be settled; none if there is nothing to settle any more: it was settled
    /// before, or came over an older channel.
    pub(super) fn begin(&mut self, receipt: &Receipt) -> Option<(u64, &Message)> {
        let Receipt::Number(number) = receipt else { return None };
        let (serial, round) = (number >> ROUND_BITS, number & ((1 << ROUND_BITS) - 1));
        let entry = self.entries.get_mut(&serial)?;
        let Place::GivenOut { .. } = entry.place else { return None };
        if u64::from(entry.round) != round {
            return None;
        }
        entry.place = Place::Settling;
        Some((serial, &entry.message))
    }

    /// Takes the message that arrived last away from the receivers, to be settled without them.
    pub(super) fn withdraw(&mut self, serial: u64) {
        if self.ready.back() == Some(&serial) {
            self.ready.pop_back();
        }
        if let Some(entry) = self.entries.get_mut(&serial) {
            entry.place = Place::Settling;
        }
    }

    /// A message that is being settled waits here for its time.
    pub(super) fn wait(&mut self, serial: u64, until: Instant) {
        if let Some(entry) = self.entries.get_mut(&serial) {
            entry.place = Place::Later { until };
            self.due.insert((until, serial));
        }
    }

    /// The same for one that was given out, which counts as a delivery.
    pub(super) fn retry(&mut self, serial: u64, until: Instant) {
        if let Some(entry) = self.entries.get_mut(&serial) {
            entry.message.count_delivery();
        }
        self.wait(serial, until);
    }

    /// When the next message comes that waits here.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(until, _)| *until)
    }

    /// Messages whose time has come wait for receivers.
    pub(super) fn pass_time(&mut self, now: Instant) {
        while let Some((until, serial)) = self.due.first().copied()
            && until <= now
        {
            self.due.pop_first();
            if let Some(entry) = self.entries.get_mut(&serial) {
                entry.place = Place::Ready { since: now };
                self.ready.push_back(serial);
            }
        }
    }

    /// How long the oldest message that waits for a receiver has waited.
    pub(super) fn waited(&self, now: Instant) -> Option<Duration> {
        let entry = self.entries.get(self.ready.front()?)?;
        let Place::Ready { since } = entry.place else { return None };
        Some(now.saturating_duration_since(since))
    }

    /// Takes out what waits for receivers, to be put back.
    pub(super) fn take_waiting(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.ready).into()
    }

    /// What was begun could not be done: the message is put back later.
    pub(super) fn hold(&mut self, serial: u64, until: Instant) {
        if let Some(entry) = self.entries.get_mut(&serial) {
            entry.place = Place::Held { until };
        }
    }

    /// Forgets messages that are done, and tells how to acknowledge them: those below which nothing is left
    /// go as one.
    pub(super) fn acknowledge(&mut self, serials: impl IntoIterator<Item = u64>) -> Vec<Acknowledgement> {
        let mut done: Vec<u64> =
            serials.into_iter().filter(|serial| self.remove(*serial).is_some()).collect();
        done.sort_unstable();
        let lowest_left = self.entries.keys().next().copied().unwrap_or(u64::MAX);
        let below = done.partition_point(|serial| *serial < lowest_left);
        let together = below.checked_sub(1).map(|last| Acknowledgement::UpTo(done[last] - self.base));
        let alone = done[below..].iter().map(|serial| Acknowledgement::One(serial - self.base));
        together.into_iter().chain(alone).collect()
    }

    /// Forgets a message that goes back to RabbitMQ, and tells its delivery tag.
    pub(super) fn put_back(&mut self, serial: u64) -> Option<u64> {
        self.remove(serial)?;
        Some(serial - self.base)
    }

    fn remove(&mut self, serial: u64) -> Option<Entry> {
        let entry = self.entries.remove(&serial)?;
        if let Place::Later { until } = entry.place {
            self.due.remove(&(until, serial));
        }
        Some(entry)
    }

    /// The messages whose receivers have been silent for too long, and those whose time to be put back has
    /// come.
    pub(super) fn overdue(&self, now: Instant) -> Vec<u64> {
        let is_overdue = |place: Place| match place {
            Place::GivenOut { until } | Place::Held { until } => until <= now,
            Place::Ready { .. } | Place::Later { .. } | Place::Settling => false,
        };
        self.entries.iter().filter(|(_, entry)| is_overdue(entry.place)).map(|(serial, _)| *serial).collect()
    }

    /// The messages that nobody works on: they wait for receivers, or to be put back.
    pub(super) fn idle(&self) -> Vec<u64> {
        let is_idle =
            |place: Place| matches!(place, Place::Ready { .. } | Place::Later { .. } | Place::Held { .. });
        self.entries.iter().filter(|(_, entry)| is_idle(entry.place)).map(|(serial, _)| *serial).collect()
    }

    /// Gives up what waits for receivers: it is about to be put back.
    pub(super) fn take_nothing_more(&mut self) {
        self.ready.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn receipt(serial: u64, round: u8) -> Receipt {
    Receipt::Number(serial << ROUND_BITS | u64::from(round))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn with(tags: std::ops::RangeInclusive<u64>) -> Unsettled {
        let mut unsettled = Unsettled::default();
        unsettled.begin_channel();
        for tag in tags {
            unsettled.arrive(tag, Message::of_test(Bytes::new()), Instant::now());
        }
        unsettled
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    #[test]
    fn what_is_settled_in_order_is_acknowledged_as_one() {
        let mut unsettled = with(1..=5);
        unsettled.take(5, soon());
        assert_eq!(unsettled.acknowledge([2, 1, 3]), [Acknowledgement::UpTo(3)]);
        assert_eq!(unsettled.acknowledge([5]), [Acknowledgement::One(5)]);
        assert_eq!(unsettled.acknowledge([4]), [Acknowledgement::UpTo(4)]);
        assert!(unsettled.is_empty());
    }

    #[test]
    fn a_receipt_of_an_older_channel_settles_nothing_of_the_new_one() {
        let mut unsettled = with(1..=2);
        let old = unsettled.take(2, soon());
        unsettled.begin_channel();
        unsettled.arrive(1, Message::of_test(Bytes::new()), Instant::now());
        let new = unsettled.take(1, soon());
        assert!(unsettled.begin(&old[0].receipt).is_none());
        let (serial, _) = unsettled.begin(&new[0].receipt).unwrap();
        assert_eq!(unsettled.acknowledge([serial]), [Acknowledgement::UpTo(1)]);
    }

    #[test]
    fn a_message_is_settled_once_and_not_before_it_was_given_out() {
        let mut unsettled = with(1..=1);
        assert!(unsettled.begin(&receipt(1, 0)).is_none());
        let given = unsettled.take(1, soon());
        assert!(unsettled.begin(&given[0].receipt).is_some());
        assert!(unsettled.begin(&given[0].receipt).is_none());
    }

    #[test]
    fn only_what_was_given_out_or_is_held_becomes_overdue() {
        let mut unsettled = with(1..=3);
        unsettled.take(2, Instant::now());
        unsettled.begin(&receipt(2, 1));
        assert_eq!(unsettled.overdue(soon()), [1]);
        unsettled.hold(2, Instant::now());
        assert_eq!(unsettled.overdue(soon()), [1, 2]);
        assert_eq!(unsettled.idle(), [2, 3]);
    }

    #[test]
    fn a_short_retry_waits_here_and_its_first_receipt_settles_nothing_any_more() {
        let mut unsettled = with(1..=2);
        let first = unsettled.take(1, soon()).remove(0);
        let (serial, _) = unsettled.begin(&first.receipt).unwrap();
        let due = soon();
        unsettled.retry(serial, due);
        assert_eq!((unsettled.next_due(), unsettled.ready()), (Some(due), 1));
        unsettled.pass_time(due);
        let again = unsettled.take(2, soon()).remove(1);
        assert_eq!((first.delivery_count, again.delivery_count), (1, 2));
        assert!(unsettled.begin(&first.receipt).is_none());
        let (serial, _) = unsettled.begin(&again.receipt).unwrap();
        assert_eq!(unsettled.acknowledge([serial]), [Acknowledgement::UpTo(1)]);
    }

    #[test]
    fn what_waits_for_receivers_knows_for_how_long() {
        let mut unsettled = with(1..=2);
        let later = Instant::now() + Duration::from_secs(30);
        assert!(unsettled.waited(later).unwrap() >= Duration::from_secs(29));
        assert_eq!(unsettled.take_waiting(), [1, 2]);
        assert_eq!((unsettled.waited(later), unsettled.put_back(1)), (None, Some(1)));
    }

    proptest! {
        /// Whatever the order: each message is acknowledged exactly once, and never before it is done.
        #[test]
        fn every_message_is_acknowledged_once_and_none_before_its_time(
            batches in Just((1..=40_u64).collect::<Vec<_>>()).prop_shuffle(),
            sizes in proptest::collection::vec(1..6_usize, 40),
        ) {
            let mut unsettled = with(1..=40);
            unsettled.take(40, soon());
            let (mut done, mut acknowledged) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
            let mut left = &batches[..];
            for size in sizes {
                let (batch, rest) = left.split_at(size.min(left.len()));
                left = rest;
                done.extend(batch);
                for acknowledgement in unsettled.acknowledge(batch.iter().copied()) {
                    match acknowledgement {
                        Acknowledgement::One(tag) => prop_assert!(acknowledged.insert(tag)),
                        Acknowledgement::UpTo(tag) => {
                            prop_assert!(acknowledged.insert(tag), "RabbitMQ closes the channel for a tag it does not know");
                            acknowledged.extend(1..=tag);
                        }
                    }
                }
                prop_assert_eq!(&acknowledged, &done);
            }
        }
    }
}
