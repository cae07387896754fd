//! Nodes as people run them: real processes on loopback, killed, restarted, damaged, and fed with nonsense.
//!
//! `REDYNAMO_KILL_KEYS` sets how many keys are written while nodes die, `REDYNAMO_KILLS` how many times one dies, and
//! `REDYNAMO_FUZZ` how many requests are made up.

#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

mod disk;
mod face;
mod fuzz;
mod kill;
mod limits;
mod order;
#[allow(dead_code, reason = "shared with other tests")]
#[path = "../common/place.rs"]
mod place;
mod process;
mod publish;
mod restart;
mod startup;
mod transactions;
mod wiped;
#[allow(dead_code, reason = "shared with other tests")]
#[path = "../common/wire.rs"]
mod wire;
