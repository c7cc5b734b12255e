//! The classic case, whole, with everything that can go wrong: a shop takes orders over the web, has them paid by a payment
//! provider in another process, and ships them with an invoice. The broker duplicates, reorders and forgets; clients
//! repeat themselves, lose patience and go away; both processes are killed with SIGKILL. In the end the books are printed:
//! every order was paid once, every invoice is there, nothing is left over. The exit code says the same.
//!
//! `cargo run -p orders` and open the page that it names; `-- --help` tells what else there is.
//!
//! To copy: [`shop`] and [`provider`] are what you would write. [`house`] puts a process together. All else
//! is the show around them ([`show`]: clients, kills, the page) and its proof ([`audit`]).

mod audit;
mod house;
mod leftovers;
mod lifeline;
mod messages;
mod provider;
mod shop;
mod show;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// What goes wrong in a program whose only answer is to say so and end.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A shop, a payment provider, and all that can go wrong between them; in the end the books balance.
#[derive(Parser)]
#[command(name = "orders", args_conflicts_with_subcommands = true)]
struct Arguments {
    /// What this process is, if it is one of those that the show starts.
    #[command(subcommand)]
    process: Option<Process>,
    #[command(flatten)]
    show: show::Options,
}

#[derive(Subcommand)]
enum Process {
    /// The shop.
    #[command(hide = true)]
    Shop(shop::Options),
    /// The payment provider.
    #[command(hide = true)]
    Provider(house::Place),
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let Arguments { process, show } = Arguments::parse();
    // `RUST_LOG=warn` shows how often something has to be done again.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let done = match process {
        Some(Process::Shop(options)) => shop::run(&options).await.map(|()| ExitCode::SUCCESS),
        Some(Process::Provider(place)) => provider::run(&place).await.map(|()| ExitCode::SUCCESS),
        None => show::run(&show).await,
    };
    done.unwrap_or_else(|error| {
        eprintln!("orders: {error}");
        ExitCode::from(2)
    })
}
