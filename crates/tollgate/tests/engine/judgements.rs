//! What a handler refuses is believed only if it has seen the partition as it is.

use tollgate::{Endpoint, HandlerError, Tx};

use crate::gate;
use crate::harness::{Add, broker, memory_store, until};

/// Debit and credit are written together, always equal.
async fn book(tx: Tx, message: Add) -> Result<(), HandlerError> {
    let debit: u64 = tx.get("debit").await?.unwrap_or_default();
    if message.amount == 0 {
        // The auditor is slow; another process books meanwhile.
        AUDITOR_HAS_SEEN_DEBIT.notify_one();
        MEANWHILE_BOOKED.notified().await;
    }
    let credit: u64 = tx.get("credit").await?.unwrap_or_default();
    if debit != credit {
        return Err(HandlerError::permanent(format!("the books do not balance: {debit} and {credit}")));
    }
    tx.put("debit", &(debit + message.amount))?;
    tx.put("credit", &(credit + message.amount))?;
    Ok(())
}

static AUDITOR_HAS_SEEN_DEBIT: tokio::sync::Notify = tokio::sync::Notify::const_new();
static MEANWHILE_BOOKED: tokio::sync::Notify = tokio::sync::Notify::const_new();

#[tokio::test(start_paused = true)]
async fn a_handler_never_sees_items_of_two_versions_of_its_partition() {
    let (store, queues) = (memory_store(), broker());
    let one = gate(&store, &queues).endpoint(Endpoint::new("books").on(book)).open().await.unwrap();
    let other = gate(&store, &broker()).open().await.unwrap();
    let audit = |tx: Tx| async move {
        tx.send("books", "P", &Add { amount: 0, hops: 0 })?;
        Ok(())
    };
    one.edge("edge").unwrap().advance("clients", "audit", audit).await.unwrap();
    AUDITOR_HAS_SEEN_DEBIT.notified().await;
    let booking = |tx: Tx| async move {
        tx.put("debit", &2)?;
        tx.put("credit", &2)?;
        Ok(())
    };
    other.edge("edge").unwrap().advance("P", "booking", booking).await.unwrap();
    MEANWHILE_BOOKED.notify_one();
    AUDITOR_HAS_SEEN_DEBIT.notified().await;
    MEANWHILE_BOOKED.notify_one();
    let statistics = until(&one, |statistics| statistics.committed + statistics.dead_letters == 2).await;
    assert_eq!(statistics.dead_letters, 0, "the books always balance");
    one.close().await;
    other.close().await;
}
