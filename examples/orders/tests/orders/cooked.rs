//! Cooked books: a right set, and every way to cook it that somebody could think of. The audit has to notice each, and to say where.

use tollgate::BlobReference;

use crate::audit::{Books, Found};
use crate::messages::{Order, OrderId, OrderState, Step, Sum, Totals};
use crate::provider::{Account, opening_balance};
use crate::shop::invoice;
use crate::show::{Input, Wanted};

/// Orders of which some are paid and some are refused.
fn input() -> Input {
    let input = Input::draw(7, 40);
    assert!(input.orders.iter().any(Wanted::is_paid) && !input.orders.iter().all(Wanted::is_paid));
    input
}

/// What is found where everything went well.
fn right(input: &Input) -> Found {
    let totals = input.totals();
    let mut found = Found {
        shop: totals,
        provider: Totals { placed: Sum::default(), shipped: Sum::default(), ..totals },
        remembered: input.orders.len() as u64,
        ..Found::default()
    };
    for Wanted { id, cart } in &input.orders {
        let (name, cents) = (&cart.customer, cart.cents());
        let opened = || Account { cents: opening_balance(name), payments: 0 };
        let state = if opening_balance(name) < cents {
            OrderState::Cancelled { reason: "insufficient funds".into() }
        } else {
            let account = found.accounts.entry(name.clone()).or_insert_with(opened);
            account.cents -= cents;
            account.payments += 1;
            found.payments.entry(id.clone()).or_default().add(cents);
            let receipt = format!("{name}-{}", account.payments);
            let invoice = keep(&mut found, &format!("invoices/{id}"), invoice::write(id, cart, &receipt));
            OrderState::Shipped { receipt, invoice }
        };
        found.orders.insert(id.clone(), Order { cart: cart.clone(), state });
    }
    found
}

fn keep(found: &mut Found, name: &str, content: String) -> BlobReference {
    let checksum = blake3::hash(content.as_bytes()).to_hex();
    let json = serde_json::json!({ "name": name, "bytes": content.len(), "blake3": checksum.as_str() });
    let reference: BlobReference = serde_json::from_value(json).unwrap();
    found.invoices.insert(reference.name().clone(), content.into());
    reference
}

/// The differences that are found when the books are cooked like this.
fn differences(cook: impl FnOnce(&mut Found, &Input)) -> Vec<String> {
    let input = input();
    let mut found = right(&input);
    cook(&mut found, &input);
    let books = Books::compare(&input, found, &[]);
    assert_eq!(books.is_balanced(), books.differences.is_empty());
    assert_eq!(books.to_string().contains("\nBALANCED"), books.is_balanced(), "{books}");
    books.differences
}

fn paid(input: &Input) -> OrderId {
    input.orders.iter().find(|wanted| wanted.is_paid()).unwrap().id.clone()
}

fn refused(input: &Input) -> OrderId {
    input.orders.iter().find(|wanted| !wanted.is_paid()).unwrap().id.clone()
}

#[test]
fn right_books_balance() {
    assert_eq!(differences(|_, _| {}), Vec::<String>::new());
}

#[test]
fn the_same_seed_draws_the_same_orders_and_another_one_others() {
    assert_eq!(input().orders, input().orders);
    assert_ne!(Input::draw(8, 40).orders, input().orders);
}

#[test]
fn a_complaint_of_a_client_is_a_difference() {
    let input = input();
    let books = Books::compare(&input, right(&input), &["two answers".to_owned()]);
    assert!(!books.is_balanced() && books.to_string().contains("WRONG: two answers"), "{books}");
}

macro_rules! cooked {
    ($($name:ident: $says:literal $cook:expr;)*) => {
        $(#[test]
        fn $name() {
            let found = differences($cook);
            assert!(found.iter().any(|difference| difference.contains($says)), "{found:?}");
        })*
    };
}

