//! The source: reads the input into messages, chunk by chunk. Its position is an item of a partition of its own and
//! changes in the commit that sends a chunk's messages, so that a chunk is sent exactly once, whatever crashes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tollgate::{Edge, Endpoint, HandlerError, TollgateError};

use crate::aircraft;
use crate::flights::Input;

/// The endpoint that receives the source's wake-ups.
pub const ENDPOINT: &str = "source";

/// The source's partition.
pub const PARTITION: &str = "source:flights";

/// The item that holds the position.
pub const POSITION: &str = "position";

/// Flights sent by one commit.
const CHUNK: usize = 64;

/// How far the source has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// How many flights of the input have been sent.
    pub sent: usize,
    /// Which input: a directory belongs to one.
    pub fingerprint: String,
}

/// What one step of the source found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Progress {
    /// So many flights have been sent.
    Sent(usize),
    /// The partition belongs to another input.
    OtherInput,
}

/// The endpoint.
pub fn endpoint() -> Endpoint {
    Endpoint::new(ENDPOINT).preload(POSITION)
}

/// Sends the next chunk, and says how many flights have been sent by now.
///
/// # Errors
/// If the chunk could not be committed; it may be tried again.
pub async fn send_chunk(edge: &Edge, input: &Arc<Input>, from: usize) -> Result<Progress, TollgateError> {
    let step = format!("{}/{from}", input.fingerprint);
    let input = Arc::clone(input);
    let handler = move |tx: tollgate::Tx| {
        let input = Arc::clone(&input);
        async move {
            let mut position: Position = tx.get(POSITION).await?.unwrap_or_default();
            if position.sent == 0 {
                position.fingerprint.clone_from(&input.fingerprint);
            }
            if position.fingerprint != input.fingerprint {
                return Ok(Progress::OtherInput);
            }
            // The position decides, not the caller: what was sent before is not sent again.
            let end = input.flights.len().min(position.sent + CHUNK);
            for flight in &input.flights[position.sent..end] {
                tx.send(aircraft::ENDPOINT, &aircraft::partition(&flight.aircraft()), flight)?;
            }
            position.sent = end;
            tx.put(POSITION, &position)?;
            Ok::<_, HandlerError>(Progress::Sent(end))
        }
    };
    edge.advance(PARTITION, &step, handler).await
}
