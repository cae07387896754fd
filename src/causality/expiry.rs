//! Expiry (rule 10): clocks decide nothing but on which side of a deadline a write fell.
//!
//! A SET's deadline is part of its own version. EXPIRE and PERSIST write a version of their own that names the
//! generations it saw and binds to those only; of several the longest wins and "none" beats all. An expiry hides only
//! versions stamped at or before its deadline.

use super::cell::Version;
use super::dot::Dot;
use super::hlc::Stamp;
use super::payload::{Expiry, Payload, Value};

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

    /// Whether it has passed at `now` for something written at `stamp`: what was written after a deadline is not
    /// hidden by it.
    pub fn hides(self, stamp: Stamp, now: u64) -> bool {
        matches!(self, Deadline::At(ms) if ms <= now && stamp.ms() <= ms)
    }
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
    let whole = || {
        expiries(row).filter(|expiry| expiry.generations.is_empty()).map(|expiry| Deadline::from(expiry.deadline)).max()
    };
    values.max().or_else(whole).unwrap_or(Deadline::Never)
}

fn expiries(row: &[Version]) -> impl Iterator<Item = &Expiry> {
    row.iter().filter_map(|version| match &version.payload {
        Payload::Expiry(expiry) => Some(expiry),
        _ => None,
    })
}
