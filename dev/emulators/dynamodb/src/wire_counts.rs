//! What went over the wire: calls, injected faults and consumed capacity by operation. Everything is counted when it
//! happens, retries of the SDK included, so that a test can say what a message costs.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::capacity_units::CapacityUnits;
use crate::fault::Fault;
use crate::operation::{Operation, Units};

/// What was counted so far, or between two moments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WireCounts {
    operations: BTreeMap<Operation, OperationCounts>,
    faults: BTreeMap<Fault, u64>,
}

/// What was counted of one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OperationCounts {
    /// Requests that arrived, those that were answered by an injected fault included.
    pub calls: u64,
    /// Those of them into which a fault was injected.
    pub faults: u64,
    /// Answers that were errors, injected ones included; lost answers are not answers.
    pub errors: u64,
    /// Read capacity units that answers reported. Only requests with `ReturnConsumedCapacity` are told; what an answer
    /// that was lost would have reported counts, since DynamoDB charges for it.
    pub read_units: CapacityUnits,
    /// Write capacity units, likewise.
    pub write_units: CapacityUnits,
    /// Bytes of the requests' bodies.
    pub request_bytes: u64,
    /// Bytes of the answers' bodies.
    pub answer_bytes: u64,
}

impl WireCounts {
    /// The counts of one operation.
    pub fn of(&self, operation: Operation) -> OperationCounts {
        self.operations.get(&operation).copied().unwrap_or_default()
    }

    /// All operations that were called, in a stable order.
    pub fn operations(&self) -> impl Iterator<Item = (Operation, OperationCounts)> + '_ {
        self.operations.iter().map(|(operation, counts)| (*operation, *counts))
    }

    /// How often this fault was injected.
    pub fn faults(&self, fault: Fault) -> u64 {
        self.faults.get(&fault).copied().unwrap_or_default()
    }

    /// Calls that read or write items, all together.
    pub fn item_calls(&self) -> u64 {
        self.of_items().map(|counts| counts.calls).sum()
    }

    /// Read capacity units, all together.
    pub fn read_units(&self) -> CapacityUnits {
        self.of_items().map(|counts| counts.read_units).sum()
    }

    /// Write capacity units, all together.
    pub fn write_units(&self) -> CapacityUnits {
        self.of_items().map(|counts| counts.write_units).sum()
    }

    /// What was counted after `before` was taken.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let difference = |(operation, now): (Operation, OperationCounts)| {
            let then = before.of(operation);
            let counts = OperationCounts {
                calls: now.calls - then.calls,
                faults: now.faults - then.faults,
                errors: now.errors - then.errors,
                read_units: now.read_units - then.read_units,
                write_units: now.write_units - then.write_units,
                request_bytes: now.request_bytes - then.request_bytes,
                answer_bytes: now.answer_bytes - then.answer_bytes,
            };
            (operation, counts)
        };
        let faults = self.faults.iter().map(|(fault, now)| (*fault, now - before.faults(*fault)));
        Self { operations: self.operations().map(difference).collect(), faults: faults.collect() }
    }

    fn of_items(&self) -> impl Iterator<Item = OperationCounts> + '_ {
        self.operations().filter(|(operation, _)| operation.is_of_items()).map(|(_, counts)| counts)
    }

    /// Counts a request. Returns how many of its operation came before.
    pub(crate) fn count_call(&mut self, operation: Operation, request_bytes: usize) -> u64 {
        let counts = self.operations.entry(operation).or_default();
        counts.calls += 1;
        counts.request_bytes += request_bytes as u64;
        counts.calls - 1
    }

    pub(crate) fn count_fault(&mut self, operation: Operation, fault: Fault) {
        self.operations.entry(operation).or_default().faults += 1;
        *self.faults.entry(fault).or_default() += 1;
    }

    pub(crate) fn count_answer(&mut self, operation: Operation, status: u16, bytes: usize) {
        let counts = self.operations.entry(operation).or_default();
        counts.errors += u64::from(status != 200);
        counts.answer_bytes += bytes as u64;
    }

    /// Counts the capacity that the body of an answer reports.
    pub(crate) fn count_capacity(&mut self, operation: Operation, body: &str) {
        // Most answers report none; they need not be parsed.
        if !body.contains("\"ConsumedCapacity\"") {
            return;
        }
        let Ok(Reported { consumed: Some(consumed) }) = serde_json::from_str(body) else { return };
        let consumed = match consumed {
            Consumed::One(one) => vec![one],
            Consumed::Many(many) => many,
        };
        let counts = self.operations.entry(operation).or_default();
        for capacity in consumed {
            match (capacity.read, capacity.write, operation.units()) {
                (None, None, Units::Read) => counts.read_units += CapacityUnits::reported(capacity.total),
                (None, None, _) => counts.write_units += CapacityUnits::reported(capacity.total),
                (read, write, _) => {
                    counts.read_units += CapacityUnits::reported(read.unwrap_or_default());
                    counts.write_units += CapacityUnits::reported(write.unwrap_or_default());
                }
            }
        }
    }
}

#[derive(Deserialize)]
struct Reported {
    #[serde(rename = "ConsumedCapacity")]
    consumed: Option<Consumed>,
}

/// Operations on one table report one, batches and transactions one for each table.
#[derive(Deserialize)]
#[serde(untagged)]
enum Consumed {
    Many(Vec<Capacity>),
    One(Capacity),
}

#[derive(Deserialize)]
struct Capacity {
    #[serde(rename = "CapacityUnits", default)]
    total: f64,
    #[serde(rename = "ReadCapacityUnits")]
    read: Option<f64>,
    #[serde(rename = "WriteCapacityUnits")]
    write: Option<f64>,
}
