//! The orders, drawn from the seed, and what has to come of them: computed from the input alone, by nothing that the shop or the
//! provider does.

use std::path::Path;

use crate::messages::{Cart, Line, OrderId, Step, Totals};
use crate::{Failure, provider};

/// Who orders.
const CUSTOMERS: [&str; 12] = [
    "ada",
    "alan",
    "barbara",
    "blaise",
    "edsger",
    "frances",
    "grace",
    "hedy",
    "john",
    "katherine",
    "margaret",
    "tim",
];

/// What there is, and what it costs in cents. Nothing is as cheap as what is in an empty account.
const GOODS: [(&str, u64); 8] = [
    ("analytical engine, small", 49_900),
    ("box of punched cards", 1_250),
    ("core memory, one kilobyte", 8_999),
    ("difference engine, used", 129_500),
    ("drum plotter", 31_415),
    ("paper tape, black", 940),
    ("slide rule", 2_718),
    ("teletype ribbon", 1_075),
];

/// Most kinds of things, and most pieces of each, in one cart.
const LINES_MAX: usize = 4;
const PIECES_MAX: u64 = 5;

/// Where a data directory says whose it is.
const CLAIM: &str = "input.txt";

/// An order that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name, which its client draws.
    pub id: OrderId,
    pub cart: Cart,
}

impl Wanted {
    /// Whether it will be paid. An account either pays everything or nothing, so it does not matter which order comes first.
    pub fn is_paid(&self) -> bool {
        provider::opening_balance(&self.cart.customer) >= self.cart.cents()
    }
}

/// All orders.
pub struct Input {
    pub seed: u64,
    pub orders: Vec<Wanted>,
}

impl Input {
    /// Draws so many orders.
    pub fn draw(seed: u64, count: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let orders = (0..count).map(|_| wanted(&mut random)).collect();
        Self { seed, orders }
    }

    /// What has to come of them.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for order in &self.orders {
            let cents = order.cart.cents();
            totals.count(Step::Placed, cents);
            if order.is_paid() {
                totals.count(Step::Paid, cents);
                totals.count(Step::Shipped, cents);
            } else {
                totals.count(Step::Refused, cents);
            }
        }
        totals
    }

    /// How many steps all orders make altogether.
    pub fn steps(&self) -> u64 {
        let Totals { placed, paid, refused, shipped } = self.totals();
        placed.orders + paid.orders + refused.orders + shipped.orders
    }

    /// A directory holds the orders of one input: others would be found as orders that nobody has placed.
    pub fn claim(&self, data: &Path) -> Result<(), Failure> {
        let ours = format!("seed {}, {} orders\n", self.seed, self.orders.len());
        let path = data.join(CLAIM);
        std::fs::create_dir_all(data)?;
        match std::fs::read_to_string(&path) {
            Ok(known) if known == ours => Ok(()),
            Ok(known) => {
                let (path, known) = (data.display(), known.trim());
                Err(format!("{path} holds a run with {known}: ask for the same, or for another directory")
                    .into())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(std::fs::write(&path, ours)?),
            Err(error) => Err(error.into()),
        }
    }
}

fn wanted(random: &mut fastrand::Rng) -> Wanted {
    let id = OrderId::of_key(&format!("{:032x}", random.u128(..)));
    let customer = CUSTOMERS[random.usize(..CUSTOMERS.len())].to_owned();
    let lines = (0..random.usize(1..=LINES_MAX)).map(|_| {
        let (what, cents_each) = GOODS[random.usize(..GOODS.len())];
        Line { what: what.to_owned(), pieces: random.u64(1..=PIECES_MAX), cents_each }
    });
    Wanted { id, cart: Cart { customer, lines: lines.collect() } }
}
