//! A clock: the set of dots whose effects a replica has, per actor as intervals. Nearly always one interval each: gaps
//! come from lost messages and from leases that a crash left unused.

use bytes::BufMut;
use smallvec::SmallVec;

use super::dot::Dot;
use crate::base::codec::{DecodeError, Decoded, Reader, put_varint};
use crate::base::id::ActorId;

/// Inclusive, ascending, neither touching nor overlapping.
type Intervals = SmallVec<[(u64, u64); 1]>;

/// A set of dots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clock {
    actors: Vec<(ActorId, Intervals)>,
}

impl Clock {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// True when no dot is in.
    pub fn is_empty(&self) -> bool {
        self.actors.is_empty()
    }

    /// Whether `dot` is in.
    pub fn contains(&self, dot: Dot) -> bool {
        self.intervals(dot.actor).is_some_and(|intervals| {
            // The last interval is where nearly every question ends.
            match intervals.iter().rev().find(|(low, _)| *low <= dot.counter) {
                Some((_, high)) => dot.counter <= *high,
                None => false,
            }
        })
    }

    /// Adds a dot; says whether it was new.
    pub fn add(&mut self, dot: Dot) -> bool {
        self.add_interval(dot.actor, dot.counter, dot.counter)
    }

    /// Adds every counter of `low..=high`; says whether any was new.
    pub fn add_interval(&mut self, actor: ActorId, low: u64, high: u64) -> bool {
        if low > high {
            return false;
        }
        let at = match self.actors.binary_search_by_key(&actor, |(id, _)| *id) {
            Ok(at) => at,
            Err(at) => {
                self.actors.insert(at, (actor, Intervals::new()));
                at
            }
        };
        insert(&mut self.actors[at].1, low, high)
    }

    /// Adds all of `other`.
    pub fn join(&mut self, other: &Clock) {
        for (actor, intervals) in &other.actors {
            for (low, high) in intervals {
                self.add_interval(*actor, *low, *high);
            }
        }
    }

    /// Whether every dot of `other` is in.
    pub fn covers(&self, other: &Clock) -> bool {
        other.actors.iter().all(|(actor, theirs)| {
            let Some(mine) = self.intervals(*actor) else { return theirs.is_empty() };
            theirs.iter().all(|(low, high)| mine.iter().any(|(from, to)| from <= low && high <= to))
        })
    }

    /// Whether every dot of `other` that `actor` gave up to `counter` is in.
    pub fn covers_until(&self, other: &Clock, actor: ActorId, counter: u64) -> bool {
        let theirs = other.intervals(actor).into_iter().flatten().filter(|(low, _)| *low <= counter);
        let mine = self.intervals(actor);
        theirs
            .map(|(low, high)| (*low, counter.min(*high)))
            .all(|(low, high)| mine.is_some_and(|mine| mine.iter().any(|(from, to)| *from <= low && high <= *to)))
    }

    /// The highest counter of `actor` that is in; 0 if none is.
    pub fn highest(&self, actor: ActorId) -> u64 {
        self.intervals(actor).and_then(|intervals| intervals.last()).map_or(0, |(_, high)| *high)
    }

    /// Every actor with its intervals, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (ActorId, &[(u64, u64)])> {
        self.actors.iter().map(|(actor, intervals)| (*actor, intervals.as_slice()))
    }

    /// How many intervals there are: the size of the clock.
    pub fn len_intervals(&self) -> usize {
        self.actors.iter().map(|(_, intervals)| intervals.len()).sum()
    }

    fn intervals(&self, actor: ActorId) -> Option<&Intervals> {
        // Clocks name a handful of actors: a walk beats a search.
        self.actors.iter().find(|(id, _)| *id == actor).map(|(_, intervals)| intervals)
    }

    /// Appends the clock: per actor its id and its intervals as differences.
    pub fn put(&self, out: &mut impl BufMut) {
        put_varint(out, self.actors.len() as u64);
        for (actor, intervals) in &self.actors {
            out.put_u64(actor.0);
            put_varint(out, intervals.len() as u64);
            let mut last = 0;
            for (low, high) in intervals {
                put_varint(out, low - last);
                put_varint(out, high - low);
                last = *high;
            }
        }
    }

    /// Reads what [`Clock::put`] wrote; refuses what it never writes.
    pub fn read(reader: &mut Reader) -> Decoded<Clock> {
        let mut clock = Clock::new();
        for _ in 0..reader.count()? {
            let actor = ActorId(reader.u64()?);
            if clock.actors.last().is_some_and(|(last, _)| *last >= actor) {
                return Err(DecodeError::Invalid("clock"));
            }
            clock.actors.push((actor, read_intervals(reader)?));
        }
        Ok(clock)
    }
}

