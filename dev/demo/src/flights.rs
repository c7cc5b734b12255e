//! The input: one flight a line, as JSON. Lines that are no flights are reported with their number and skipped. What is
//! done with flights is not decided here.

use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tollgate::Message;

use crate::error::DemoError;

/// Flights of January 2013 (CC0), so that the demo runs without any file.
const SAMPLE: &str = include_str!("../sample/flights.ndjson");

/// One flight. Figures that were not recorded are absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flight {
    /// Unique.
    pub id: String,
    /// The aircraft's tail number, where it was recorded.
    pub tail: Option<String>,
    /// The airline's code.
    pub carrier: String,
    /// The airport it left.
    pub origin: String,
    /// The airport it went to.
    pub dest: String,
    /// Delay of the departure, in minutes; negative if early.
    pub dep_delay: Option<i64>,
    /// Delay of the arrival, in minutes; negative if early.
    pub arr_delay: Option<i64>,
    /// Time in the air, in minutes.
    pub air_time: Option<i64>,
    /// In miles.
    pub distance: Option<i64>,
}

impl Message for Flight {
    const TYPE: &'static str = "demo.flight";
}

impl Flight {
    /// The aircraft; flights without a tail number are counted together for each carrier.
    pub fn aircraft(&self) -> String {
        match self.tail.as_deref() {
            Some(tail) if !tail.is_empty() => tail.to_owned(),
            _ => format!("unknown:{}", self.carrier),
        }
    }

    fn check(self) -> Result<Self, String> {
        for (what, code) in
            [("id", &self.id), ("carrier", &self.carrier), ("origin", &self.origin), ("dest", &self.dest)]
        {
            if code.is_empty() {
                return Err(format!("its {what} is empty"));
            }
        }
        Ok(self)
    }
}

/// All flights of an input, in order.
pub struct Input {
    /// The flights.
    pub flights: Vec<Flight>,
    /// The lines that are no flights: number (from 1) and what is wrong.
    pub bad_lines: Vec<(usize, String)>,
    /// What this input is recognised by.
    pub fingerprint: String,
}

impl Input {
    /// Reads a file, standard input (`-`), or the sample.
    ///
    /// # Errors
    /// If the file can't be read.
    pub fn read(path: Option<&Path>) -> Result<Self, DemoError> {
        let Some(path) = path else { return Ok(Self::parse(SAMPLE.as_bytes())) };
        let mut bytes = Vec::new();
        let read = if path.as_os_str() == "-" {
            std::io::stdin().lock().read_to_end(&mut bytes)
        } else {
            std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes))
        };
        read.map_err(|error| DemoError::file(path, error))?;
        Ok(Self::parse(&bytes))
    }

    fn parse(bytes: &[u8]) -> Self {
        let mut flights = Vec::new();
        let mut bad_lines = Vec::new();
        for (line, number) in bytes.split(|byte| *byte == b'\n').zip(1..) {
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let flight = serde_json::from_slice::<Flight>(line).map_err(|error| error.to_string());
            match flight.and_then(Flight::check) {
                Ok(flight) => flights.push(flight),
                Err(problem) => bad_lines.push((number, problem)),
            }
        }
        Self { flights, bad_lines, fingerprint: blake3::hash(bytes).to_hex().to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_line_is_skipped_and_reported_with_its_number() {
        let input = Input::parse(
            b"{\"id\":\"1\",\"carrier\":\"UA\",\"origin\":\"A\",\"dest\":\"B\"}\n\nnot json\n\
              {\"id\":\"2\",\"carrier\":\"UA\",\"origin\":\"\",\"dest\":\"B\"}\n\xff\xfe\n",
        );
        assert_eq!(input.flights.len(), 1);
        let numbers: Vec<_> = input.bad_lines.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [3, 4, 5]);
        assert_eq!(input.bad_lines[1].1, "its origin is empty");
    }

    #[test]
    fn a_flight_without_a_tail_number_counts_for_its_carrier() {
        let input =
            Input::parse(b"{\"id\":\"1\",\"tail\":null,\"carrier\":\"UA\",\"origin\":\"A\",\"dest\":\"B\"}");
        assert_eq!(input.flights[0].aircraft(), "unknown:UA");
    }

    #[test]
    fn every_line_of_the_sample_is_a_flight() {
        let input = Input::parse(SAMPLE.as_bytes());
        assert_eq!((input.flights.len(), input.bad_lines.len()), (4000, 0));
    }
}
