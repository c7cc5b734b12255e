//! The endpoint `shipping`: writes the invoice, and sends the parcel on its way.

use tollgate::{Endpoint, HandlerError, Tx};

use super::invoice;
use crate::messages::{Ship, Shipped};

/// What the names of invoices begin with.
const INVOICES: &str = "invoices/";

pub fn endpoint() -> Endpoint {
    Endpoint::new("shipping").on(ship)
}

/// The invoice exists if and only if this commits; an attempt that does not takes its own invoice with it.
async fn ship(tx: Tx, ship: Ship) -> Result<(), HandlerError> {
    let Ship { order, cart, receipt } = ship;
    let invoice = tx.put_blob(INVOICES, invoice::write(&order, &cart, &receipt)).await?;
    tx.put("parcel", &cart.lines)?;
    tx.send("orders", &order.partition(), &Shipped { receipt, invoice })?;
    Ok(())
}
