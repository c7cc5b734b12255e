//! Nothing: get, put, send, acknowledge. The put is conditional on the version, and a writer that lost begins again with the get,
//! after a pause drawn evenly; without that, concurrent messages would overwrite each other's changes. Copies are processed
//! again: it promises at least once, and the audit shows by how much.
//!
//! Source: what a consumer is without any of the other techniques, e.g. the queue handler of any tutorial.

use std::time::Duration;

use crate::side_by_side::contender::Promise;
use crate::side_by_side::plan::Account;
use crate::side_by_side::rival::{Carried, Desk, Rival, STATE, Settle};
use crate::side_by_side::table::{Key, TableError};

/// No deduplication.
pub struct Naive;

/// The first pause after a lost race is shorter than this, each further one than twice as much.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// No pause is longer.
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// Doublings after which pauses are no longer longer.
const DOUBLINGS_MAX: u32 = 8;

impl Rival for Naive {
    const NAME: &'static str = "naive";
    const TITLE: &'static str = "at least once: get, put, send";
    const SOURCE: &'static str = "a consumer without deduplication; optimistic retries with full jitter";
    const PROMISE: Promise = Promise::AtLeastOnce;

    async fn process(desk: &Desk, message: Carried) -> Result<Settle, TableError> {
        let partition = desk.partition(&message.hop);
        let mut races = 0;
        loop {
            let mut state = desk.load::<Account>(&partition).await?;
            let outputs = desk.handle(&mut state.value, &message.hop);
            if desk.write(vec![state.write(Key::new(&*partition, STATE))]).await? {
                desk.send(outputs.into_iter().map(Carried::new));
                return Ok(Settle::Acknowledge);
            }
            let longest = FIRST_PAUSE.saturating_mul(1 << races.min(DOUBLINGS_MAX)).min(PAUSE_MAX);
            tokio::time::sleep(longest.mul_f64(fastrand::f64())).await;
            races += 1;
        }
    }
}
