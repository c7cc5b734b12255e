//! Point-in-time recovery as far as `provision` and `verify` need it: whether it is on. dynoxide doesn't know these two
//! operations; here they remember what was asked for. Nothing is backed up.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use dynoxide::Database;
use serde_json::{Value, json};

use crate::fault::WireAnswer;

/// For which tables point-in-time recovery is on.
#[derive(Debug, Default)]
pub(crate) struct ContinuousBackups {
    enabled: Mutex<HashSet<String>>,
}

impl ContinuousBackups {
    /// `UpdateContinuousBackups`.
    pub(crate) fn update(&self, database: &Database, body: &[u8]) -> WireAnswer {
        let (table, request) = match read(database, body) {
            Ok(read) => read,
            Err(answer) => return answer,
        };
        let enable = &request["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"];
        let Some(enable) = enable.as_bool() else {
            return WireAnswer::error(
                400,
                "ValidationException",
                "PointInTimeRecoverySpecification.PointInTimeRecoveryEnabled is missing",
            );
        };
        let mut enabled = self.enabled.lock().unwrap_or_else(PoisonError::into_inner);
        if enable {
            enabled.insert(table);
        } else {
            enabled.remove(&table);
        }
        description(status(enable))
    }

    /// `DescribeContinuousBackups`.
    pub(crate) fn describe(&self, database: &Database, body: &[u8]) -> WireAnswer {
        let table = match read(database, body) {
            Ok((table, _)) => table,
            Err(answer) => return answer,
        };
        description(status(self.enabled.lock().unwrap_or_else(PoisonError::into_inner).contains(&table)))
    }
}

fn read(database: &Database, body: &[u8]) -> Result<(String, Value), WireAnswer> {
    let request: Value = serde_json::from_slice(body)
        .map_err(|error| WireAnswer::error(400, "SerializationException", &error.to_string()))?;
    let table = request["TableName"].as_str().unwrap_or_default().to_owned();
    match database.get_table_metadata(&table) {
        Ok(Some(_)) => Ok((table, request)),
        Ok(None) => {
            Err(WireAnswer::error(400, "TableNotFoundException", &format!("Table not found: {table}")))
        }
        Err(error) => Err(WireAnswer { status: error.status_code(), body: error.to_json() }),
    }
}

const fn status(enabled: bool) -> &'static str {
    if enabled { "ENABLED" } else { "DISABLED" }
}

fn description(status: &str) -> WireAnswer {
    let body = json!({ "ContinuousBackupsDescription": {
        "ContinuousBackupsStatus": "ENABLED",
        "PointInTimeRecoveryDescription": { "PointInTimeRecoveryStatus": status },
    } });
    WireAnswer { status: 200, body: body.to_string() }
}
