//! What ties a process to the one that started it: orders come by standard input, one word a line, and reports go by
//! standard output, one JSON object a line. When its standard input ends, whoever started it is gone, and it must not
//! outlive him. This is the side of the one that was started; the other side is in `processes`.

use std::io::{BufRead, Write};
use std::sync::mpsc;

use serde::{Deserialize, Serialize};
use tollgate::Statistics;

/// What a process can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// End properly.
    Close,
    /// Clean up what the dead have left, then end properly.
    Sweep,
}

impl Order {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Close => "close",
            Self::Sweep => "sweep",
        }
    }

    fn read(line: &str) -> Option<Self> {
        [Self::Close, Self::Sweep].into_iter().find(|order| order.as_str() == line.trim())
    }
}

/// What a process does when whoever started it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenAbandoned {
    /// Ends at once, as if it was killed.
    Exit,
    /// Hangs up: the receiver of orders is told that there will be none, and does what is to be done.
    HangUp,
}

/// The exit code of a process that was abandoned.
const ABANDONED: i32 = 3;

/// Most orders that wait to be obeyed: nobody gives more than one.
const ORDERS_MAX: usize = 4;

/// Begins to listen for orders.
///
/// The thread that listens waits for input that may never come; it ends with the input or with the process, and is for
/// that reason the one thread of the program that is not joined.
pub fn listen(when_abandoned: WhenAbandoned) -> mpsc::Receiver<Order> {
    let (orders, obeying) = mpsc::sync_channel(ORDERS_MAX);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            match Order::read(&line) {
                // Whoever obeys may have ended already.
                Some(order) => drop(orders.try_send(order)),
                None => eprintln!("tollgate: {line:?} is no order"),
            }
        }
        if when_abandoned == WhenAbandoned::Exit {
            std::process::exit(ABANDONED);
        }
    });
    obeying
}

/// Tells whoever started this process how it is doing.
///
/// # Errors
/// If nobody listens any more.
pub fn report(report: &ConsumerReport) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    let mut output = std::io::stdout().lock();
    output.write_all(&line)?;
    output.flush()
}

/// What a consumer tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerReport {
    /// What it knows of the source.
    pub source: SourceState,
    /// What it has done so far.
    pub counts: Counts,
}

/// Whether every flight has been sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// Not as far as is known.
    #[default]
    Sending,
    /// Yes.
    Done,
}

macro_rules! counts {
    ($($name:ident,)*) => {
        /// The engine's statistics, on their way to another process.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Counts {
            $($name: u64,)*
        }

        impl From<Statistics> for Counts {
            fn from(statistics: Statistics) -> Self {
                Self { $($name: statistics.$name,)* }
            }
        }

        impl From<Counts> for Statistics {
            fn from(counts: Counts) -> Self {
                let mut statistics = Self::default();
                $(statistics.$name = counts.$name;)*
                statistics
            }
        }
    };
}

counts! {
    deliveries, committed, commits, duplicates_by_cache, duplicates_by_store, duplicates_by_marker, copies_attached, cache_hits,
    cache_misses, pauses, conflicts, recoveries, blocked, retries, dead_letters, published, effects_published, effects_cleaned_up,
    bodies_stored, requests, replays, requests_shed, unfinished, panics, handlers_timed_out, load_calls, read_calls, commit_calls,
    delete_calls,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_count_is_lost_between_processes() {
        let mut statistics = Statistics::default();
        statistics.deliveries = 7;
        statistics.delete_calls = 9;
        let line = serde_json::to_string(&Counts::from(statistics)).unwrap();
        // As many numbers as the engine counts: one that is added there is missed here.
        let counted = format!("{statistics:?}").matches(':').count();
        assert_eq!(line.matches(':').count(), counted, "{line}");
        assert_eq!(Statistics::from(serde_json::from_str::<Counts>(&line).unwrap()), statistics);
    }
}
