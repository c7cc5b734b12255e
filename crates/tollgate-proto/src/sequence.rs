//! Positions in the life of a partition: incarnation, sequence, version, and the token reference built from them.
//! Names live in [`crate::ids`]; what is stored at a position lives in [`crate::outbox_entry`] and
//! [`crate::control_record`].

use std::fmt;

use crate::ids::{PartitionKey, StoreAlias};

/// A random number drawn when a control record is created, so that a partition that was deleted and created again is
/// mistaken for its former self by nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation(pub u64);

/// The number of one commit on one partition: never used twice, not even by a partition created again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sequence {
    /// Which life of the partition.
    pub incarnation: Incarnation,
    /// Which commit of that life, counted from 1.
    pub counter: u64,
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}", self.incarnation.0, self.counter)
    }
}

/// The version of a control record: the sequence of the commit that wrote it. A commit is conditional on it (R3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Version(Sequence);

impl Version {
    /// The version that the first commit on a partition writes.
    pub const fn first(incarnation: Incarnation) -> Self {
        Self(Sequence { incarnation, counter: 1 })
    }

    /// A version read back from a store.
    pub const fn from_sequence(sequence: Sequence) -> Self {
        Self(sequence)
    }

    /// The version that the next commit writes.
    ///
    /// The counter has 64 bits: at a billion commits a second it lasts for 584 years.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(Sequence { incarnation: self.0.incarnation, counter: self.0.counter + 1 })
    }

    /// The sequence of the commit that wrote this version.
    pub const fn sequence(self) -> Sequence {
        self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a store has put the outbox entries of one commit, for stores that have two places (the cheaper
/// of two layouts). It is part of the entry's index, and so of every reference to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Placement {
    /// Inside the partition's main item, or the only place that there is. Indexes are counted from 0.
    Together,
    /// Each an item of its own. Indexes are counted from 2^31.
    Apart,
}

impl Placement {
    /// The index of the first outgoing message of a commit.
    pub const fn first_index(self) -> u32 {
        match self {
            Self::Together => 0,
            Self::Apart => 1 << 31,
        }
    }
}

/// Where an outbox entry lies inside its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryKey {
    /// The commit that stored it.
    pub sequence: Sequence,
    /// Which of the outgoing messages of that commit, counted from [`Placement::first_index`].
    pub index: u32,
}

impl EntryKey {
    /// Where the store has put the entry.
    pub const fn placement(self) -> Placement {
        if self.index < Placement::Apart.first_index() { Placement::Together } else { Placement::Apart }
    }
}

impl fmt::Display for EntryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.sequence, self.index)
    }
}

/// Where an outbox entry lies in the world: the entry's existence there is the right to process its message once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenRef {
    /// The store that holds the sender's partition.
    pub store: StoreAlias,
    /// The sender's partition.
    pub partition: PartitionKey,
    /// The entry inside the sender's partition.
    pub entry: EntryKey,
}

impl TokenRef {
    /// Whether both refer to the same token. Like `==`, but quick to say no: sequences differ long before names do.
    pub fn is(&self, other: &Self) -> bool {
        self.entry == other.entry && self == other
    }
}

impl fmt::Display for TokenRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.store, self.partition, self.entry)
    }
}

/// A store's session token: what a later read must present to be sure to see a write.
///
/// Only stores with session consistency hand them out; for all others there are none.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionMark {
    /// The store that handed it out.
    pub store: StoreAlias,
    /// The physical partition it speaks of, in the store's own words.
    pub scope: String,
    /// How new it is: of two marks with one scope the one with the greater position includes the other.
    pub position: u64,
    /// What the store wants to be shown.
    pub token: String,
}

impl SessionMark {
    /// Merges `self` into `marks`, which holds at most one mark for each store and scope: the newer one stays.
    pub fn merge_into(self, marks: &mut Vec<Self>) {
        match marks.iter_mut().find(|mark| mark.store == self.store && mark.scope == self.scope) {
            Some(known) if known.position >= self.position => {}
            Some(known) => *known = self,
            None => marks.push(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_tells_where_its_entry_lies() {
        let sequence = Version::first(Incarnation(1)).sequence();
        for placement in [Placement::Together, Placement::Apart] {
            let first = EntryKey { sequence, index: placement.first_index() };
            let last = EntryKey { sequence, index: placement.first_index() + ((1 << 31) - 1) };
            assert_eq!((first.placement(), last.placement()), (placement, placement));
        }
    }

    #[test]
    fn of_two_session_marks_of_one_scope_the_newer_stays() {
        let mark = |position| SessionMark {
            store: StoreAlias::new("main").unwrap(),
            scope: "0".into(),
            position,
            token: position.to_string(),
        };
        let mut marks = Vec::new();
        mark(5).merge_into(&mut marks);
        mark(3).merge_into(&mut marks);
        assert_eq!(marks, [mark(5)]);
        mark(9).merge_into(&mut marks);
        assert_eq!(marks, [mark(9)]);
    }
}
