//! The limits that a store declares. They are checked before the commit, so that the error can name the limit, what
//! hit it and what to do.

/// What one transaction and one item of a store may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StoreLimits {
    /// Most items in one transaction, the control record included.
    pub transaction_items_max: usize,
    /// Most bytes in one transaction, all items together.
    pub transaction_bytes_max: usize,
    /// Most bytes in one item, its keys included.
    pub item_bytes_max: usize,
    /// Most partitions in one load and most entries in one token read.
    pub read_batch_max: usize,
    /// Most entries in one deletion.
    pub delete_batch_max: usize,
}

impl StoreLimits {
    /// No limits at all, for examples and for machines that are driven without a store.
    pub const UNLIMITED: Self = Self {
        transaction_items_max: usize::MAX,
        transaction_bytes_max: usize::MAX,
        item_bytes_max: usize::MAX,
        read_batch_max: usize::MAX,
        delete_batch_max: usize::MAX,
    };
}

/// A limit that a commit would exceed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum LimitExceeded {
    /// One item is too large.
    #[error(
        "{item} has {bytes} bytes and the store takes {max} in an item: send large bodies as blobs (claim check) \
         or split the item"
    )]
    ItemBytes {
        /// Which item, in words.
        item: String,
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        max: usize,
    },
    /// The transaction has too many items.
    #[error(
        "the commit writes {items} items and the store takes {max} in a transaction: change or send fewer at a time"
    )]
    TransactionItems {
        /// How many there are.
        items: usize,
        /// How many there may be.
        max: usize,
    },
    /// The transaction has too many bytes.
    #[error(
        "the commit writes {bytes} bytes and the store takes {max} in a transaction: send large bodies as blobs"
    )]
    TransactionBytes {
        /// How many there are.
        bytes: usize,
        /// How many there may be.
        max: usize,
    },
}
