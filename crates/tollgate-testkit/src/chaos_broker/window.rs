//! The messages that were received and are held back, so that they can leave in another order. They are in flight in
//! the inner broker all the while: whatever is forgotten here comes again.

use std::collections::VecDeque;

use fastrand::Rng;
use tollgate_proto::Delivery;

/// The messages of one endpoint that are held back, in the order they came.
#[derive(Debug, Default)]
pub(super) struct Window {
    held: VecDeque<Delivery>,
}

impl Window {
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    pub(super) fn hold(&mut self, deliveries: Vec<Delivery>) {
        self.held.extend(deliveries);
    }

    /// Takes one out by chance, and counts it if it overtakes another.
    pub(super) fn draw(&mut self, rng: &mut Rng, overtaken: &mut u64) -> Option<Delivery> {
        if self.held.is_empty() {
            return None;
        }
        let index = rng.usize(..self.held.len());
        *overtaken += u64::from(index > 0);
        self.held.remove(index)
    }
}
