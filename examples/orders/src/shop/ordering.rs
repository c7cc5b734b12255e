//! The endpoint `orders`: what becomes of an order after it was placed.

use tollgate::{Endpoint, HandlerError, Tx};

use crate::messages::{Cancel, Order, OrderState, Progress, Shipped, Step};

/// The item that is the order.
pub const ORDER: &str = "order";

pub fn endpoint() -> Endpoint {
    Endpoint::new("orders").preload(ORDER).on(cancel).on(shipped)
}

async fn cancel(tx: Tx, Cancel { reason }: Cancel) -> Result<(), HandlerError> {
    let cents = change(&tx, OrderState::Cancelled { reason }).await?;
    tx.publish(&Progress { step: Step::Refused, cents })?;
    Ok(())
}

async fn shipped(tx: Tx, Shipped { receipt, invoice }: Shipped) -> Result<(), HandlerError> {
    let cents = change(&tx, OrderState::Shipped { receipt, invoice }).await?;
    tx.publish(&Progress { step: Step::Shipped, cents })?;
    Ok(())
}

/// No look at the state before: each message comes once.
async fn change(tx: &Tx, state: OrderState) -> Result<u64, HandlerError> {
    let Some(Order { cart, .. }) = tx.get(ORDER).await? else {
        return Err(HandlerError::permanent("there is no such order"));
    };
    let cents = cart.cents();
    tx.put(ORDER, &Order { cart, state })?;
    Ok(cents)
}
