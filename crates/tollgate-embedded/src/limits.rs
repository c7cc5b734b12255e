//! The limits of the embedded stores: bounds on memory, chosen generously; the engine underneath would take more.

use tollgate_core::StoreLimits;

/// What both embedded stores take.
pub const EMBEDDED_LIMITS: StoreLimits = StoreLimits {
    transaction_items_max: 10_000,
    transaction_bytes_max: 64 * 1024 * 1024,
    item_bytes_max: 16 * 1024 * 1024,
    read_batch_max: 1024,
    delete_batch_max: 1024,
};
