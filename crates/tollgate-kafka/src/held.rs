//! The messages that one consumer has of its partitions: which wait, which were given out, which are to come
//! again, and how far each partition is done. No I/O; the lock and the client are in `consumer`.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use tollgate_proto::{Delivery, Receipt};

use super::offsets::Offsets;
use super::record::Record;

/// A partition of a topic.
pub(super) type Place = (String, i32);

/// How much of one partition is held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Most messages that are begun and not finished.
    pub(super) window: usize,
    /// Most messages that come again after a crash because an older one is not finished.
    pub(super) replayed_max: u64,
}

/// The messages of one consumer.
///
/// A receipt is a number that is used once. What comes again has another one, and what is of a partition that
/// was taken away has none any more: settling with an old receipt does nothing.
#[derive(Debug)]
pub(super) struct Held {
    bounds: Bounds,
    partitions: HashMap<Place, Partition>,
    entries: HashMap<u64, Entry>,
    ready: VecDeque<u64>,
    /// By when something is to happen to an entry.
    times: BTreeSet<(Instant, u64)>,
    next_number: u64,
}

#[derive(Debug, Default)]
struct Partition {
    offsets: Offsets,
    flow: Flow,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Flow {
    #[default]
    Open,
    Paused,
}

#[derive(Debug)]
struct Entry {
    place: Place,
    offset: i64,
    record: Record,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Ready,
    /// With a receiver, who is believed to be alive until then.
    GivenOut {
        until: Instant,
    },
    /// Waiting for its time, here.
    Waiting {
        until: Instant,
    },
    /// A copy of it is on its way to another topic.
    Moving,
}

/// What is to be done about a message whose time has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooEarly {
    pub(super) number: u64,
    pub(super) record: Record,
    pub(super) left: Duration,
}

