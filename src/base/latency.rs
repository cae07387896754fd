//! How long things take, counted cheaply: buckets an eighth of an octave wide, so that a quantile is right to within a
//! tenth, from a microsecond to a minute. [`Latencies`] is filled by many threads; a [`Window`] forgets what is old.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Buckets of one octave.
const PARTS: u64 = 8;
/// Octaves above the first eight microseconds.
const OCTAVES: u64 = 23;
/// How many buckets there are.
pub const BUCKETS: usize = ((OCTAVES + 1) * PARTS) as usize;

/// The bucket of a time.
fn bucket_of(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    if micros < PARTS {
        return micros as usize;
    }
    let octave = u64::from(micros.ilog2()) - u64::from(PARTS.ilog2());
    let part = (micros >> octave) - PARTS;
    (((octave + 1) * PARTS + part) as usize).min(BUCKETS - 1)
}

/// The longest time of a bucket.
fn upper_bound(bucket: usize) -> Duration {
    let (octave, part) = (bucket as u64 / PARTS, bucket as u64 % PARTS);
    let micros = match octave {
        0 => part + 1,
        octave => (PARTS + part + 1) << (octave - 1),
    };
    Duration::from_micros(micros)
}

/// Times as they happen, until somebody takes them.
#[derive(Debug)]
pub struct Latencies([AtomicU32; BUCKETS]);

impl Default for Latencies {
    fn default() -> Self {
        Latencies([const { AtomicU32::new(0) }; BUCKETS])
    }
}

impl Latencies {
    /// Counts one.
    pub fn note(&self, took: Duration) {
        self.0[bucket_of(took)].fetch_add(1, Ordering::Relaxed);
    }

    /// Takes what has been counted since the last time.
    pub fn take(&self) -> Counts {
        let mut counts = Counts::default();
        for (bucket, count) in self.0.iter().enumerate().filter(|(_, count)| count.load(Ordering::Relaxed) > 0) {
            counts.add(bucket, count.swap(0, Ordering::Relaxed));
        }
        counts
    }
}

/// How many times fell into which bucket; only those that are not 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    buckets: Vec<(usize, u32)>,
    total: u64,
}

impl Counts {
    fn add(&mut self, bucket: usize, count: u32) {
        self.buckets.push((bucket, count));
        self.total += u64::from(count);
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        self.total
    }
}

impl FromIterator<Duration> for Counts {
    fn from_iter<I: IntoIterator<Item = Duration>>(all: I) -> Self {
        let latencies = Latencies::default();
        all.into_iter().for_each(|took| latencies.note(took));
        latencies.take()
    }
}

/// Times that weigh less the older they are.
#[derive(Debug, Clone)]
pub struct Window {
    weights: Box<[f32; BUCKETS]>,
    total: f32,
}

impl Default for Window {
    fn default() -> Self {
        Window { weights: Box::new([0.0; BUCKETS]), total: 0.0 }
    }
}

impl Window {
    /// Adds one time.
    pub fn note(&mut self, took: Duration) {
        self.weights[bucket_of(took)] += 1.0;
        self.total += 1.0;
    }

    /// Adds many.
    pub fn add(&mut self, counts: &Counts) {
        for (bucket, count) in &counts.buckets {
            self.weights[*bucket] += *count as f32;
        }
        self.total += counts.total as f32;
    }

    /// Lets everything weigh only `part` of what it did.
    pub fn fade(&mut self, part: f32) {
        self.weights.iter_mut().for_each(|weight| *weight *= part);
        self.total = self.weights.iter().sum();
    }

    /// What it all weighs: how many times, the old ones counted for less.
    pub fn weight(&self) -> f32 {
        self.total
    }

    /// The time that `part` of all did not exceed; none of nothing. Never less than the truth, and not a quarter more.
    pub fn quantile(&self, part: f32) -> Option<Duration> {
        if self.total < 0.5 {
            return None;
        }
        let rank = self.total * part;
        let mut below = 0.0;
        let last = self.weights.iter().rposition(|weight| *weight > 0.0)?;
        let reached = self.weights.iter().position(|weight| {
            below += weight;
            below >= rank && below > 0.0
        });
        Some(upper_bound(reached.unwrap_or(last).min(last)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    proptest! {
        #[test]
        fn a_time_is_below_the_bound_of_its_bucket_and_not_far_below(us in 0u64..60_000_000) {
            let bound = upper_bound(bucket_of(micros(us)));
            prop_assert!(micros(us) < bound, "{us} {bound:?}");
            prop_assert!(bound <= micros(us + us / 8 + 1), "{us} {bound:?}");
        }
    }

    #[test]
    fn buckets_ascend_and_the_last_takes_everything_longer() {
        assert!((1..BUCKETS).all(|at| upper_bound(at) > upper_bound(at - 1)));
        assert_eq!(bucket_of(Duration::from_secs(1 << 40)), BUCKETS - 1);
        assert!(upper_bound(BUCKETS - 1) >= Duration::from_secs(60));
    }

    #[test]
    fn a_quantile_is_the_time_that_so_many_did_not_exceed() {
        let mut window = Window::default();
        assert_eq!(window.quantile(0.99), None);
        window.add(&(1..=1000).map(micros).collect());
        let near = |part: f32, us: u64| {
            let found = window.quantile(part).unwrap();
            assert!(found >= micros(us) && found <= micros(us + us / 7 + 1), "{part}: {found:?}");
        };
        near(0.5, 500);
        near(0.99, 990);
        near(1.0, 1000);
        near(0.0, 1);
    }

    #[test]
    fn what_is_old_counts_for_less() {
        let mut window = Window::default();
        window.add(&std::iter::repeat_n(micros(100), 1000).collect());
        for _ in 0..20 {
            window.fade(0.5);
            window.add(&std::iter::repeat_n(micros(5000), 10).collect());
        }
        assert!(window.quantile(0.5) >= Some(micros(5000)));
        assert!(window.weight() < 21.0);
    }

    #[test]
    fn what_was_taken_is_counted_once() {
        let latencies = Latencies::default();
        (0..5).for_each(|_| latencies.note(micros(7)));
        assert_eq!(latencies.take().total(), 5);
        assert_eq!(latencies.take(), Counts::default());
    }
}
