//! The one door through which rows change. In one batch: rows, the note of what the clock gained; under the same lock:
//! clock, hash tree, counts, the cache of heads.
//!
//! Changes are submitted first and taken into memory only when the committer has them: a refused change leaves no trace.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::hints::NewHint;
use super::region::{RegionState, difference, leaf_of, record_key, row_hash};
use super::{Applied, Intake, Replica};
use crate::base::codec::{Decoded, Reader};
use crate::base::id::Region;
use crate::base::kind::{Role, Tag};
use crate::base::scratch::carve;
use crate::causality::dot::{put_dots, read_dots};
use crate::causality::{Cell, Clock, Dot, Known, RowChange};
use crate::metrics;
use crate::model::delta::{put_region, read_region};
use crate::model::draft::Changed;
use crate::model::settle::{fresh_clears, index_of, settle};
use crate::model::{Delta, Fault, Heads, RowKey, Touched};
use crate::ring::slot::Token;
use crate::storage::{Change, Space, StoreError, Ticket};

/// A row on its way through the door.
pub(super) struct Passing {
    row: Bytes,
    token: Token,
    /// What of its key it is.
    tag: Tag,
    before: Arc<Cell>,
    after: Arc<Cell>,
}

impl Passing {
    /// Whether nothing but this row changes with it.
    fn is_alone(&self) -> bool {
        self.tag == Tag::HEAD && self.before.local().is_none() && self.after.local().is_none()
    }
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
        for (row, change) in in_order(&delta.rows) {
            if change.superseded.iter().any(|dot| !state.clock.contains(*dot)) {
                applied.gaps.push(row.clone());
            }
            let before = self.heads.of_region(&*self.store, state).head(row)?;
            let hides = self.hides_within(state, row, &passing)?;
            let after = changed_by(&before, state, hides.as_ref(), &mut gained, change);
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
        let before = self.heads.of_region(&*self.store, state).head(row)?;
        let mut change = RowChange::default();
        let mine_gone = before.dots().filter(|dot| !theirs.holds(*dot) && peer.contains(*dot));
        change.superseded.extend(mine_gone);
        change.new.extend(theirs.versions().iter().filter(|version| !before.holds(version.dot)).cloned());
        let (mut gained, hides) = (Gained::default(), self.hides(state, row)?);
        let after = changed_by(&before, state, hides.as_ref(), &mut gained, &change);
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
        let mut all = state.clear.take().unwrap_or_default();
        all.join(clear);
        state.set_clear(Some(all));
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
        let tag = RowKey::split(&row).map(|(tag, _)| tag).filter(|tag| tag.role() != Role::Index);
        let (Some(token), Some(tag)) = (token, tag) else {
            return Err(Fault::Store("a row key of another region, or of no row that travels".into()));
        };
        Ok(Passing { row, token, tag, before, after })
    }

    /// What clears hide of a row, those included that rows on their way bring.
    fn hides_within(&self, state: &RegionState, row: &Bytes, passing: &[Passing]) -> Result<Option<Clock>, Fault> {
        let mut hides = self.hides(state, row)?;
        if passing.is_empty() || RowKey::is_head(row) {
            return Ok(hides);
        }
        let head = RowKey::head_of(row);
        for passing in passing.iter().filter(|passing| Some(&passing.row) == head.as_ref()) {
            fresh_clears(&passing.before, &passing.after).for_each(|clear| hides.get_or_insert_default().join(clear));
        }
        Ok(hides)
    }

    /// The door.
    pub(super) fn pass(
        &self,
        state: &mut RegionState,
        region: Region,
        passing: SmallVec<[Passing; 1]>,
        gained: Gained,
        hint: Option<NewHint>,
    ) -> Result<Ticket, Fault> {
        let (heads, others) = match passing.iter().all(Passing::is_alone) {
            true => (passing, Vec::new()),
            false => self.with_heads(state, passing)?,
        };
        let marks = heads.iter().map(|Passing { row, before, after, .. }| {
            (self.heads.hash(row), difference(self.hash_seed, row, before, after))
        });
        let marks: SmallVec<[(u128, u128); 1]> = marks.collect();
        for Passing { row, after, .. } in &heads {
            // Nearly never: only clearings of collections hide anything.
            if after.hides().is_some() || !state.ended.is_empty() {
                state.note_ended(row, after);
            }
        }
        let put = |key: Bytes, cell: &Cell| Change {
            space: Space::Data,
            key,
            value: (!cell.is_blank()).then(|| encode(cell)),
        };
        let mut heads = heads;
        let of_heads = heads.iter_mut().map(|passing| put(std::mem::take(&mut passing.row), &passing.after));
        let of_others = others.iter().map(|(row, after)| put(row.clone(), after));
        let ticket = self.submit_with_hint(of_heads.chain(of_others), &note(region, &gained), hint)?;
        for (Passing { token, before, after, .. }, (hash, difference)) in heads.into_iter().zip(marks) {
            state.tree.toggle(leaf_of(self.partitions, token), difference);
            if state.count(token, &before, &after) {
                metrics::SIBLINGS_MADE.increment();
            }
            self.heads.put_at(hash, after, ticket);
        }
        let committed = self.committer.committed();
        for (row, after) in others {
            state.pending.put(row.clone(), (!after.is_blank()).then(|| after.clone()), ticket, committed);
            self.heads.put(&row, after, ticket);
        }
        state.noted |= !gained.is_empty();
        gained.into_iter().for_each(|dot| {
            state.clock.add(dot);
        });
        Ok(ticket)
    }

