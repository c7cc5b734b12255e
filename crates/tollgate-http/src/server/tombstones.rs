//! Which requests were deleted a while ago, in this process: so that a late `POST` is told 410 instead of 404, by its own caller.
//! Nothing depends on it; whether something is executed is decided by what is stored.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use super::Caller;
use crate::request_id::RequestId;

/// The newest deleted requests.
#[derive(Clone)]
pub(super) struct Tombstones {
    capacity: usize,
    graves: Arc<Mutex<(HashSet<Grave>, VecDeque<Grave>)>>,
}

/// A request and its caller, as a hash: whoever asks for another's request must not even learn that it was deleted.
type Grave = [u8; 16];

fn grave(id: RequestId, caller: &str) -> Grave {
    let mut hasher = blake3::Hasher::new();
    hasher.update(id.as_bytes()).update(caller.as_bytes());
    let mut grave = Grave::default();
    hasher.finalize_xof().fill(&mut grave);
    grave
}

impl Tombstones {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, graves: Arc::default() }
    }

    pub(super) fn add(&self, id: RequestId, caller: &str) {
        let grave = grave(id, caller);
        let mut graves = self.graves.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, order) = &mut *graves;
        if self.capacity == 0 || !known.insert(grave) {
            return;
        }
        order.push_back(grave);
        if order.len() > self.capacity
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
    }

    pub(super) fn has(&self, id: RequestId, caller: &Caller) -> bool {
        let grave = grave(id, caller.as_str());
        self.graves.lock().unwrap_or_else(PoisonError::into_inner).0.contains(&grave)
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
