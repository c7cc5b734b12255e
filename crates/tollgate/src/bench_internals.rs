//! Inner rooms, opened to the measurements in `benches` and to nobody else. Nothing is decided here: each type hands on to
//! the one that it wraps.

use std::sync::Arc;

use tollgate_proto::partition_view::PartitionView;
use tollgate_proto::{BoxFuture, PartitionKey};

use crate::coalescer::Coalescer;
use crate::lanes::LaneKey;
use crate::partition_cache::PartitionCache;
use crate::runtime::{Tasks, TokioRuntime};

/// The cache of partitions' views.
pub struct Views(PartitionCache);

/// A partition as the cache knows it.
pub struct ViewKey(LaneKey);

impl ViewKey {
    /// A partition of the first store.
    pub fn of(partition: PartitionKey) -> Self {
        Self(LaneKey { store: 0, partition })
    }
}

impl Views {
    /// A cache of about so many bytes.
    pub fn new(bytes_max: u64) -> Self {
        Self(PartitionCache::new(bytes_max))
    }

    /// What a processing does: takes the view out and puts it back. `false`: there was none, and none is put back.
    pub fn visit(&self, key: &ViewKey) -> bool {
        let (Some(view), place) = self.0.take(&key.0) else { return false };
        self.0.put(&key.0, place, view);
        true
    }

    /// Puts a view that was loaded.
    pub fn fill(&self, key: &ViewKey, view: PartitionView) {
        self.0.put(&key.0, None, view);
    }
}

/// A coalescer of numbers, on tokio.
#[derive(Clone)]
pub struct Joined(Coalescer<u64, u64>);

impl Joined {
    /// Joins concurrent requests into calls of at most `batch_max`.
    pub fn new(
        batch_max: usize,
        call: impl Fn(Vec<u64>) -> BoxFuture<'static, Vec<u64>> + Send + Sync + 'static,
    ) -> Self {
        Self(Coalescer::new(Tasks::new(Arc::new(TokioRuntime::new())), batch_max, call))
    }

    /// Makes one request.
    pub async fn ask(&self, request: u64) -> Option<u64> {
        self.0.ask(vec![request]).await?.pop()
    }
}
