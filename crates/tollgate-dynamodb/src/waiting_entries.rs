//! An estimate of the outbox entries that wait in a main item. Only their bytes matter, and only for what a commit will cost: nothing
//! that has to be right depends on it.

use std::collections::BTreeMap;

use tollgate_proto::EntryKey;

use crate::capacity::bytes_of_units;

/// Size of a main item as far as the answer to a write of it tells, in write units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Charge {
    /// The size of the main item alone.
    Exactly(u64),
    /// No more than so many: something of unknown size was charged together with it.
    AtMost(u64),
    /// The answer reports no units.
    Untold,
}

/// Entries that are believed to wait, with the bytes that each takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WaitingEntries {
    named: BTreeMap<EntryKey, usize>,
    /// Bytes that must be there, as the charges tell, and of which nothing else is known.
    unnamed: usize,
}

impl WaitingEntries {
    /// How many bytes they take.
    pub(crate) fn bytes(&self) -> usize {
        self.unnamed + self.named.values().sum::<usize>()
    }

    /// An entry was created.
    pub(crate) fn insert(&mut self, key: EntryKey, bytes: usize) {
        self.named.insert(key, bytes);
    }

    /// An entry was consumed.
    pub(crate) fn remove(&mut self, key: EntryKey) {
        self.named.remove(&key);
    }

    /// Corrects the estimate by what DynamoDB charged for a write of the main item. `rest` is what is no entry.
    pub(crate) fn correct(&mut self, rest: usize, charge: Charge) {
        let (Charge::Exactly(units) | Charge::AtMost(units)) = charge else { return };
        let range = bytes_of_units(units);
        let (least, most) = (range.start().saturating_sub(rest), range.end().saturating_sub(rest));
        self.unnamed = self.unnamed.min(most);
        // The oldest ones are the likeliest to be consumed.
        while self.bytes() > most && self.named.pop_first().is_some() {}
        if matches!(charge, Charge::Exactly(_)) {
            self.unnamed = 0;
            self.unnamed = least.saturating_sub(self.bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use tollgate_proto::{Incarnation, Sequence};

    use super::*;

    fn key(counter: u64) -> EntryKey {
        EntryKey { sequence: Sequence { incarnation: Incarnation(1), counter }, index: 0 }
    }

    #[test]
    fn a_charge_that_is_lower_than_the_estimate_forgets_the_oldest() {
        let mut waiting = WaitingEntries::default();
        waiting.insert(key(1), 900);
        waiting.insert(key(2), 600);
        for charge in [Charge::AtMost(1), Charge::Exactly(1), Charge::Untold] {
            waiting.correct(300, charge);
            assert_eq!(waiting.bytes(), 600, "{charge:?}");
        }
    }

    #[test]
    fn a_charge_that_is_higher_tells_that_something_waits() {
        let mut waiting = WaitingEntries::default();
        waiting.correct(300, Charge::AtMost(10));
        assert_eq!(waiting.bytes(), 0, "an upper bound shows nothing");
        waiting.correct(300, Charge::Exactly(10));
        assert_eq!(waiting.bytes(), 9 * 1024 + 1 - 300);
        waiting.correct(300, Charge::Untold);
        assert_eq!(waiting.bytes(), 9 * 1024 + 1 - 300);
        waiting.correct(300, Charge::AtMost(1));
        assert_eq!(waiting.bytes(), 1024 - 300);
        waiting.correct(300, Charge::Exactly(1));
        assert_eq!(waiting.bytes(), 0);
    }
}