fn read_intervals(reader: &mut Reader) -> Decoded<Intervals> {
    let mut intervals = Intervals::new();
    for _ in 0..reader.count()? {
        let last: Option<u64> = intervals.last().map(|(_, high)| *high);
        let low = last.unwrap_or(0).checked_add(reader.varint()?).ok_or(DecodeError::Invalid("clock"))?;
        let high = low.checked_add(reader.varint()?).ok_or(DecodeError::Invalid("clock"))?;
        if last.is_some_and(|last| low - last < 2) {
            return Err(DecodeError::Invalid("clock"));
        }
        intervals.push((low, high));
    }
    if intervals.is_empty() { Err(DecodeError::Invalid("clock")) } else { Ok(intervals) }
}

impl FromIterator<Dot> for Clock {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Self {
        let mut clock = Clock::new();
        dots.into_iter().for_each(|dot| {
            clock.add(dot);
        });
        clock
    }
}

/// Adds `low..=high` to ascending intervals, joining what touches. True when something was new.
fn insert(intervals: &mut Intervals, low: u64, high: u64) -> bool {
    // The next dot of an actor is the common case.
    match intervals.last_mut() {
        None => {
            intervals.push((low, high));
            return true;
        }
        Some((_, last)) if low > last.saturating_add(1) => {
            intervals.push((low, high));
            return true;
        }
        Some((_, last)) if last.checked_add(1) == Some(low) => {
            *last = high;
            return true;
        }
        Some((first, last)) if *first <= low => {
            let new = high > *last;
            *last = (*last).max(high);
            return new;
        }
        Some(_) => {}
    }
    let start = intervals.partition_point(|(_, end)| end.saturating_add(1) < low);
    let end = intervals.partition_point(|(begin, _)| *begin <= high.saturating_add(1));
    if start == end {
        intervals.insert(start, (low, high));
        return true;
    }
    let merged = (low.min(intervals[start].0), high.max(intervals[end - 1].1));
    let new = !(end - start == 1 && merged == intervals[start]);
    intervals[start] = merged;
    intervals.drain(start + 1..end);
    new
}

/// What a replica knows of a row: its clock, and the context of a clear that it keeps until the clock covers it and the
/// rows that it hides are gone (rule 2): let go earlier, rows not swept yet would show again. Every question "have I seen
/// this dot" goes through here.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The region's clock.
    pub clock: &'a Clock,
    /// The context of a clear that hides rows, if one is kept.
    pub clear: Option<&'a Clock>,
}

impl Known<'_> {
    /// Whether the dot's effect is here, or is known to be superseded.
    pub fn contains(&self, dot: Dot) -> bool {
        self.clock.contains(dot) || self.clears(dot)
    }

    /// Whether a clear superseded the dot.
    pub fn clears(&self, dot: Dot) -> bool {
        self.clear.is_some_and(|clear| clear.contains(dot))
    }
}

