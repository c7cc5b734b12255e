//! The shop's process: a web front, four endpoints, and calls to the payment provider. This file puts them together; what each of
//! them does is in the file with its name. Follow an order: [`front`], [`billing`], [`shipping`], [`ordering`].

mod billing;
mod bookkeeping;
mod front;
pub mod invoice;
mod ordering;
mod shipping;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use tollgate_http::client::{HttpCalls, Reqwest};

use crate::house::{House, Place};
use crate::lifeline::Lifeline;
use crate::messages::Progress;
use crate::{Failure, provider};

pub use bookkeeping::{PARTITION as BOOKS, TOTALS};
pub use ordering::ORDER;

/// The shop's endpoints.
pub const ENDPOINTS: [&str; 4] = ["orders", "billing", "shipping", "books"];

/// How long a call to the provider may take before it is made again.
const CALL_WITHIN: Duration = Duration::from_secs(2);

/// What the shop has to be told.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    place: Place,
    /// Where payments are made.
    #[arg(long)]
    payments: String,
}

/// Runs the shop until it is told to close.
pub async fn run(options: &Options) -> Result<(), Failure> {
    let lifeline = Lifeline::tie();
    let house = House::open(&options.place.data, "shop", &ENDPOINTS, options.place.seed).await?;
    let gate = house
        .gate()
        .side_effect(Arc::new(calls(&options.payments)?))
        .endpoint(ordering::endpoint())
        .endpoint(billing::endpoint(&options.payments))
        .endpoint(shipping::endpoint())
        .endpoint(bookkeeping::endpoint())
        .subscribe::<Progress>("books", |_| BOOKS.to_owned())
        .open()
        .await?;
    let front = front::routes(gate.edge("orders")?);
    let books = gate.edge("books")?;
    lifeline.serve(house, gate, front, options.place.listen, books, BOOKS).await
}

/// Calls with the key that the provider knows us by, which goes to the provider only. `Reqwest::new` would wait for half a minute, which is right for a provider
/// far away and too long for a show.
fn calls(payments: &str) -> Result<HttpCalls, Failure> {
    let client = reqwest::Client::builder()
        .timeout(CALL_WITHIN)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()?;
    let mut key = HeaderValue::from_str(&provider::key()?)?;
    key.set_sensitive(true);
    let headers = HeaderMap::from_iter([(AUTHORIZATION, key)]);
    let payments = format!("{}/", payments.trim_end_matches('/'));
    let headers_for =
        move |url: &str| if url.starts_with(&payments) { headers.clone() } else { HeaderMap::new() };
    Ok(HttpCalls::new(Reqwest::with_client(client)).headers(headers_for))
}
