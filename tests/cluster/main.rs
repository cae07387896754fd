//! Nodes as people run them: real processes on loopback, killed, restarted, damaged, and fed with nonsense.
//!
//! `REDYNAMO_KILL_KEYS` and `REDYNAMO_FUZZ` set how many keys are written and how many requests are made up.

#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

mod fuzz;
mod kill;
mod limits;
mod order;
mod process;
mod restart;
mod startup;
mod wire;
