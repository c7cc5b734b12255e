//! The explorer: walks every interleaving of a small world and checks the guarantees in every state. [`search`] is the walk,
//! for any model.

pub mod search;

pub use search::{Bounds, Findings, Kind, Liveness, Model, Outcome, Story, Transition, search};
