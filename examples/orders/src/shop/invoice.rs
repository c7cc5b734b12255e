//! An invoice, as text. The same order gives the same bytes, so that the audit can tell a right one from a wrong one.

use std::fmt;

use crate::messages::{Cart, Line, OrderId};

/// Writes the invoice of an order that was paid.
pub fn write(order: &OrderId, cart: &Cart, receipt: &str) -> String {
    Invoice { order, cart, receipt }.to_string()
}

struct Invoice<'a> {
    order: &'a OrderId,
    cart: &'a Cart,
    receipt: &'a str,
}

impl fmt::Display for Invoice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { order, cart, receipt } = self;
        writeln!(f, "INVOICE\n\norder    {order}\ncustomer {}\nreceipt  {receipt}\n", cart.customer)?;
        for Line { what, pieces, cents_each } in &cart.lines {
            writeln!(f, "{pieces:>4} x {what:<32}{:>16}", Money(pieces * cents_each))?;
        }
        writeln!(f, "\n       {:<32}{:>16}", "paid", Money(cart.cents()))
    }
}

/// Cents, as people write them.
pub struct Money(pub u64);

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, cents) = (self.0 / 100, self.0 % 100);
        let digits = whole.to_string();
        let mut text = String::new();
        for (place, digit) in digits.chars().enumerate() {
            if place > 0 && (digits.len() - place).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        f.pad(&format!("{text}.{cents:02}"))
    }
}
