//! The store against emulators: the promises that every store makes, and those that only this one makes. The emulator in
//! the process takes part in every run; servers are skipped loudly where they can't be started.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer, in its helpers as well")]

mod backlog;
mod calls;
mod capacity;
mod conformance;
mod expiry;
mod hot_keys;
mod layouts;
mod lost_answers;
mod metrics;
mod permissions;
mod restore;
mod storm;
mod surveys;
mod tables;
mod wrong_tables;
