//! What the emulator promises to those who test with it: it answers as DynamoDB does, faults strike as ordered and by seed,
//! and what goes over the wire is counted. Servers started by scripts have a file of their own, because they may be missing.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer, in its helpers as well")]

mod answers;
mod counting;
mod faults;
mod servers;
mod table;
