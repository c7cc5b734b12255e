//! The cache of partitions in front of the stores: what was last seen of each, weighed by bytes. A view is taken out
//! while its partition is processed and put back afterwards; one that is evicted, or lost with a cancelled task, is
//! loaded again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use moka::sync::Cache;
use tollgate_proto::partition_view::PartitionView;

use crate::lanes::LaneKey;

/// Views of partitions, up to a number of bytes.
pub(crate) struct PartitionCache {
    views: Cache<LaneKey, Arc<Place>, RandomState>,
}

/// Where a view lies between two processings. The place outlives its view, so that taking and putting back does not
/// disturb the cache's order or weights.
pub(crate) struct Place {
    view: Mutex<Option<PartitionView>>,
    weight: u32,
}

impl Place {
    fn lock(&self) -> MutexGuard<'_, Option<PartitionView>> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PartitionCache {
    /// Holds views of about `bytes_max` bytes altogether.
    pub(crate) fn new(bytes_max: u64) -> Self {
        let views = Cache::builder()
            .max_capacity(bytes_max)
            .weigher(|_, place: &Arc<Place>| place.weight)
            .build_with_hasher(RandomState::default());
        Self { views }
    }

    /// Takes the view of a partition out, to be changed by whoever holds the partition's lane, and says where it came
    /// from.
    pub(crate) fn take(&self, key: &LaneKey) -> (Option<PartitionView>, Option<Arc<Place>>) {
        let place = self.views.get(key);
        let view = place.as_ref().and_then(|place| place.lock().take());
        (view, place)
    }

    /// Puts a view back where it was taken from.
    pub(crate) fn put(&self, key: &LaneKey, place: Option<Arc<Place>>, view: PartitionView) {
        let weight = u32::try_from(view.weight() + key.weight()).unwrap_or(u32::MAX);
        match place {
            // If the place was evicted meanwhile, the view goes with it.
            Some(place) if place.weight.abs_diff(weight) <= place.weight / WEIGHT_TOLERANCE => {
                *place.lock() = Some(view);
            }
            _ => self.views.insert(key.clone(), Arc::new(Place { view: Mutex::new(Some(view)), weight })),
        }
    }

    /// Forgets a partition: the next visitor loads it.
    pub(crate) fn forget(&self, key: &LaneKey) {
        if let Some(place) = self.views.get(key) {
            *place.lock() = None;
        }
    }
}

/// A view is weighed again only when it has changed by more than this part of its weight: weighing costs an insertion.
const WEIGHT_TOLERANCE: u32 = 4;
