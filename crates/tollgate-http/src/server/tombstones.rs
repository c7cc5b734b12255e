//! Which requests were deleted a while ago, in this process: so that a late `POST` is told 410 instead of 404. Nothing depends
//! on it; whether something is executed is decided by what is stored.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::request_id::RequestId;

/// The newest deleted requests.
#[derive(Clone)]
pub(super) struct Tombstones {
    capacity: usize,
    ids: Arc<Mutex<(HashSet<RequestId>, VecDeque<RequestId>)>>,
}

impl Tombstones {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, ids: Arc::default() }
    }

    pub(super) fn add(&self, id: RequestId) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, order) = &mut *ids;
        if self.capacity == 0 || !known.insert(id) {
            return;
        }
        order.push_back(id);
        if order.len() > self.capacity
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
    }

    pub(super) fn has(&self, id: RequestId) -> bool {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).0.contains(&id)
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
            tombstones.add(id);
        }
        assert_eq!(ids.map(|id| tombstones.has(id)), [false, true, true]);
    }
}
