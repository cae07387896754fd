//! The one door through which rows change. In one batch: rows, the note of what the clock gained; under the same lock:
//! clock, hash tree, counts, the cache of heads.
//!
//! Changes are submitted first and taken into memory only when the committer has them: a refused change leaves no trace.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::heads::without_hidden;
use super::hints::NewHint;
use super::region::{RegionState, difference, leaf_of, record_key};
use super::{Applied, Intake, Replica};
use crate::base::codec::{Decoded, Reader};
use crate::base::id::Region;
use crate::base::scratch::carve;
use crate::causality::dot::{put_dots, read_dots};
use crate::causality::{Cell, Clock, Dot, Known, RowChange};
use crate::metrics;
use crate::model::delta::{put_region, read_region};
use crate::model::draft::Changed;
use crate::model::{Delta, Fault, Heads, RowKey};
use crate::ring::slot::Token;
use crate::storage::{Change, Space, StoreError, Ticket};

/// A row on its way through the door.
pub(super) struct Passing {
    row: Bytes,
    token: Token,
    before: Arc<Cell>,
    after: Arc<Cell>,
}

impl Replica {
    /// Commits what a draft changed. The delta has its rows only if somebody is to be told; `telling` says so, and whether
    /// the change is conditional.
    pub(super) fn commit_draft(
        &self,
        state: &mut RegionState,
        region: Region,
        changed: SmallVec<[Changed; 1]>,
        counter: u64,
        telling: Option<bool>,
    ) -> Result<(Delta, Ticket), Fault> {
        let mut gained = Gained::default();
        gained.extend((state.counter + 1..=counter).map(|n| state.dot(n)));
        let mut delta = Delta::new(region);
        let mut passing = SmallVec::<[Passing; 1]>::new();
        for changed in changed {
            // A client's context may name dots that have not arrived here.
            for dot in changed.superseded.iter().filter(|dot| !state.clock.contains(**dot)) {
                if !gained.contains(dot) {
                    gained.push(*dot);
                }
            }
            if let Some(conditional) = telling {
                delta.rows.push((changed.row.clone(), changed.change()));
                delta.kept.extend(changed.kept().filter(|_| conditional));
            }
            passing.push(self.passing(region, changed.row, changed.before, changed.after)?);
        }
        let ticket = self.pass(state, region, passing, gained, None)?;
        state.counter = counter;
        Ok((delta, ticket))
    }

    /// Applies a peer's delta to a region whose lock is held; with it goes a hint. Conflicts are looked for at the moment
    /// that is given, if one is.
    pub(super) fn apply_locked(
        &self,
        state: &mut RegionState,
        delta: &Delta,
        conflicts_at: Option<u64>,
        hint: Option<NewHint>,
    ) -> Result<Applied, Fault> {
        let mut applied = Applied::default();
        if let Some(clear) = &delta.clear {
            applied.ticket = self.receive_clear(state, delta.region, clear)?;
        }
        let (mut passing, mut gained) = (SmallVec::<[Passing; 1]>::new(), Gained::default());
        for (row, change) in &delta.rows {
            if change.superseded.iter().any(|dot| !state.clock.contains(*dot)) {
                applied.gaps.push(row.clone());
            }
            let before = self.heads.of_region(&*self.store, state.clear.as_ref()).head(row)?;
            let after = changed_by(&before, state, &mut gained, change);
            if let Some(now) = conflicts_at {
                applied.conflict |= delta.conflicts(change, after.as_ref().unwrap_or(&before), now);
            }
            if let Some(after) = after {
                passing.push(self.passing(delta.region, row.clone(), before, Arc::new(after))?);
            }
        }
        if !passing.is_empty() || !gained.is_empty() || hint.is_some() {
            applied.ticket = Some(self.pass(state, delta.region, passing, gained, hint)?);
        }
        Ok(applied)
    }