/// Whether a clear with context `clear` hides every version of its key that a replica with `clock` (as it was before
/// the clear and what came with it) can hold. Only then may digest and count of the key be set to zero unread; else some
/// version may outlive the clear, and the key must be scanned before either is used (rule 9).
pub fn clear_hides_all(clock: &Clock, clear: &Clock) -> bool {
    clear.covers(clock)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn dot(actor: u64, counter: u64) -> Dot {
        Dot::new(ActorId(actor), counter)
    }

    fn dots() -> impl Strategy<Value = Vec<(u64, u64, u64)>> {
        proptest::collection::vec((0u64..3, 1u64..40, 0u64..6), 0..40)
    }

    fn model(parts: &[(u64, u64, u64)]) -> (Clock, BTreeSet<Dot>) {
        let (mut clock, mut set) = (Clock::new(), BTreeSet::new());
        for (actor, low, more) in parts {
            let fresh = (*low..=low + more).filter(|n| set.insert(dot(*actor, *n))).count();
            assert_eq!(clock.add_interval(ActorId(*actor), *low, low + more), fresh > 0);
        }
        (clock, set)
    }

    proptest! {
        #[test]
        fn a_clock_is_the_set_of_its_dots(a in dots(), b in dots()) {
            let (mut one, mut one_set) = model(&a);
            let (two, two_set) = model(&b);
            for actor in 0..3 {
                for n in 1..50 {
                    prop_assert_eq!(one.contains(dot(actor, n)), one_set.contains(&dot(actor, n)));
                }
            }
            prop_assert_eq!(one.covers(&two), two_set.is_subset(&one_set));
            for (actor, counter) in [(0, 10), (1, 25), (2, 50)] {
                let mut until = two_set.iter().filter(|dot| dot.actor == ActorId(actor) && dot.counter <= counter);
                let within = until.all(|dot| one_set.contains(dot));
                prop_assert_eq!(one.covers_until(&two, ActorId(actor), counter), within);
            }
            one.join(&two);
            one_set.extend(&two_set);
            prop_assert_eq!(&one, &one_set.iter().copied().collect());
        }

        #[test]
        fn intervals_neither_touch_nor_overlap(a in dots()) {
            let (clock, _) = model(&a);
            for (_, intervals) in clock.iter() {
                prop_assert!(intervals.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            }
        }

        #[test]
        fn a_clock_survives_its_encoding(a in dots()) {
            let (clock, _) = model(&a);
            let mut out = Vec::new();
            clock.put(&mut out);
            let mut reader = Reader::new(Bytes::from(out));
            prop_assert_eq!(Clock::read(&mut reader), Ok(clock));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn any_bytes_decode_to_a_clock_or_an_error(raw: Vec<u8>) {
            let _ = Clock::read(&mut Reader::new(Bytes::from(raw)));
        }

        #[test]
        fn only_what_a_clock_writes_is_read_as_one(parts in proptest::collection::vec((0u8..3, proptest::collection::vec((0u8..4, 0u8..3), 0..4)), 0..4)) {
            let mut raw = vec![parts.len() as u8];
            for (actor, intervals) in &parts {
                raw.extend(u64::from(*actor).to_be_bytes());
                raw.push(intervals.len() as u8);
                raw.extend(intervals.iter().flat_map(|(gap, length)| [*gap, *length]));
            }
            if let Ok(clock) = Clock::read(&mut Reader::new(raw.clone().into())) {
                let mut again = Vec::new();
                clock.put(&mut again);
                prop_assert_eq!(again, raw);
            }
        }
    }

    #[test]
    fn a_clear_hides_all_only_where_it_covers_everything_known() {
        let clear: Clock = [dot(1, 1), dot(1, 2), dot(2, 1)].into_iter().collect();
        assert!(clear_hides_all(&Clock::new(), &clear));
        assert!(clear_hides_all(&[dot(1, 2), dot(2, 1)].into_iter().collect(), &clear));
        assert!(!clear_hides_all(&[dot(1, 2), dot(2, 2)].into_iter().collect(), &clear));
        assert!(!clear_hides_all(&[dot(3, 1)].into_iter().collect(), &clear));
    }

    #[test]
    fn the_largest_counter_has_its_place() {
        let mut clock: Clock = [dot(1, u64::MAX), dot(1, u64::MAX - 2), dot(1, 0)].into_iter().collect();
        assert!(clock.add(dot(1, u64::MAX - 1)) && !clock.add(dot(1, u64::MAX)));
        assert_eq!(clock.iter().next(), Some((ActorId(1), &[(0, 0), (u64::MAX - 2, u64::MAX)][..])));
    }
}
