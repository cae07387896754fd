//! Whole clusters under a seed: chaos, calm, checks. See `redynamo::sim`.
//!
//! `REDYNAMO_SEEDS=n` runs n seeds, from `REDYNAMO_FIRST=k` on; `REDYNAMO_SEED=k` runs that one and tells what it drew, and
//! `REDYNAMO_SHRINK=1` with it leaves out all faults that it does not take to fail. The long run is
//! `REDYNAMO_SEEDS=200000 cargo test --release --test sim seeds_keep -- --nocapture`.

#![allow(clippy::unwrap_used, reason = "a helper of a test that cannot go on ends the test")]

mod campaign;
mod handoff;
mod members;
mod plants;
mod scenarios;
mod settling;
mod takeover;
mod traffic;
mod transactions;

use std::future::Future;

use campaign::{run_all, run_seed, shrink, tell};

/// How many seeds a plain `cargo test` runs; without optimization they take ten times as long.
const SEEDS: u64 = if cfg!(debug_assertions) { 50 } else { 400 };

/// Runs `work` where time passes only when nobody has anything to do.
fn simulate<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(work)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

#[test]
fn seeds_keep_every_promise() {
    if let Some(seed) = number("REDYNAMO_SEED") {
        return replay(seed);
    }
    let first = number("REDYNAMO_FIRST").unwrap_or_default();
    let summary = run_all(first..first + number("REDYNAMO_SEEDS").unwrap_or(SEEDS));
    println!("{summary}");
    assert!(summary.failed.is_empty(), "seeds {:?}", summary.failed);
}

fn replay(seed: u64) {
    let mut report = run_seed(seed, None);
    if report.violations.is_empty() {
        return println!("{report:#?}");
    }
    if number("REDYNAMO_SHRINK").is_some() {
        report = shrink(report);
    }
    tell(&report, usize::MAX);
    panic!("seed {seed} breaks a promise");
}

#[test]
fn one_seed_is_one_run() {
    for seed in [1, 7, 23, 40, 77] {
        let (one, other) = (run_seed(seed, None), run_seed(seed, None));
        assert_eq!((one.trace, one.events, one.ops), (other.trace, other.events, other.ops));
        assert!(one.events > 100, "{one:?}");
    }
}

/// Whole clusters whose clients share sets and hashes. `REDYNAMO_SEEDS` as for the others.
#[test]
fn collections_keep_their_promises_under_overlapping_faults() {
    let seeds = number("REDYNAMO_SEEDS").unwrap_or(12);
    for seed in 0..seeds {
        let report =
            simulate(redynamo::sim::run(seed, &redynamo::sim::Choice { collections: true, ..Default::default() }));
        assert!(report.violations.is_empty(), "seed {seed}: {}", report.violations.join("\n"));
    }
}
