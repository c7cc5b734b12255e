//! The endpoint `billing`: has a bill paid by the provider, in another process, over HTTP, exactly once; and goes on with what the
//! provider answers, which may be a refusal.

use http::StatusCode;
use tollgate::{Endpoint, HandlerError, Tx};
use tollgate_http::client::{Call, HttpCall};

use crate::messages::{Bill, Cancel, Payment, PaymentAnswered, Progress, Receipt, Refusal, Ship, Step};

/// The item that is the bill.
const BILL: &str = "bill";

/// `payments`: where the provider takes payments.
pub fn endpoint(payments: &str) -> Endpoint {
    let payments = payments.to_owned();
    Endpoint::new("billing")
        .preload(BILL)
        .on(move |tx: Tx, bill: Bill| ask(tx, bill, payments.clone()))
        .on(go_on)
}

/// The call is made if this commits, and then once, however often this runs and whoever dies. Its answer comes to [`go_on`].
async fn ask(tx: Tx, bill: Bill, payments: String) -> Result<(), HandlerError> {
    let Bill { order, cart } = &bill;
    let payment = Payment { account: cart.customer.clone(), order: order.clone(), cents: cart.cents() };
    tx.call(&payments, Call::json(&payment)?, &PaymentAnswered).await?;
    tx.put(BILL, &bill)?;
    Ok(())
}

async fn go_on(tx: Tx, _: PaymentAnswered) -> Result<(), HandlerError> {
    let Some(Bill { order, cart }) = tx.get(BILL).await? else {
        return Err(HandlerError::permanent("there is no such bill"));
    };
    let Some(response) = tx.response()? else {
        return Err(HandlerError::permanent("it follows up no call"));
    };
    let cents = cart.cents();
    match response.status() {
        StatusCode::OK => {
            let Receipt { receipt } = response.read_json()?;
            tx.publish(&Progress { step: Step::Paid, cents })?;
            tx.send("shipping", &order.parcel(), &Ship { order, cart, receipt })?;
        }
        StatusCode::PAYMENT_REQUIRED => {
            let Refusal { reason } = response.read_json()?;
            tx.send("orders", &order.partition(), &Cancel { reason })?;
        }
        // The provider will never take it: the customer is told, instead of waiting for ever.
        refused if refused.is_client_error() => {
            let reason = format!("the payment provider does not take this payment ({refused})");
            tx.send("orders", &order.partition(), &Cancel { reason })?;
        }
        other => {
            // The message keeps the answer, and is processed once it is put back.
            let what =
                format!("the provider answers a payment with {other}: ask them, then redrive this message");
            return Err(HandlerError::permanent(what));
        }
    }
    Ok(())
}
