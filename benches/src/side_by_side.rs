//! Tollgate beside what its users would do instead: one scenario, several contenders, the same machine, queue, store, latency
//! and handler, in turns, each audited by the same books. The rules of fairness are decision 0013. `tollgate-bench compare` runs
//! this; what a figure means is told where it is measured, what a contender does in its own file.

pub mod audit;
pub mod backing;
pub mod charged_table;
pub mod charges;
pub mod chart;
pub mod contender;
pub mod contenders;
#[cfg(feature = "cosmos")]
mod cosmos;
pub mod demands;
#[cfg(feature = "dynamodb")]
mod dynamodb;
pub mod embedded_table;
pub mod extrapolation;
pub mod latency;
pub mod machine;
pub mod memory_table;
pub mod metered_store;
pub mod network;
pub mod plan;
pub mod queue;
pub mod report;
pub mod resources;
pub mod rival;
pub mod rounds;
pub mod run;
pub mod scenario;
pub mod statistics;
pub mod suite;
pub mod table;
pub mod tables;

/// What went wrong with the measurement itself, as opposed to what it measures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// A scenario that can't be run.
    #[error("the scenario can't be run: {0}; change it")]
    Scenario(String),
    /// A store refused or was lost.
    #[error("contender {contender}: {reason}; look at the store")]
    Contender {
        /// Which contender.
        contender: &'static str,
        /// What was seen.
        reason: String,
    },
    /// A run made no progress any more.
    #[error(
        "contender {contender} made no progress for {seconds} s with {left} messages left; its figures would mean nothing"
    )]
    Stuck {
        /// Which contender.
        contender: &'static str,
        /// How long nothing was acknowledged.
        seconds: u64,
        /// Messages that nobody has acknowledged.
        left: usize,
    },
    /// A report could not be written.
    #[error("{path} can't be written: {reason}")]
    Output {
        /// Where to.
        path: String,
        /// What the system said.
        reason: String,
    },
}
