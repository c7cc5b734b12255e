//! The store against Microsoft's in-memory emulator, behind the whole SDK: the promises that every store makes, and those that
//! only this one makes.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer, in its helpers as well")]

mod accounts;
mod conformance;
mod costs;
mod documents;
mod expiry;
mod lost_answers;
mod naive_reader;
mod sessions;
mod storm;
mod wrong_accounts;