impl Held {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            partitions: HashMap::new(),
            entries: HashMap::new(),
            ready: VecDeque::new(),
            times: BTreeSet::new(),
            next_number: 1,
        }
    }

    /// Partitions were assigned.
    pub(super) fn assign(&mut self, places: impl IntoIterator<Item = Place>) {
        for place in places {
            self.partitions.insert(place, Partition::default());
        }
    }

    /// Partitions are taken away: another consumer gets what is not committed. Answers what is finished of
    /// them and not told.
    pub(super) fn revoke(&mut self, places: &[Place]) -> Vec<(Place, i64)> {
        let gone = |entry: &Entry| places.contains(&entry.place);
        self.ready.retain(|number| self.entries.get(number).is_some_and(|entry| !gone(entry)));
        self.times.retain(|(_, number)| self.entries.get(number).is_some_and(|entry| !gone(entry)));
        self.entries.retain(|_, entry| !gone(entry));
        let mut news = Vec::new();
        for place in places {
            if let Some(below) =
                self.partitions.remove(place).and_then(|mut partition| partition.offsets.take_news())
            {
                news.push((place.clone(), below));
            }
        }
        news
    }

    /// A message came. It waits here for at most `wait_max` if it is too early. Answers whether its partition
    /// is to be paused.
    pub(super) fn arrive(
        &mut self,
        place: Place,
        offset: i64,
        record: Record,
        wait_max: Duration,
        now: Instant,
    ) -> bool {
        let Some(partition) = self.partitions.get_mut(&place) else { return false };
        let went_back = partition.offsets.begin(offset);
        let is_full = partition.offsets.unfinished() >= self.bounds.window
            || partition.offsets.span() >= self.bounds.replayed_max;
        let pause = is_full && partition.flow == Flow::Open;
        if pause {
            partition.flow = Flow::Paused;
        }
        if went_back {
            let other = |entry: &Entry| entry.place != place || entry.offset < offset;
            self.entries.retain(|_, entry| other(entry));
            self.ready.retain(|number| self.entries.contains_key(number));
            self.times.retain(|(_, number)| self.entries.contains_key(number));
        }
        let phase = match record.early_by() {
            Some(left) => Phase::Waiting { until: now + left.min(wait_max) },
            None => Phase::Ready,
        };
        self.insert(Entry { place, offset, record, phase });
        pause
    }

    fn insert(&mut self, entry: Entry) {
        let number = self.next_number;
        self.next_number += 1;
        match entry.phase {
            Phase::Ready => self.ready.push_back(number),
            Phase::GivenOut { until } | Phase::Waiting { until } => {
                self.times.insert((until, number));
            }
            Phase::Moving => {}
        }
        self.entries.insert(number, entry);
    }

    /// How many messages wait for a receiver.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Gives out up to `max` messages, which are to be settled in time.
    pub(super) fn take(&mut self, max: usize, until: Instant) -> Vec<Delivery> {
        let count = max.min(self.ready.len());
        let mut deliveries = Vec::with_capacity(count);
        for number in self.ready.drain(..count) {
            let entry = self.entries.get_mut(&number).expect("what is ready has an entry");
            entry.phase = Phase::GivenOut { until };
            entry.record.deliveries = entry.record.deliveries.saturating_add(1);
            self.times.insert((until, number));
            deliveries.push(Delivery {
                envelope: entry.record.envelope.clone(),
                receipt: Receipt::Number(number),
                delivery_count: entry.record.deliveries,
            });
        }
        deliveries
    }

    /// Begins to settle a delivery; `None` if there is nothing to settle any more.
    pub(super) fn begin(&mut self, receipt: &Receipt) -> Option<(u64, &Record)> {
        let Receipt::Number(number) = receipt else { return None };
        let entry = self.entries.get_mut(number)?;
        let Phase::GivenOut { until } = entry.phase else { return None };
        self.times.remove(&(until, *number));
        entry.phase = Phase::Moving;
        Some((*number, &entry.record))
    }

    /// A message is done with here. Answers the partition that has room again, if it had none.
    pub(super) fn finish(&mut self, number: u64) -> Option<Place> {
        let entry = self.entries.remove(&number)?;
        let partition = self.partitions.get_mut(&entry.place)?;
        partition.offsets.finish(entry.offset);
        // Half empty, so that it is not paused and resumed with each message.
        let has_room = partition.offsets.unfinished() <= self.bounds.window / 2
            && partition.offsets.span() <= self.bounds.replayed_max / 2;
        if partition.flow == Flow::Paused && has_room {
            partition.flow = Flow::Open;
            return Some(entry.place);
        }
        None
    }

    /// A message comes again after a while, from here, with another receipt.
    pub(super) fn again(&mut self, number: u64, until: Instant) {
        if let Some(mut entry) = self.entries.remove(&number) {
            entry.phase = Phase::Waiting { until };
            self.insert(entry);
        }
    }

    /// Lets go what is due: deliveries that nobody has settled in time, and what has waited long enough.
    /// Answers how many of the former there were, and those that have to wait elsewhere for the rest of their
    /// delay.
    pub(super) fn pass_time(&mut self, now: Instant) -> (usize, Vec<TooEarly>) {
        let (mut overdue, mut too_early) = (0, Vec::new());
        while let Some((time, number)) = self.times.first().copied().filter(|(time, _)| *time <= now) {
            self.times.remove(&(time, number));
            let Some(mut entry) = self.entries.remove(&number) else { continue };
            overdue += usize::from(matches!(entry.phase, Phase::GivenOut { .. }));
            let left = entry.record.early_by().filter(|_| matches!(entry.phase, Phase::Waiting { .. }));
            if let Some(left) = left {
                too_early.push(TooEarly { number, record: entry.record.clone(), left });
                entry.phase = Phase::Moving;
                self.entries.insert(number, entry);
            } else {
                entry.phase = Phase::Ready;
                self.insert(entry);
            }
        }
        (overdue, too_early)
    }

    /// When the next thing is due.
    pub(super) fn next_time(&self) -> Option<Instant> {
        self.times.first().map(|(time, _)| *time)
    }

    /// What is finished and Kafka does not know of.
    pub(super) fn take_news(&mut self) -> Vec<(Place, i64)> {
        let news = |(place, partition): (&Place, &mut Partition)| {
            partition.offsets.take_news().map(|below| (place.clone(), below))
        };
        self.partitions.iter_mut().filter_map(news).collect()
    }

    /// Kafka did not hear of it.
    pub(super) fn untell(&mut self) {
        for partition in self.partitions.values_mut() {
            partition.offsets.untell();
        }
    }

    /// Whether a receiver has something that it has not settled.
    pub(super) fn is_worked_on(&self) -> bool {
        self.entries.values().any(|entry| matches!(entry.phase, Phase::GivenOut { .. } | Phase::Moving))
    }

    /// How many partitions are assigned.
    pub(super) fn partitions(&self) -> usize {
        self.partitions.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { window: 4, replayed_max: 100 };

    fn place(partition: i32) -> Place {
        ("orders".to_owned(), partition)
    }

    fn held() -> Held {
        let mut held = Held::new(BOUNDS);
        held.assign([place(0), place(1)]);
        held
    }

    fn arrive(held: &mut Held, partition: i32, offset: i64) -> bool {
        held.arrive(place(partition), offset, Record::of_test(None), Duration::ZERO, Instant::now())
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn a_partition_is_paused_when_its_window_is_full_and_resumed_when_it_is_half_empty() {
        let mut held = held();
        let pauses: Vec<bool> = (0..5).map(|offset| arrive(&mut held, 0, offset)).collect();
        assert_eq!(pauses, [false, false, false, true, false], "once");
        let numbers: Vec<u64> = held.take(5, soon()).iter().map(number).collect();
        let resumed: Vec<_> = numbers.into_iter().map(|number| held.finish(number)).collect();
        assert_eq!(resumed, [None, None, Some(place(0)), None, None]);
    }

    #[test]
    fn a_message_that_nobody_finishes_stops_its_partition_before_too_much_is_replayed() {
        let mut held = Held::new(Bounds { window: 10, replayed_max: 20 });
        held.assign([place(0)]);
        arrive(&mut held, 0, 0);
        held.take(1, soon());
        let paused_at = (1..100).find(|offset| {
            let pause = arrive(&mut held, 0, *offset);
            let delivery = held.take(1, soon()).remove(0);
            held.finish(number(&delivery));
            pause
        });
        assert_eq!(paused_at, Some(19));
    }

    #[test]
    fn what_was_taken_away_can_be_settled_and_nothing_happens() {
        let mut held = held();
        arrive(&mut held, 0, 0);
        arrive(&mut held, 1, 7);
        let deliveries = held.take(2, soon());
        assert_eq!(held.revoke(&[place(0)]), [(place(0), 0)]);
        assert!(held.begin(&deliveries[0].receipt).is_none());
        let (number, _) = held.begin(&deliveries[1].receipt).unwrap();
        held.finish(number);
        assert_eq!(held.take_news(), [(place(1), 8)]);
        assert!(!arrive(&mut held, 0, 1), "it is of a partition that was taken away");
        assert_eq!(held.ready(), 0);
    }

    #[test]
    fn after_a_log_was_cut_off_old_receipts_settle_none_of_the_new_messages() {
        let mut held = held();
        for offset in 0..3 {
            arrive(&mut held, 0, offset);
        }
        let old = held.take(3, soon());
        arrive(&mut held, 0, 1);
        let (number, _) = held.begin(&old[0].receipt).unwrap();
        held.finish(number);
        assert!(held.begin(&old[1].receipt).is_none() && held.begin(&old[2].receipt).is_none());
        assert_eq!(held.take_news(), [(place(0), 1)]);
        assert_eq!(held.take(3, soon()).len(), 1);
    }

    #[test]
    fn a_delivery_that_is_not_settled_in_time_comes_again_with_another_receipt() {
        let mut held = held();
        arrive(&mut held, 0, 0);
        let first = held.take(1, Instant::now()).remove(0);
        assert_eq!(held.pass_time(soon()).0, 1);
        let second = held.take(1, soon()).remove(0);
        assert_eq!((first.delivery_count, second.delivery_count), (1, 2));
        assert!(held.begin(&first.receipt).is_none());
        assert!(held.begin(&second.receipt).is_some());
    }

    #[test]
    fn what_is_too_early_after_its_wait_moves_on_and_is_not_given_out() {
        let mut held = held();
        let far = Record::of_test(Some(u64::MAX));
        held.arrive(place(0), 0, far.clone(), Duration::from_secs(1), Instant::now());
        assert_eq!(held.ready(), 0);
        let (overdue, too_early) = held.pass_time(soon());
        assert_eq!((overdue, too_early.len()), (0, 1));
        assert_eq!(too_early[0].record, far);
        assert_eq!(held.ready(), 0);
        held.finish(too_early[0].number);
        assert_eq!(held.take_news(), [(place(0), 1)]);
    }

    fn number(delivery: &Delivery) -> u64 {
        match delivery.receipt {
            Receipt::Number(number) => number,
            Receipt::Text(_) => unreachable!("receipts are numbers"),
        }
    }
}
