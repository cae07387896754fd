//! Expiry (rule 10): clocks decide nothing but on which side of a deadline a write fell.
//!
//! A SET's deadline is part of its own version. EXPIRE and PERSIST write a version of their own that names the
//! generations it saw and binds to those only; of several the longest wins and "none" beats all. An expiry hides only
//! versions stamped at or before its deadline.

use super::cell::Version;
use super::dot::Dot;
use super::hlc::Stamp;
use super::payload::{Expiry, Payload, Value};
use crate::base::id::ActorId;

/// When something ends. Ordered: a later deadline is greater and [`Deadline::Never`] is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deadline {
    /// At this time, in milliseconds since the Unix epoch.
    At(u64),
    /// It does not end.
    Never,
}

impl From<Option<u64>> for Deadline {
    fn from(ms: Option<u64>) -> Self {
        ms.map_or(Deadline::Never, Deadline::At)
    }
}

impl Deadline {
    /// The time, if it ends.
    pub fn ms(self) -> Option<u64> {
        match self {
            Deadline::At(ms) => Some(ms),
            Deadline::Never => None,
        }
    }

    /// Whether it has passed at `now` for something written at `stamp`. It passes with the end of its millisecond, as in
    /// Redis: so whoever writes while it has passed is stamped after it and is not hidden.
    pub fn hides(self, stamp: Stamp, now: u64) -> bool {
        matches!(self, Deadline::At(ms) if ms < now && stamp.ms() <= ms)
    }
}

/// Stands among an expiry's generations for the key as a whole.
pub const WHOLE: Dot = Dot { actor: ActorId(0), counter: 0 };

/// The deadline of what has no generations of its own: a collection, a counter without a base.
pub fn of_whole(row: &[Version]) -> Deadline {
    let binds = |expiry: &&Expiry| expiry.generations.is_empty() || expiry.generations.contains(&WHOLE);
    expiries(row).filter(binds).map(|expiry| Deadline::from(expiry.deadline)).max().unwrap_or(Deadline::Never)
}

/// The generation of a value: the write that last reset its time to live.
pub fn generation(version: &Version, value: &Value) -> Dot {
    value.generation.unwrap_or(version.dot)
}

/// The deadline of a value, given all versions of its row.
pub fn of_value(version: &Version, value: &Value, row: &[Version]) -> Deadline {
    let generation = generation(version, value);
    expiries(row)
        .filter(|expiry| expiry.generations.contains(&generation))
        .map(|expiry| Deadline::from(expiry.deadline))
        .max()
        .unwrap_or_else(|| value.deadline.into())
}

/// The deadline of a key as a whole: that of its longest-lived value, else what binds to the key itself. Counter runs
/// live and end with it.
pub fn of_key(row: &[Version]) -> Deadline {
    let values = row.iter().filter_map(|version| match &version.payload {
        Payload::Value(value) => Some(of_value(version, value, row)),
        _ => None,
    });
    values.max().unwrap_or_else(|| of_whole(row))
}

fn expiries(row: &[Version]) -> impl Iterator<Item = &Expiry> {
    row.iter().filter_map(|version| match &version.payload {
        Payload::Expiry(expiry) => Some(expiry),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(counter: u64) -> Dot {
        Dot::new(ActorId(1), counter)
    }

    fn version(counter: u64, payload: Payload) -> Version {
        Version { dot: dot(counter), stamp: Stamp::at(counter), payload }
    }

    fn value(counter: u64, deadline: Option<u64>, generation: Option<Dot>) -> Version {
        version(counter, Payload::Value(Value { deadline, generation, ..Value::plain("v".into()) }))
    }

    fn expiry(counter: u64, deadline: Option<u64>, generations: &[u64]) -> Version {
        let generations = generations.iter().map(|counter| dot(*counter)).collect();
        version(counter, Payload::Expiry(Expiry { deadline, generations }))
    }

    /// The deadline of the value that comes first in its row.
    fn of_first(row: &[Version]) -> Deadline {
        match &row[0].payload {
            Payload::Value(value) => of_value(&row[0], value, row),
            _ => unreachable!("a row that begins with a value"),
        }
    }

    #[test]
    fn a_value_ends_when_it_says_unless_an_expiry_names_its_generation() {
        assert_eq!(of_first(&[value(1, Some(50), None)]), Deadline::At(50));
        assert_eq!(of_first(&[value(1, Some(50), None), expiry(2, Some(20), &[1])]), Deadline::At(20));
        assert_eq!(of_first(&[value(1, Some(50), None), expiry(2, None, &[1])]), Deadline::Never);
        assert_eq!(of_first(&[value(3, Some(50), None), expiry(2, Some(20), &[1])]), Deadline::At(50));
        assert_eq!(of_first(&[value(3, Some(50), Some(dot(1))), expiry(2, Some(20), &[1])]), Deadline::At(20));
        assert_eq!(of_first(&[value(1, None, None), expiry(2, Some(20), &[])]), Deadline::Never);
    }

    #[test]
    fn of_several_expiries_the_longest_wins_and_none_beats_all() {
        let row = [value(1, None, None), expiry(2, Some(20), &[1]), expiry(3, Some(30), &[1, 9])];
        assert_eq!(of_first(&row), Deadline::At(30));
        let row = [value(1, None, None), expiry(2, None, &[1]), expiry(3, Some(u64::MAX), &[1])];
        assert_eq!(of_first(&row), Deadline::Never);
    }

    #[test]
    fn a_key_lives_as_long_as_its_longest_lived_value_else_as_its_own_expiry_says() {
        assert_eq!(of_key(&[value(1, Some(50), None), value(2, Some(20), None)]), Deadline::At(50));
        assert_eq!(of_key(&[value(1, Some(50), None), expiry(2, Some(90), &[])]), Deadline::At(50));
        assert_eq!(
            of_key(&[expiry(2, Some(20), &[]), expiry(3, Some(90), &[]), expiry(4, None, &[7])]),
            Deadline::At(90)
        );
        assert_eq!(of_key(&[]), Deadline::Never);
    }

    #[test]
    fn a_deadline_hides_what_was_written_by_then_once_it_has_passed() {
        let deadline = Deadline::At(100);
        assert!(!deadline.hides(Stamp::at(50), 100));
        assert!(deadline.hides(Stamp::at(50), 101));
        assert!(deadline.hides(Stamp(Stamp::at(101).0 - 1), 101));
        assert!(!deadline.hides(Stamp::at(101), 200));
        assert!(!Deadline::Never.hides(Stamp::default(), u64::MAX));
    }
}
