//! What may be committed of one partition. Kafka remembers one number for it, below which everything is done;
//! messages are finished in any order. No I/O, no clock.

use std::collections::BTreeSet;

/// The messages of one partition that were begun, and how far everything is finished.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    unfinished: BTreeSet<i64>,
    /// The offset after the highest that was begun.
    next: Option<i64>,
    /// What Kafka was told last.
    told: Option<i64>,
}

impl Offsets {
    /// A message came. Answers whether Kafka went back: to an offset below one that came before.
    ///
    /// It does when the log was cut off, or when the topic was made anew: then other messages come under the
    /// same offsets. So everything from there on is begun anew. If they are the same messages after all, they
    /// find their tokens consumed.
    pub(super) fn begin(&mut self, offset: i64) -> bool {
        let went_back = self.next.is_some_and(|next| offset < next);
        if went_back {
            self.unfinished.split_off(&offset);
            self.told = None;
        }
        self.next = Some(offset + 1);
        self.unfinished.insert(offset);
        went_back
    }

    /// A message is done with.
    pub(super) fn finish(&mut self, offset: i64) {
        self.unfinished.remove(&offset);
    }

    /// The offset below which everything is finished, which is that of the next message to be read after a
    /// crash.
    pub(super) fn finished_below(&self) -> Option<i64> {
        self.unfinished.first().copied().or(self.next)
    }

    /// What Kafka does not know yet; it is taken for told from now on.
    pub(super) fn take_news(&mut self) -> Option<i64> {
        let below = self.finished_below()?;
        let has_risen = self.told.is_none_or(|told| told < below);
        if has_risen {
            self.told = Some(below);
        }
        has_risen.then_some(below)
    }

    /// Kafka did not hear of it.
    pub(super) fn untell(&mut self) {
        self.told = None;
    }

    /// How many messages are begun and not finished.
    pub(super) fn unfinished(&self) -> usize {
        self.unfinished.len()
    }

    /// How many messages would come again after a crash, the finished ones among them included.
    pub(super) fn span(&self) -> u64 {
        match (self.unfinished.first(), self.next) {
            (Some(first), Some(next)) => next.abs_diff(*first),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_lowest_unfinished_message_holds_the_commit_back() {
        let mut offsets = Offsets::default();
        for offset in [10, 11, 13] {
            assert!(!offsets.begin(offset));
        }
        offsets.finish(11);
        offsets.finish(13);
        assert_eq!((offsets.finished_below(), offsets.unfinished(), offsets.span()), (Some(10), 1, 4));
        offsets.finish(10);
        assert_eq!((offsets.finished_below(), offsets.unfinished(), offsets.span()), (Some(14), 0, 0));
    }

    #[test]
    fn a_log_that_was_cut_off_is_followed_from_where_it_goes_on() {
        let mut offsets = Offsets::default();
        for offset in 0..100 {
            offsets.begin(offset);
            offsets.finish(offset);
        }
        assert_eq!(offsets.take_news(), Some(100));
        // Other messages, of which none may be committed before it is finished.
        assert!(offsets.begin(60));
        assert!(!offsets.begin(61));
        assert_eq!(offsets.take_news(), Some(60));
        offsets.finish(61);
        assert_eq!(offsets.take_news(), None);
        offsets.finish(60);
        assert_eq!(offsets.take_news(), Some(62));
    }

    #[test]
    fn news_are_told_once_and_again_when_they_did_not_arrive() {
        let mut offsets = Offsets::default();
        assert_eq!(offsets.take_news(), None);
        offsets.begin(0);
        offsets.begin(1);
        offsets.finish(0);
        assert_eq!((offsets.take_news(), offsets.take_news()), (Some(1), None));
        offsets.untell();
        assert_eq!((offsets.take_news(), offsets.take_news()), (Some(1), None));
    }

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Begin { gap: i64 },
        Finish { which: usize },
        Commit,
        Lose,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            // Offsets have gaps where Kafka keeps marks of transactions, or has compacted.
            4 => (0..3_i64).prop_map(|gap| Event::Begin { gap }),
            4 => any::<usize>().prop_map(|which| Event::Finish { which }),
            2 => Just(Event::Commit),
            1 => Just(Event::Lose),
        ]
    }

    proptest! {
        #[test]
        fn nothing_is_committed_past_an_unfinished_message_and_everything_finished_in_the_end(
            first in 0..1_000_000_i64,
            events in proptest::collection::vec(event(), 0..300),
        ) {
            let mut offsets = Offsets::default();
            let (mut open, mut next, mut committed) = (Vec::new(), first, None::<i64>);
            for event in events {
                match event {
                    Event::Begin { gap } => {
                        next += gap;
                        prop_assert!(!offsets.begin(next));
                        open.push(next);
                        next += 1;
                    }
                    Event::Finish { which } if !open.is_empty() => {
                        let done = open.swap_remove(which % open.len());
                        offsets.finish(done);
                    }
                    Event::Commit => {
                        if let Some(below) = offsets.take_news() {
                            prop_assert!(committed.is_none_or(|before| before <= below), "commits never go back");
                            prop_assert!(open.iter().all(|unfinished| *unfinished >= below), "{below} of {open:?}");
                            committed = Some(below);
                        }
                    }
                    Event::Lose => offsets.untell(),
                    Event::Finish { .. } => {}
                }
                prop_assert_eq!(offsets.unfinished(), open.len());
            }
            let begun = !open.is_empty() || committed.is_some() || offsets.finished_below().is_some();
            for done in open {
                offsets.finish(done);
            }
            offsets.untell();
            prop_assert_eq!(offsets.take_news(), begun.then_some(next));
        }
    }
}
