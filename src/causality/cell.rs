//! A cell: the content of a row, as a set of versions each with its dot; how deltas are applied to it and how two
//! replicas' cells become one.

use std::borrow::Cow;

use bytes::BufMut;
use smallvec::SmallVec;

use super::clock::{Clock, Known};
use super::dot::{Dot, put_dots, read_dots};
use super::hlc::Stamp;
use super::local::Local;
use super::payload::Payload;
use crate::base::codec::{Decoded, Reader, put_varint};

/// One version of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its name.
    pub dot: Dot,
    /// When it was written.
    pub stamp: Stamp,
    /// What it says.
    pub payload: Payload,
}

impl Version {
    fn put(&self, out: &mut impl BufMut) {
        self.dot.put(out);
        out.put_u64(self.stamp.0);
        self.payload.put(out);
    }

    fn read(reader: &mut Reader) -> Decoded<Version> {
        Ok(Version { dot: Dot::read(reader)?, stamp: Stamp(reader.u64()?), payload: Payload::read(reader)? })
    }
}

/// Appends a count, then each version.
pub fn put_versions(out: &mut impl BufMut, versions: &[Version]) {
    put_varint(out, versions.len() as u64);
    versions.iter().for_each(|version| version.put(out));
}

/// Reads what [`put_versions`] wrote.
pub fn read_versions<C: FromIterator<Version>>(reader: &mut Reader) -> Decoded<C> {
    (0..reader.count()?).map(|_| Version::read(reader)).collect()
}

/// The live versions of a row, ascending by dot. With a head row ride the local facts of its key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cell {
    versions: SmallVec<[Version; 1]>,
    local: Option<Box<Local>>,
}

/// What one command, or one repair, changes in a row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowChange {
    /// Versions that are new.
    pub new: SmallVec<[Version; 1]>,
    /// Dots that the change observed and replaced.
    pub superseded: SmallVec<[Dot; 2]>,
}

impl RowChange {
    /// True when it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.new.is_empty() && self.superseded.is_empty()
    }

    /// Appends versions and dots.
    pub fn put(&self, out: &mut impl BufMut) {
        put_versions(out, &self.new);
        put_dots(out, &self.superseded);
    }

    /// Reads what [`RowChange::put`] wrote.
    pub fn read(reader: &mut Reader) -> Decoded<RowChange> {
        Ok(RowChange { new: read_versions(reader)?, superseded: read_dots(reader)? })
    }
}

/// A replica's answer to "these are my dots of the row": what each side lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowAnswer {
    /// For the asker: versions it did not name, and those of its dots that are superseded here.
    pub change: RowChange,
    /// Of the asker's dots, those that this replica has not seen: the asker may send them.
    pub unseen: SmallVec<[Dot; 2]>,
    /// Of a head row: the digest of all other rows of the key. Where it is another one, those are to be compared.
    pub digest: u128,
}

impl Cell {
    /// A cell of these versions.
    pub fn of(versions: impl IntoIterator<Item = Version>) -> Cell {
        let mut cell = Cell::default();
        versions.into_iter().for_each(|version| cell.insert(version));
        cell
    }

