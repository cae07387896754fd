//! What lives in a row beside what a command wrote: whether another command, of which it knew nothing, wrote there too
//! (rule 7 of the causality rules).

use super::delta::{Delta, adds_runs};
use super::visible::Visible;
use crate::causality::counter::{run_of, seen_over};
use crate::causality::expiry::of_key;
use crate::causality::{Cell, Dot, Payload, RowChange, Version};

/// What became of the versions that an attempt at a command wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// They live, and nothing that a reader sees lives beside them of which the command did not know.
    Stands,
    /// Not all of them live: somebody who had seen them replaced them. Whether something else had been written beside
    /// them before, their rows can no longer tell.
    Replaced,
    /// Something that a reader sees lives beside them, and the command did not know of it.
    Contested,
}

impl Delta {
    /// Whether `cell`, a row that `change` of this delta has been applied to, shows something at `now` (milliseconds
    /// since the epoch) that the command had not seen. Increments are in no conflict with increments, nor with a
    /// deadline; and a deadline is none for what sets no value.
    pub fn conflicts(&self, change: &RowChange, cell: &Cell, now: u64) -> bool {
        let known = |dot: Dot| change.new.iter().any(|version| version.dot == dot) || self.kept.contains(&dot);
        let unknown: &dyn Fn(&&Version) -> bool = &|version| !known(version.dot);
        // Nearly always all of it is the command's own.
        if cell.versions().iter().all(|version| known(version.dot)) {
            return false;
        }
        let values =
            || Visible::of(cell.versions(), now).is_some_and(|v| v.values().any(|(version, _)| unknown(&version)));
        let runs = || cell.versions().iter().filter(unknown).any(|version| counts(version, cell, now));
        let deadlines =
            || cell.versions().iter().filter(unknown).any(|version| matches!(version.payload, Payload::Expiry(_)));
        values() || (!adds_runs(change) && runs()) || (sets_values(change) && deadlines())
    }

    /// What became of what `change` of this delta wrote, now that its row is `cell`.
    pub fn fate(&self, change: &RowChange, cell: &Cell, now: u64) -> Fate {
        let removes = |version: &&Version| matches!(version.payload, Payload::Void(_) | Payload::Cleared(_));
        let mut written = change.new.iter().filter(|version| !removes(version)).peekable();
        if written.peek().is_none() {
            // What only removes has written nothing that could be beside anything.
            return Fate::Stands;
        }
        if written.any(|version| !cell.holds(version.dot)) {
            return Fate::Replaced;
        }
        if self.conflicts(change, cell, now) { Fate::Contested } else { Fate::Stands }
    }
}

/// Whether a change decides about values: not only about counters' sums or when the key ends.
fn sets_values(change: &RowChange) -> bool {
    let ends = |version: &Version| matches!(version.payload, Payload::Expiry(_));
    let only_ends = !change.new.is_empty() && change.new.iter().all(ends);
    !only_ends && !adds_runs(change)
}

/// Whether a version is a live part of a counter's sum: the last of its run that is here, and not spent.
fn counts(version: &Version, cell: &Cell, now: u64) -> bool {
    let Some((run, _)) = run_of(version) else { return false };
    let counter = version.dot.counter;
    let later = |other: &Version| run_of(other).is_some_and(|(name, _)| name == run) && other.dot.counter > counter;
    let spent = seen_over(cell.versions().iter()).of(run).is_some_and(|(covered, _)| counter <= covered);
    !spent && !cell.versions().iter().any(later) && !of_key(cell.versions()).hides(version.stamp, now)
}
