//! The endpoint `aircraft`: one partition for each aircraft, with the totals of its flights. Every flight also tells
//! its two airports.

use serde::{Deserialize, Serialize};
use tollgate::{Endpoint, HandlerError, Tx};

use crate::airports::{self, Movement};
use crate::flights::Flight;

/// The endpoint's name.
pub const ENDPOINT: &str = "aircraft";

/// What partition keys of aircraft begin with.
pub const PARTITION_PREFIX: &str = "aircraft:";

/// The item that holds the totals.
pub const TOTALS: &str = "totals";

/// What is known of one aircraft. Sums pass over figures that were not recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AircraftTotals {
    /// How many flights.
    pub flights: u64,
    /// In miles.
    pub distance: i64,
    /// In minutes.
    pub air_time: i64,
    /// How many flights have no recorded air time.
    pub missing_air_time: u64,
}

impl AircraftTotals {
    /// Adds one flight.
    pub fn add(&mut self, flight: &Flight) {
        self.flights += 1;
        self.distance += flight.distance.unwrap_or(0);
        self.air_time += flight.air_time.unwrap_or(0);
        self.missing_air_time += u64::from(flight.air_time.is_none());
    }
}

/// The endpoint.
pub fn endpoint(workers: usize) -> Endpoint {
    Endpoint::new(ENDPOINT).concurrency(workers).preload(TOTALS).on::<Flight, _, _>(add_flight)
}

async fn add_flight(tx: Tx, flight: Flight) -> Result<(), HandlerError> {
    let mut totals: AircraftTotals = tx.get(TOTALS).await?.unwrap_or_default();
    totals.add(&flight);
    tx.put(TOTALS, &totals)?;
    let departure = Movement::Departure { delay: flight.dep_delay };
    let arrival = Movement::Arrival { delay: flight.arr_delay };
    tx.send(airports::ENDPOINT, &airports::partition(&flight.origin), &departure)?;
    tx.send(airports::ENDPOINT, &airports::partition(&flight.dest), &arrival)?;
    Ok(())
}

/// The partition of an aircraft.
pub fn partition(aircraft: &str) -> String {
    format!("{PARTITION_PREFIX}{aircraft}")
}
