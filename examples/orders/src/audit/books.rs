//! The books: what was found on both sides against what the input asks for. Pure comparison, so that cooked books can be put
//! before it in tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use tollgate::proto::EffectName;

use crate::leftovers::Leftovers;
use crate::messages::{Order, OrderId, OrderState, Step, Sum, Totals};
use crate::provider::{self, Account};
use crate::shop::invoice::{self, Money};
use crate::show::{Input, Wanted};

/// What was found on the disks.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The shop's orders.
    pub orders: BTreeMap<OrderId, Order>,
    /// The sums that the shop has kept while it worked.
    pub shop: Totals,
    /// What the provider was paid for each order, and how often.
    pub payments: BTreeMap<OrderId, Sum>,
    /// The provider's accounts.
    pub accounts: BTreeMap<String, Account>,
    /// The sums that the provider has kept while it worked.
    pub provider: Totals,
    /// The shop's blobs.
    pub invoices: BTreeMap<EffectName, Bytes>,
    /// Answers that the shop keeps for clients who repeat themselves.
    pub remembered: u64,
    /// What else is there.
    pub left: Leftovers,
}

/// One line of the books.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    pub whose: &'static str,
    pub what: &'static str,
    pub orders: u64,
    pub cents: u64,
    /// As people write it.
    pub money: String,
}

/// The books.
#[derive(Clone, Debug, Serialize)]
pub struct Books {
    pub rows: Vec<Row>,
    pub left: Leftovers,
    pub left_over: u64,
    /// Not left over but kept on purpose, for a day.
    pub remembered: u64,
    /// Everything that is not as it has to be, in words.
    pub differences: Vec<String>,
}

/// Most differences that are printed.
const PRINTED_MAX: usize = 20;

impl Books {
    /// Compares everything with everything.
    pub fn compare(input: &Input, found: Found, complaints: &[String]) -> Self {
        let mut audit = Audit { found, differences: complaints.to_vec(), named: BTreeSet::new() };
        let wanted = input.totals();
        let (mut orders, mut paid, mut invoices) = (Totals::default(), Sum::default(), Sum::default());
        for order in &input.orders {
            audit.order(order, &mut orders, &mut invoices);
            audit.payment(order, &mut paid);
        }
        audit.nothing_else(&input.orders);
        audit.balances();
        audit.sums("the shop's orders", orders, wanted);
        audit.sums("the shop's books", audit.found.shop, wanted);
        let at_provider = Totals { placed: Sum::default(), shipped: Sum::default(), ..wanted };
        audit.sums("the provider's ledger", audit.found.provider, at_provider);
        let (kept, expected) = (audit.found.remembered, wanted.placed.orders);
        if kept != expected {
            audit
                .differences
                .push(format!("{kept} answers are kept for repetitions, and there are {expected} orders"));
        }
        let Audit { found, mut differences, .. } = audit;
        if found.left.count() > 0 {
            differences.push(format!("something is left over: {}", found.left));
        }
        let row = |whose, what, sum: Sum| {
            let Sum { orders, cents } = sum;
            Row { whose, what, orders, cents, money: Money(cents).to_string() }
        };
        let rows = vec![
            row("input", "placed", wanted.placed),
            row("input", "to be paid", wanted.paid),
            row("shop", "placed", orders.placed),
            row("shop", "paid", found.shop.paid),
            row("shop", "refused", orders.refused),
            row("shop", "shipped", orders.shipped),
            row("provider", "paid", paid),
            row("provider", "refused", found.provider.refused),
            row("invoices", "right", invoices),
        ];
        let (left, remembered) = (found.left, found.remembered);
        Self { rows, left, left_over: left.count(), remembered, differences }
    }

    /// Whether nothing is wrong.
    pub fn is_balanced(&self) -> bool {
        self.differences.is_empty()
    }
}

/// An audit that goes on.
struct Audit {
    found: Found,
    differences: Vec<String>,
    /// The blobs that orders name.
    named: BTreeSet<EffectName>,
}

