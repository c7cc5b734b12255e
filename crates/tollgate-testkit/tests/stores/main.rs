//! What the testkit offers for stores, tested itself: the conformance suite and the wrappers.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

mod conformance;
mod reference_store;
mod wrappers;
