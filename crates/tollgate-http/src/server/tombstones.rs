//! Requests that this process has deleted: a late `POST` of the caller is told 410 instead of 404.
//!
//! Nothing depends on them: they live in memory, and the store decides what is executed. Deletions that are
//! remembered on every replica and after a restart are records of the store
//! ([`super::ExactlyOnce::remember_deletions`]).

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use super::Caller;
use crate::request_id::RequestId;

/// The newest deleted requests.
#[derive(Clone)]
pub(super) struct Tombstones {
    capacity: usize,
    newest: Arc<Mutex<(HashSet<Tombstone>, VecDeque<Tombstone>)>>,
}

/// A hash of a request and its caller: nobody else learns that it was deleted.
type Tombstone = [u8; 16];

fn tombstone(id: RequestId, caller: &str) -> Tombstone {
    let mut hasher = blake3::Hasher::new();
    hasher.update(id.as_bytes()).update(caller.as_bytes());
    let mut tombstone = Tombstone::default();
    hasher.finalize_xof().fill(&mut tombstone);
    tombstone
}

impl Tombstones {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, newest: Arc::default() }
    }

    pub(super) fn add(&self, id: RequestId, caller: &str) {
        let tombstone = tombstone(id, caller);
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, order) = &mut *newest;
        if self.capacity == 0 || !known.insert(tombstone) {
            return;
        }
        order.push_back(tombstone);
        if order.len() > self.capacity
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
    }

    pub(super) fn has(&self, id: RequestId, caller: &Caller) -> bool {
        let tombstone = tombstone(id, caller.as_str());
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).0.contains(&tombstone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_first() {
        let tombstones = Tombstones::new(2);
        let ids = [RequestId::random(), RequestId::random(), RequestId::random()];
        for id in [ids[0], ids[1], ids[1], ids[2]] {
            tombstones.add(id, "ada");
        }
        assert_eq!(ids.map(|id| tombstones.has(id, &Caller::new("ada"))), [false, true, true]);
    }

    #[test]
    fn nobody_else_sees_them() {
        let tombstones = Tombstones::new(2);
        let id = RequestId::random();
        tombstones.add(id, "ada");
        assert!(!tombstones.has(id, &Caller::new("eve")));
    }
}
