//! Many seeds on all cores, and what they came to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redynamo::sim::{Choice, Plant, Report, run};

use super::simulate;

/// Sums over runs.
#[derive(Debug, Default)]
pub struct Summary {
    seeds: u64,
    simulated: Duration,
    busy: Duration,
    commands: usize,
    outcomes: [usize; 3],
    faults: BTreeMap<&'static str, u64>,
    refusals: BTreeMap<String, u64>,
    /// Seeds that broke a promise.
    pub failed: Vec<u64>,
}

/// Runs one seed.
pub fn run_seed(seed: u64, plant: Option<Plant>) -> Report {
    simulate(run(seed, &Choice { plant, ..Choice::default() }))
}

/// Runs all of `seeds`, one runtime per thread, and prints those that fail.
pub fn run_all(seeds: std::ops::Range<u64>) -> Summary {
    let (next, sum) = (AtomicU64::new(seeds.start), Mutex::new(Summary::default()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < seeds.end) {
                    let began = cpu_time();
                    let report = run_seed(seed, None);
                    sum.lock().unwrap().add(&report, cpu_time() - began);
                }
            });
        }
    });
    sum.into_inner().unwrap()
}

/// Time that this thread has computed so far; nothing where the system does not say.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or_default())
}

impl Summary {
    fn add(&mut self, report: &Report, busy: Duration) {
        self.seeds += 1;
        self.simulated += report.simulated;
        self.busy += busy;
        self.commands += report.ops.0;
        self.outcomes.iter_mut().zip(report.ops.1).for_each(|(sum, more)| *sum += more);
        for (kind, count) in &report.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        for (why, count) in &report.refusals {
            *self.refusals.entry(why.clone()).or_default() += count;
        }
        if !report.violations.is_empty() {
            tell(report, 1);
            self.failed.push(report.seed);
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hours, cpu) = (self.simulated.as_secs_f64() / 3600.0, self.busy.as_secs_f64());
        let speed = self.simulated.as_secs_f64() / cpu.max(f64::EPSILON);
        let [done, not_done, unknown] = self.outcomes;
        writeln!(f, "{} seeds, {hours:.1} simulated hours in {cpu:.1} s of CPU: {speed:.0} times as fast", self.seeds)?;
        writeln!(f, "{} commands: {done} done, {not_done} not done, {unknown} unknown", self.commands)?;
        let mut refusals: Vec<_> = self.refusals.iter().map(|(why, count)| (*count, why)).collect();
        refusals.sort_unstable_by(|a, b| b.cmp(a));
        refusals.iter().take(12).try_for_each(|(count, why)| writeln!(f, "  {count} {why}"))?;
        let faults = self.faults.iter().map(|(kind, count)| format!("{count} {kind}"));
        writeln!(f, "{} faults: {}", self.faults.values().sum::<u64>(), faults.collect::<Vec<_>>().join(", "))?;
        write!(f, "{} seeds broke a promise", self.failed.len())
    }
}

/// Prints what a run drew and what it broke; of what was done to a key only the first so many lines.
pub fn tell(report: &Report, lines: usize) {
    let Report { seed, config, violations, faults, refusals, .. } = report;
    println!("seed {seed}: {config:?}\n  faults: {faults:?}\n  refusals: {refusals:?}");
    violations.iter().for_each(|violation| violation.lines().take(lines).for_each(|line| println!("  {line}")));
    println!("  replay: REDYNAMO_SEED={seed} cargo test --release --test sim seeds_keep -- --nocapture");
}

/// Leaves out as many faults of a seed that fails as it takes to fail still, and answers that run.
pub fn shrink(failing: Report) -> Report {
    let (mut smallest, mut left_out) = (failing, BTreeSet::new());
    let mut step = smallest.named_faults.len().div_ceil(2);
    while step > 0 {
        let mut at = 0;
        while at < smallest.named_faults.len() {
            let more = smallest.named_faults.iter().skip(at).take(step).copied();
            let choice =
                Choice { plant: None, left_out: left_out.iter().copied().chain(more).collect(), ..Choice::default() };
            let report = simulate(run(smallest.seed, &choice));
            if report.violations.is_empty() {
                at += step;
            } else {
                (smallest, left_out) = (report, choice.left_out);
            }
        }
        step /= 2;
    }
    println!("seed {} fails with {} faults of all that it drew", smallest.seed, smallest.named_faults.len());
    smallest
}
