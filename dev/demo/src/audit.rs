//! The audit: totals computed straight from the input, against those that are read back from the store; and what is
//! left over there, which must be nothing.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde::Serialize;
use tollgate::Store;
use tollgate::proto::{ItemName, LoadRequest, ScannedPartition, codec};

use crate::aircraft::{self, AircraftTotals};
use crate::airports::{self, AirportTotals, Movement};
use crate::error::DemoError;
use crate::flights::Flight;

/// The totals of everything, by kind and key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// By aircraft.
    pub aircraft: BTreeMap<String, AircraftTotals>,
    /// By airport.
    pub airports: BTreeMap<String, AirportTotals>,
}

/// What a quiet system must not hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Leftovers {
    /// Outbox entries: tokens that nobody has consumed.
    pub outbox_entries: u64,
    /// Markers of commits that are not known to be finished.
    pub pending_markers: u64,
    /// Registered side effects.
    pub registrations: u64,
    /// Deduplication records.
    pub deduplication_records: u64,
}

impl Leftovers {
    /// How many altogether.
    pub const fn count(&self) -> u64 {
        self.outbox_entries + self.pending_markers + self.registrations + self.deduplication_records
    }
}

/// Partitions in one page of a scan, and in one load.
const PAGE: usize = 256;

impl Totals {
    /// Straight from the input.
    pub fn of_flights(flights: &[Flight]) -> Self {
        let mut totals = Self::default();
        for flight in flights {
            totals.aircraft.entry(flight.aircraft()).or_default().add(flight);
            let departure = Movement::Departure { delay: flight.dep_delay };
            let arrival = Movement::Arrival { delay: flight.arr_delay };
            totals.airports.entry(flight.origin.clone()).or_default().add(&departure);
            totals.airports.entry(flight.dest.clone()).or_default().add(&arrival);
        }
        totals
    }

    /// Read back from the store, with what is left over there.
    ///
    /// # Errors
    /// If the store can't be read, or holds something else.
    pub async fn of_store(store: &dyn Store) -> Result<(Self, Leftovers), DemoError> {
        let mut totals = Self::default();
        let mut leftovers = Leftovers::default();
        let mut cursor = None;
        loop {
            let page = store.scan(cursor, PAGE).await?;
            for scanned in &page.partitions {
                leftovers.add(scanned)?;
            }
            totals.load(store, &page.partitions).await?;
            cursor = page.next;
            if cursor.is_none() {
                return Ok((totals, leftovers));
            }
        }
    }

    async fn load(&mut self, store: &dyn Store, partitions: &[ScannedPartition]) -> Result<(), DemoError> {
        let item = ItemName::new(aircraft::TOTALS)?;
        let requests: Vec<LoadRequest> = partitions
            .iter()
            .map(|scanned| LoadRequest {
                partition: scanned.partition.clone(),
                items: vec![item.clone()],
                records: Vec::new(),
            })
            .collect();
        for (scanned, loaded) in partitions.iter().zip(store.load(requests).await) {
            let Some((_, Some(value))) = loaded?.items.into_iter().next() else { continue };
            let partition = scanned.partition.as_str();
            let damaged = |source| DemoError::Stored {
                item: item.to_string(),
                partition: partition.to_owned(),
                source,
            };
            if let Some(key) = partition.strip_prefix(aircraft::PARTITION_PREFIX) {
                let totals = serde_json::from_slice(value.bytes()).map_err(damaged)?;
                self.aircraft.insert(key.to_owned(), totals);
            } else if let Some(key) = partition.strip_prefix(airports::PARTITION_PREFIX) {
                let totals = serde_json::from_slice(value.bytes()).map_err(damaged)?;
                self.airports.insert(key.to_owned(), totals);
            }
        }
        Ok(())
    }

    /// Every difference, in words.
    pub fn differences(&self, stored: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        compare("aircraft", &self.aircraft, &stored.aircraft, &mut differences);
        compare("airport", &self.airports, &stored.airports, &mut differences);
        differences
    }

    /// Writes one line of JSON for each key, sorted by kind and key.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn write(&self, path: &Path) -> Result<(), DemoError> {
        let write = || -> std::io::Result<()> {
            let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
            for (key, totals) in &self.aircraft {
                serde_json::to_writer(&mut file, &Line { kind: "aircraft", key, totals })?;
                file.write_all(b"\n")?;
            }
            for (key, totals) in &self.airports {
                serde_json::to_writer(&mut file, &Line { kind: "airport", key, totals })?;
                file.write_all(b"\n")?;
            }
            file.flush()
        };
        write().map_err(|error| DemoError::file(path, error))
    }
}

#[derive(Serialize)]
struct Line<'a, T> {
    kind: &'static str,
    key: &'a str,
    #[serde(flatten)]
    totals: &'a T,
}

fn compare<T: PartialEq + std::fmt::Debug>(
    kind: &str,
    expected: &BTreeMap<String, T>,
    stored: &BTreeMap<String, T>,
    differences: &mut Vec<String>,
) {
    for (key, expected) in expected {
        match stored.get(key) {
            Some(stored) if stored == expected => {}
            Some(stored) => {
                differences.push(format!("{kind} {key}: {stored:?} is stored, {expected:?} is right"));
            }
            None => differences.push(format!("{kind} {key}: nothing is stored, {expected:?} is right")),
        }
    }
    for key in stored.keys().filter(|key| !expected.contains_key(*key)) {
        differences.push(format!("{kind} {key}: stored, but the input has no such {kind}"));
    }
}

impl Leftovers {
    /// Adds what a partition holds.
    ///
    /// # Errors
    /// If its control record can't be read.
    pub fn add(&mut self, scanned: &ScannedPartition) -> Result<(), DemoError> {
        self.outbox_entries += scanned.entries.len() as u64;
        self.deduplication_records += scanned.records;
        if let Some(control) = &scanned.control {
            let control = codec::decode_control(control).map_err(|error| {
                DemoError::Open(format!(
                    "the control record of partition {} is damaged: {error}",
                    scanned.partition
                ))
            })?;
            self.pending_markers += control.pending.len() as u64;
            self.registrations += control.registrations.len() as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_that_is_off_by_one_is_a_difference() {
        let flight = Flight {
            id: "1".into(),
            tail: Some("N1".into()),
            carrier: "UA".into(),
            origin: "EWR".into(),
            dest: "IAH".into(),
            dep_delay: None,
            arr_delay: Some(-3),
            air_time: None,
            distance: Some(1400),
        };
        let once = Totals::of_flights(std::slice::from_ref(&flight));
        assert_eq!(
            once.aircraft["N1"],
            AircraftTotals { flights: 1, distance: 1400, air_time: 0, missing_air_time: 1 }
        );
        assert_eq!(
            once.airports["IAH"],
            AirportTotals { departures: 0, arrivals: 1, dep_delay: 0, arr_delay: -3 }
        );
        let twice = Totals::of_flights(&[flight.clone(), flight]);
        assert_eq!(once.differences(&once), Vec::<String>::new());
        assert_eq!(once.differences(&twice).len(), 3);
        assert_eq!(once.differences(&Totals::default()).len(), 3);
        assert_eq!(Totals::default().differences(&once).len(), 3);
    }
}
