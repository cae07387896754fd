//! A cell: the content of a row, as a set of versions each with its dot; how deltas are applied to it and how two
//! replicas' cells become one.

use bytes::BufMut;
use smallvec::SmallVec;

use super::clock::{Clock, Known};
use super::dot::{Dot, put_dots, read_dots};
use super::hlc::Stamp;
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

/// The live versions of a row, ascending by dot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cell {
    versions: SmallVec<[Version; 1]>,
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
}

impl Cell {
    /// A cell of these versions.
    pub fn of(versions: impl IntoIterator<Item = Version>) -> Cell {
        let mut cell = Cell::default();
        versions.into_iter().for_each(|version| cell.insert(version));
        cell
    }

    /// True when no version is left: the row need not be stored.
    pub fn is_empty(&self) -> bool {
        self.versions.is_empty()
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
        let mut answer = RowAnswer::default();
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

    /// Appends the cell as it is stored.
    pub fn put(&self, out: &mut impl BufMut) {
        put_versions(out, &self.versions);
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