    /// True when no version is left: to other replicas the row is not there.
    pub fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }

    /// True when the row need not be stored.
    pub fn is_blank(&self) -> bool {
        self.versions.is_empty() && self.local.is_none()
    }

    /// What is known here of the key's collections, if this is a head row.
    pub fn local(&self) -> Option<&Local> {
        self.local.as_deref()
    }

    /// Replaces that; nothing is as good as none.
    pub fn set_local(&mut self, local: Option<Box<Local>>) {
        self.local = local.filter(|local| !local.is_empty());
    }

    /// The contexts of what ended the key's collections and is not forgotten yet.
    pub fn cleared(&self) -> impl Iterator<Item = (Dot, &Clock)> {
        self.versions.iter().filter_map(|version| match &version.payload {
            Payload::Cleared(clock) => Some((version.dot, clock)),
            _ => None,
        })
    }

    /// Of a head row: all that it hides of the key's other rows, which nearly always is nothing.
    pub fn hides(&self) -> Option<Cow<'_, Clock>> {
        let hidden = self.local.as_ref().and_then(|local| local.hidden.as_ref());
        let mut all = hidden.into_iter().chain(self.cleared().map(|(_, clock)| clock));
        let first = all.next()?;
        Some(all.fold(Cow::Borrowed(first), |mut hides, more| {
            hides.to_mut().join(more);
            hides
        }))
    }

    /// The versions, ascending by dot.
    pub fn versions(&self) -> &[Version] {
        &self.versions
    }

    /// Their dots, ascending.
    pub fn dots(&self) -> impl Iterator<Item = Dot> + '_ {
        self.versions.iter().map(|version| version.dot)
    }

    /// Whether the cell holds `dot`.
    pub fn holds(&self, dot: Dot) -> bool {
        self.dots().any(|held| held == dot)
    }

    /// Whether the cell holds `dot` and no clear hides it.
    fn shows(&self, dot: Dot, known: Known<'_>) -> bool {
        self.holds(dot) && !known.clears(dot)
    }

    /// Adds a version; one with the same dot is the same version.
    pub fn insert(&mut self, version: Version) {
        // Nearly always the only one: no search.
        match self.versions.binary_search_by_key(&version.dot, |held| held.dot) {
            Ok(_) => {}
            Err(at) => self.versions.insert(at, version),
        }
    }

    /// Takes a version out.
    pub fn remove(&mut self, dot: Dot) -> Option<Version> {
        let at = self.versions.iter().position(|version| version.dot == dot)?;
        Some(self.versions.remove(at))
    }

    /// Lets go of the versions that `keep` refuses.
    pub fn retain(&mut self, mut keep: impl FnMut(&Version) -> bool) {
        self.versions.retain(|version| keep(version));
    }

    /// Applies a change that came from elsewhere: idempotent, in any order. `clear` hides what a clear superseded
    /// (rule 2). Says whether the cell changed.
    pub fn apply(&mut self, clock: &mut Clock, clear: Option<&Clock>, change: &RowChange) -> bool {
        let mut changed = false;
        for dot in &change.superseded {
            changed |= self.remove(*dot).is_some();
            clock.add(*dot);
        }
        for version in &change.new {
            if !(Known { clock, clear }).contains(version.dot) {
                self.insert(version.clone());
                changed = true;
            }
            clock.add(version.dot);
        }
        changed
    }

    /// Merges a peer's cell, given all that the peer knows: keep what both have, what is mine and unknown to the peer,
    /// what is the peer's and unknown to me. What a clear hides at the peer counts as gone there, swept or not. Joining the
    /// clocks is for whoever has compared the whole region (rule 1).
    pub fn merge(&mut self, clock: &mut Clock, clear: Option<&Clock>, theirs: &Cell, peer: Known<'_>) {
        self.versions.retain(|mine| theirs.shows(mine.dot, peer) || !peer.contains(mine.dot));
        for version in &theirs.versions {
            if !peer.clears(version.dot) && !(Known { clock, clear }).contains(version.dot) {
                self.insert(version.clone());
            }
            clock.add(version.dot);
        }
    }

    /// Answers a peer that names the dots of its own cell: what it lacks, what of its is gone, what this side has not
    /// seen. Applying the answer's change there and the [`Cell::reply`] here makes both cells equal. What a clear hides
    /// is gone, swept or not.
    pub fn answer(&self, known: Known<'_>, theirs: &[Dot]) -> RowAnswer {
        let lacking = |mine: &&Version| !theirs.contains(&mine.dot) && !known.clears(mine.dot);
        let mut answer =
            RowAnswer { digest: self.local.as_ref().map_or(0, |local| local.digest()), ..RowAnswer::default() };
        answer.change.new.extend(self.versions.iter().filter(lacking).cloned());
        for dot in theirs.iter().filter(|dot| !self.shows(**dot, known)) {
            if known.contains(*dot) {
                answer.change.superseded.push(*dot);
            } else {
                answer.unseen.push(*dot);
            }
        }
        answer
    }

    /// What the asker sends back for an answer: the versions that the other side has not seen, and those of the answer
    /// that are known here to be gone. `known` and the cell may be those of before or after applying the answer's change.
    pub fn reply(&self, known: Known<'_>, answer: &RowAnswer) -> RowChange {
        let answered = answer.change.new.iter().map(|version| version.dot);
        let named = answered.chain(answer.unseen.iter().copied());
        let unseen = |mine: &&Version| answer.unseen.contains(&mine.dot) && !known.clears(mine.dot);
        RowChange {
            new: self.versions.iter().filter(unseen).cloned().collect(),
            superseded: named.filter(|dot| known.contains(*dot) && !self.shows(*dot, known)).collect(),
        }
    }

    /// Appends the cell as it is sent.
    pub fn put(&self, out: &mut impl BufMut) {
        put_versions(out, &self.versions);
    }

    /// Appends the cell as it is stored.
    pub fn put_stored(&self, out: &mut impl BufMut) {
        put_versions(out, &self.versions);
        if let Some(local) = &self.local {
            local.put(out);
        }
    }

    /// Reads all that [`Cell::put_stored`] wrote.
    pub fn read_stored(reader: &mut Reader) -> Decoded<Cell> {
        let mut cell = Cell::read(reader)?;
        if reader.remaining() > 0 {
            cell.local = Some(Box::new(Local::read(reader)?));
        }
        Ok(cell)
    }

    /// Reads what [`Cell::put`] wrote.
    pub fn read(reader: &mut Reader) -> Decoded<Cell> {
        Ok(Cell::of(read_versions::<SmallVec<[Version; 1]>>(reader)?))
    }
}

