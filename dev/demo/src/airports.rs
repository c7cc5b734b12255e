//! The endpoint `airports`: one partition for each airport, with the totals of what leaves and what arrives.

use serde::{Deserialize, Serialize};
use tollgate::{Endpoint, HandlerError, Message, Tx};

/// The endpoint's name.
pub const ENDPOINT: &str = "airports";

/// What partition keys of airports begin with.
pub const PARTITION_PREFIX: &str = "airport:";

/// The item that holds the totals.
pub const TOTALS: &str = "totals";

/// Something that happened at an airport. Delays are in minutes; those that were not recorded are absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Movement {
    /// A flight left.
    Departure {
        /// By how much later than planned.
        delay: Option<i64>,
    },
    /// A flight arrived.
    Arrival {
        /// By how much later than planned.
        delay: Option<i64>,
    },
}

impl Message for Movement {
    const TYPE: &'static str = "demo.movement";
}

/// What is known of one airport. Sums pass over delays that were not recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AirportTotals {
    /// How many flights left.
    pub departures: u64,
    /// How many flights arrived.
    pub arrivals: u64,
    /// Of departures, in minutes.
    pub dep_delay: i64,
    /// Of arrivals, in minutes.
    pub arr_delay: i64,
}

impl AirportTotals {
    /// Adds one movement.
    pub fn add(&mut self, movement: &Movement) {
        match movement {
            Movement::Departure { delay } => {
                self.departures += 1;
                self.dep_delay += delay.unwrap_or(0);
            }
            Movement::Arrival { delay } => {
                self.arrivals += 1;
                self.arr_delay += delay.unwrap_or(0);
            }
        }
    }
}

/// The endpoint.
pub fn endpoint(workers: usize) -> Endpoint {
    Endpoint::new(ENDPOINT).concurrency(workers).preload(TOTALS).on::<Movement, _, _>(add_movement)
}

async fn add_movement(tx: Tx, movement: Movement) -> Result<(), HandlerError> {
    let mut totals: AirportTotals = tx.get(TOTALS).await?.unwrap_or_default();
    totals.add(&movement);
    tx.put(TOTALS, &totals)?;
    Ok(())
}

/// The partition of an airport.
pub fn partition(airport: &str) -> String {
    format!("{PARTITION_PREFIX}{airport}")
}
