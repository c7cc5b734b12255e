//! Session tokens of Cosmos DB as the core's [`SessionMark`]s, and the rule by which a read is judged: an answer counts only
//! if the physical partition that gave it was shown a mark of its own. No request is made here.

use tollgate_proto::{SessionMark, StoreAlias};

/// Bits of a position that hold the log sequence number; the version of the vector clock lies above them. At a million
/// writes a second in one physical partition they last for 8 years.
const LSN_BITS: u32 = 48;

/// The mark that a session token of one physical partition stands for. `None`: it is not such a token.
///
/// A token reads `range:version#lsn#region=lsn…`, `range:-1#lsn` or `range:lsn`. A failover raises the version, and the
/// one with the higher version is the newer, whatever its numbers.
pub(crate) fn mark_of(store: &StoreAlias, token: &str) -> Option<SessionMark> {
    let (scope, vector) = token.split_once(':')?;
    let mut parts = vector.split('#');
    let first = parts.next()?;
    let (version, lsn) = match parts.next() {
        Some(lsn) => (first.parse::<i64>().ok()?.max(0).unsigned_abs(), lsn.parse::<u64>().ok()?),
        None => (0, first.parse::<u64>().ok()?),
    };
    let is_one_of_one_partition = !scope.is_empty() && !token.contains(',');
    let fits = version < 1 << (u64::BITS - LSN_BITS) && lsn < 1 << LSN_BITS;
    (is_one_of_one_partition && fits).then(|| SessionMark {
        store: store.clone(),
        scope: scope.to_owned(),
        position: version << LSN_BITS | lsn,
        token: token.to_owned(),
    })
}

/// The one mark to show a read: that of the physical partition which is known to hold the document, or the only one that
/// there is. `None`: nobody can say which applies, and the read has to go where no mark is needed.
///
/// Marks of several physical partitions are never shown together: the service's newer gateway refuses them.
pub(crate) fn mark_to_show<'a>(
    marks: &'a [SessionMark],
    known_scope: Option<&str>,
) -> Option<&'a SessionMark> {
    match known_scope {
        Some(scope) => marks.iter().filter(|mark| mark.scope == scope).max_by_key(|mark| mark.position),
        None => match marks {
            [only] => Some(only),
            _ => None,
        },
    }
}

/// Whether the answer of a read that was shown `shown` is bound by it: it came from the physical partition that the mark
/// speaks of, and not from one that a split or merge has put in its place.
pub(crate) fn is_bound_by(answer: Option<&SessionMark>, shown: &SessionMark) -> bool {
    answer.is_some_and(|answer| answer.scope == shown.scope && answer.position >= shown.position)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(token: &str) -> SessionMark {
        mark_of(&StoreAlias::new("main").unwrap(), token).unwrap()
    }

    #[test]
    fn a_token_is_read_in_all_its_forms_and_ordered_by_version_first() {
        assert_eq!(mark("3:1#100#0=100#1=90").scope, "3");
        assert!(mark("3:1#101").position > mark("3:1#100#7=200").position);
        assert!(mark("3:2#5").position > mark("3:1#900").position, "a failover's token is the newer");
        assert_eq!(mark("3:-1#12").position, mark("3:12").position);
        for damaged in ["", "3", "3:", ":5", "3:x#1", "3:1#x", "0:1#5,1:1#6"] {
            assert_eq!(mark_of(&StoreAlias::new("main").unwrap(), damaged), None, "{damaged}");
        }
    }

    #[test]
    fn only_a_mark_of_the_partition_that_holds_the_document_is_shown() {
        let marks = [mark("0:1#50"), mark("1:1#20")];
        assert_eq!(mark_to_show(&marks, Some("1")), Some(&marks[1]));
        assert_eq!(mark_to_show(&marks, Some("2")), None);
        assert_eq!(mark_to_show(&marks, None), None, "nobody knows which one applies");
        assert_eq!(mark_to_show(&marks[..1], None), Some(&marks[0]));
        assert_eq!(mark_to_show(&[], None), None);
    }

    #[test]
    fn an_answer_of_the_child_of_a_split_is_not_bound_by_its_parents_mark() {
        let shown = mark("0:1#50");
        assert!(is_bound_by(Some(&mark("0:1#50")), &shown));
        assert!(!is_bound_by(Some(&mark("1:1#51")), &shown));
        assert!(!is_bound_by(Some(&mark("0:1#49")), &shown));
        assert!(!is_bound_by(None, &shown));
    }
}