impl FromIterator<Version> for Cell {
    fn from_iter<I: IntoIterator<Item = Version>>(versions: I) -> Self {
        Cell::of(versions)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::payload::tests::{any_dot, any_payload};
    use super::super::payload::{Run, Value};
    use super::*;
    use crate::base::id::ActorId;

    fn dot(counter: u64) -> Dot {
        Dot::new(ActorId(1), counter)
    }

    fn version(counter: u64) -> Version {
        Version { dot: dot(counter), stamp: Stamp::at(counter), payload: Payload::Value(Value::plain("v".into())) }
    }

    fn cell(counters: impl IntoIterator<Item = u64>) -> Cell {
        counters.into_iter().map(version).collect()
    }

    fn clock(counters: impl IntoIterator<Item = u64>) -> Clock {
        counters.into_iter().map(dot).collect()
    }

    fn change(new: &[u64], superseded: &[u64]) -> RowChange {
        RowChange {
            new: new.iter().map(|counter| version(*counter)).collect(),
            superseded: superseded.iter().map(|counter| dot(*counter)).collect(),
        }
    }

    #[test]
    fn a_change_puts_its_version_in_the_place_of_what_it_saw() {
        let (mut cell, mut clock) = (cell([1, 2]), clock([1, 2]));
        assert!(cell.apply(&mut clock, None, &change(&[4], &[1, 3])));
        assert_eq!(cell.dots().collect::<Vec<_>>(), [dot(2), dot(4)]);
        assert!([1, 2, 3, 4].iter().all(|counter| clock.contains(dot(*counter))));
        assert!(!cell.apply(&mut clock, None, &change(&[4], &[1, 3])), "twice is once");
    }

    #[test]
    fn a_version_that_was_superseded_before_it_came_stays_out() {
        let (mut cell, mut clock) = (Cell::default(), Clock::new());
        cell.apply(&mut clock, None, &change(&[2], &[1]));
        assert!(!cell.apply(&mut clock, None, &change(&[1], &[])));
        assert_eq!(cell.dots().collect::<Vec<_>>(), [dot(2)]);
    }

    #[test]
    fn a_version_that_a_clear_covers_is_seen_but_stays_out() {
        let (mut cell, mut known, clear) = (Cell::default(), Clock::new(), clock([1]));
        assert!(!cell.apply(&mut known, Some(&clear), &change(&[1], &[])));
        assert!(cell.is_empty() && known.contains(dot(1)));
    }

    #[test]
    fn a_merge_keeps_what_both_have_and_what_the_other_has_not_seen() {
        let (mut mine, mut known) = (cell([1, 2, 3]), clock([1, 2, 3, 4]));
        let (theirs, peer) = (cell([1, 4, 5]), clock([1, 2, 4, 5]));
        mine.merge(&mut known, None, &theirs, Known { clock: &peer, clear: None });
        // 2 is gone there, 4 is gone here, 3 is unknown there, 5 is new here.
        assert_eq!(mine.dots().collect::<Vec<_>>(), [dot(1), dot(3), dot(5)]);
        assert!(known.contains(dot(5)));
    }

    #[test]
    fn an_answer_says_what_is_lacking_what_is_gone_and_what_is_unseen() {
        let (held, known) = (cell([1, 4, 5]), clock([1, 2, 4, 5]));
        let answer = held.answer(Known { clock: &known, clear: None }, &[dot(1), dot(2), dot(3)]);
        assert_eq!(answer.change, change(&[4, 5], &[2]));
        assert_eq!(answer.unseen.as_slice(), [dot(3)]);
        let (asking, clock) = (cell([1, 2, 3]), clock([1, 2, 3, 4]));
        assert_eq!(asking.reply(Known { clock: &clock, clear: None }, &answer), change(&[3], &[4]));
    }

    #[test]
    fn what_a_clear_hides_is_neither_answered_nor_merged() {
        let (held, known, hidden) = (cell([1, 2]), clock([1, 2]), clock([1]));
        let peer = Known { clock: &known, clear: Some(&hidden) };
        assert_eq!(held.answer(peer, &[]).change, change(&[2], &[]));
        assert_eq!(held.answer(peer, &[dot(1)]).change, change(&[2], &[1]));
        let (mut mine, mut seen) = (cell([1]), clock([1]));
        mine.merge(&mut seen, None, &held, peer);
        assert_eq!(mine, cell([2]));
        let (mut fresh, mut seen) = (Cell::default(), Clock::new());
        fresh.merge(&mut seen, None, &held, peer);
        assert_eq!(fresh, cell([2]));
        assert!(seen.contains(dot(1)), "gone is seen");
    }

    #[test]
    fn what_an_own_clear_hides_is_neither_taken_over_nor_replied() {
        let (held, known, hidden) = (cell([1, 2]), clock([1, 2]), clock([1]));
        let (mut mine, mut seen) = (Cell::default(), Clock::new());
        mine.merge(&mut seen, Some(&hidden), &held, Known { clock: &known, clear: None });
        assert_eq!(mine, cell([2]));
        let unseen = RowAnswer { unseen: [dot(1), dot(2)].into_iter().collect(), ..RowAnswer::default() };
        assert_eq!(held.reply(Known { clock: &known, clear: Some(&hidden) }, &unseen), change(&[2], &[1]));
    }

    fn any_version() -> impl Strategy<Value = Version> {
        (any_dot(), any::<u64>(), any_payload()).prop_map(|(dot, at, payload)| Version {
            dot,
            stamp: Stamp(at),
            payload,
        })
    }

    proptest! {
        #[test]
        fn a_cell_survives_its_encoding(versions in proptest::collection::vec(any_version(), 0..5)) {
            let cell = Cell::of(versions);
            prop_assert!(cell.versions().is_sorted_by(|a, b| a.dot < b.dot));
            let mut out = Vec::new();
            cell.put(&mut out);
            let mut reader = Reader::new(out.into());
            prop_assert_eq!(Cell::read(&mut reader), Ok(cell));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn a_change_survives_its_encoding(
            new in proptest::collection::vec(any_version(), 0..4),
            superseded in proptest::collection::vec(any_dot(), 0..4),
        ) {
            let change = RowChange { new: new.into(), superseded: superseded.into() };
            let mut out = Vec::new();
            change.put(&mut out);
            let mut reader = Reader::new(out.into());
            prop_assert_eq!(RowChange::read(&mut reader), Ok(change));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn any_bytes_decode_to_a_cell_and_a_change_or_an_error(raw: Vec<u8>) {
            let _ = Cell::read(&mut Reader::new(raw.clone().into()));
            let _ = RowChange::read(&mut Reader::new(raw.into()));
        }
    }

    #[test]
    fn one_dot_is_one_version_whatever_comes_under_its_name() {
        let mut cell = cell([1]);
        cell.insert(Version { payload: Payload::Run(Run { first: None, sum: 1 }), ..version(1) });
        assert_eq!(cell.versions(), [version(1)]);
        assert_eq!(cell.remove(dot(1)), Some(version(1)));
        assert_eq!(cell.remove(dot(1)), None);
    }
}
