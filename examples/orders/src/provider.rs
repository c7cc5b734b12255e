//! The payment provider's process: accounts, a ledger, and an exactly-once server in front of them. It knows the shop by a key and
//! nothing of its orders but their names.

use http::StatusCode;
use http::header::AUTHORIZATION;
use serde::{Deserialize, Serialize};
use tollgate::{Edge, Endpoint, HandlerError, Tx};
use tollgate_http::server::{Caller, ExactlyOnce, Request};
use tollgate_http::{Problem, ProblemKind, Response};

use crate::Failure;
use crate::house::{House, Place};
use crate::lifeline::Lifeline;
use crate::messages::{
    CENTS_MAX, NAME_CHARS_MAX, OrderId, Payment, Receipt, Refusal, Step, Sum, Taken, Totals, check_name,
};

/// The provider's endpoints.
pub const ENDPOINTS: [&str; 2] = ["payments", "ledger"];

/// The media type of payments.
const JSON: &str = "application/json";

/// Where payments are made.
pub const PAYMENTS: &str = "/payments";

/// The partition and the item in which the ledger's sums lie.
pub const LEDGER: &str = "ledger";
pub const TOTALS: &str = "totals";

/// What the partitions of accounts begin with, the item that is the account, and what those begin with that are its payments.
pub const ACCOUNTS: &str = "account/";
pub const ACCOUNT: &str = "account";
pub const PAID: &str = "payment/";

/// Where both processes find the key by which the provider knows the shop. Never an argument: those are seen by everybody.
pub const KEY: &str = "ORDERS_PROVIDER_KEY";

/// The key by which the provider knows the shop.
pub fn key() -> Result<String, Failure> {
    std::env::var(KEY).map_err(|error| format!("the environment has no {KEY}: {error}").into())
}

/// Runs the provider until it is told to close.
pub async fn run(place: &Place) -> Result<(), Failure> {
    let lifeline = Lifeline::tie();
    let house = House::open(&place.data, "provider", &ENDPOINTS, place.seed).await?;
    let gate = house
        .gate()
        .endpoint(Endpoint::new("payments"))
        .endpoint(Endpoint::new("ledger").preload(TOTALS).on(enter))
        .open()
        .await?;
    let payments = payments(gate.edge("payments")?, key()?).router()?;
    let ledger = gate.edge("ledger")?;
    lifeline.serve(house, gate, payments, place.listen, ledger, LEDGER).await
}

/// The server: a payment is executed on the partition of its account.
fn payments(edge: Edge, key: String) -> ExactlyOnce {
    let account = |request: Request| async move {
        let payment: Payment = request.read_json().await?;
        check(&request.content_type, &payment).map_err(HandlerError::permanent)?;
        Ok(format!("{ACCOUNTS}{}", payment.account))
    };
    let server = ExactlyOnce::new(edge, PAYMENTS, account, pay).describe_body(JSON, schema());
    server.authenticate(move |head| {
        let given = head.headers.get(AUTHORIZATION).map_or(&b""[..], |key| key.as_bytes());
        // Hashes are compared, so that the time it takes says nothing about the key.
        let is_known = blake3::hash(given) == blake3::hash(key.as_bytes());
        std::future::ready(if is_known {
            Ok(Caller::new("shop"))
        } else {
            Err(Problem::new(ProblemKind::Unauthenticated, "send the key that was agreed upon"))
        })
    })
}

/// Whether a payment is what [`schema`] says: before it is stored, so that it is refused and not only fails.
fn check(content_type: &str, payment: &Payment) -> Result<(), String> {
    if content_type.split(';').next().map(str::trim) != Some(JSON) {
        return Err(format!("a payment is {JSON}"));
    }
    let order = payment.order.to_string();
    check_name("account", &payment.account)?;
    check_name("order", &order)?;
    if payment.cents > CENTS_MAX {
        return Err(format!("a payment is at most {CENTS_MAX} cents"));
    }
    Ok(())
}

/// What a payment looks like, for the OpenAPI description.
fn schema() -> serde_json::Value {
    let name = serde_json::json!({ "type": "string", "minLength": 1, "maxLength": NAME_CHARS_MAX });
    serde_json::json!({
        "type": "object",
        "required": ["account", "order", "cents"],
        "properties": {
            "account": name,
            "order": name,
            "cents": { "type": "integer", "minimum": 0, "maximum": CENTS_MAX },
        },
    })
}

/// What somebody has at the provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub cents: u64,
    pub payments: u64,
}

/// What is in an account before the first payment: next to nothing for some.
pub fn opening_balance(account: &str) -> u64 {
    if account.starts_with('b') { 500 } else { 1_000_000_000 }
}

/// Takes a payment, or refuses it. Either is the answer for good.
async fn pay(tx: Tx, request: Request) -> Result<Response, HandlerError> {
    let Payment { account: name, order, cents } = request.read_json().await?;
    let opened = || Account { cents: opening_balance(&name), payments: 0 };
    let mut account: Account = tx.get(ACCOUNT).await?.unwrap_or_else(opened);
    if account.cents < cents {
        tx.send("ledger", LEDGER, &Taken { step: Step::Refused, cents })?;
        let refusal = serde_json::to_vec(&Refusal { reason: "insufficient funds".to_owned() })?;
        return Ok(Response::new(StatusCode::PAYMENT_REQUIRED, "application/json", refusal));
    }
    account.cents -= cents;
    account.payments += 1;
    tx.put(ACCOUNT, &account)?;
    enter_for(&tx, &order, cents).await?;
    tx.send("ledger", LEDGER, &Taken { step: Step::Paid, cents })?;
    Ok(Response::json(&Receipt { receipt: format!("{name}-{}", account.payments) })?)
}

/// Counts what was paid for an order. Nobody looks at it here: an order that is paid twice is to be seen by the audit.
async fn enter_for(tx: &Tx, order: &OrderId, cents: u64) -> Result<(), HandlerError> {
    let item = format!("{PAID}{order}");
    let mut paid: Sum = tx.get(&item).await?.unwrap_or_default();
    paid.add(cents);
    tx.put(&item, &paid)?;
    Ok(())
}

async fn enter(tx: Tx, Taken { step, cents }: Taken) -> Result<(), HandlerError> {
    let mut totals: Totals = tx.get(TOTALS).await?.unwrap_or_default();
    totals.count(step, cents);
    tx.put(TOTALS, &totals)?;
    Ok(())
}
