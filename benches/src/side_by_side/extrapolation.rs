//! What a million messages would cost on real services, computed: measured calls and units a message, times published prices. Nobody has
//! paid these bills; every figure that goes in is a named constant with its source, and the formula is printed with the result.

use super::rounds::{Comparison, Record};

/// US dollars for a million write request units of `DynamoDB` on demand, us-east-1.
/// <https://aws.amazon.com/dynamodb/pricing/on-demand/>, as of November 2024, when it was halved.
pub const DYNAMODB_WRITE_MILLION: f64 = 0.625;
/// US dollars for a million read request units, likewise.
pub const DYNAMODB_READ_MILLION: f64 = 0.125;
/// US dollars for a million request units of Cosmos DB, serverless, East US.
/// <https://azure.microsoft.com/pricing/details/cosmos-db/serverless/>, as of 2024.
pub const COSMOS_MILLION: f64 = 0.25;

/// Typical times of calls in one region, in milliseconds: single-digit, as AWS says; 3 for an item, three times as much for a
/// transaction as users report. <https://aws.amazon.com/dynamodb/features/>
pub const DYNAMODB_CALL_MS: f64 = 3.0;
/// Microsoft promises reads and writes of 1 KB below 10 ms for 99 of 100, and tells of 4 to 5 typically.
/// <https://learn.microsoft.com/azure/cosmos-db/consistency-levels#consistency-levels-and-latency>
pub const COSMOS_CALL_MS: f64 = 4.5;

const MILLION: f64 = 1e6;

/// A contender's bill and waiting.
#[derive(Clone, Debug, PartialEq)]
pub struct Extrapolated {
    /// Its title.
    pub title: String,
    /// Dollars for a million messages on `DynamoDB`.
    pub dynamodb: f64,
    /// Dollars for a million messages on Cosmos DB.
    pub cosmos: f64,
    /// Milliseconds from delivery to acknowledgement on `DynamoDB`, one message at a time.
    pub dynamodb_ms: f64,
    /// Likewise on Cosmos DB.
    pub cosmos_ms: f64,
}

/// The formulas, for people.
pub const FORMULAS: &str = "dollars for a million messages on DynamoDB = write units a message x 0.625 + read units a message x 0.125; \
                            on Cosmos DB = request units a message x 0.25; \
                            milliseconds = calls in sequence x 3 on DynamoDB, x 4.5 on Cosmos DB";

/// Extrapolates: units from one comparison (reported ones if there are), calls in sequence from another.
pub fn extrapolate(units: &Comparison, request_units: &Comparison, solo: &Comparison) -> Vec<Extrapolated> {
    let of = |record: &Record| {
        let median = |pick: &dyn Fn(&super::run::Outcome) -> f64| record.spread(pick).median;
        let writes = median(&|run| run.reported.write_units.unwrap_or(run.write_units));
        let reads = median(&|run| run.reported.read_units.unwrap_or(run.read_units));
        let cosmos = request_units
            .of(&record.name)
            .map_or(f64::NAN, |record| record.spread(|run| run.request_units).median);
        let calls = solo
            .of(&record.name)
            .map_or(f64::NAN, |record| record.spread(|run| run.calls_in_sequence.unwrap_or(f64::NAN)).median);
        Extrapolated {
            title: record.title.clone(),
            dynamodb: (writes * MILLION * DYNAMODB_WRITE_MILLION + reads * MILLION * DYNAMODB_READ_MILLION)
                / MILLION,
            cosmos: cosmos * COSMOS_MILLION,
            dynamodb_ms: calls * DYNAMODB_CALL_MS,
            cosmos_ms: calls * COSMOS_CALL_MS,
        }
    };
    units.contenders.iter().map(of).collect()
}
