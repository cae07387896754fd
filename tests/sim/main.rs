//! Whole clusters under a seed: chaos, calm, checks. See `redynamo::sim`.
//!
//! `REDYNAMO_SEEDS=n` runs n seeds, `REDYNAMO_SEED=k` runs that one and tells what it drew.

#![allow(clippy::unwrap_used, reason = "a helper of a test that cannot go on ends the test")]

mod members;
mod scenarios;

use std::future::Future;

use redynamo::base::rng::Rng;
use redynamo::sim::{Config, Plant, Report, run};

/// How many seeds a plain `cargo test` runs; without optimization they take ten times as long.
const SEEDS: u64 = if cfg!(debug_assertions) { 100 } else { 200 };

/// Runs `work` where time passes only when nobody has anything to do.
fn simulate<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(work)
}

fn run_seed(seed: u64, plant: Option<Plant>) -> Report {
    simulate(run(seed, plant))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

#[test]
fn seeds_keep_every_promise() {
    let seeds = match number("REDYNAMO_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("REDYNAMO_SEEDS").unwrap_or(SEEDS),
    };
    let (mut ops, mut simulated) = ((0, [0; 3]), std::time::Duration::ZERO);
    let mut failed = Vec::new();
    for seed in seeds.clone() {
        let report = run_seed(seed, None);
        if !report.violations.is_empty() {
            println!("seed {seed}: {:?}", report.config);
            // What was done to the key is for who replays it.
            let lines = if seeds.end - seeds.start == 1 { usize::MAX } else { 1 };
            let told = |violation: &String| violation.lines().take(lines).for_each(|line| println!("  {line}"));
            report.violations.iter().for_each(told);
            println!("  replay: REDYNAMO_SEED={seed} cargo test --release --test sim seeds_keep -- --nocapture");
            failed.push(seed);
        } else if seeds.end - seeds.start == 1 {
            println!("{report:#?}");
        }
        ops.0 += report.ops.0;
        ops.1.iter_mut().zip(report.ops.1).for_each(|(sum, more)| *sum += more);
        simulated += report.simulated;
    }
    println!(
        "{} seeds, {simulated:?} simulated, {} commands: done, not done, unknown {:?}",
        seeds.end - seeds.start,
        ops.0,
        ops.1
    );
    assert!(failed.is_empty(), "seeds {failed:?}");
}

#[test]
fn one_seed_is_one_run() {
    for seed in [1, 7, 23] {
        let (one, other) = (run_seed(seed, None), run_seed(seed, None));
        assert_eq!((one.trace, one.events, one.ops), (other.trace, other.events, other.ops));
        assert!(one.events > 100, "{one:?}");
    }
}

/// Seeds among which every planted bug must be found.
const SEEDS_TO_FIND: u64 = 1000;

/// Where bugs that take long to find were found last: the search begins there and goes on to all other seeds.
const FOUND_AT: [(Plant, u64); 4] = [
    (Plant::SupersededForgotten, 40),
    (Plant::AcknowledgedUnapplied, 70),
    (Plant::SilenceIsConsent, 229),
    (Plant::DiskLies, 56),
];

#[test]
fn every_planted_bug_is_caught() {
    let missed: Vec<Plant> = Plant::ALL.into_iter().filter(|plant| !is_caught(*plant)).collect();
    assert!(missed.is_empty(), "not caught within {SEEDS_TO_FIND} seeds: {missed:?}");
}

/// Whether one of the seeds that can show a bug shows this one.
fn is_caught(plant: Plant) -> bool {
    let first = FOUND_AT.iter().find(|(found, _)| *found == plant).map_or(0, |(_, seed)| *seed);
    let shows_much = |seed: &u64| Config::draw(&mut Rng::new(*seed)).shows_much();
    for seed in (first..SEEDS_TO_FIND).chain(0..first).filter(shows_much) {
        let report = run_seed(seed, Some(plant));
        if let Some(violation) = report.violations.first() {
            println!("{plant:?}: seed {seed}: {}", violation.lines().next().unwrap_or_default());
            return true;
        }
    }
    false
}
