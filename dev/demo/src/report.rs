//! What the demo says at its end: to a person, to a file, and to the shell by its exit code.

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;
use tollgate::Statistics;

use crate::audit::Leftovers;
use crate::error::DemoError;

/// The figures of one run.
pub struct Report {
    /// Flights in the input.
    pub flights: usize,
    /// Lines of the input that are no flights.
    pub bad_lines: usize,
    /// The seed of everything random.
    pub seed: u64,
    /// From the first consumer's start to the last one's end.
    pub elapsed_seconds: f64,
    /// Who died.
    pub crashes: Crashes,
    /// What all consumers did, the dead ones included.
    pub statistics: Statistics,
    /// What is left in the store besides business items.
    pub leftovers: Leftovers,
    /// Messages left in the broker.
    pub broker_left: usize,
    /// Messages that were dead-lettered.
    pub dead_letters_left: usize,
    /// Where the store differs from the input.
    pub differences: Vec<String>,
}

/// How often who died.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crashes {
    /// Consumers.
    pub consumers: usize,
    /// The process that holds the broker, and the store if it is embedded.
    pub host: usize,
    /// The server given as a command line.
    pub server: usize,
}

/// How the run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every total is exact and nothing is left.
    Exact,
    /// The audit found something.
    Wrong,
    /// Every total is exact, but the input has bad lines and the run is strict.
    BadInput,
}

impl Verdict {
    /// 0, 1 and 2.
    pub fn exit_code(self) -> ExitCode {
        match self {
            Self::Exact => ExitCode::SUCCESS,
            Self::Wrong => ExitCode::FAILURE,
            Self::BadInput => ExitCode::from(2),
        }
    }
}

/// Most differences that are printed.
const DIFFERENCES_SHOWN: usize = 20;

impl Report {
    /// What the run comes to.
    pub fn verdict(&self, strict: bool) -> Verdict {
        let is_clean = self.leftovers.count() == 0 && self.broker_left == 0 && self.dead_letters_left == 0;
        match (self.differences.is_empty() && is_clean, strict && self.bad_lines > 0) {
            (false, _) => Verdict::Wrong,
            (true, true) => Verdict::BadInput,
            (true, false) => Verdict::Exact,
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "a ratio for people, of counts far below 2^52")]
    fn calls_per_message(&self) -> f64 {
        self.statistics.store_calls() as f64 / (self.statistics.committed.max(1)) as f64
    }

    /// Prints the figures.
    pub fn print(&self) {
        let s = &self.statistics;
        println!("  time                  {:>10.2} s", self.elapsed_seconds);
        println!("  deliveries            {:>10}", s.deliveries);
        println!("  committed             {:>10}   in {} commits", s.committed, s.commits);
        println!(
            "  duplicates dropped    {:>10}   {} by the cache, {} by the store, {} by a marker",
            s.duplicates(),
            s.duplicates_by_cache,
            s.duplicates_by_store,
            s.duplicates_by_marker
        );
        println!("  conflicts             {:>10}", s.conflicts);
        println!(
            "  recoveries            {:>10}   by {} consumers that died",
            s.recoveries, self.crashes.consumers
        );
        if self.crashes.host + self.crashes.server > 0 {
            let Crashes { host, server, .. } = self.crashes;
            println!(
                "  other deaths          {:>10}   {host} of the host, {server} of the server",
                host + server
            );
        }
        println!(
            "  store calls           {:>10}   {:.2} a message: {} loads, {} reads, {} commits, {} deletions",
            s.store_calls(),
            self.calls_per_message(),
            s.load_calls,
            s.read_calls,
            s.commit_calls,
            s.delete_calls
        );
        let left = &self.leftovers;
        println!(
            "  left over             {:>10}   {} tokens and outbox entries, {} markers, {} registrations, {} records, \
             {} in the broker, {} dead letters",
            left.count() + (self.broker_left + self.dead_letters_left) as u64,
            left.outbox_entries,
            left.pending_markers,
            left.registrations,
            left.deduplication_records,
            self.broker_left,
            self.dead_letters_left
        );
        for difference in self.differences.iter().take(DIFFERENCES_SHOWN) {
            println!("  WRONG {difference}");
        }
        if self.differences.len() > DIFFERENCES_SHOWN {
            println!("  ... and {} more", self.differences.len() - DIFFERENCES_SHOWN);
        }
        match self.verdict(false) {
            Verdict::Exact => println!("audit: every total is exact, nothing is left over"),
            Verdict::Wrong | Verdict::BadInput => {
                println!("audit: FAILED, {} differences", self.differences.len());
            }
        }
    }

    /// Writes the figures as JSON.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn write(&self, path: &Path) -> Result<(), DemoError> {
        let s = &self.statistics;
        let report = json!({
            "audit": if self.verdict(false) == Verdict::Exact { "exact" } else { "failed" },
            "flights": self.flights,
            "bad_lines": self.bad_lines,
            "seed": self.seed,
            "elapsed_seconds": self.elapsed_seconds,
            "consumer_crashes": self.crashes.consumers,
            "host_crashes": self.crashes.host,
            "server_crashes": self.crashes.server,
            "deliveries": s.deliveries,
            "committed": s.committed,
            "commits": s.commits,
            "duplicates_dropped": s.duplicates(),
            "duplicates_by_cache": s.duplicates_by_cache,
            "duplicates_by_store": s.duplicates_by_store,
            "duplicates_by_marker": s.duplicates_by_marker,
            "conflicts": s.conflicts,
            "recoveries": s.recoveries,
            "retries": s.retries,
            "store_calls": s.store_calls(),
            "store_calls_per_message": self.calls_per_message(),
            "outbox_entries_left": self.leftovers.outbox_entries,
            "pending_markers_left": self.leftovers.pending_markers,
            "registrations_left": self.leftovers.registrations,
            "deduplication_records_left": self.leftovers.deduplication_records,
            "broker_left": self.broker_left,
            "dead_letters_left": self.dead_letters_left,
            "differences": self.differences,
        });
        std::fs::write(path, format!("{report:#}\n")).map_err(|error| DemoError::file(path, error))
    }
}
