//! Counters (rule 3): every increment counts once, also against a concurrent SET or DEL.
//!
//! An actor's increments form a *run*: a version whose sum it raises while it holds that version live. SET, DEL and PUT
//! note the sums they replace, so that a run which went on elsewhere counts only for what came after.
//!
//! `value = base + Σ over runs (sum − latest seen sum)`, where of several live versions of a run the highest dot
//! counts, and a version that the seen dot covers counts nothing.

use bytes::BufMut;
use smallvec::SmallVec;

use super::cell::Version;
use super::dot::Dot;
use super::payload::{Payload, Run};
use crate::base::codec::{Decoded, Reader, put_i128, put_varint};

/// Sums of runs that a version replaced: run → counter of the dot that had the sum, and the sum. Runs are named by the
/// dot that began them, whose actor gave every later dot of the run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    // Boxed because nearly every value has seen no run, and values are many.
    runs: Option<Box<Vec<(Dot, u64, i128)>>>,
}

impl Seen {
    /// True when no run was seen.
    pub fn is_empty(&self) -> bool {
        self.runs.is_none()
    }

    /// Run, counter, sum; ascending by run.
    pub fn iter(&self) -> impl Iterator<Item = &(Dot, u64, i128)> {
        self.runs.iter().flat_map(|runs| runs.iter())
    }

    /// Remembers that `run` stood at `sum` with the dot `counter`. The later dot wins, never the larger sum: a run that
    /// was decremented is later and smaller.
    pub fn note(&mut self, run: Dot, counter: u64, sum: i128) {
        let runs = self.runs.get_or_insert_default();
        match runs.binary_search_by_key(&run, |(name, ..)| *name) {
            Ok(at) if runs[at].1 < counter => runs[at] = (run, counter, sum),
            Ok(_) => {}
            Err(at) => runs.insert(at, (run, counter, sum)),
        }
    }

    /// Merges what another version has seen.
    pub fn merge(&mut self, other: &Seen) {
        other.iter().for_each(|(run, counter, sum)| self.note(*run, *counter, *sum));
    }

    /// What was seen of `run`: counter and sum.
    pub fn of(&self, run: Dot) -> Option<(u64, i128)> {
        self.iter().find(|(name, ..)| *name == run).map(|(_, counter, sum)| (*counter, *sum))
    }

    /// Lets go of what `keep` does not ask for.
    pub fn retain(&mut self, mut keep: impl FnMut(Dot) -> bool) {
        if let Some(runs) = &mut self.runs {
            runs.retain(|(run, ..)| keep(*run));
            if runs.is_empty() {
                self.runs = None;
            }
        }
    }

    /// Appends a count, then run, counter and sum of each.
    pub fn put(&self, out: &mut impl BufMut) {
        put_varint(out, self.iter().count() as u64);
        for (run, counter, sum) in self.iter() {
            run.put(out);
            put_varint(out, *counter);
            put_i128(out, *sum);
        }
    }

    /// Reads what [`Seen::put`] wrote.
    pub fn read(reader: &mut Reader) -> Decoded<Seen> {
        let mut seen = Seen::default();
        for _ in 0..reader.count()? {
            seen.note(Dot::read(reader)?, reader.varint()?, reader.i128()?);
        }
        Ok(seen)
    }
}

/// The run that a version belongs to, if it is one of a run.
pub fn run_of(version: &Version) -> Option<(Dot, &Run)> {
    match &version.payload {
        Payload::Run(run) => Some((run.first.unwrap_or(version.dot), run)),
        _ => None,
    }
}

/// What a write that replaces `versions` must remember: their own sums and all that they had seen.
pub fn seen_by_replacing<'a>(versions: impl Iterator<Item = &'a Version> + Clone) -> Seen {
    let mut seen = seen_over(versions.clone());
    for version in versions {
        if let Some((run, Run { sum, .. })) = run_of(version) {
            seen.note(run, version.dot.counter, *sum);
        }
    }
    seen
}

/// What the values and voids among `versions` have seen, together.
pub fn seen_over<'a>(versions: impl Iterator<Item = &'a Version>) -> Seen {
    let mut seen = Seen::default();
    for version in versions {
        match &version.payload {
            Payload::Value(value) => seen.merge(&value.seen),
            Payload::Void(void) => seen.merge(void),
            Payload::Run(_) | Payload::Expiry(_) => {}
        }
    }
    seen
}

/// What the live runs among `runs` add to the base, given what all live values and voids have `seen`; none when no run
/// counts, so that a key of nothing but spent runs is absent.
pub fn total<'a>(runs: impl Iterator<Item = &'a Version>, seen: &Seen) -> Option<i128> {
    let mut live: SmallVec<[(Dot, u64, i128); 4]> = SmallVec::new();
    for version in runs {
        let Some((run, Run { sum, .. })) = run_of(version) else { continue };
        match live.iter_mut().find(|(name, ..)| *name == run) {
            Some(known) if known.1 < version.dot.counter => *known = (run, version.dot.counter, *sum),
            Some(_) => {}
            None => live.push((run, version.dot.counter, *sum)),
        }
    }
    let mut total: Option<i128> = None;
    for (run, counter, sum) in live {
        match seen.of(run) {
            Some((covered, _)) if counter <= covered => {}
            // Saturating, because a peer's bytes are not to be trusted with a panic; increments cannot come near.
            Some((_, replaced)) => total = Some(sum.saturating_sub(replaced).saturating_add(total.unwrap_or(0))),
            None => total = Some(sum.saturating_add(total.unwrap_or(0))),
        }
    }
    total
}
