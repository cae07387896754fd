//! What clients did and what they were told; and what follows from it for what must, may and must not be there in the
//! end.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::oracle::Oracle;
use crate::base::id::Region;
use crate::causality::Dot;

/// What a client knows of a command that it sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    Done,
    /// It was refused: nothing happened, nor ever will.
    NotDone,
    /// It may have happened, or may yet.
    Unknown,
}

/// What a command did to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Wrote a value that nobody else writes, in place of all that its coordinator held.
    Set(Bytes),
    /// Wrote a value in place of exactly these.
    Put {
        /// The value.
        value: Bytes,
        /// What its writer had seen.
        seen: BTreeSet<Bytes>,
    },
    /// Deleted exactly these.
    Remove(BTreeSet<Bytes>),
    /// Deleted, or flushed, all that its coordinator held.
    Delete,
    /// Added a member that nobody else adds.
    Join(Bytes),
    /// Removed exactly these members.
    Leave(BTreeSet<Bytes>),
    /// Appended a word that nobody else appends.
    Append(Bytes),
    /// Added to a counter.
    Add(i64),
    /// Took a counter away; what it stood at, if it was answered.
    Take(Option<i64>),
    /// Moved its value to another key, in place of what was there.
    Move,
    /// Copied it likewise.
    Copy,
    /// Read all siblings.
    Read(BTreeSet<Bytes>),
    /// Read the winner.
    Get(Option<Bytes>),
}

/// A command on one key.
#[derive(Debug, Clone)]
pub struct Op {
    /// Who sent it.
    pub client: usize,
    /// When it was sent and when its outcome was known: places in the order of all such moments.
    pub began: u64,
    /// See `began`.
    pub ended: u64,
    /// What it did, if it was done.
    pub deed: Deed,
    /// Whether it was.
    pub outcome: Outcome,
    /// The last dot that it gave, if it was told.
    pub wrote: Option<(Region, Dot)>,
}

impl Op {
    /// What it wrote.
    pub fn value(&self) -> Option<&Bytes> {
        match &self.deed {
            Deed::Set(value) | Deed::Put { value, .. } => Some(value),
            _ => None,
        }
    }

    pub(super) fn happened(&self) -> bool {
        self.outcome != Outcome::NotDone
    }

    /// Whether it was over before `moment`. What is not known may happen at any later time.
    pub(super) fn was_over(&self, moment: u64) -> bool {
        self.outcome != Outcome::Unknown && self.ended < moment
    }

    pub(super) fn is_acknowledged(&self) -> bool {
        self.outcome == Outcome::Done
    }

    /// Names exactly `value` as gone.
    fn names(&self, value: &Bytes) -> bool {
        match &self.deed {
            Deed::Put { seen, .. } | Deed::Remove(seen) => seen.contains(value),
            _ => false,
        }
    }
}

/// A key, by family (its first letter) and number.
pub type Key = Bytes;

/// All that all clients did.
#[derive(Debug, Default)]
pub struct History {
    moments: u64,
    /// Why commands were not done, or nobody knows whether, and how often.
    refusals: BTreeMap<String, u64>,
    ops: BTreeMap<Key, Vec<Op>>,
}

impl History {
    /// The next moment.
    pub fn moment(&mut self) -> u64 {
        self.moments += 1;
        self.moments
    }

    /// Remembers a command.
    pub fn note(&mut self, key: &Key, op: Op) {
        self.ops.entry(key.clone()).or_default().push(op);
    }

    /// Every key that was touched, with what was done to it.
    pub fn keys(&self) -> impl Iterator<Item = (&Key, &[Op])> {
        self.ops.iter().map(|(key, ops)| (key, ops.as_slice()))
    }

    /// Remembers why a command was not done. Numbers in it make no difference.
    pub fn note_refusal(&mut self, why: &[u8]) {
        let mut words = String::from_utf8_lossy(why).into_owned();
        words.retain(|letter| !letter.is_ascii_digit());
        *self.refusals.entry(words.chars().take(80).collect()).or_default() += 1;
    }

    /// Why commands were not done, and how often.
    pub fn refusals(&self) -> &BTreeMap<String, u64> {
        &self.refusals
    }

    /// What was done to one key.
    pub fn of(&self, key: &Key) -> &[Op] {
        self.ops.get(key).map_or(&[], Vec::as_slice)
    }

    /// How many commands there were, and how many of them had each outcome: done, not done, unknown.
    pub fn counts(&self) -> (usize, [usize; 3]) {
        let all = self.ops.values().flatten();
        let of = |outcome| all.clone().filter(|op| op.outcome == outcome).count();
        (all.clone().count(), [Outcome::Done, Outcome::NotDone, Outcome::Unknown].map(of))
    }
}

/// Registers that are written with contexts: the final siblings are exactly the causally maximal writes.
pub fn check_contexts(ops: &[Op], last: &BTreeSet<Bytes>) -> Result<(), String> {
    only_what_was_written(ops, last)?;
    for op in ops {
        let Some(value) = op.value() else { continue };
        let named: Vec<&Op> = ops.iter().filter(|by| by.happened() && by.names(value)).collect();
        if op.is_acknowledged() && !last.contains(value) && named.is_empty() {
            return Err(format!("{value:?} was acknowledged, is gone, and nobody who had seen it wrote since"));
        }
        if last.contains(value) && named.iter().any(|by| by.is_acknowledged()) {
            return Err(format!("{value:?} was replaced or deleted and is there"));
        }
    }
    Ok(())
}

