//! Checks that are no compiler's business: comments, links, names of rules, and which crate depends on which.

pub mod comments;
pub mod files;
pub mod graph;
pub mod links;
pub mod rules;
