//! In which delay queue a message waits. RabbitMQ expires messages at the head of a queue only, so that a
//! short delay behind a long one would be as long; in a class all wait equally long, and the head is always
//! the next one due.

use std::time::Duration;

/// The classes if nothing else is said, in seconds. Few, since each is a queue of every endpoint; shorter
/// delays wait with the consumer.
const DEFAULT_SECONDS: [u64; 6] = [3, 10, 30, 120, 600, 3600];

/// Most classes of delays of one endpoint.
pub(super) const COUNT_MAX: usize = 30;

/// The delays that have a queue, in ascending order; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DelayClasses(Vec<Duration>);

impl Default for DelayClasses {
    fn default() -> Self {
        Self(DEFAULT_SECONDS.into_iter().map(Duration::from_secs).collect())
    }
}

impl DelayClasses {
    /// Takes classes of one's own: in whole milliseconds, none of them zero. `None` if there are none or too
    /// many.
    pub(super) fn new(classes: impl IntoIterator<Item = Duration>) -> Option<Self> {
        let whole = |class: Duration| Duration::from_millis(milliseconds(class).max(1));
        let mut classes: Vec<_> = classes.into_iter().map(whole).collect();
        classes.sort_unstable();
        classes.dedup();
        (!classes.is_empty() && classes.len() <= COUNT_MAX).then_some(Self(classes))
    }

    /// The shortest class that is not shorter than a delay; the longest one for a delay that is longer than
    /// all, which takes several rounds.
    pub(super) fn of(&self, delay: Duration) -> Duration {
        let longest = *self.0.last().expect("there is at least one class");
        self.0.iter().copied().find(|class| *class >= delay).unwrap_or(longest)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Duration> {
        self.0.iter().copied()
    }
}

/// A duration as RabbitMQ wants it: rounded up, so that nothing comes too early.
pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_gets_the_shortest_class_that_is_long_enough() {
        let classes = DelayClasses::default();
        let of = |millis| classes.of(Duration::from_millis(millis)).as_millis();
        assert_eq!([of(1), of(3000), of(3001), of(60_000)], [3000, 3000, 10_000, 120_000]);
    }

    #[test]
    fn a_delay_beyond_all_classes_gets_the_longest() {
        let classes = DelayClasses::new([Duration::from_secs(7), Duration::from_secs(2)]).unwrap();
        assert_eq!(classes.of(Duration::from_secs(1000)), Duration::from_secs(7));
    }

    #[test]
    fn classes_are_sorted_whole_and_bounded() {
        let classes =
            DelayClasses::new([Duration::from_micros(1500), Duration::ZERO, Duration::from_millis(2)]);
        let expected = vec![Duration::from_millis(1), Duration::from_millis(2)];
        assert_eq!(classes, Some(DelayClasses(expected)));
        assert_eq!(DelayClasses::new([]), None);
        assert_eq!(DelayClasses::new((1..100).map(Duration::from_secs)), None);
    }
}
