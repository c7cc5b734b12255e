//! The messages that one consumer holds and RabbitMQ waits to hear of: what has come, what was given out, for how long,
//! and which acknowledgements can travel as one. No I/O and no clock; the lock and the channel are in `consumer`.

use std::collections::{BTreeMap, VecDeque};

use tokio::time::Instant;
use tollgate_proto::{Delivery, Receipt};

use super::message::Message;

/// The messages of one consumer.
///
/// A receipt is a serial number, which goes on counting when the channel is opened again: so a receipt of an older channel
/// is told from all of the present one, and settling it does nothing. RabbitMQ has put its message back long before.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    /// The serial number before the first one of this channel: delivery tags count from 1.
    base: u64,
    entries: BTreeMap<u64, Entry>,
    /// Serial numbers of messages that wait for a receiver, in the order of their arrival.
    ready: VecDeque<u64>,
}

#[derive(Debug)]
struct Entry {
    message: Message,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Waiting for a receiver.
    Ready,
    /// With a receiver, who is believed to be alive until then.
    GivenOut { until: Instant },
    /// Being settled.
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
    }

    /// Takes what came with a delivery tag of the present channel, and tells its serial number.
    pub(super) fn arrive(&mut self, tag: u64, message: Message) -> u64 {
        let serial = self.base + tag;
        self.entries.insert(serial, Entry { message, place: Place::Ready });
        self.ready.push_back(serial);
        serial
    }

    /// Whether something waits for a receiver.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Gives out up to `max` messages, which are to be settled in time.
    pub(super) fn take(&mut self, max: usize, until: Instant) -> Vec<Delivery> {
        let count = max.min(self.ready.len());
        let mut deliveries = Vec::with_capacity(count);
        for serial in self.ready.drain(..count) {
            let entry = self.entries.get_mut(&serial).expect("what is ready has an entry");
            entry.place = Place::GivenOut { until };
            deliveries.push(entry.message.delivery(Receipt::Number(serial)));
        }
        deliveries
    }

    /// The message of a receipt, to be settled; none if there is nothing to settle any more: it was settled before, or came
    /// over an older channel.
    pub(super) fn begin(&mut self, receipt: &Receipt) -> Option<(u64, &Message)> {
        let Receipt::Number(serial) = receipt else { return None };
        let entry = self.entries.get_mut(serial)?;
        let Place::GivenOut { .. } = entry.place else { return None };
        entry.place = Place::Settling;
        Some((*serial, &entry.message))
    }

    /// Takes the message that arrived last away from the receivers, to be settled without them.
    pub(super) fn withdraw(&mut self, serial: u64) {
        self.ready.retain(|ready| *ready != serial);
        if let Some(entry) = self.entries.get_mut(&serial) {
            entry.place = Place::Settling;
        }
    }

    /// What was begun could not be done: the message is put back later.
    pub(super) fn hold(&mut self, serial: u64, until: Instant) {
        if let Some(entry) = self.entries.get_mut(&serial) {
            entry.place = Place::Held { until };
        }
    }

    /// Forgets messages that are done, and tells how to acknowledge them: those below which nothing is left go as one.
    pub(super) fn acknowledge(&mut self, serials: impl IntoIterator<Item = u64>) -> Vec<Acknowledgement> {
        let mut done: Vec<u64> =
            serials.into_iter().filter(|serial| self.entries.remove(serial).is_some()).collect();
        done.sort_unstable();
        let lowest_left = self.entries.keys().next().copied().unwrap_or(u64::MAX);
        let below = done.partition_point(|serial| *serial < lowest_left);
        let together = below.checked_sub(1).map(|last| Acknowledgement::UpTo(done[last] - self.base));
        let alone = done[below..].iter().map(|serial| Acknowledgement::One(serial - self.base));
        together.into_iter().chain(alone).collect()
    }

    /// Forgets a message that goes back to RabbitMQ, and tells its delivery tag.
    pub(super) fn put_back(&mut self, serial: u64) -> Option<u64> {
        self.entries.remove(&serial)?;
        Some(serial - self.base)
    }

    /// The messages whose receivers have been silent for too long, and those whose time to be put back has come.
    pub(super) fn overdue(&self, now: Instant) -> Vec<u64> {
        let is_overdue = |place: Place| match place {
            Place::GivenOut { until } | Place::Held { until } => until <= now,
            Place::Ready | Place::Settling => false,
        };
        self.entries.iter().filter(|(_, entry)| is_overdue(entry.place)).map(|(serial, _)| *serial).collect()
    }

    /// The messages that nobody works on: they wait for receivers, or to be put back.
    pub(super) fn idle(&self) -> Vec<u64> {
        let is_idle = |place: Place| matches!(place, Place::Ready | Place::Held { .. });
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn with(tags: std::ops::RangeInclusive<u64>) -> Unsettled {
        let mut unsettled = Unsettled::default();
        unsettled.begin_channel();
        for tag in tags {
            unsettled.arrive(tag, Message::of_test(Bytes::new()));
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
        unsettled.arrive(1, Message::of_test(Bytes::new()));
        let new = unsettled.take(1, soon());
        assert!(unsettled.begin(&old[0].receipt).is_none());
        let (serial, _) = unsettled.begin(&new[0].receipt).unwrap();
        assert_eq!(unsettled.acknowledge([serial]), [Acknowledgement::UpTo(1)]);
    }

    #[test]
    fn a_message_is_settled_once_and_not_before_it_was_given_out() {
        let mut unsettled = with(1..=1);
        assert!(unsettled.begin(&Receipt::Number(1)).is_none());
        let given = unsettled.take(1, soon());
        assert!(unsettled.begin(&given[0].receipt).is_some());
        assert!(unsettled.begin(&given[0].receipt).is_none());
    }

    #[test]
    fn only_what_was_given_out_or_is_held_becomes_overdue() {
        let mut unsettled = with(1..=3);
        unsettled.take(2, Instant::now());
        unsettled.begin(&Receipt::Number(2));
        assert_eq!(unsettled.overdue(soon()), [1]);
        unsettled.hold(2, Instant::now());
        assert_eq!(unsettled.overdue(soon()), [1, 2]);
        assert_eq!(unsettled.idle(), [2, 3]);
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
