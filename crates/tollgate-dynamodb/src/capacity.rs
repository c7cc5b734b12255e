//! What a commit and the consumption of its outputs cost in write capacity units, computed before anything is sent, and
//! which layout and which place for the outputs is the cheaper one. Pure functions of sizes: no table, no cache, no clock.
//! The decision is about cost alone; every layout is correct.

use std::ops::RangeInclusive;

use tollgate_proto::Placement;

/// Bytes that one write capacity unit pays for.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html>
pub const WRITE_UNIT_BYTES: usize = 1024;
/// How much dearer a write is inside a transaction. Same source.
pub const TRANSACTION_FACTOR: u64 = 2;
/// Largest item, in bytes, keys and names included.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ServiceQuotas.html>
pub const ITEM_BYTES_MAX: usize = 400 * 1024;
/// Largest main item that is aimed at. The rest of what DynamoDB allows is left to a control record that grows, and to sizes
/// that are known only roughly.
pub const MAIN_ITEM_BYTES_MAX: usize = 300 * 1024;
/// Most business items that lie in a main item, so that all of them can be moved by one transaction together with it.
pub const MAIN_ITEM_ITEMS_MAX: usize = 64;

/// Bytes of waiting outputs in a main item above which the next ones lie apart. Each commit pays for all that
/// wait in the main item, so a consumer that lags would make its producers' commits dearer with every
/// message.
pub const WAITING_BYTES_MAX: usize = 2 * 1024;

/// A layout must save this part of the other's cost (one fourth) before a partition changes over: a change costs once what it
/// saves many times.
const CHANGE_OVER_SAVES_ONE_IN: u64 = 4;

/// Where the business items go that a commit changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Each where it lies; new ones into the main item.
    Stay,
    /// All of them into the main item.
    Compact,
    /// All of them become items of their own, and with them what else the main item holds.
    Wide,
}

/// What a commit writes in one layout, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitShape {
    /// The main item as it will be, but for the outgoing messages of this commit.
    pub main: usize,
    /// How many business items are in it.
    pub main_items: usize,
    /// What is an item of its own: changed business items, deduplication records. Each makes the commit a transaction.
    pub own: Vec<usize>,
    /// Outgoing messages, each as an item of its own.
    pub entries: Vec<usize>,
}

/// What a commit may be written like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidates {
    /// Outputs of earlier commits that wait in the main item, in bytes. They are part of each shape's `main`.
    pub waiting: usize,
    /// As [`Layout::Stay`].
    pub stay: CommitShape,
    /// As [`Layout::Compact`], if that is another way, and the changed items are changed often enough to be worth a move.
    pub compact: Option<CommitShape>,
    /// As [`Layout::Wide`], if that is another way.
    pub wide: Option<CommitShape>,
}

/// A place for business items and a place for outgoing messages, with what they cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Where business items go.
    pub layout: Layout,
    /// Where the outgoing messages of the commit lie.
    pub placement: Placement,
    /// Write units of the commit and of the consumption of its outputs, one after the other, once the items lie there.
    pub units: u64,
}

/// Write units of one item of this size outside a transaction.
///
/// ```
/// use tollgate_dynamodb::capacity::write_units;
/// assert_eq!([0, 1024, 1025].map(write_units), [1, 1, 2]);
/// ```
pub const fn write_units(bytes: usize) -> u64 {
    let units = bytes.div_ceil(WRITE_UNIT_BYTES) as u64;
    if units == 0 { 1 } else { units }
}

/// The sizes that an item has if writing it took so many units.
pub(crate) fn bytes_of_units(units: u64) -> RangeInclusive<usize> {
    let units = usize::try_from(units.max(1)).unwrap_or(usize::MAX / WRITE_UNIT_BYTES);
    (units - 1) * WRITE_UNIT_BYTES + 1..=units * WRITE_UNIT_BYTES
}

