//! What the store remembers of logical partitions: the etag under which a version of the control record was seen, and the
//! physical partition that answered last. Both only spare requests: what is forgotten is read again, and what is outdated
//! is found out by the service (a failed `If-Match`) or by the answer's own session token. Nothing here is needed for
//! safety.

use std::sync::Arc;

use foldhash::fast::RandomState;
use moka::sync::Cache;
use tollgate_proto::{PartitionKey, Version};

/// How many partitions are remembered. At about 200 bytes each: 20 MB.
pub(crate) const PARTITIONS_REMEMBERED_MAX: u64 = 100_000;

pub(crate) struct PartitionMemory {
    etags: Cache<PartitionKey, (Version, Arc<str>), RandomState>,
    scopes: Cache<PartitionKey, Arc<str>, RandomState>,
}

impl PartitionMemory {
    pub(crate) fn new(partitions_max: u64) -> Self {
        Self {
            etags: Cache::builder().max_capacity(partitions_max).build_with_hasher(RandomState::default()),
            scopes: Cache::builder().max_capacity(partitions_max).build_with_hasher(RandomState::default()),
        }
    }

    /// The etag of the control record when it had this version. An etag stands for one state of a document, for ever.
    pub(crate) fn etag(&self, partition: &PartitionKey, version: Version) -> Option<Arc<str>> {
        self.etags.get(partition).filter(|(known, _)| *known == version).map(|(_, etag)| etag)
    }

    pub(crate) fn saw(&self, partition: &PartitionKey, version: Version, etag: &str) {
        self.etags.insert(partition.clone(), (version, etag.into()));
    }

    pub(crate) fn forget(&self, partition: &PartitionKey) {
        self.etags.invalidate(partition);
    }

    /// The physical partition that answered for this logical one last.
    pub(crate) fn scope(&self, partition: &PartitionKey) -> Option<Arc<str>> {
        self.scopes.get(partition)
    }

    pub(crate) fn answered(&self, partition: &PartitionKey, scope: &str) {
        if self.scopes.get(partition).is_none_or(|known| &*known != scope) {
            self.scopes.insert(partition.clone(), scope.into());
        }
    }
}
