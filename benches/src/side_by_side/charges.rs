//! What calls are charged by the published rules of `DynamoDB` and Cosmos DB, computed from sizes, so that a run in memory can say
//! what it would have cost. Where rules leave room, a rival is charged the lesser. A test (feature `cosmos`) compares the
//! table here with the store's own.

/// Bytes that a write capacity unit pays for.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html>
const WRITE_UNIT_BYTES: usize = 1024;
/// Bytes that a read capacity unit pays for, strongly consistent. Same source.
const READ_UNIT_BYTES: usize = 4096;
/// How much dearer a write is in a transaction. Same source.
const TRANSACTION_FACTOR: u64 = 2;

/// Kilobytes of a document on Cosmos DB, request units of a point read and of a write, as published for an unindexed payload.
/// The same table as in `tollgate-cosmos`.
const DOCUMENTS: [(usize, f64, f64); 5] =
    [(1, 1.0, 4.95), (2, 1.04, 6.29), (4, 1.14, 6.67), (16, 1.67, 9.52), (64, 4.76, 22.67)];
/// What an operation of a live batch was reported at: never less. As in `tollgate-cosmos`.
const BATCH_OPERATION_MIN: f64 = 6.29;
const KILOBYTE: usize = 1024;

/// A sum of charges in both currencies.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Charge {
    /// Write capacity units.
    pub write_units: u64,
    /// Read capacity units.
    pub read_units: u64,
    /// Request units.
    pub request_units: f64,
}

/// A record that is written: its size before (0: there was none) and after, in bytes on either store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The larger of both on `DynamoDB`.
    pub dynamodb: usize,
    /// The larger of both on Cosmos DB.
    pub cosmos: usize,
}

/// Write capacity units of one record outside a transaction.
pub const fn write_units(bytes: usize) -> u64 {
    let units = bytes.div_ceil(WRITE_UNIT_BYTES) as u64;
    if units == 0 { 1 } else { units }
}

/// Read capacity units of a strongly consistent read.
pub const fn read_units(bytes: usize) -> u64 {
    let units = bytes.div_ceil(READ_UNIT_BYTES) as u64;
    if units == 0 { 1 } else { units }
}

/// Request units of a point read.
pub fn document_read(bytes: usize) -> f64 {
    document(bytes).0
}

/// Request units of a single write or deletion.
pub fn document_write(bytes: usize) -> f64 {
    document(bytes).1
}

#[expect(clippy::cast_precision_loss, reason = "documents have at most 2 MB")]
fn document(bytes: usize) -> (f64, f64) {
    let row = DOCUMENTS.iter().find(|(kilobytes, ..)| bytes <= kilobytes * KILOBYTE);
    row.map_or_else(
        || {
            let (kilobytes, read, write) = DOCUMENTS[DOCUMENTS.len() - 1];
            let times = bytes as f64 / (kilobytes * KILOBYTE) as f64;
            (read * times, write * times)
        },
        |(_, read, write)| (*read, *write),
    )
}

impl Charge {
    /// Reads of records of these sizes on `DynamoDB` and on Cosmos DB, each for itself.
    pub fn reads(sizes: impl IntoIterator<Item = (usize, usize)>) -> Self {
        sizes.into_iter().fold(Self::default(), |sum, (dynamodb, cosmos)| Self {
            read_units: sum.read_units + read_units(dynamodb),
            request_units: sum.request_units + document_read(cosmos),
            ..sum
        })
    }

    /// One write, or several in a transaction.
    pub fn write(records: &[Written]) -> Self {
        match records {
            [one] => Self {
                write_units: write_units(one.dynamodb),
                request_units: document_write(one.cosmos),
                ..Self::default()
            },
            many => many.iter().fold(Self::default(), |sum, one| Self {
                write_units: sum.write_units + TRANSACTION_FACTOR * write_units(one.dynamodb),
                request_units: sum.request_units + document_write(one.cosmos).max(BATCH_OPERATION_MIN),
                ..sum
            }),
        }
    }

    /// Writes in a batch: each is charged as if it were alone.
    pub fn batch(records: &[Written]) -> Self {
        records.iter().fold(Self::default(), |sum, one| Self {
            write_units: sum.write_units + write_units(one.dynamodb),
            request_units: sum.request_units + document_write(one.cosmos),
            ..sum
        })
    }

    /// The later deletion of an expired record: free on `DynamoDB`, charged on Cosmos DB.
    pub fn expiry(cosmos: usize) -> Self {
        Self { request_units: document_write(cosmos), ..Self::default() }
    }
}

impl std::ops::Add for Charge {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            write_units: self.write_units + other.write_units,
            read_units: self.read_units + other.read_units,
            request_units: self.request_units + other.request_units,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Written = Written { dynamodb: 700, cosmos: 800 };

    #[test]
    fn a_transaction_is_charged_double_on_dynamodb_and_by_its_operations_on_cosmos() {
        let alone = Charge::write(&[SMALL]);
        assert_eq!((alone.write_units, format!("{:.2}", alone.request_units)), (1, "4.95".into()));
        let together = Charge::write(&[SMALL, SMALL]);
        assert_eq!((together.write_units, format!("{:.2}", together.request_units)), (4, "12.58".into()));
        let batch = Charge::batch(&[SMALL, SMALL]);
        assert_eq!((batch.write_units, format!("{:.2}", batch.request_units)), (2, "9.90".into()));
    }

    #[cfg(feature = "cosmos")]
    #[test]
    fn documents_are_charged_as_the_store_says() {
        use tollgate_cosmos::charges::{ReadStrength, batch_charge, read_charge, write_charge};
        for bytes in [0, 1, 1024, 1025, 4096, 16 * 1024, 64 * 1024, 300_000] {
            assert_eq!(document_read(bytes).to_bits(), read_charge(bytes, ReadStrength::Session).to_bits());
            assert_eq!(document_write(bytes).to_bits(), write_charge(bytes).to_bits());
            let written = Written { dynamodb: bytes, cosmos: bytes };
            let batch = Charge::write(&[written, written]).request_units;
            assert_eq!(batch.to_bits(), batch_charge([bytes, bytes]).to_bits());
        }
    }

    #[test]
    fn sizes_are_rounded_up_to_what_is_paid_for() {
        assert_eq!([0, 1024, 1025].map(write_units), [1, 1, 2]);
        assert_eq!([0, 4096, 4097].map(read_units), [1, 1, 2]);
        assert_eq!(format!("{:.2}", document_write(128 * 1024)), "45.34");
    }
}
