//! Messages that this process has put back: how often their handlers failed, and how often something outside did.
//!
//! The counts are in memory, bounded and per process: a message that fails in two processes may run twice as often
//! before it is dead-lettered, and no message is dead-lettered for deliveries that no handler saw.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use foldhash::fast::RandomState;
use tollgate_proto::{EntryKey, Envelope, MessageId};

/// Most messages that are remembered by one generation; about 100 bytes each.
const GENERATION_MAX: usize = 50_000;

/// The name of a message among those that were put back: the same for each of its deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MessageKey {
    endpoint: usize,
    message_id: MessageId,
    entry: Option<EntryKey>,
}

impl MessageKey {
    pub(crate) fn of(endpoint: usize, envelope: &Envelope) -> Self {
        let entry = envelope.token().map(|token| token.entry);
        Self { endpoint, message_id: envelope.message_id, entry }
    }

    /// The key of a broker message that can't be read: by its bytes.
    pub(crate) fn of_bytes(endpoint: usize, bytes: &[u8]) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
        Self { endpoint, message_id: MessageId::from_bytes(id), entry: None }
    }
}

/// Ids are random or hashes already; the entry tells messages apart whose ids are not.
impl Hash for MessageKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(u128::from_le_bytes(*self.message_id.as_bytes()));
        state.write_u64(self.entry.map_or(0, |entry| entry.sequence.counter) ^ self.endpoint as u64);
    }
}

/// How often one message was put back by this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Its own failures.
    pub(crate) failures: u32,
    /// Failures of something outside.
    pub(crate) excused: u32,
}

impl Counts {
    pub(crate) const fn total(self) -> u32 {
        self.failures.saturating_add(self.excused)
    }
}

/// The counts of the messages that were put back last.
///
/// Two generations: when the young one is full, the old one is dropped and the young one takes its place.
#[derive(Default)]
pub(crate) struct PutBacks {
    /// Whether there are any counts at all: most processes have none, and ask for each message.
    is_used: AtomicBool,
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<MessageKey, Counts, RandomState>,
    old: HashMap<MessageKey, Counts, RandomState>,
}

impl PutBacks {
    pub(crate) fn get(&self, key: &MessageKey) -> Counts {
        if !self.is_used.load(Ordering::Acquire) {
            return Counts::default();
        }
        let generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.young.get(key).or_else(|| generations.old.get(key)).copied().unwrap_or_default()
    }

    /// Counts a failure of the message, and returns what is counted now.
    pub(crate) fn count_failure(&self, key: &MessageKey) -> Counts {
        self.count(key, |counts| counts.failures = counts.failures.saturating_add(1))
    }

    /// Counts a failure of something outside, and returns what is counted now.
    pub(crate) fn excuse(&self, key: &MessageKey) -> Counts {
        self.count(key, |counts| counts.excused = counts.excused.saturating_add(1))
    }

    fn count(&self, key: &MessageKey, add: impl FnOnce(&mut Counts)) -> Counts {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_used.store(true, Ordering::Release);
        let Generations { young, old } = &mut *generations;
        let mut counts = young.remove(key).or_else(|| old.remove(key)).unwrap_or_default();
        add(&mut counts);
        if young.len() >= GENERATION_MAX {
            *old = std::mem::take(young);
        }
        young.insert(*key, counts);
        counts
    }

    /// Forgets a message that is done, or dead-lettered: a replay begins anew.
    pub(crate) fn forget(&self, key: &MessageKey) {
        if !self.is_used.load(Ordering::Acquire) {
            return;
        }
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.young.remove(key);
        generations.old.remove(key);
        if generations.young.is_empty() && generations.old.is_empty() {
            self.is_used.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> MessageKey {
        MessageKey::of_bytes(0, &n.to_le_bytes())
    }

    #[test]
    fn failures_and_excuses_are_counted_apart_and_forgotten_together() {
        let put_backs = PutBacks::default();
        assert_eq!(put_backs.get(&key(1)), Counts::default());
        put_backs.count_failure(&key(1));
        put_backs.excuse(&key(1));
        assert_eq!(put_backs.count_failure(&key(1)), Counts { failures: 2, excused: 1 });
        assert_eq!(put_backs.excuse(&key(2)).total(), 1);
        put_backs.forget(&key(1));
        assert_eq!(put_backs.get(&key(1)), Counts::default());
        assert_eq!(put_backs.get(&key(2)), Counts { failures: 0, excused: 1 });
    }

    #[test]
    fn no_more_messages_are_remembered_than_two_generations_hold_and_the_last_ones_are() {
        let put_backs = PutBacks::default();
        let count = u32::try_from(GENERATION_MAX).unwrap() * 3;
        for n in 0..count {
            put_backs.count_failure(&key(n));
        }
        let generations = put_backs.generations.lock().unwrap();
        assert!(generations.young.len() + generations.old.len() <= 2 * GENERATION_MAX);
        drop(generations);
        assert_eq!(put_backs.get(&key(0)), Counts::default());
        assert_eq!(put_backs.get(&key(count - 1)).failures, 1);
        assert_eq!(put_backs.get(&key(count - 1 - u32::try_from(GENERATION_MAX).unwrap())).failures, 1);
    }
}
