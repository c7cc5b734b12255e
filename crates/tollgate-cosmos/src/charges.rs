//! What Cosmos DB charges by its published table, computed: the emulator charges a constant for a batch, and a real account
//! is not at hand when a design is judged. Pure functions; what a store was really charged is in `statistics`.
//!
//! The table (sizes of a document, request units): 1 KB read 1, write 4.95; 2 KB 1.04, 6.29; 4 KB 1.14, 6.67; 16 KB 1.67,
//! 9.52; 64 KB 4.76, 22.67. A strong read costs double. A live batch was reported at about 6.29 an operation, so an
//! operation of a batch is never counted below that. Between two sizes the charge of the larger one counts.

/// Kilobytes of a document, and the request units of a point read and of a write of it.
const PUBLISHED: [(usize, f64, f64); 5] =
    [(1, 1.0, 4.95), (2, 1.04, 6.29), (4, 1.14, 6.67), (16, 1.67, 9.52), (64, 4.76, 22.67)];

/// What an operation of a live batch was reported at.
const BATCH_OPERATION_MIN: f64 = 6.29;

/// Bytes in a kilobyte of the table.
const KILOBYTE: usize = 1024;

/// How consistent a read is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadStrength {
    /// Session consistency.
    Session,
    /// Strong consistency: two replicas are asked.
    Strong,
}

/// Request units of a point read of a document of so many bytes.
pub fn read_charge(bytes: usize, strength: ReadStrength) -> f64 {
    let (read, _) = charges(bytes);
    match strength {
        ReadStrength::Session => read,
        ReadStrength::Strong => 2.0 * read,
    }
}

/// Request units of a single write or deletion of a document of so many bytes.
pub fn write_charge(bytes: usize) -> f64 {
    charges(bytes).1
}

/// Request units of a transactional batch that writes documents of these sizes.
///
/// ```
/// use tollgate_cosmos::charges::batch_charge;
///
/// // The control record and one item of less than a kilobyte each.
/// assert_eq!(batch_charge([400, 700]), 12.58);
/// ```
pub fn batch_charge(documents: impl IntoIterator<Item = usize>) -> f64 {
    documents.into_iter().map(|bytes| write_charge(bytes).max(BATCH_OPERATION_MIN)).sum()
}

/// Request units of one message whose handler changes one item of a kilobyte and sends `outputs` messages of a kilobyte:
/// token read, commit, deletion of its token; the partition was cached.
pub fn message_charge(outputs: usize, strength: ReadStrength) -> f64 {
    let commit = batch_charge(std::iter::repeat_n(KILOBYTE, 2 + outputs));
    read_charge(KILOBYTE, strength) + commit + write_charge(KILOBYTE)
}

fn charges(bytes: usize) -> (f64, f64) {
    let row = PUBLISHED.iter().find(|(kilobytes, ..)| bytes <= kilobytes * KILOBYTE);
    if let Some((_, read, write)) = row {
        return (*read, *write);
    }
    // The table ends at 64 KB: beyond it the last row is continued in proportion.
    let (kilobytes, read, write) = PUBLISHED[PUBLISHED.len() - 1];
    #[allow(clippy::cast_precision_loss, reason = "documents have at most 2 MB")]
    let times = bytes as f64 / (kilobytes * KILOBYTE) as f64;
    (read * times, write * times)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hundredths(charge: f64) -> String {
        format!("{charge:.2}")
    }

    #[test]
    fn the_published_sizes_have_the_published_charges() {
        for (kilobytes, read, write) in PUBLISHED {
            assert_eq!(hundredths(read_charge(kilobytes * 1024, ReadStrength::Session)), hundredths(read));
            assert_eq!(hundredths(write_charge(kilobytes * 1024)), hundredths(write));
        }
        assert_eq!(hundredths(read_charge(100, ReadStrength::Strong)), "2.00");
        assert_eq!(hundredths(write_charge(1025)), "6.29", "the larger size counts");
        assert_eq!(hundredths(write_charge(128 * 1024)), "45.34", "beyond the table in proportion");
    }

    #[test]
    fn a_message_with_no_one_and_three_outputs_costs_what_the_documentation_says() {
        let message = |outputs| hundredths(message_charge(outputs, ReadStrength::Session));
        assert_eq!([message(0), message(1), message(3)], ["18.53", "24.82", "37.40"]);
    }
}