/// Reads at a quorum that meets every write's: what was acknowledged before is seen, and what was replaced is not.
pub fn check_reads(ops: &[Op]) -> Result<(), String> {
    for (read, seen) in ops.iter().filter(|op| op.is_acknowledged()).filter_map(|op| match &op.deed {
        Deed::Read(seen) => Some((op, seen)),
        _ => None,
    }) {
        for write in ops.iter().filter(|op| op.is_acknowledged() && op.ended < read.began) {
            let Some(value) = write.value() else { continue };
            let gone = |by: &&Op| by.happened() && by.began < read.ended && by.names(value);
            if !seen.contains(value) && !ops.iter().any(|by| gone(&by)) {
                return Err(format!("client {} read {seen:?} and missed {value:?}, acknowledged before", read.client));
            }
        }
        let gone_before = |by: &Op, value: &Bytes| by.is_acknowledged() && by.ended < read.began && by.names(value);
        if let Some(value) = seen.iter().find(|value| ops.iter().any(|by| gone_before(by, value))) {
            return Err(format!("client {} read {value:?}, which was gone before", read.client));
        }
    }
    Ok(())
}

/// Plain registers: what was acknowledged is there, or a command that may have seen it replaced or deleted it.
pub fn check_plain(ops: &[Op], last: &BTreeSet<Bytes>, oracle: &Oracle) -> Result<(), String> {
    only_what_was_written(ops, last)?;
    for op in ops {
        let Some(value) = op.value() else { continue };
        if op.is_acknowledged() && !last.contains(value) && !ops.iter().any(|by| may_replace(by, op, oracle)) {
            return Err(format!("{value:?} was acknowledged, is gone, and nobody who may have seen it wrote since"));
        }
        if last.contains(value) && has_been_replaced(op, ops, oracle) {
            return Err(format!("{value:?} was replaced and is there"));
        }
    }
    Ok(())
}

/// Whether `by` may have replaced what `op` wrote.
fn may_replace(by: &Op, op: &Op, oracle: &Oracle) -> bool {
    if !by.happened() || by.was_over(op.began) {
        return false;
    }
    match &by.deed {
        Deed::Delete => true,
        Deed::Set(value) if Some(value) != op.value() => {
            let places = op.value().map_or(&[][..], |value| oracle.places_of(value));
            // Where no delta told it for certain, it may have been anything.
            oracle
                .all_replaced_by(value)
                .is_none_or(|replaced| places.is_empty() || places.iter().any(|(_, dot)| replaced.contains(dot)))
        }
        _ => false,
    }
}

/// Whether all that `op` wrote was replaced by acknowledged commands.
fn has_been_replaced(op: &Op, ops: &[Op], oracle: &Oracle) -> bool {
    let places = op.value().map_or(&[][..], |value| oracle.places_of(value));
    let by_others = ops.iter().filter(|by| by.is_acknowledged() && by.value() != op.value());
    let sets = by_others.filter(|by| matches!(by.deed, Deed::Set(_))).filter_map(Op::value);
    let replaced: BTreeSet<Dot> = sets.flat_map(|value| oracle.replaced_by(value)).collect();
    !places.is_empty() && places.iter().all(|(_, dot)| replaced.contains(dot))
}

fn only_what_was_written(ops: &[Op], last: &BTreeSet<Bytes>) -> Result<(), String> {
    let written = |value: &&Bytes| !ops.iter().any(|op| op.happened() && op.value() == Some(value));
    let reads = ops.iter().filter(|op| op.is_acknowledged()).flat_map(|op| match &op.deed {
        Deed::Read(seen) => seen.iter().collect::<Vec<_>>(),
        Deed::Get(Some(value)) => vec![value],
        _ => Vec::new(),
    });
    match last.iter().chain(reads).find(written) {
        Some(value) => Err(format!("{value:?} is there, or was read, and was never written")),
        None => Ok(()),
    }
}

/// Appends: every acknowledged word is there, unless a later append that went on from a sibling replaced it; none is twice
/// in one value, none is there that was refused. With `exact` there are no siblings.
pub fn check_appends(ops: &[Op], last: &BTreeSet<Bytes>, exact: bool) -> Result<(), String> {
    let mut all = BTreeSet::new();
    for value in last {
        let mut own = BTreeSet::new();
        for word in value.split_inclusive(|byte| *byte == b';') {
            if !own.insert(Bytes::copy_from_slice(word)) {
                return Err(format!("a word stands twice in {value:?}"));
            }
        }
        all.extend(own);
    }
    for op in ops {
        let Deed::Append(word) = &op.deed else { continue };
        let later = |by: &Op| by.happened() && !by.was_over(op.began) && by.deed != op.deed;
        if op.is_acknowledged() && !all.contains(word) && (exact || !ops.iter().any(later)) {
            return Err(format!("{word:?} was appended and is gone"));
        }
        if !op.happened() && all.contains(word) {
            return Err(format!("{word:?} was refused and is there"));
        }
    }
    Ok(())
}

/// Counters: all that was acknowledged counts once, what is unknown at most once, and what was taken is not there.
pub fn check_counter(ops: &[Op], last: i64) -> Result<(), String> {
    let (mut least, mut most) = (0i64, 0i64);
    for op in ops.iter().filter(|op| op.happened()) {
        let certain = op.is_acknowledged();
        match op.deed {
            Deed::Add(by) => {
                least += if certain { by } else { by.min(0) };
                most += if certain { by } else { by.max(0) };
            }
            // Two that took at once may have taken the same: no more than was there, and nothing is certain above.
            Deed::Take(Some(taken)) => least -= taken,
            Deed::Take(None) if !certain => return Ok(()),
            _ => {}
        }
    }
    if least <= last && last <= most { Ok(()) } else { Err(format!("{last} is not between {least} and {most}")) }
}
