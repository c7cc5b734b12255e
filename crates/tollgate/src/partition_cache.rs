//! The cache of partitions in front of the stores: what was last seen of each, weighed by bytes. A view is taken out
//! while its partition is processed and put back afterwards; one that is evicted, or lost with a cancelled task, is
//! loaded again.

use std::sync::{Arc, Mutex, PoisonError};

use moka::sync::Cache;
use tollgate_core::partition_view::PartitionView;

use crate::lanes::LaneKey;

/// Views of partitions, up to a number of bytes.
pub(crate) struct PartitionCache {
    views: Cache<LaneKey, Arc<Place>>,
}

/// Where a view lies between two processings. The place outlives its view, so that taking and putting back does not
/// disturb the cache's order or weights.
struct Place {
    view: Mutex<Option<PartitionView>>,
    weight: u32,
}

impl PartitionCache {
    /// Holds views of about `bytes_max` bytes altogether.
    pub(crate) fn new(bytes_max: u64) -> Self {
        let views =
            Cache::builder().max_capacity(bytes_max).weigher(|_, place: &Arc<Place>| place.weight).build();
        Self { views }
    }

    /// Takes the view of a partition out, to be changed by whoever holds the partition's lane.
    pub(crate) fn take(&self, key: &LaneKey) -> Option<PartitionView> {
        let place = self.views.get(key)?;
        place.view.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Puts a view back.
    pub(crate) fn put(&self, key: &LaneKey, view: PartitionView) {
        let weight = u32::try_from(view.weight() + key.weight()).unwrap_or(u32::MAX);
        if let Some(place) = self.views.get(key)
            && place.weight.abs_diff(weight) <= place.weight / WEIGHT_TOLERANCE
        {
            *place.view.lock().unwrap_or_else(PoisonError::into_inner) = Some(view);
            return;
        }
        self.views.insert(key.clone(), Arc::new(Place { view: Mutex::new(Some(view)), weight }));
    }

    /// Forgets a partition: the next visitor loads it.
    pub(crate) fn forget(&self, key: &LaneKey) {
        if let Some(place) = self.views.get(key) {
            *place.view.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

/// A view is weighed again only when it has changed by more than this part of its weight: weighing costs an insertion.
const WEIGHT_TOLERANCE: u32 = 4;
