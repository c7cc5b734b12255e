//! An estimate of the outbox entries that wait in a main item. Only their bytes matter, and only for what a commit will cost: nothing
//! that has to be right depends on it.

use std::collections::BTreeMap;

use tollgate_proto::{EntryKey, Version};

use crate::capacity::bytes_of_units;

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
    pub(crate) fn correct(&mut self, rest: usize, units: u64) {
        let range = bytes_of_units(units);
        let (least, most) = (range.start().saturating_sub(rest), range.end().saturating_sub(rest));
        self.unnamed = 0;
        // The oldest ones are the likeliest to be consumed.
        while self.bytes() > most && self.named.pop_first().is_some() {}
        self.unnamed = least.saturating_sub(self.bytes());
    }

    /// Without evidence, what was sent before is believed to be consumed: if that is wrong, the next write tells. The opposite
    /// belief would never be corrected, since it keeps commits from writing there.
    pub(crate) fn keep_only_of(&mut self, version: Version) {
        self.unnamed = 0;
        self.named.retain(|key, _| key.sequence == version.sequence());
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
        waiting.correct(300, 1);
        assert_eq!(waiting.bytes(), 600);
        waiting.correct(300, 1);
        assert_eq!(waiting.bytes(), 600);
    }

    #[test]
    fn a_charge_that_is_higher_tells_that_something_waits() {
        let mut waiting = WaitingEntries::default();
        waiting.correct(300, 10);
        assert_eq!(waiting.bytes(), 9 * 1024 + 1 - 300);
        waiting.correct(300, 1);
        assert_eq!(waiting.bytes(), 0);
    }

    #[test]
    fn without_evidence_only_the_last_commit_is_believed_to_wait() {
        let mut waiting = WaitingEntries::default();
        waiting.insert(key(1), 900);
        waiting.insert(key(2), 600);
        waiting.keep_only_of(Version::from_sequence(key(2).sequence));
        assert_eq!(waiting.bytes(), 600);
    }
}
