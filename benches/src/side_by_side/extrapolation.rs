//! What a million messages would cost on real services, computed: measured calls and units a message, times published prices. Nobody has
//! paid these bills; every figure that goes in is a named constant with its source, and the formula is printed with the result.

use super::rounds::{Comparison, Record};
use super::run::Outcome;
use super::tables::figure;

/// US dollars for a million write request units of `DynamoDB` on demand, standard table class, us-east-1. "Amazon `DynamoDB` pricing for on-demand
/// capacity", <https://aws.amazon.com/dynamodb/pricing/on-demand/>, since 1 November 2024, when it was halved; quoted by "Amazon `DynamoDB` Pricing:
/// On-Demand & Provisioned Plans" (Airbyte, 21 July 2025), from which it was taken.
pub const DYNAMODB_WRITE_MILLION: f64 = 0.625;
/// US dollars for a million read request units, likewise.
pub const DYNAMODB_READ_MILLION: f64 = 0.125;
/// US dollars for a million request units of Cosmos DB, serverless, East US. "Azure Cosmos DB pricing",
/// <https://azure.microsoft.com/pricing/details/cosmos-db/serverless/>. As of our knowledge, 2024: many quote it, the page itself shows
/// figures to browsers only. Check it.
pub const COSMOS_MILLION: f64 = 0.25;
/// US dollars for a gigabyte and month, after what is free: "Amazon `DynamoDB` pricing", <https://aws.amazon.com/dynamodb/pricing/>. Cosmos DB asks
/// the same, with the reservation above.
pub const GIGABYTE_MONTH: f64 = 0.25;

/// A call of one item in one region, in milliseconds: "single-digit", says "Understanding Amazon `DynamoDB` latency" (AWS Database Blog). 3
/// is an assumption within that, and so is that a transaction takes as long: it takes longer, which all who use one have in
/// common.
pub const DYNAMODB_CALL_MS: f64 = 3.0;
/// "Consistency levels in Azure Cosmos DB" promises reads and writes below 10 ms for 99 of 100 in one region; 4.5 is an assumption within that.
/// <https://learn.microsoft.com/azure/cosmos-db/consistency-levels#consistency-levels-and-latency>
pub const COSMOS_CALL_MS: f64 = 4.5;

const MILLION: f64 = 1e6;
const GIGABYTE: f64 = 1e9;

/// A contender's bill for a million messages, and its waiting.
#[derive(Clone, Debug, PartialEq)]
pub struct Extrapolated {
    /// Its title.
    pub title: String,
    /// Write units a message on `DynamoDB`.
    pub write_units: f64,
    /// Read units a message on `DynamoDB`.
    pub read_units: f64,
    /// Request units a message on Cosmos DB.
    pub request_units: f64,
    /// Bytes a message that stay only to recognise it.
    pub kept_bytes: f64,
    /// Calls after each other from delivery to acknowledgement, one message at a time.
    pub calls: f64,
}

/// The formulas, for people.
pub const FORMULAS: &str = "dollars for a million messages on DynamoDB = write units a message x 0.625 + read units a message x 0.125; \
                            on Cosmos DB = request units a message x 0.25; \
                            what is kept to recognise a million messages costs 0.25 for a gigabyte and month on either, for as long as it is kept; \
                            milliseconds = calls in sequence x 3 on DynamoDB, x 4.5 on Cosmos DB";

impl Extrapolated {
    /// Dollars for a million messages on `DynamoDB`.
    pub fn dynamodb(&self) -> f64 {
        self.write_units * DYNAMODB_WRITE_MILLION + self.read_units * DYNAMODB_READ_MILLION
    }

    /// How they come about.
    pub fn dynamodb_formula(&self) -> String {
        let [writes, reads] = [self.write_units, self.read_units].map(figure);
        format!("{writes} x {DYNAMODB_WRITE_MILLION} + {reads} x {DYNAMODB_READ_MILLION}")
    }

    /// Dollars for a million messages on Cosmos DB.
    pub fn cosmos(&self) -> f64 {
        self.request_units * COSMOS_MILLION
    }

    /// How they come about.
    pub fn cosmos_formula(&self) -> String {
        format!("{} x {COSMOS_MILLION}", figure(self.request_units))
    }

    /// What is kept of a million messages, and what that costs.
    pub fn kept(&self) -> String {
        let gigabytes = self.kept_bytes * MILLION / GIGABYTE;
        if gigabytes > 0.0 {
            format!("{gigabytes:.3}, {:.3}", gigabytes * GIGABYTE_MONTH)
        } else {
            "0".to_owned()
        }
    }

    /// Milliseconds from delivery to acknowledgement on `DynamoDB`, one message at a time.
    pub fn dynamodb_ms(&self) -> f64 {
        self.calls * DYNAMODB_CALL_MS
    }

    /// Likewise on Cosmos DB.
    pub fn cosmos_ms(&self) -> f64 {
        self.calls * COSMOS_CALL_MS
    }
}

/// Extrapolates: units from one comparison (reported ones if there are), request units and what is kept from another, calls in sequence from a third.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub fn extrapolate(units: &Comparison, headline: &Comparison, solo: &Comparison) -> Vec<Extrapolated> {
    let of = |record: &Record| {
        let median = |comparison: &Comparison, pick: &dyn Fn(&Outcome) -> f64| {
            comparison.of(&record.name).map_or(f64::NAN, |record| record.spread(pick).median)
        };
        Extrapolated {
            title: record.title.clone(),
            write_units: median(units, &|run| run.reported.write_units.unwrap_or(run.write_units)),
            read_units: median(units, &|run| run.reported.read_units.unwrap_or(run.read_units)),
            request_units: median(headline, &|run| run.request_units),
            kept_bytes: median(headline, &|run| run.left_deduplication_bytes as f64 / run.messages as f64),
            calls: median(solo, &|run| run.calls_in_sequence.unwrap_or(f64::NAN)),
        }
    };
    units.contenders.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bill_is_what_the_printed_formula_gives() {
        let bill = Extrapolated {
            title: String::new(),
            write_units: 4.0,
            read_units: 1.0,
            request_units: 20.0,
            kept_bytes: 100.0,
            calls: 3.0,
        };
        assert_eq!(bill.dynamodb_formula(), "4.00 x 0.625 + 1.00 x 0.125");
        assert_eq!(format!("{:.3}", bill.dynamodb()), "2.625");
        assert_eq!(bill.cosmos_formula(), "20.0 x 0.25");
        assert_eq!(format!("{:.3}", bill.cosmos()), "5.000");
        assert_eq!(bill.kept(), "0.100, 0.025");
        assert_eq!(Extrapolated { kept_bytes: 0.0, ..bill }.kept(), "0");
    }
}