impl Audit {
    /// What the shop has of an order, and its invoice.
    fn order(&mut self, wanted: &Wanted, orders: &mut Totals, invoices: &mut Sum) {
        let Wanted { id, cart } = wanted;
        let cents = cart.cents();
        let Some(order) = self.found.orders.get(id) else {
            self.differences.push(format!("order {id} is not there"));
            return;
        };
        if order.cart != *cart {
            self.differences.push(format!("order {id} is for something else: {:?}", order.cart));
        }
        orders.count(Step::Placed, cents);
        match &order.state {
            OrderState::Cancelled { .. } => {
                orders.count(Step::Refused, cents);
                if wanted.is_paid() {
                    self.differences.push(format!("order {id} was cancelled and has to be shipped"));
                }
            }
            OrderState::Shipped { receipt, invoice } => {
                orders.count(Step::Paid, cents);
                orders.count(Step::Shipped, cents);
                if !wanted.is_paid() {
                    self.differences.push(format!("order {id} was shipped and has to be cancelled"));
                }
                self.named.insert(invoice.name().clone());
                match self.found.invoices.get(invoice.name()) {
                    None => self.differences.push(format!("order {id}: its invoice is missing")),
                    Some(content) if blake3::hash(content).as_bytes() != invoice.checksum() => {
                        self.differences.push(format!("order {id}: its invoice has another checksum"));
                    }
                    Some(content) if *content != invoice::write(id, cart, receipt) => {
                        self.differences.push(format!("order {id}: its invoice is another one's"));
                    }
                    Some(_) => invoices.add(cents),
                }
            }
            OrderState::Placed => self.differences.push(format!("order {id} has not come to an end")),
        }
    }

    /// What the provider was paid for an order.
    fn payment(&mut self, wanted: &Wanted, paid: &mut Sum) {
        let (id, cents) = (&wanted.id, wanted.cart.cents());
        let payments = self.found.payments.get(id).copied().unwrap_or_default();
        paid.orders += payments.orders;
        paid.cents += payments.cents;
        let expected = if wanted.is_paid() { Sum { orders: 1, cents } } else { Sum::default() };
        if payments != expected {
            let Sum { orders: times, cents } = payments;
            let Sum { orders: once, cents: price } = expected;
            self.differences.push(format!(
                "order {id} was paid {times} times ({}) and has to be paid {once} times ({})",
                Money(cents),
                Money(price)
            ));
        }
    }

    /// There are no orders and payments that nobody has asked for, and no blobs that nothing names.
    fn nothing_else(&mut self, wanted: &[Wanted]) {
        let known: BTreeSet<&OrderId> = wanted.iter().map(|wanted| &wanted.id).collect();
        for order in self.found.orders.keys().chain(self.found.payments.keys()) {
            if !known.contains(order) {
                self.differences.push(format!("order {order}: nobody has asked for it"));
            }
        }
        let orphans = self.found.invoices.keys().filter(|name| !self.named.contains(*name)).count();
        self.found.left.orphan_blobs += orphans as u64;
    }

    /// Every account has what it had, less what was paid.
    fn balances(&mut self) {
        let (mut payments, mut spent) = (0, 0);
        for (name, account) in &self.found.accounts {
            payments += account.payments;
            spent += provider::opening_balance(name).saturating_sub(account.cents);
        }
        let paid = self.found.payments.values();
        let (times, cents) = paid.fold((0, 0), |(times, cents), one| (times + one.orders, cents + one.cents));
        if (payments, spent) != (times, cents) {
            self.differences.push(format!(
                "{payments} payments have left the accounts ({}), and {times} have arrived ({})",
                Money(spent),
                Money(cents)
            ));
        }
    }

    fn sums(&mut self, whose: &str, found: Totals, expected: Totals) {
        for (what, found, expected) in [
            ("placed", found.placed, expected.placed),
            ("paid", found.paid, expected.paid),
            ("refused", found.refused, expected.refused),
            ("shipped", found.shipped, expected.shipped),
        ] {
            if found != expected {
                let (money, right) = (Money(found.cents), Money(expected.cents));
                self.differences.push(format!(
                    "{whose} say {what}: {} ({money}), and it has to be {} ({right})",
                    found.orders, expected.orders
                ));
            }
        }
    }
}

impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "THE BOOKS               orders           money")?;
        let mut last = "";
        for Row { whose, what, orders, money, .. } in &self.rows {
            let whose = if *whose == last { "" } else { whose };
            writeln!(f, "{whose:<10}{what:<12}{orders:>8}{money:>16}")?;
            last = if whose.is_empty() { last } else { whose };
        }
        writeln!(f, "left over {:>20}  ({})", self.left_over, self.left)?;
        writeln!(f, "answers kept for repetitions, for a day, on purpose: {}\n", self.remembered)?;
        for difference in self.differences.iter().take(PRINTED_MAX) {
            writeln!(f, "WRONG: {difference}")?;
        }
        match self.differences.len() {
            0 => f.write_str(
                "BALANCED: every order was paid once, every invoice is there, nothing is left over",
            ),
            wrong => write!(f, "NOT BALANCED: {wrong} differences"),
        }
    }
}
