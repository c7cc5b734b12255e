//! The simulator: the whole engine, several processes of it, on a virtual clock and one thread, with seeded faults at every call of
//! store, broker and blob storage, processes that die and processes that stall and go on. One seed is one run, and the same
//! seed is the same run. What is simulated is the engine that is shipped, with handlers of your own; what is right is said by an
//! oracle that sees only what is stored and sent.
//!
//! A simulation of an order service, whose bills must add up whatever happens:
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use tollgate::{Endpoint, HandlerError, Message, Tx};
//! use tollgate_verify::simulation::{Client, Simulation};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Bill(u64);
//! impl Message for Bill {
//!     const TYPE: &'static str = "shop.bill";
//! }
//!
//! async fn bill(tx: Tx, Bill(cents): Bill) -> Result<(), HandlerError> {
//!     let before: u64 = tx.get("cents").await?.unwrap_or(0);
//!     tx.put("cents", &(before + cents))?;
//!     Ok(())
//! }
//!
//! async fn place(tx: Tx) -> Result<(), HandlerError> {
//!     tx.put("state", "placed")?;
//!     tx.send("billing", "account/ada", &Bill(100))?;
//!     Ok(())
//! }
//!
//! let simulation = Simulation::new(|| {
//!     vec![Endpoint::new("orders"), Endpoint::new("billing").preload("cents").on(bill)]
//! })
//! .client(async |client: Client| {
//!     for order in 0..5 {
//!         let id = format!("order/{order}");
//!         client.execute("orders", &id, &id, place).await.expect("a client that asks again is answered");
//!     }
//! })
//! .oracle(async |books| match books.item::<u64>("account/ada", "cents").await {
//!     Some(500) => Ok(()),
//!     other => Err(format!("five orders of 100 were billed as {other:?}")),
//! });
//! let report = simulation.run(0..20);
//! assert!(report.failures.is_empty(), "{}", report.failures[0]);
//! ```

mod books;
mod client;
mod faults;
mod process;
mod run;
mod scenario;
mod wires;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use tollgate::Endpoint;
use tollgate_proto::BoxFuture;

pub use books::Books;
pub use client::{Client, ClientError};
pub use faults::{FaultTally, Faults};
pub use run::{dawdle, drop_sometimes, hang_sometimes, unlucky};
pub use scenario::random_scenario;

type Endpoints = dyn Fn() -> Vec<Endpoint> + Send + Sync;
type Clients = dyn Fn(Client) -> BoxFuture<'static, ()> + Send + Sync;
type Oracle = dyn Fn(Books) -> BoxFuture<'static, Result<(), String>> + Send + Sync;

/// What is simulated: endpoints with their handlers, clients, faults, and an oracle.
#[derive(Clone)]
pub struct Simulation {
    endpoints: Arc<Endpoints>,
    clients: Vec<Arc<Clients>>,
    oracle: Arc<Oracle>,
    faults: Faults,
    rerun: Arc<dyn Fn(u64) -> String + Send + Sync>,
}

impl Simulation {
    /// A simulation of processes with these endpoints. Each process gets endpoints of its own, so they are made by a function.
    pub fn new(endpoints: impl Fn() -> Vec<Endpoint> + Send + Sync + 'static) -> Self {
        Self {
            endpoints: Arc::new(endpoints),
            clients: Vec::new(),
            oracle: Arc::new(|_| Box::pin(std::future::ready(Ok(())))),
            faults: Faults::default(),
            rerun: Arc::new(|seed| format!("Simulation::run_seed({seed})")),
        }
    }

    /// Adds a client: somebody outside the processes who makes requests or sends messages, at the same time as the others.
    #[must_use]
    pub fn client<C, F>(mut self, client: C) -> Self
    where
        C: Fn(Client) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        self.clients.push(Arc::new(move |handle| Box::pin(client(handle))));
        self
    }

    /// Says what must be true when everything has come to rest. That nothing is left over is checked besides.
    #[must_use]
    pub fn oracle<O, F>(mut self, oracle: O) -> Self
    where
        O: Fn(Books) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.oracle = Arc::new(move |books| Box::pin(oracle(books)));
        self
    }

    /// How much goes wrong.
    #[must_use]
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// How a failing seed tells people to run it again.
    #[must_use]
    pub fn rerun_by(mut self, command: impl Fn(u64) -> String + Send + Sync + 'static) -> Self {
        self.rerun = Arc::new(command);
        self
    }

    /// Runs one seed.
    ///
    /// # Errors
    /// What the oracle says, or what was left over, and how to see it again.
    pub fn run_seed(&self, seed: u64) -> Result<Run, Failure> {
        run::run(self, seed).map_err(|problem| Failure { seed, problem, rerun: (self.rerun)(seed) })
    }

    /// Runs seeds, one after the other.
    pub fn run(&self, seeds: Range<u64>) -> Report {
        let mut report = Report::default();
        for seed in seeds {
            report.add(self.run_seed(seed));
        }
        report
    }
}

/// What a run was like.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Run {
    /// What went wrong in it.
    pub faults: FaultTally,
    /// A hash of everything that happened, in order and with its virtual time: equal for equal runs.
    pub trace: u64,
}

/// A seed that shows something wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// Which seed.
    pub seed: u64,
    /// What is wrong.
    pub problem: String,
    /// How to see it again.
    pub rerun: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {}\n  see it again: {}", self.seed, self.problem, self.rerun)
    }
}

/// What several runs have shown.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// How many there were.
    pub runs: u64,
    /// What went wrong in all of them.
    pub faults: FaultTally,
    /// The seeds that show something wrong.
    pub failures: Vec<Failure>,
}

impl Report {
    /// Adds the outcome of one seed.
    pub fn add(&mut self, outcome: Result<Run, Failure>) {
        self.runs += 1;
        match outcome {
            Ok(run) => self.faults.add(&run.faults),
            Err(failure) => self.failures.push(failure),
        }
    }
}
