//! Planted bugs: which of them the seeds show.
//!
//! `REDYNAMO_BUG=Name,Other` looks for those alone, also for the elusive; `REDYNAMO_COUNT=n` counts for each bug how many of
//! up to n seeds that can show it do, and asserts nothing:
//! `REDYNAMO_COUNT=100 cargo test --release --test sim every_planted -- --nocapture`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use redynamo::base::rng::Rng;
use redynamo::sim::{Config, Plant};

use super::campaign::run_seed;
use super::number;

/// Seeds among which a planted bug must be found.
const SEEDS_TO_FIND: u64 = 1000;

/// Bugs that the simulator does not show yet in so many seeds: its weather does not bring about what they take. They are
/// no proof of anything, and stand here so that nobody takes them for one.
const ELUSIVE: &[Plant] = &[
    Plant::RefusalIsConsent,
    Plant::CountedTwice,
    Plant::ConflictUnheard,
    Plant::ClaimsGrantedBlindly,
    Plant::TermsForgotten,
    Plant::BootUnnoticed,
];

#[test]
fn every_planted_bug_is_caught() {
    let only = std::env::var("REDYNAMO_BUG").ok();
    let count = number("REDYNAMO_COUNT").map(|most| most as usize);
    let wanted = |plant: &&Plant| match &only {
        Some(only) => only.split(',').any(|name| name == format!("{plant:?}")),
        None => count.is_some() || !ELUSIVE.contains(plant),
    };
    let plants: Vec<Plant> = Plant::ALL.iter().filter(wanted).copied().collect();
    let (next, missed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(plant) = plants.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match count {
                        Some(most) => println!("{}", count_seeds(*plant, most)),
                        None if is_caught(*plant) => {}
                        None => missed.lock().unwrap().push(*plant),
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "not caught within {SEEDS_TO_FIND} seeds: {missed:?}");
}

/// The seeds that can show a bug.
fn seeds(plant: Plant) -> Vec<u64> {
    (0..SEEDS_TO_FIND).filter(|seed| plant.shows_in(&Config::draw(&mut Rng::new(*seed)))).collect()
}

/// What a seed says of a bug, if it shows it: a seed that fails anyhow shows nothing.
fn shows(plant: Plant, seed: u64) -> Option<String> {
    let violation = run_seed(seed, Some(plant)).violations.into_iter().next()?;
    let line = violation.lines().next().unwrap_or_default().to_owned();
    run_seed(seed, None).violations.is_empty().then_some(line)
}

/// Whether one of the seeds shows it.
fn is_caught(plant: Plant) -> bool {
    let seeds = seeds(plant);
    for (tried, seed) in seeds.iter().enumerate() {
        if let Some(line) = shows(plant, *seed) {
            println!("{plant:?}: seed {seed}, after {tried}: {line}");
            return true;
        }
    }
    println!("{plant:?}: not caught by any of {} seeds", seeds.len());
    false
}

/// How many of the seeds show it, tried on up to `most` of them.
fn count_seeds(plant: Plant, most: usize) -> String {
    let seeds = seeds(plant);
    let step = seeds.len().div_ceil(most.max(1)).max(1);
    let tried: Vec<u64> = seeds.iter().copied().step_by(step).collect();
    let shown: Vec<u64> = tried.iter().copied().filter(|seed| shows(plant, *seed).is_some()).collect();
    let expected = seeds.len() * shown.len() / tried.len().max(1);
    format!("{plant:?}: {} of {} tried, about {expected} of {SEEDS_TO_FIND}; {shown:?}", shown.len(), tried.len())
}
