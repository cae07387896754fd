//! What a reader may see of a string key at a moment: the winner among its values, what its counter runs add, and when
//! it ends.

use bytes::Bytes;

use crate::base::num::parse_i64;
use crate::causality::counter::{seen_over, total};
use crate::causality::expiry::{Deadline, of_key, of_value};
use crate::causality::{Payload, Value, Version};

/// A key that is there.
#[derive(Debug, Clone)]
pub struct Visible<'a> {
    row: &'a [Version],
    now: u64,
    winner: Option<(&'a Version, &'a Value)>,
    runs: Option<i128>,
}

impl<'a> Visible<'a> {
    /// What of `row` is visible at `now` (milliseconds since the epoch); none when the key is absent.
    pub fn of(row: &'a [Version], now: u64) -> Option<Visible<'a>> {
        // One plain value, no deadline: nearly every key.
        if let [only @ Version { payload: Payload::Value(value), .. }] = row
            && value.deadline.is_none()
        {
            return Some(Visible { row, now, winner: Some((only, value)), runs: None });
        }
        let mut visible = Visible { row, now, winner: None, runs: None };
        visible.winner = visible.values().max_by_key(|(version, _)| (version.stamp, version.dot));
        let end = of_key(row);
        let seen = seen_over(row.iter());
        visible.runs = total(row.iter().filter(|version| !end.hides(version.stamp, now)), &seen);
        (visible.winner.is_some() || visible.runs.is_some()).then_some(visible)
    }

    /// The live values: siblings when there are several. In the order of their dots.
    pub fn values(&self) -> impl Iterator<Item = (&'a Version, &'a Value)> + use<'a> {
        let (row, now) = (self.row, self.now);
        row.iter().filter_map(move |version| match &version.payload {
            Payload::Value(value) if !of_value(version, value, row).hides(version.stamp, now) => Some((version, value)),
            _ => None,
        })
    }

    /// The value that a plain read answers: highest stamp, then dot; none for a counter without a base.
    pub fn winner(&self) -> Option<(&'a Version, &'a Value)> {
        self.winner
    }

    /// What the counter runs add; none when there is no live run.
    pub fn runs(&self) -> Option<i128> {
        self.runs
    }

    /// The string: the winner, with what the runs add if it is a number.
    pub fn text(&self) -> Bytes {
        match (self.winner, self.runs) {
            (Some((_, value)), None) => value.data.clone(),
            (None, runs) => runs.unwrap_or(0).to_string().into(),
            (Some((_, value)), Some(runs)) => match parse_i64(&value.data) {
                Some(base) => runs.saturating_add(base.into()).to_string().into(),
                // A concurrent SET made it a word: increments have nothing to add to.
                None => value.data.clone(),
            },
        }
    }

    /// The string as the integer that it spells, without spelling it out first.
    pub fn integer(&self) -> Option<i64> {
        match (self.winner, self.runs) {
            (Some((_, value)), None) => parse_i64(&value.data),
            (None, runs) => i64::try_from(runs.unwrap_or(0)).ok(),
            (Some((_, value)), Some(runs)) => i64::try_from(runs.saturating_add(parse_i64(&value.data)?.into())).ok(),
        }
    }

    /// When the key, as a plain read answers it, ends.
    pub fn deadline(&self) -> Deadline {
        match self.winner {
            Some((version, value)) => of_value(version, value, self.row),
            None => of_key(self.row),
        }
    }

    /// When one of its values ends.
    pub fn deadline_of(&self, version: &Version, value: &Value) -> Deadline {
        of_value(version, value, self.row)
    }
}
