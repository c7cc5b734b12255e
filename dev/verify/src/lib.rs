//! Exhaustive and randomized checks of Tollgate's state machine and engine.
//!
//! - [`explorer`] walks every interleaving of small worlds through the shipped machine, and finds each of its mutants.
//! - [`simulation`] runs the whole engine under seeded faults on a virtual clock.
//! - [`gallery`] puts other deduplication techniques through the same search, with the story that breaks each or its price.
//!
//! This is the only crate that turns on the feature `mutations` of `tollgate-proto`, whose switches break the rules. It is
//! never published, and no other crate depends on it.

pub mod explorer;
pub mod gallery;
pub mod simulation;
