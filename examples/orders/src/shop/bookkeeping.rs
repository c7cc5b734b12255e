//! The endpoint `books`: counts how far orders got and what was paid. It subscribes to an event that the others publish, and each
//! of them comes once; so a sum is all that is kept.

use tollgate::{Endpoint, HandlerError, Tx};

use crate::messages::{Progress, Totals};

/// Where the books lie: in one partition, because sums are wanted. Bursts of messages for it are folded into one commit.
pub const PARTITION: &str = "books";

/// The item that holds the sums.
pub const TOTALS: &str = "totals";

pub fn endpoint() -> Endpoint {
    Endpoint::new("books").preload(TOTALS).on(count)
}

async fn count(tx: Tx, Progress { step, cents }: Progress) -> Result<(), HandlerError> {
    let mut totals: Totals = tx.get(TOTALS).await?.unwrap_or_default();
    totals.count(step, cents);
    tx.put(TOTALS, &totals)?;
    Ok(())
}
