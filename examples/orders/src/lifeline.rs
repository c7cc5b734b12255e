//! What ties a process to the show that started it: it reports by standard output, one JSON object a line; it closes when it is
//! told so by standard input; and it does not outlive the show. The other end is in [`crate::show`].

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tollgate::{Edge, Gate};

use crate::Failure;
use crate::house::House;
use crate::leftovers::Leftovers;
use crate::messages::Totals;

/// The order to close.
pub const CLOSE: &str = "close";

/// The exit code of a process whose show is gone.
const ABANDONED: i32 = 3;

/// How often it is told how a process is doing.
const REPORT_EVERY: Duration = Duration::from_millis(50);

/// How long a process waits for its own quiet before it closes all the same.
const QUIET_WITHIN: Duration = Duration::from_secs(30);

/// How long it waits for its address, which may still belong to its dead predecessor.
const LISTEN_WITHIN: Duration = Duration::from_secs(10);

/// How a process is doing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// What its books say.
    pub totals: Totals,
    /// Messages under way, by endpoint.
    pub under_way: BTreeMap<String, u64>,
    /// What this life of the process has seen.
    pub counts: Counts,
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What was counted, in one life of a process or in several.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counts {
            /// Both.
            #[must_use]
            pub const fn and(self, other: Self) -> Self {
                Self { $($name: self.$name + other.$name,)* }
            }
        }
    };
}

counts! {
    /// Messages that committed.
    messages,
    /// Messages that were recognised as processed, and dropped.
    duplicates_dropped,
    /// Requests that were answered with the stored response.
    replays,
    /// Unfinished commits, of the dead for the most part, that were completed.
    recoveries,
    /// Side effects that were made to happen, and that were removed.
    effects_published,
    effects_removed,
    /// Extra copies that the broker sent.
    copies_sent,
    /// Messages that the broker delivered out of order.
    reordered,
    /// Acknowledgements that the broker lost.
    acknowledgements_lost,
    /// Sends that the broker failed.
    sends_failed,
}

/// The tie, at the process's end.
pub struct Lifeline {
    close: oneshot::Receiver<()>,
}

impl Lifeline {
    /// Ties this process: from now on it ends when the show does. Do it first.
    ///
    /// The thread that listens waits for input that may never come, and ends with the process.
    pub fn tie() -> Self {
        let (tell, close) = oneshot::channel();
        std::thread::spawn(move || {
            let mut tell = Some(tell);
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                if line == CLOSE
                    && let Some(tell) = tell.take()
                {
                    // Whoever would hear it may be gone already.
                    let _ = tell.send(());
                }
            }
            std::process::exit(ABANDONED);
        });
        Self { close }
    }

    /// Serves a process's routes, and reports, until it is told to close; then waits until all is quiet, and closes.
    ///
    /// The sums of its books are the item `totals` of the partition `books`.
    pub async fn serve(
        mut self,
        house: House,
        gate: Gate,
        routes: Router,
        address: SocketAddr,
        edge: Edge,
        books: &str,
    ) -> Result<(), Failure> {
        let listener = bind(address).await?;
        let (end, ended) = oneshot::channel::<()>();
        let server = axum::serve(listener, routes).with_graceful_shutdown(async {
            drop(ended.await);
        });
        let server = tokio::spawn(async move { server.await });
        let mut clock = tokio::time::interval(REPORT_EVERY);
        let mut quiet_by = None;
        loop {
            tokio::select! {
                _ = clock.tick() => {}
                told = &mut self.close, if quiet_by.is_none() => {
                    told?;
                    quiet_by = Some(Instant::now() + QUIET_WITHIN);
                }
            }
            report(&house, &gate, &edge, books).await?;
            if let Some(quiet_by) = quiet_by {
                gate.flush().await;
                gate.sweep().await?;
                if house.leftovers().await? == Leftovers::default() || Instant::now() > quiet_by {
                    break;
                }
            }
        }
        report(&house, &gate, &edge, books).await?;
        drop(end);
        server.await??;
        gate.close().await;
        house.close().await
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    let started = Instant::now();
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(error) if started.elapsed() > LISTEN_WITHIN => {
                return Err(format!("{address}: {error}").into());
            }
            Err(_) => tokio::time::sleep(REPORT_EVERY).await,
        }
    }
}

async fn report(house: &House, gate: &Gate, edge: &Edge, books: &str) -> Result<(), Failure> {
    let totals = edge.read(books, "totals").await?;
    let (done, chaos) = (gate.statistics(), house.chaos());
    let report = Report {
        totals: totals.map(|totals| serde_json::from_slice(&totals)).transpose()?.unwrap_or_default(),
        under_way: house.under_way().into_iter().collect(),
        counts: Counts {
            messages: done.committed,
            duplicates_dropped: done.duplicates(),
            replays: done.replays,
            recoveries: done.recoveries,
            effects_published: done.effects_published,
            effects_removed: done.effects_cleaned_up,
            copies_sent: chaos.duplicates,
            reordered: chaos.reordered,
            acknowledgements_lost: chaos.acks_lost_silently + chaos.acks_lost_with_an_error,
            sends_failed: chaos.sends_failed_before + chaos.sends_failed_after,
        },
    };
    let mut line = serde_json::to_vec(&report)?;
    line.push(b'\n');
    let mut output = std::io::stdout().lock();
    output.write_all(&line)?;
    Ok(output.flush()?)
}
