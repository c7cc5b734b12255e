//! The limits of Cosmos DB, and what of them is left for a commit's own bytes. Declared here, checked by the core's machine
//! before a commit and by the store once more, on the bytes that it is about to send.

use tollgate_proto::StoreLimits;

/// Most operations in one transactional batch (Cosmos DB service quotas).
pub const BATCH_OPERATIONS_MAX: usize = 100;

/// Most bytes in one transactional batch, and in one document (Cosmos DB service quotas: 2 MB).
pub const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Bytes that an item is counted beyond its value and its partition's key: braces, field names, the id.
pub(crate) const ITEM_OVERHEAD_BYTES: usize = 256;

/// What a Cosmos DB store declares. Bytes are counted before they are encoded: control records, entries, responses and
/// binary items become base64, which takes a third more, so three quarters of Cosmos DB's 2 MB are left, less room for
/// the ids.
pub const COSMOS_LIMITS: StoreLimits = StoreLimits {
    transaction_items_max: BATCH_OPERATIONS_MAX,
    transaction_bytes_max: 1_500_000,
    item_bytes_max: 1_490_000,
    // Each is a request of its own on the wire, a bounded number of them at a time.
    read_batch_max: 100,
    // A batch of deletions in one logical partition.
    delete_batch_max: BATCH_OPERATIONS_MAX,
};
