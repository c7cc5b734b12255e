//! What travels: the order as the client sends it, the messages between the shop's endpoints, and what the shop and the provider say
//! to each other. Only shapes; what is done about them is told in the rooms of those who get them.

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

impl Cart {
    /// What it costs.
    pub fn cents(&self) -> u64 {
        self.lines.iter().map(|line| line.pieces * line.cents_each).sum()
    }
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