cooked! {
    an_order_that_was_paid_twice_is_found: "paid 2 times" |found, input| {
        let payments = found.payments.get_mut(&paid(input)).unwrap();
        payments.add(payments.cents);
    };
    an_order_that_was_not_paid_is_found: "paid 0 times" |found, input| {
        found.payments.remove(&paid(input));
    };
    an_order_that_was_paid_with_a_cent_too_much_is_found: "has to be paid 1 times" |found, input| {
        found.payments.get_mut(&paid(input)).unwrap().cents += 1;
    };
    a_payment_that_should_have_been_refused_is_found: "has to be paid 0 times" |found, input| {
        found.payments.entry(refused(input)).or_default().add(1);
    };
    a_payment_for_an_order_of_nobody_is_found: "nobody has asked" |found, _| {
        found.payments.entry(OrderId::of_key("nobody's")).or_default().add(1);
    };
    money_that_left_an_account_and_arrived_nowhere_is_found: "have left the accounts" |found, _| {
        found.accounts.values_mut().next().unwrap().cents -= 1;
    };
    an_order_that_is_gone_is_found: "is not there" |found, input| {
        found.orders.remove(&refused(input));
    };
    an_order_of_nobody_is_found: "nobody has asked" |found, input| {
        let order = found.orders[&paid(input)].clone();
        found.orders.insert(OrderId::of_key("nobody's"), order);
    };
    an_order_for_something_else_is_found: "something else" |found, input| {
        found.orders.get_mut(&paid(input)).unwrap().cart.lines[0].pieces += 1;
    };
    an_order_that_never_came_to_an_end_is_found: "not come to an end" |found, input| {
        found.orders.get_mut(&refused(input)).unwrap().state = OrderState::Placed;
    };
    an_order_that_was_paid_and_cancelled_is_found: "was cancelled and has to be shipped" |found, input| {
        found.orders.get_mut(&paid(input)).unwrap().state = OrderState::Cancelled { reason: String::new() };
    };
    an_order_that_was_shipped_and_not_paid_is_found: "was shipped and has to be cancelled" |found, input| {
        let invoice = keep(found, "invoices/free", String::new());
        let state = OrderState::Shipped { receipt: String::new(), invoice };
        found.orders.get_mut(&refused(input)).unwrap().state = state;
    };
    an_invoice_that_is_missing_is_found: "invoice is missing" |found, _| {
        found.invoices.pop_first();
    };
    an_invoice_with_another_letter_is_found: "another checksum" |found, _| {
        *found.invoices.first_entry().unwrap().get_mut() = "INVOICE".into();
    };
    an_invoice_of_another_order_is_found: "another one's" |found, input| {
        let mut shipped = input.orders.iter().filter(|wanted| wanted.is_paid());
        let (one, other) = (&shipped.next().unwrap().id, &shipped.next().unwrap().id);
        let state = found.orders[other].state.clone();
        found.orders.get_mut(one).unwrap().state = state;
    };
    a_blob_that_nothing_names_is_found: "orphan blobs 1" |found, _| {
        keep(found, "invoices/nobody's", String::new());
    };
    a_token_that_is_left_over_is_found: "tokens 1" |found, _| found.left.tokens = 1;
    a_marker_that_is_left_over_is_found: "markers 1" |found, _| found.left.markers = 1;
    a_registration_that_is_left_over_is_found: "registrations 1" |found, _| found.left.registrations = 1;
    a_request_that_is_left_over_is_found: "stored requests 1" |found, _| found.left.requests = 1;
    a_message_that_is_left_over_is_found: "messages 1" |found, _| found.left.messages = 1;
    a_dead_letter_is_found: "dead letters 1" |found, _| found.left.dead_letters = 1;
    an_answer_that_is_not_remembered_is_found: "answers are kept" |found, _| found.remembered -= 1;
    an_event_that_was_counted_twice_is_found: "the shop's books say paid" |found, input| {
        found.shop.count(Step::Paid, input.orders[0].cart.cents());
    };
    an_entry_that_the_ledger_lacks_is_found: "the provider's ledger say refused" |found, _| {
        found.provider.refused.orders -= 1;
    };
}
