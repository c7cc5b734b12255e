//! The example `orders`, run as a user runs it: killed, run again, spoilt. What is checked is its exit code and the books that it
//! prints, against sums that are made here. `cargo test -p tollgate-http` builds the example; a test that is asked for by its
//! target alone needs `cargo build -p orders` before.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod cooked;

/// The example's own rooms, for the books that are cooked here and for the orders that a seed draws.
#[path = "../../src"]
#[allow(dead_code, reason = "the example's `main` is not here")]
mod orders {
    pub mod audit;
    pub mod house;
    pub mod leftovers;
    pub mod lifeline;
    pub mod messages;
    pub mod provider;
    pub mod shop;
    pub mod show;
}

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use orders::{audit, house, leftovers, lifeline, messages, provider, shop, show};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn example(arguments: &str, data: Option<&Path>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orders"));
    command.args(arguments.split_whitespace());
    if let Some(data) = data {
        command.arg("--data").arg(data);
    }
    command
}

/// What a run has come to.
struct Run {
    code: i32,
    output: String,
}

impl Run {
    fn new(arguments: &str, data: Option<&Path>) -> Self {
        let Output { status, stdout, stderr } = example(arguments, data).output().unwrap();
        let output = String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap();
        println!("orders {arguments}\n{output}");
        Self { code: status.code().unwrap(), output }
    }

    /// The printed books: orders and cents, by whose and what.
    fn books(&self) -> BTreeMap<(String, String), (u64, u64)> {
        let lines = self.output.lines().skip_while(|line| !line.starts_with("THE BOOKS")).skip(1);
        let mut books = BTreeMap::new();
        let mut whose = String::new();
        for line in lines.take_while(|line| !line.starts_with("left over")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [what @ .., orders, money] = &words[..] else { panic!("{line}") };
            let what = if line.starts_with(' ') {
                what.join(" ")
            } else {
                what[0].clone_into(&mut whose);
                what[1..].join(" ")
            };
            let cents = money.replace([',', '.'], "").parse().unwrap();
            books.insert((whose.clone(), what), (orders.parse().unwrap(), cents));
        }
        books
    }

    /// Checks that everything is as it has to be, by sums that are made here.
    fn balances(&self, seed: u64, orders: usize) {
        assert_eq!(self.code, 0);
        let (mut placed, mut paid, mut refused) = ((0, 0), (0, 0), (0, 0));
        for wanted in show::Input::draw(seed, orders).orders {
            let cents: u64 = wanted.cart.lines.iter().map(|line| line.pieces * line.cents_each).sum();
            // Who has nothing in his account is known by the first letter of his name.
            let fate = if wanted.cart.customer.starts_with('b') { &mut refused } else { &mut paid };
            for sum in [&mut placed, fate] {
                *sum = (sum.0 + 1, sum.1 + cents);
            }
        }
        assert!(paid.0 > 0 && refused.0 > 0, "there is nothing to see");
        let expected = [
            ("input", "placed", placed),
            ("input", "to be paid", paid),
            ("shop", "placed", placed),
            ("shop", "paid", paid),
            ("shop", "refused", refused),
            ("shop", "shipped", paid),
            ("provider", "paid", paid),
            ("provider", "refused", refused),
            ("invoices", "right", paid),
        ];
        let expected = expected.map(|(whose, what, sum)| ((whose.to_owned(), what.to_owned()), sum));
        assert_eq!(self.books(), BTreeMap::from(expected));
        let line = |begin: &str| self.output.lines().find(|line| line.starts_with(begin)).unwrap_or_default();
        assert_eq!(line("left over").split_whitespace().nth(2), Some("0"));
        assert!(line("answers kept").ends_with(&format!(" {orders}")));
        assert!(!line("BALANCED").is_empty() && line("WRONG").is_empty());
    }
}

#[test]
fn the_books_balance_although_both_processes_are_killed() {
    let run = Run::new("--orders 60 --kills 6 --seed 4711 --rate 100", None);
    run.balances(4711, 60);
    assert!(run.output.contains("the shop was killed 3 times, the provider 3 times"));
    assert_eq!(run.output.matches("killed: the provider").count(), 3);
}

#[test]
fn a_show_that_was_killed_itself_goes_on_where_it_stopped_and_then_changes_nothing() {
    let data = tempfile::tempdir().unwrap();
    let arguments = "--orders 60 --kills 2 --seed 42 --rate 100";
    let mut show = example(arguments, Some(data.path())).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(show.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("killed: the shop")), "nobody was killed");
    show.kill().unwrap();
    show.wait().unwrap();
    // Its processes notice that they were left alone, and end; the next ones wait for their directories.
    Run::new(arguments, Some(data.path())).balances(42, 60);
    let again = Run::new(arguments, Some(data.path()));
    again.balances(42, 60);
    // Clients who ask for nothing new are answered as before, every one of them.
    assert!(again.output.contains("the shop was killed 1 times, the provider 1 times"));
    let replayed = again.output.split_once(" orders: ").unwrap().1.split_once(' ').unwrap().0;
    assert!(replayed.parse::<u64>().unwrap() >= 60);

    let other = Run::new("--orders 60 --seed 43", Some(data.path()));
    assert_eq!(other.code, 2);
    assert!(other.output.contains("holds a run with seed 42, 60 orders"));
}

#[test]
fn whatever_is_spoilt_the_books_do_not_balance_and_the_exit_code_says_so() {
    let right = tempfile::tempdir().unwrap();
    let arguments = "--orders 20 --kills 0 --seed 3 --rate 1000";
    Run::new(arguments, Some(right.path())).balances(3, 20);
    for (what, says) in [
        ("second-payment", "was paid 2 times"),
        ("lost-order", "is not there"),
        ("altered-invoice", "its invoice has another checksum"),
        ("lost-invoice", "its invoice is missing"),
        ("orphan-blob", "orphan blobs 1"),
        ("forgotten-token", "tokens 1"),
        ("stored-request", "stored requests 1"),
    ] {
        let spoilt = tempfile::tempdir().unwrap();
        copy(right.path(), spoilt.path());
        let run = Run::new(&format!("{arguments} --sabotage {what}"), Some(spoilt.path()));
        assert_eq!(run.code, 1, "{what}");
        assert!(run.output.contains(says) && run.output.contains("NOT BALANCED"), "{what}");
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