/// What the commit and the consumption of its outputs cost with the outputs in this place. `None`: it doesn't fit.
///
/// ```
/// use tollgate_proto::Placement;
/// use tollgate_dynamodb::capacity::{CommitShape, units};
///
/// // 1 KB of state, of which all is changed, and one message of 1 KB.
/// let compact = CommitShape { main: 1400, main_items: 1, own: vec![], entries: vec![1200] };
/// assert_eq!(units(&compact, Placement::Together), Some(3 + 3));
/// let wide = CommitShape { main: 300, main_items: 0, own: vec![1150], entries: vec![1200] };
/// assert_eq!(units(&wide, Placement::Together), Some(2 * (2 + 2) + 2));
/// assert_eq!(units(&wide, Placement::Apart), Some(2 * (1 + 2 + 2) + 2));
/// ```
pub fn units(shape: &CommitShape, placement: Placement) -> Option<u64> {
    let (entries_in_main, own_entries): (&[usize], &[usize]) = match placement {
        Placement::Together => (&shape.entries, &[]),
        Placement::Apart => (&[], &shape.entries),
    };
    let main = shape.main + entries_in_main.iter().sum::<usize>();
    if main > MAIN_ITEM_BYTES_MAX || shape.main_items > MAIN_ITEM_ITEMS_MAX {
        return None;
    }
    let own = || shape.own.iter().chain(own_entries);
    let factor = if own().next().is_some() { TRANSACTION_FACTOR } else { 1 };
    let commit = factor * (write_units(main) + own().map(|bytes| write_units(*bytes)).sum::<u64>());
    // A removal is charged by the size that the main item had before it.
    let mut left = main;
    let mut consumption = 0;
    for entry in entries_in_main {
        consumption += write_units(left);
        left -= entry;
    }
    consumption += own_entries.iter().map(|bytes| write_units(*bytes)).sum::<u64>();
    Some(commit + consumption)
}

/// The cheapest way to write a commit.
///
/// Items stay where they are unless to move them saves a quarter and more, or there is no room. Outputs lie
/// together if that costs no more, since it is one call and often no transaction; but apart while others wait
/// in the main item ([`WAITING_BYTES_MAX`]).
pub fn cheapest(candidates: &Candidates) -> Choice {
    if candidates.waiting > WAITING_BYTES_MAX {
        return choose(candidates, &[Placement::Apart]);
    }
    choose(candidates, &[Placement::Together, Placement::Apart])
}

/// The same where it has been said already where the outputs lie.
pub fn cheapest_with(candidates: &Candidates, placement: Placement) -> Choice {
    choose(candidates, &[placement])
}

