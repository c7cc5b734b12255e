//! The permanent negative cache: tokens known to be consumed. A consumed token can never come back,
//! so an entry never has to be invalidated; it may be forgotten, which costs one token read.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use foldhash::fast::RandomState;
use tollgate_proto::{EntryKey, MessageId, TokenRef};

/// Consumed tokens, up to a bound: the ones that were neither added nor asked for lately are forgotten first.
///
/// Two generations: when the young one is full, the old one is dropped and the young one takes its place. Of the last
/// `capacity / 2` tokens none is forgotten. It is deterministic and costs one or two hash look-ups.
pub(crate) struct NegativeCache {
    generations: Mutex<Generations>,
    generation_max: usize,
}

#[derive(Default)]
struct Generations {
    young: HashSet<ConsumedToken, RandomState>,
    old: HashSet<ConsumedToken, RandomState>,
}

/// What names a consumed token. Message id and sequence together occur once: a token reference with another partition
/// or store but the same two could only be forged, and a forged envelope may well be dropped.
#[derive(Clone, Copy, PartialEq, Eq)]
struct ConsumedToken {
    message_id: MessageId,
    entry: EntryKey,
}

/// A part of what is equal is enough to hash by: ids are random already, and the counter tells messages apart whose ids are not.
impl Hash for ConsumedToken {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let id = u128::from_le_bytes(*self.message_id.as_bytes());
        state.write_u128(id);
        state.write_u64(self.entry.sequence.counter.rotate_left(u32::BITS) ^ u64::from(self.entry.index));
    }
}

impl NegativeCache {
    /// Remembers up to `capacity` tokens. With 0 it is switched off.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { generations: Mutex::default(), generation_max: capacity.div_ceil(2) }
    }

    /// Remembers that a token is consumed and its outputs are out (R8).
    pub(crate) fn insert(&self, message_id: MessageId, token: &TokenRef) {
        if self.generation_max == 0 {
            return;
        }
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.insert(ConsumedToken { message_id, entry: token.entry }, self.generation_max);
    }

    /// Whether a token is known to be consumed.
    pub(crate) fn contains(&self, message_id: MessageId, token: &TokenRef) -> bool {
        let key = ConsumedToken { message_id, entry: token.entry };
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if generations.young.contains(&key) {
            return true;
        }
        if generations.old.contains(&key) {
            generations.insert(key, self.generation_max);
            return true;
        }
        false
    }
}

impl Generations {
    fn insert(&mut self, key: ConsumedToken, generation_max: usize) {
        if self.young.len() >= generation_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollgate_proto::{Incarnation, Version};

    fn token(index: u32) -> TokenRef {
        let sequence = Version::first(Incarnation(1)).sequence();
        TokenRef {
            store: "main".try_into().unwrap(),
            partition: "p".try_into().unwrap(),
            entry: EntryKey { sequence, index },
        }
    }

    #[test]
    fn the_latest_tokens_are_remembered_and_memory_is_bounded() {
        let cache = NegativeCache::new(100);
        let id = MessageId::from_bytes([1; 16]);
        for index in 0..1000 {
            cache.insert(id, &token(index));
        }
        assert!((950..1000).all(|index| cache.contains(id, &token(index))));
        assert!(!cache.contains(id, &token(0)));
        let generations = cache.generations.lock().unwrap();
        assert!(generations.young.len() + generations.old.len() <= 100);
    }

    #[test]
    fn without_capacity_nothing_is_remembered() {
        let cache = NegativeCache::new(0);
        let id = MessageId::from_bytes([1; 16]);
        cache.insert(id, &token(0));
        assert!(!cache.contains(id, &token(0)));
    }

    #[test]
    fn a_token_of_another_message_is_not_taken_for_consumed() {
        let cache = NegativeCache::new(100);
        cache.insert(MessageId::from_bytes([1; 16]), &token(0));
        assert!(!cache.contains(MessageId::from_bytes([2; 16]), &token(0)));
    }
}
