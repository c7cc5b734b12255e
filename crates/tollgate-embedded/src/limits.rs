//! The limits of the embedded stores. The engine underneath takes more; these bound what one request may take of memory
//! and how long it may keep others waiting.

use tollgate_proto::StoreLimits;

/// What both embedded stores take.
pub const EMBEDDED_LIMITS: StoreLimits = StoreLimits {
    transaction_items_max: 10_000,
    // What the engine sets aside for a journal: a larger batch would fill more than one at once.
    transaction_bytes_max: 64 * 1024 * 1024,
    // Larger values belong into blobs: each is held in memory several times on its way (request, batch, memtable).
    item_bytes_max: 16 * 1024 * 1024,
    // What is read or deleted at once occupies its thread for about a millisecond.
    read_batch_max: 1024,
    delete_batch_max: 1024,
};
