//! Shapes that travel: the order as the client sends it, the messages between the shop's endpoints, and the words between the shop
//! and the provider.

use std::fmt;

use serde::{Deserialize, Serialize};
use tollgate::{BlobReference, Message};

/// Names an order: the key under which its client asked for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OrderId(String);

impl OrderId {
    /// The order that is placed under an `Idempotency-Key`.
    pub fn of_key(key: &str) -> Self {
        Self(key.to_owned())
    }

    /// Where the order lies.
    pub fn partition(&self) -> String {
        format!("{ORDERS}/{self}")
    }

    /// The order that lies in a partition.
    pub fn of_partition(partition: &str) -> Option<Self> {
        partition.strip_prefix(ORDERS)?.strip_prefix('/').map(Self::of_key)
    }

    /// Where its bill lies.
    pub fn bill(&self) -> String {
        format!("bill/{self}")
    }

    /// Where its parcel lies.
    pub fn parcel(&self) -> String {
        format!("parcel/{self}")
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the partitions of orders begin with.
const ORDERS: &str = "order";

/// What a client orders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cart {
    pub customer: String,
    pub lines: Vec<Line>,
}

/// So many pieces of one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub what: String,
    pub pieces: u64,
    pub cents_each: u64,
}

/// Longest name of a customer, an order or a thing.
pub const NAME_CHARS_MAX: usize = 64;

/// The largest payment that the provider takes, and so the largest order.
pub const CENTS_MAX: u64 = 100_000_000_000;

/// Most lines of a cart.
const LINES_MAX: usize = 100;

impl Cart {
    /// Its price. No sum is larger than a `u64`; a cart that costs so much is refused by [`Cart::check`].
    pub fn cents(&self) -> u64 {
        let lines = self.lines.iter().map(|line| line.pieces.saturating_mul(line.cents_each));
        lines.fold(0, u64::saturating_add)
    }

    /// Checks what came from outside, by the same limits as the provider: an order is not taken and then never paid.
    ///
    /// # Errors
    /// What is wrong, for the client.
    pub fn check(&self) -> Result<(), String> {
        check_name("the customer", &self.customer)?;
        if !(1..=LINES_MAX).contains(&self.lines.len()) {
            return Err(format!("a cart has 1 to {LINES_MAX} lines"));
        }
        for line in &self.lines {
            check_name("what is ordered", &line.what)?;
            if line.pieces == 0 {
                return Err("a line has at least one piece".to_owned());
            }
        }
        if self.cents() > CENTS_MAX {
            return Err(format!("an order costs at most {CENTS_MAX} cents"));
        }
        Ok(())
    }
}

/// Checks the length of a name.
///
/// # Errors
/// What is wrong, for the client.
pub fn check_name(what: &str, name: &str) -> Result<(), String> {
    if (1..=NAME_CHARS_MAX).contains(&name.chars().count()) {
        return Ok(());
    }
    Err(format!("{what} has 1 to {NAME_CHARS_MAX} characters"))
}

/// An order, as the shop keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub cart: Cart,
    pub state: OrderState,
}

/// How far an order is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderState {
    Placed,
    /// The provider refused the payment.
    Cancelled {
        reason: String,
    },
    /// It was paid, and is on its way with this invoice.
    Shipped {
        receipt: String,
        invoice: BlobReference,
    },
}

macro_rules! messages {
    ($($name:ident = $type:literal,)*) => {
        $(impl Message for $name {
            const TYPE: &'static str = $type;
        })*
    };
}

// Never use one of these names for something else: messages lie in stores and brokers while programs change.
messages! {
    Bill = "shop.bill",
    PaymentAnswered = "shop.payment-answered",
    Cancel = "shop.cancel",
    Ship = "shop.ship",
    Shipped = "shop.shipped",
    Progress = "shop.progress",
    Taken = "provider.taken",
}

/// To billing: see to it that this is paid.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bill {
    pub order: OrderId,
    pub cart: Cart,
}

/// To billing, from itself: the provider has answered. What, comes with the message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PaymentAnswered;

/// To an order: it was not paid.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cancel {
    pub reason: String,
}

/// To shipping: this was paid.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ship {
    pub order: OrderId,
    pub cart: Cart,
    pub receipt: String,
}

/// To an order: it is on its way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shipped {
    pub receipt: String,
    pub invoice: BlobReference,
}

/// An event: an order of so many cents got so far. Whoever subscribes gets it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Progress {
    pub step: Step,
    pub cents: u64,
}

/// The steps that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    Placed,
    Paid,
    Refused,
    Shipped,
}

/// To the provider's ledger: what came of a payment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Taken {
    pub step: Step,
    pub cents: u64,
}

/// So many orders of so many cents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    pub orders: u64,
    pub cents: u64,
}

impl Sum {
    /// One more.
    pub const fn add(&mut self, cents: u64) {
        self.orders += 1;
        self.cents += cents;
    }
}

/// What somebody has counted: the shop, or the provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    pub placed: Sum,
    pub paid: Sum,
    pub refused: Sum,
    pub shipped: Sum,
}

impl Totals {
    /// Counts a step of an order.
    pub const fn count(&mut self, step: Step, cents: u64) {
        match step {
            Step::Placed => self.placed.add(cents),
            Step::Paid => self.paid.add(cents),
            Step::Refused => self.refused.add(cents),
            Step::Shipped => self.shipped.add(cents),
        }
    }
}

/// What the shop asks of the provider.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Payment {
    pub account: String,
    pub order: OrderId,
    #[serde(deserialize_with = "whole_number")]
    pub cents: u64,
}

/// Whoever writes JSON may write a whole number as `5.0`.
fn whole_number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let number = serde_json::Number::deserialize(deserializer)?;
    let from_float = || number.as_f64().filter(|number| number.fract() == 0.0)?.to_string().parse().ok();
    let whole = number.as_u64().or_else(from_float);
    whole.ok_or_else(|| serde::de::Error::custom(format!("{number} is no whole number, or below zero")))
}

/// What the provider answers to a payment that it takes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Receipt {
    pub receipt: String,
}

/// What it answers to one that it does not.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Refusal {
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cart_that_the_provider_would_refuse_is_not_taken() {
        let line = |pieces, cents_each| Line { what: "gold bar".to_owned(), pieces, cents_each };
        let cart = |customer: &str, lines| Cart { customer: customer.to_owned(), lines };
        assert_eq!(cart("ada", vec![line(2, CENTS_MAX / 2)]).check(), Ok(()));
        for bad in [
            cart("ada", vec![]),
            cart("", vec![line(1, 1)]),
            cart(&"a".repeat(65), vec![line(1, 1)]),
            cart("ada", vec![line(0, 1)]),
            cart("ada", vec![line(1 << 32, 1 << 32)]),
            cart("ada", vec![line(u64::MAX, 1), line(1, 1)]),
            cart("ada", vec![line(1, CENTS_MAX), line(1, 1)]),
            cart("ada", vec![line(1, 1); 101]),
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
