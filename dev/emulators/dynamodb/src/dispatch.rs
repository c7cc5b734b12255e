//! From an operation's name and a JSON body to dynoxide and back: what its own server does, without the server. Nothing is
//! decided here; faults are injected before and after.

use dynoxide::{Database, DynoxideError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::continuous_backups::ContinuousBackups;
use crate::fault::WireAnswer;
use crate::operation::Operation;

/// Executes one request against the database.
pub(crate) fn dispatch(
    database: &Database,
    backups: &ContinuousBackups,
    operation: Operation,
    body: &[u8],
) -> WireAnswer {
    let answer = match operation {
        Operation::GetItem => run(body, |request| database.get_item(request)),
        Operation::BatchGetItem => run(body, |request| database.batch_get_item(request)),
        Operation::TransactGetItems => run(body, |request| database.transact_get_items(request)),
        Operation::Query => run(body, |request| database.query(request)),
        Operation::Scan => run(body, |request| database.scan(request)),
        Operation::PutItem => run(body, |request| database.put_item(request)),
        Operation::UpdateItem => run(body, |request| database.update_item(request)),
        Operation::DeleteItem => run(body, |request| database.delete_item(request)),
        Operation::BatchWriteItem => run(body, |request| database.batch_write_item(request)),
        Operation::TransactWriteItems => run(body, |request| database.transact_write_items(request)),
        Operation::CreateTable => run(body, |request| database.create_table(request)),
        Operation::DescribeTable => run(body, |request| database.describe_table(request)),
        Operation::UpdateTable => run(body, |request| database.update_table(request)),
        Operation::DeleteTable => run(body, |request| database.delete_table(request)),
        Operation::ListTables => run(body, |request| database.list_tables(request)),
        Operation::UpdateTimeToLive => run(body, |request| database.update_time_to_live(request)),
        Operation::DescribeTimeToLive => run(body, |request| database.describe_time_to_live(request)),
        Operation::UpdateContinuousBackups => return backups.update(database, body),
        Operation::DescribeContinuousBackups => return backups.describe(database, body),
    };
    match answer {
        Ok(body) => WireAnswer { status: 200, body },
        Err(error) => WireAnswer { status: error.status_code(), body: error.to_json() },
    }
}

fn run<Q: DeserializeOwned, A: Serialize>(
    body: &[u8],
    execute: impl FnOnce(Q) -> dynoxide::Result<A>,
) -> dynoxide::Result<String> {
    let request = serde_json::from_slice(body)
        .map_err(|error| DynoxideError::SerializationException(error.to_string()))?;
    let answer = execute(request)?;
    serde_json::to_string(&answer).map_err(|error| DynoxideError::InternalServerError(error.to_string()))
}
