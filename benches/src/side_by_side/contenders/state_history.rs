//! Immutable data: each message appends the state that it saw, under its id, in the transaction that writes the new state. A copy finds
//! the state that its original saw, runs the handler on it again and sends the same. One read of two records, one transaction.
//! It needs a handler that is deterministic, now and after every deployment, and keeps a state for each message for ever.
//!
//! Source: "state-based" consistent messaging, exactly-once.github.io.

use crate::side_by_side::plan::Account;
use crate::side_by_side::rival::{Carried, Desk, Rival, STATE, Settle, decode, encode, loaded};
use crate::side_by_side::table::{Condition, Key, TableError, Write};

/// A history of states.
pub struct StateHistory;

impl Rival for StateHistory {
    const NAME: &'static str = "state-history";
    const TITLE: &'static str = "history of states, outputs derived again";
    const SOURCE: &'static str = "exactly-once.github.io, state-based consistent messaging";

    async fn process(desk: &Desk, message: Carried) -> Result<Settle, TableError> {
        let partition = desk.partition(&message.hop);
        let state_key = Key::new(&*partition, STATE);
        let seen_key = Key::new(&*partition, format!("history#{}", message.id));
        let mut records = desk.get(vec![state_key.clone(), seen_key.clone()]).await?;
        let seen = records.pop().flatten();
        let outputs = if let Some(seen) = seen {
            desk.handle(&mut decode::<Account>(&seen.value)?, &message.hop)
        } else {
            let mut state = loaded::<Account>(records.pop().flatten())?;
            let seen = encode(&state.value);
            let outputs = desk.handle(&mut state.value, &message.hop);
            let history = Write::put(seen_key, 1, seen, Condition::Absent);
            if !desk.write(vec![state.write(state_key), history]).await? {
                return Ok(Settle::PutBack);
            }
            outputs
        };
        desk.send(outputs.into_iter().map(Carried::new));
        Ok(Settle::Acknowledge)
    }
}
