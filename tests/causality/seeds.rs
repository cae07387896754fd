//! Running an experiment over many seeds.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::thread;

/// How a run ended: well, or with the name of what went wrong.
pub type Outcome = Result<(), &'static str>;

/// An experiment whose rule is right: no seed may fail.
pub fn holds(name: &str, seeds: u64, run: impl Fn(u64) -> Outcome) {
    let tally = Tally::of(number("REDYNAMO_SEEDS").unwrap_or(seeds), run);
    println!("{name}: {tally}");
    if let Some((seed, what)) = tally.first {
        panic!("{name}: seed {seed}: {what}. Again with: REDYNAMO_SEED={seed} cargo test --test causality");
    }
}

/// An experiment whose rule is wrong: some seed must fail, or the experiment is blind.
pub fn is_caught(name: &str, seeds: u64, run: impl Fn(u64) -> Outcome) {
    // Never fewer than it takes.
    let tally = Tally::of(number("REDYNAMO_SEEDS").unwrap_or(seeds).max(seeds), run);
    println!("{name} (wrong on purpose): {tally}");
    assert!(tally.first.is_some() || tally.runs == 1, "{name}: none of {} runs noticed the wrong rule", tally.runs);
}

/// What became of the runs.
struct Tally {
    runs: u64,
    failures: BTreeMap<&'static str, u64>,
    first: Option<(u64, &'static str)>,
}

impl Tally {
    fn of(count: u64, run: impl Fn(u64) -> Outcome) -> Tally {
        let seeds = number("REDYNAMO_SEED").map_or(0..count, |seed| seed..seed.saturating_add(1));
        let mut tally = Tally { runs: 0, failures: BTreeMap::new(), first: None };
        for seed in seeds {
            let _naming = NameOnPanic(seed);
            tally.runs += 1;
            if let Err(what) = run(seed) {
                *tally.failures.entry(what).or_default() += 1;
                tally.first.get_or_insert((seed, what));
            }
        }
        tally
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} runs", self.runs)?;
        self.failures.iter().try_for_each(|(what, count)| write!(f, ", {count} {what}"))
    }
}

/// Says which seed ran when something panicked.
struct NameOnPanic(u64);

impl Drop for NameOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("panicked in seed {}: again with REDYNAMO_SEED={}", self.0, self.0);
        }
    }
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text}")))
}
