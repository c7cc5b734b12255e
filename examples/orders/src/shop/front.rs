//! The web front: a route of axum that becomes exactly-once by a layer. The order, the message to billing and the answer to the
//! client are one commit; whoever repeats the request gets the same answer again.

use std::time::Duration;

use axum::extract::Json;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router, routing::post};
use http::StatusCode;
use http::request::Parts;
use tollgate::{Edge, TollgateError, Tx};
use tollgate_http::edge::{IDEMPOTENCY_KEY, IdempotencyKey};

use super::ORDER;
use crate::messages::{Bill, Cart, Order, OrderId, OrderState, Progress, Step, check_name};

/// How long a client may repeat an order and still be recognised.
const REMEMBERED_FOR: Duration = Duration::from_secs(24 * 3600);

/// `POST /orders` with an `Idempotency-Key`.
///
/// This shop does not know its customers: keys are shared, and a key that is hard to guess is all that protects an order. A shop
/// with accounts uses `caller` and lets a hash of the caller be part of the partition.
pub fn routes(edge: Edge) -> Router {
    let keys = IdempotencyKey::new(edge, REMEMBERED_FOR, |head, _| Ok(order_of(head)?.partition()));
    Router::new().route("/orders", post(place)).layer(keys.shared())
}

/// The key names the order, and so its partition: whatever comes under this key meets what came before.
fn order_of(head: &Parts) -> Result<OrderId, String> {
    let key = head.headers.get(IDEMPOTENCY_KEY).and_then(|key| key.to_str().ok());
    let key = key.ok_or("the Idempotency-Key is no text")?.trim().trim_matches('"');
    check_name("an order's key", key)?;
    Ok(OrderId::of_key(key))
}

async fn place(Extension(tx): Extension<Tx>, Json(cart): Json<Cart>) -> Result<Response, Refused> {
    cart.check().map_err(Refused::Cart)?;
    let order = OrderId::of_partition(tx.partition().as_str());
    let order = order.ok_or_else(|| Refused::Cart("the order has no name".to_owned()))?;
    let cents = cart.cents();
    tx.send("billing", &order.bill(), &Bill { order: order.clone(), cart: cart.clone() })?;
    tx.publish(&Progress { step: Step::Placed, cents })?;
    tx.put(ORDER, &Order { cart, state: OrderState::Placed })?;
    let answer = serde_json::json!({ "order": order.to_string(), "cents": cents });
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// Why no order is placed.
enum Refused {
    /// For good: this is remembered, and a repetition is answered the same.
    Cart(String),
    /// For now: nothing is remembered, and a repetition is a new attempt.
    Later(TollgateError),
}

impl From<TollgateError> for Refused {
    fn from(error: TollgateError) -> Self {
        Self::Later(error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self {
            Self::Cart(reason) => (StatusCode::UNPROCESSABLE_ENTITY, reason).into_response(),
            Self::Later(error) => {
                tracing::warn!(%error, "an order could not be placed");
                (StatusCode::SERVICE_UNAVAILABLE, "try again with the same key").into_response()
            }
        }
    }
}