    /// Merges a peer's cell of a row, given what the peer knew when it read its clock.
    pub(super) fn merge_locked(
        &self,
        state: &mut RegionState,
        region: Region,
        row: &Bytes,
        theirs: &Cell,
        peer: Known<'_>,
    ) -> Result<Option<Ticket>, Fault> {
        let before = self.heads.of_region(&*self.store, state.clear.as_ref()).head(row)?;
        let mut change = RowChange::default();
        let mine_gone = before.dots().filter(|dot| !theirs.holds(*dot) && peer.contains(*dot));
        change.superseded.extend(mine_gone);
        change.new.extend(theirs.versions().iter().filter(|version| !before.holds(version.dot)).cloned());
        let mut gained = Gained::default();
        let after = changed_by(&before, state, &mut gained, &change);
        if after.is_none() && gained.is_empty() {
            return Ok(None);
        }
        let mut passing = SmallVec::<[Passing; 1]>::new();
        if let Some(after) = after {
            passing.push(self.passing(region, row.clone(), before, Arc::new(after))?);
        }
        self.pass(state, region, passing, gained, None).map(Some)
    }

    /// Hides everything that the region's own clock contains, and answers what others are to be told (FLUSHDB).
    pub fn clear<S>(&self, region: Region, tell: impl FnOnce(Delta) -> S) -> Result<Option<(Ticket, S)>, Fault> {
        self.check_takes(Intake::Removals)?;
        let Some(mut state) = self.existing(region) else { return Ok(None) };
        if state.clock.is_empty() {
            return Ok(None);
        }
        let clear = state.clock.clone();
        let ticket = self.hide(&mut state, region, &clear)?;
        state.reset_derived();
        Ok(Some((ticket, tell(Delta { clear: Some(clear), ..Delta::new(region) }))))
    }

    /// Takes over a peer's clear. Counts and digest are zero at once only if nothing here lies outside of it (rule 9).
    pub(super) fn receive_clear(
        &self,
        state: &mut RegionState,
        region: Region,
        clear: &Clock,
    ) -> Result<Option<Ticket>, Fault> {
        if state.clear.as_ref().is_some_and(|known| known.covers(clear)) {
            return Ok(None);
        }
        let hides_all = clear.covers(&state.clock);
        let ticket = self.hide(state, region, clear)?;
        if hides_all {
            state.reset_derived();
        } else {
            self.rescan(state, region)?;
        }
        Ok(Some(ticket))
    }

    /// Stores the region's whole record, in order with its rows.
    pub(super) fn write_record(&self, state: &mut RegionState, region: Region) -> Result<Ticket, Fault> {
        let record = Change::put(Space::Clocks, record_key(region), state.record());
        let ticket = self.submit([record], &[])?;
        state.noted = false;
        Ok(ticket)
    }

    fn hide(&self, state: &mut RegionState, region: Region, clear: &Clock) -> Result<Ticket, Fault> {
        state.clear.get_or_insert_default().join(clear);
        let ticket = self.write_record(state, region)?;
        state.hidden_until = Some(ticket);
        Ok(ticket)
    }

    pub(super) fn passing(
        &self,
        region: Region,
        row: Bytes,
        before: Arc<Cell>,
        after: Arc<Cell>,
    ) -> Result<Passing, Fault> {
        // A peer's word is not taken for it: a row of another region would be counted and compared in the wrong place.
        let token = RowKey::token_of(&row)
            .filter(|token| self.partitions.of_token(*token) == region.partition && row.first() == Some(&region.db.0));
        let token = token.ok_or_else(|| Fault::Store("a row key of another region".into()))?;
        Ok(Passing { row, token, before, after })
    }

