//! The operations of [`Store`](tollgate_proto::Store) by name, for wrappers that count them or interfere with them.

use std::fmt;

/// One operation of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// [`Store::load`](tollgate_proto::Store::load)
    Load,
    /// [`Store::read_entries`](tollgate_proto::Store::read_entries)
    ReadEntries,
    /// [`Store::commit`](tollgate_proto::Store::commit)
    Commit,
    /// [`Store::delete_entries`](tollgate_proto::Store::delete_entries)
    DeleteEntries,
    /// [`Store::scan`](tollgate_proto::Store::scan)
    Scan,
    /// [`Store::expire`](tollgate_proto::Store::expire)
    Expire,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Load, Self::ReadEntries, Self::Commit, Self::DeleteEntries, Self::Scan, Self::Expire];
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Load => "load",
            Self::ReadEntries => "read_entries",
            Self::Commit => "commit",
            Self::DeleteEntries => "delete_entries",
            Self::Scan => "scan",
            Self::Expire => "expire",
        })
    }
}