fn choose(candidates: &Candidates, placements: &[Placement]) -> Choice {
    let of = |layout: Layout, shape: &CommitShape| {
        let choices = placements.iter().filter_map(|placement| {
            units(shape, *placement).map(|units| Choice { layout, placement: *placement, units })
        });
        choices.min_by_key(|choice| choice.units)
    };
    let stay = of(Layout::Stay, &candidates.stay);
    let compact = candidates.compact.as_ref().and_then(|shape| of(Layout::Compact, shape));
    let wide = candidates.wide.as_ref().and_then(|shape| of(Layout::Wide, shape));
    let moved = compact.into_iter().chain(wide).min_by_key(|choice| choice.units);
    match (stay, moved) {
        (Some(stay), Some(moved))
            if moved.units * CHANGE_OVER_SAVES_ONE_IN <= stay.units * (CHANGE_OVER_SAVES_ONE_IN - 1) =>
        {
            moved
        }
        (Some(stay), _) => stay,
        (None, Some(moved)) => moved,
        // Even the control record alone has no room: DynamoDB itself has the last word on that.
        (None, None) => Choice { layout: Layout::Wide, placement: Placement::Apart, units: u64::MAX },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: usize = 300;

    /// `state` bytes in the main item, of which one item of 1,060 bytes changes, and messages of 1 KB.
    fn in_main(state: usize, entries: usize) -> Candidates {
        let entries = vec![1150; entries];
        let own = vec![];
        Candidates {
            waiting: 0,
            stay: CommitShape { main: BASE + state, main_items: 2, own, entries: entries.clone() },
            compact: None,
            wide: Some(CommitShape { main: BASE, main_items: 0, own: vec![1060], entries }),
        }
    }

    #[test]
    fn a_small_partition_stays_compact_and_a_large_one_becomes_wide() {
        for entries in 0..4 {
            assert_eq!(cheapest(&in_main(1000, entries)).layout, Layout::Stay);
            assert_eq!(cheapest(&in_main(40_000, entries)).layout, Layout::Wide);
        }
    }

    #[test]
    fn a_large_item_that_changes_as_a_whole_stays() {
        let candidates = Candidates {
            waiting: 0,
            stay: CommitShape { main: BASE + 40_000, main_items: 1, ..CommitShape::default() },
            compact: None,
            wide: Some(CommitShape { main: BASE, own: vec![40_060], ..CommitShape::default() }),
        };
        let choice = cheapest(&candidates);
        assert_eq!((choice.layout, choice.units), (Layout::Stay, 40));
    }

    #[test]
    fn one_output_lies_together_and_many_of_a_large_main_item_apart() {
        assert_eq!(cheapest(&in_main(1000, 1)).placement, Placement::Together);
        let stay = CommitShape { main: 40_000, main_items: 1, own: vec![], entries: vec![1150; 8] };
        let choice = cheapest(&Candidates { waiting: 0, stay, compact: None, wide: None });
        assert_eq!(choice.placement, Placement::Apart);
    }

    #[test]
    fn outputs_lie_apart_while_others_wait_in_the_main_item() {
        let mut candidates = in_main(1000 + WAITING_BYTES_MAX, 1);
        assert_eq!(cheapest(&candidates).placement, Placement::Together);
        candidates.waiting = WAITING_BYTES_MAX;
        assert_eq!(cheapest(&candidates).placement, Placement::Together);
        candidates.waiting += 1;
        assert_eq!(cheapest(&candidates).placement, Placement::Apart);
    }

    #[test]
    fn items_move_only_for_a_quarter_and_more() {
        let stay = CommitShape { main: 4 * 1024, main_items: 1, ..CommitShape::default() };
        let three = CommitShape { main: 3 * 1024, main_items: 1, ..CommitShape::default() };
        let candidates = Candidates { waiting: 0, stay: stay.clone(), compact: Some(three), wide: None };
        assert_eq!(cheapest(&candidates).layout, Layout::Compact);
        let nearly = CommitShape { main: 3 * 1024 + 1, main_items: 1, ..CommitShape::default() };
        let candidates = Candidates { waiting: 0, stay, compact: Some(nearly), wide: None };
        assert_eq!(cheapest(&candidates).layout, Layout::Stay);
    }

    #[test]
    fn what_has_no_room_in_the_main_item_lies_apart_whatever_it_costs() {
        let large = CommitShape { entries: vec![MAIN_ITEM_BYTES_MAX], main: 300, ..CommitShape::default() };
        let choice = cheapest(&Candidates { waiting: 0, stay: large, compact: None, wide: None });
        assert_eq!(choice.placement, Placement::Apart);
        let many = Candidates {
            waiting: 0,
            stay: CommitShape { main: 100, main_items: MAIN_ITEM_ITEMS_MAX + 1, ..CommitShape::default() },
            compact: None,
            wide: Some(CommitShape { main: 100, own: vec![1; 65], ..CommitShape::default() }),
        };
        assert_eq!(cheapest(&many).layout, Layout::Wide);
    }

    #[test]
    fn a_record_makes_every_layout_a_transaction() {
        let with_record = CommitShape { main: 1300, main_items: 1, own: vec![100], entries: vec![] };
        assert_eq!(units(&with_record, Placement::Together), Some(2 * (2 + 1)));
    }
}
