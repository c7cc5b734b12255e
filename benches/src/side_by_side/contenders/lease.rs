//! A lease on each message: a conditional put says "in progress", the work is done, an update says "done"; both expire. It is how
//! idempotency utilities for functions work. It saves double work; a stalled owner's lease expires, and then two work.
//!
//! Source: the idempotency utility of Powertools for AWS Lambda (<https://docs.powertools.aws.dev/lambda/python/latest/utilities/idempotency/>),
//! with its defaults: the record is kept for an hour. In the rival's favour: the record holds no response, and a lease that expires is not taken over.

use crate::side_by_side::plan::Account;
use crate::side_by_side::rival::{Carried, Desk, Rival, STATE, Settle};
use crate::side_by_side::table::{Condition, Key, TableError, Write};

/// A lease.
pub struct Lease;

/// Versions of a lease's record.
const IN_PROGRESS: u64 = 1;
const DONE: u64 = 2;
/// How long a record is kept: the utility's default.
const KEPT_SECONDS: u64 = 3_600;

impl Rival for Lease {
    const NAME: &'static str = "lease";
    const TITLE: &'static str = "lease: in progress, work, done";
    const SOURCE: &'static str = "idempotency utility of Powertools for AWS Lambda";

    async fn process(desk: &Desk, message: Carried) -> Result<Settle, TableError> {
        let lease = Key::new(format!("lease/{}", message.id), "lease");
        let expires = Desk::in_seconds(KEPT_SECONDS);
        let acquire =
            Write::put(lease.clone(), IN_PROGRESS, "{\"status\":\"INPROGRESS\"}", Condition::Absent);
        if !desk.write(vec![acquire.expiring_at(expires)]).await? {
            // The refusal brings the old record along (ReturnValuesOnConditionCheckFailure); here it takes a read, which only
            // copies pay for.
            let known = desk.get_one(lease).await?;
            return Ok(match known {
                Some(record) if record.version == DONE => Settle::Acknowledge,
                _ => Settle::PutBack,
            });
        }
        let partition = desk.partition(&message.hop);
        let outputs = loop {
            let mut state = desk.load::<Account>(&partition).await?;
            let outputs = desk.handle(&mut state.value, &message.hop);
            if desk.write(vec![state.write(Key::new(&*partition, STATE))]).await? {
                break outputs;
            }
        };
        desk.send(outputs.into_iter().map(Carried::new));
        let done = Write::put(lease, DONE, "{\"status\":\"COMPLETED\"}", Condition::Version(IN_PROGRESS));
        desk.write(vec![done.expiring_at(expires)]).await?;
        Ok(Settle::Acknowledge)
    }
}
