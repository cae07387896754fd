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
    #[expect(clippy::box_collection, reason = "nearly every value has seen no run, and values are many")]
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
            Payload::Run(_) | Payload::Expiry(_) | Payload::Cleared(_) => {}
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::hlc::Stamp;
    use super::super::payload::Value;
    use super::super::payload::tests::any_dot;
    use super::*;
    use crate::base::id::ActorId;

    fn dot(counter: u64) -> Dot {
        Dot::new(ActorId(1), counter)
    }

    fn version(dot: Dot, payload: Payload) -> Version {
        Version { dot, stamp: Stamp::default(), payload }
    }

    fn run(counter: u64, first: Option<u64>, sum: i128) -> Version {
        version(dot(counter), Payload::Run(Run { first: first.map(dot), sum }))
    }

    fn seen(runs: &[(u64, u64, i128)]) -> Seen {
        let mut seen = Seen::default();
        runs.iter().for_each(|(run, counter, sum)| seen.note(dot(*run), *counter, *sum));
        seen
    }

    fn value(counter: u64, seen: Seen) -> Version {
        version(dot(counter), Payload::Value(Value { seen, ..Value::plain(Bytes::new()) }))
    }

    #[test]
    fn runs_add_up_and_without_one_that_counts_there_is_no_total() {
        let none = Seen::default();
        assert_eq!(total([].iter(), &none), None);
        assert_eq!(total([run(1, None, 0)].iter(), &none), Some(0));
        assert_eq!(total([run(1, None, 5), run(7, Some(2), -2)].iter(), &none), Some(3));
        assert_eq!(total([value(1, Seen::default())].iter(), &none), None);
    }

    #[test]
    fn of_several_versions_of_a_run_the_last_counts_in_whatever_order_they_lie() {
        let versions = [run(3, Some(1), 9), run(1, None, 5), run(4, Some(1), 2)];
        assert_eq!(total(versions.iter(), &Seen::default()), Some(2));
        assert_eq!(total(versions.iter().rev(), &Seen::default()), Some(2));
    }

    #[test]
    fn what_was_seen_counts_no_more_and_what_came_after_does() {
        assert_eq!(total([run(5, Some(1), 9)].iter(), &seen(&[(1, 3, 4)])), Some(5));
        assert_eq!(total([run(3, Some(1), 4)].iter(), &seen(&[(1, 3, 4)])), None, "covered");
        assert_eq!(total([run(2, Some(1), 3)].iter(), &seen(&[(1, 3, 4)])), None, "covered by a later one");
        assert_eq!(total([run(5, Some(1), 9)].iter(), &seen(&[(2, 3, 4)])), Some(9), "another run");
    }

    #[test]
    fn of_two_sums_the_later_is_remembered_not_the_larger() {
        let mut one = seen(&[(1, 3, 9)]);
        one.merge(&seen(&[(1, 4, 2), (6, 6, 1)]));
        assert_eq!((one.of(dot(1)), one.of(dot(6)), one.of(dot(7))), (Some((4, 2)), Some((6, 1)), None));
        one.merge(&seen(&[(1, 3, 9)]));
        assert_eq!(one.of(dot(1)), Some((4, 2)));
    }

    #[test]
    fn who_replaces_versions_remembers_their_sums_and_all_that_they_had_seen() {
        let versions = [
            value(5, seen(&[(1, 3, 4)])),
            version(dot(6), Payload::Void(seen(&[(2, 2, 1), (1, 1, 1)]))),
            run(8, Some(1), 7),
            run(9, None, 1),
        ];
        assert_eq!(seen_over(versions.iter()), seen(&[(1, 3, 4), (2, 2, 1)]));
        assert_eq!(seen_by_replacing(versions.iter()), seen(&[(1, 8, 7), (2, 2, 1), (9, 9, 1)]));
    }

    #[test]
    fn a_run_is_named_by_its_first_dot() {
        assert_eq!(run_of(&run(4, None, 1)).map(|(name, _)| name), Some(dot(4)));
        assert_eq!(run_of(&run(4, Some(2), 1)).map(|(name, _)| name), Some(dot(2)));
        assert_eq!(run_of(&value(4, Seen::default())), None);
    }

    #[test]
    fn sums_from_untrusted_bytes_saturate() {
        let row = [run(2, None, i128::MAX), run(4, Some(3), i128::MAX)];
        assert_eq!(total(row.iter(), &seen(&[(3, 3, i128::MIN)])), Some(i128::MAX));
    }

    #[test]
    fn what_is_let_go_is_as_if_never_seen() {
        let mut seen = seen(&[(1, 1, 1), (2, 2, 2)]);
        seen.retain(|run| run == dot(2));
        assert_eq!(seen.iter().count(), 1);
        seen.retain(|_| false);
        assert!(seen.is_empty());
        assert_eq!(seen, Seen::default());
    }

    fn notes() -> impl Strategy<Value = Vec<(Dot, u64)>> {
        proptest::collection::vec((any_dot(), 1u64..20), 0..12)
    }

    /// A run has one sum at each of its dots.
    fn noted(notes: &[(Dot, u64)]) -> Seen {
        let mut seen = Seen::default();
        notes.iter().for_each(|(run, counter)| seen.note(*run, *counter, i128::from(*counter * 7 % 5) - 2));
        seen
    }

    proptest! {
        #[test]
        fn merging_what_was_seen_is_noting_it_all_in_any_order(a in notes(), b in notes()) {
            let (mut one, mut other) = (noted(&a), noted(&b));
            let both = noted(&[b, a].concat());
            let before = one.clone();
            one.merge(&other);
            other.merge(&before);
            prop_assert_eq!(&one, &both);
            prop_assert_eq!(&other, &both);
            one.merge(&before);
            prop_assert_eq!(&one, &both);
        }

        #[test]
        fn what_was_seen_survives_its_encoding(a in notes()) {
            let seen = noted(&a);
            let mut out = Vec::new();
            seen.put(&mut out);
            let mut reader = Reader::new(out.into());
            prop_assert_eq!(Seen::read(&mut reader), Ok(seen));
            prop_assert_eq!(reader.finish(), Ok(()));
        }
    }
}
