//! Causality under test: random histories against the real clocks, cells, counters and expiries, driven as a replica
//! drives them. Each experiment keeps a ghost of what must be true and compares at the end.
//!
//! Every rule is tested from both sides: the right one must hold for every seed, and each rule that looks right and is
//! not must be caught, which proves that the experiment can see the fault.
//!
//! `REDYNAMO_SEEDS=n` runs seeds 0 to n of every experiment, `REDYNAMO_SEED=k` runs that one only.
//! Figures are printed: `cargo test --test causality -- --nocapture`.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod clear;
mod counters;
mod digest;
mod disks;
mod expiry;
mod forget;
mod join;
mod laws;
mod network;
mod ownership;
mod real;
mod seeds;
mod takeover;
mod world;