    /// Where rows of collections change: each key's head row with its local facts as they will be, and all other rows,
    /// index rows among them.
    fn with_heads(&self, state: &RegionState, passing: SmallVec<[Passing; 1]>) -> Result<WithHeads, Fault> {
        let mut keys: BTreeMap<Bytes, OneKey> = BTreeMap::new();
        for passing in passing {
            let Some(head) = RowKey::head_of(&passing.row) else { continue };
            let key = match keys.entry(head) {
                Entry::Occupied(key) => key.into_mut(),
                Entry::Vacant(key) => {
                    let head = self.heads.of_region(&*self.store, state).head(key.key())?;
                    key.insert(OneKey { token: passing.token, before: head.clone(), after: head, touched: Vec::new() })
                }
            };
            let Passing { row, tag, before, after, .. } = passing;
            match tag {
                Tag::HEAD => (key.before, key.after) = (before, after),
                tag => key.touched.push(Touched { tag, row, before, after }),
            }
        }
        let (mut heads, mut others) = (SmallVec::new(), Vec::new());
        for (row, OneKey { token, before, mut after, touched }) in keys {
            let hash = |row: &[u8], cell: &Cell| row_hash(self.hash_seed, row, cell);
            let mut local = match settle(&before, &after, &touched, &state.clock, hash) {
                Some(local) => local,
                None => self.heads.of_region(&*self.store, state).recount(&row, &before, &after, &touched)?,
            };
            local.under = state.under;
            Arc::make_mut(&mut after).set_local(Some(Box::new(local)));
            for Touched { tag, row: other, before, after } in touched {
                let index = (index_of(&row, tag, &other, &before), index_of(&row, tag, &other, &after));
                if index.0 != index.1 {
                    others.extend(index.0.map(|(row, _)| (row, Arc::default())));
                    others.extend(index.1.map(|(row, cell)| (row, Arc::new(cell))));
                }
                others.push((other, after));
            }
            heads.push(Passing { row, token, tag: Tag::HEAD, before, after });
        }
        Ok((heads, others))
    }

    /// Stores rows that nobody else knows of, or of which nobody else sees a difference.
    pub(super) fn store_rows(
        &self,
        state: &mut RegionState,
        rows: impl IntoIterator<Item = (Bytes, Arc<Cell>)>,
    ) -> Result<(), Fault> {
        for (row, cell) in rows {
            let value = (!cell.is_blank()).then(|| encode(&cell));
            let ticket = self.submit([Change { space: Space::Data, key: row.clone(), value }], &[])?;
            let left = (!cell.is_blank()).then(|| cell.clone());
            state.pending.put(row.clone(), left, ticket, self.committer.committed());
            self.heads.put(&row, cell, ticket);
        }
        Ok(())
    }

    /// Stores a head row of which only local facts have changed that are neither counted nor digested.
    pub(super) fn store_head(&self, state: &mut RegionState, row: &Bytes, after: Cell) -> Result<(), Fault> {
        state.note_ended(row, &after);
        self.store_rows(state, [(row.clone(), Arc::new(after))])
    }

    pub(super) fn submit(&self, changes: impl IntoIterator<Item = Change>, note: &[u8]) -> Result<Ticket, Fault> {
        self.committer.submit(changes, note).map_err(|error: StoreError| Fault::Store(error.to_string()))
    }

    /// Counts and digests a region's rows anew, without what its clear hides. Takes time with the number of rows.
    fn rescan(&self, state: &mut RegionState, region: Region) -> Result<(), Fault> {
        state.reset_derived();
        let mut fault = None;
        for row in self.stored_rows(region)? {
            match self.heads.of_region(&*self.store, state).head(&row) {
                Ok(cell) => self.take_in(state, &row, &cell),
                Err(error) => fault = Some(error),
            }
        }
        fault.map_or(Ok(()), Err)
    }

    /// Adds a visible head row to counts and digest, and with it what its local facts say of the key's other rows.
    pub(super) fn take_in(&self, state: &mut RegionState, row: &Bytes, cell: &Cell) {
        let Some(token) = RowKey::token_of(row).filter(|_| RowKey::is_head(row)) else { return };
        state.note_ended(row, cell);
        state.digest(leaf_of(self.partitions, token), self.hash_seed, row, &Cell::default(), cell);
        state.count(token, &Cell::default(), cell);
    }
}

/// A key of which rows change: its head row as it was and as it will be, and its other rows.
struct OneKey {
    token: Token,
    before: Arc<Cell>,
    after: Arc<Cell>,
    touched: Vec<Touched>,
}

/// Head rows on their way, and other rows with what they will be.
type WithHeads = (SmallVec<[Passing; 1]>, Vec<(Bytes, Arc<Cell>)>);

/// Head rows first: what they clear goes before what comes with it.
fn in_order(rows: &[(Bytes, RowChange)]) -> impl Iterator<Item = &(Bytes, RowChange)> {
    let (mut heads, mut others) = (rows, &rows[..0]);
    if rows.len() > 1 && rows.iter().any(|(row, _)| !RowKey::is_head(row)) {
        others = rows;
        heads = rows;
    }
    let split = !others.is_empty();
    let heads = heads.iter().filter(move |(row, _)| !split || RowKey::is_head(row));
    heads.chain(others.iter().filter(|(row, _)| !RowKey::is_head(row)))
}

/// Dots that a change brings.
type Gained = SmallVec<[Dot; 2]>;

/// What `change` makes of a cell of which clears hide what `hides` says; none if it stays as it is. `gained` collects the
/// dots that are new to the region.
fn changed_by(
    before: &Cell,
    state: &RegionState,
    hides: Option<&Clock>,
    gained: &mut Gained,
    change: &RowChange,
) -> Option<Cell> {
    let known = Known { clock: &state.clock, clear: hides };
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
    carve(expect, |out| cell.put_stored(out))
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