    /// The door.
    pub(super) fn pass(
        &self,
        state: &mut RegionState,
        region: Region,
        mut passing: SmallVec<[Passing; 1]>,
        gained: Gained,
        hint: Option<NewHint>,
    ) -> Result<Ticket, Fault> {
        let marks = passing.iter().map(|Passing { row, before, after, .. }| {
            (self.heads.hash(row), difference(self.hash_seed, row, before, after))
        });
        let marks: SmallVec<[(u128, u128); 1]> = marks.collect();
        let changes = passing.iter_mut().map(|passing| Change {
            space: Space::Data,
            key: std::mem::take(&mut passing.row),
            value: (!passing.after.is_empty()).then(|| encode(&passing.after)),
        });
        let ticket = self.submit_with_hint(changes, &note(region, &gained), hint)?;
        for (Passing { token, before, after, .. }, (hash, difference)) in passing.into_iter().zip(marks) {
            state.tree.toggle(leaf_of(self.partitions, token), difference);
            if state.count(token, &before, &after) {
                metrics::SIBLINGS_MADE.increment();
            }
            self.heads.put_at(hash, after, ticket);
        }
        state.noted |= !gained.is_empty();
        gained.into_iter().for_each(|dot| {
            state.clock.add(dot);
        });
        Ok(ticket)
    }

    pub(super) fn submit(&self, changes: impl IntoIterator<Item = Change>, note: &[u8]) -> Result<Ticket, Fault> {
        self.committer.submit(changes, note).map_err(|error: StoreError| Fault::Store(error.to_string()))
    }

    /// Counts and digests a region's rows anew, without what its clear hides. Takes time with the number of rows.
    fn rescan(&self, state: &mut RegionState, region: Region) -> Result<(), Fault> {
        state.reset_derived();
        let mut fault = None;
        for row in self.stored_rows(region)? {
            match self.heads.of_region(&*self.store, state.clear.as_ref()).head(&row) {
                Ok(cell) => self.take_in(state, &row, &without_hidden(cell, state.clear.as_ref())),
                Err(error) => fault = Some(error),
            }
        }
        fault.map_or(Ok(()), Err)
    }

    /// Adds a visible row to counts and digest.
    pub(super) fn take_in(&self, state: &mut RegionState, row: &Bytes, cell: &Cell) {
        let Some(token) = RowKey::token_of(row) else { return };
        state.digest(leaf_of(self.partitions, token), self.hash_seed, row, &Cell::default(), cell);
        state.count(token, &Cell::default(), cell);
    }
}

/// Dots that a change brings.
type Gained = SmallVec<[Dot; 2]>;

/// What `change` makes of a cell; none if it stays as it is. `gained` collects the dots that are new to the region.
fn changed_by(before: &Cell, state: &RegionState, gained: &mut Gained, change: &RowChange) -> Option<Cell> {
    let known = Known { clock: &state.clock, clear: state.clear.as_ref() };
    let mut after = None;
    for dot in &change.superseded {
        if before.holds(*dot) {
            after.get_or_insert_with(|| before.clone()).remove(*dot);
        }
        if !known.clock.contains(*dot) && !gained.contains(dot) {
            gained.push(*dot);
        }
    }
    for version in &change.new {
        if gained.contains(&version.dot) || known.clock.contains(version.dot) {
            continue;
        }
        if !known.clears(version.dot) {
            after.get_or_insert_with(|| before.clone()).insert(version.clone());
        }
        gained.push(version.dot);
    }
    after
}

fn encode(cell: &Cell) -> Bytes {
    let expect = cell.versions().iter().map(|version| version.payload.data_len() + 64).sum();
    carve(expect, |out| cell.put(out))
}

/// A note: which region gained which dots; nothing for none.
fn note(region: Region, gained: &[Dot]) -> Vec<u8> {
    let mut out = Vec::new();
    if !gained.is_empty() {
        out.reserve(32);
        put_region(region, &mut out);
        put_dots(&mut out, gained);
    }
    out
}

/// A note without dots: all that the log had of the region before it is void.
pub(super) fn void_notes(region: Region) -> Vec<u8> {
    let mut out = Vec::new();
    put_region(region, &mut out);
    put_dots(&mut out, &[]);
    out
}

/// Reads notes one after the other. One without dots voids those of its region before it.
pub(super) fn read_notes(raw: Bytes, mut each: impl FnMut(Region, &[Dot])) -> Decoded<()> {
    let mut reader = Reader::new(raw);
    while reader.remaining() > 0 {
        let region = read_region(&mut reader)?;
        let dots: SmallVec<[Dot; 4]> = read_dots(&mut reader)?;
        each(region, &dots);
    }
    Ok(())
}
