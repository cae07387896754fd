//! Walking a region's rows: scans for clients, what has expired, and the rows that a clear has hidden.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::door::Passing;
use super::heads::{after, decode, without_hidden};
use super::region::{RegionState, span};
use super::{Intake, Replica};
use crate::base::id::Region;
use crate::base::kind::{Kind, Role, Tag};
use crate::causality::{Cell, Clock, Dot, Local, Part};
use crate::model::look::kind_of_head;
use crate::model::{Fault, Heads, RowKey};
use crate::ring::slot::Token;
use crate::storage::{Space, StoreError, Ticket};

/// A key that a scan came by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScannedKey {
    /// Where it lies.
    pub token: Token,
    /// Its name.
    pub key: Bytes,
}

impl Replica {
    /// Visible keys of a region, or those that are `of` a kind, from token `from` on; about `count` of them, but never a part of those that share a
    /// token. With them the token to go on from, if there may be more.
    pub fn scan(
        &self,
        region: Region,
        from: u64,
        count: usize,
        now: u64,
        of: Option<Kind>,
    ) -> Result<(Vec<ScannedKey>, Option<u64>), Fault> {
        let mut keys: Vec<ScannedKey> = Vec::new();
        let mut next = None;
        self.walk(region, from, u64::MAX, |token, key, cell| {
            if keys.len() >= count && keys.last().is_some_and(|last| last.token != token) {
                next = Some(token.raw());
                return ControlFlow::Break(());
            }
            if kind_of_head(cell, now).is_some_and(|kind| of.is_none_or(|of| of == kind)) {
                keys.push(ScannedKey { token, key });
            }
            ControlFlow::Continue(())
        })?;
        Ok((keys, next))
    }

    /// Keys of a region that have expired, or of which elements have, about `limit` at most, first those that ended first.
    /// Costs what is due, however many rows there are.
    pub fn expired(&self, region: Region, now: u64, limit: usize) -> Result<Vec<Bytes>, Fault> {
        let due = self.existing(region).map(|state| state.ends.due(now, limit)).unwrap_or_default();
        if due.is_empty() {
            return Ok(Vec::new());
        }
        // What was counted until now must be found in the store.
        self.committer.commit_pending();
        let (mut keys, mut doubtful) = (Vec::new(), Vec::new());
        for token in due {
            self.walk(region, token.raw(), token.raw() + 1, |_, key, cell| {
                let is_due = |part: &Part| part.ending > 0 && part.next_end < now;
                if kind_of_head(cell, now).is_none() && kind_of_head(cell, 0).is_some() {
                    keys.push(key);
                } else if cell.local().is_some_and(|local| local.parts.iter().any(is_due)) {
                    doubtful.push(key);
                }
                ControlFlow::Continue(())
            })?;
        }
        for key in doubtful {
            if self.has_ended_fields(region, &key, now)? {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    /// Whether fields of a hash have ended. If not, its local facts learn when the next one does.
    fn has_ended_fields(&self, region: Region, key: &[u8], now: u64) -> Result<bool, Fault> {
        let Some(mut state) = self.existing(region) else { return Ok(false) };
        let head = RowKey::head(region.db, key);
        let mut rows = self.heads.of_region(&*self.store, &state);
        let before = rows.head(&head)?;
        let (from, to) = (RowKey::element(&head, Tag::HASH_ENDS, b""), RowKey::after_tag(&head, Tag::HASH_ENDS));
        let (first, more) = rows.range(&from, &to, 1)?;
        let first = match (first.into_iter().next(), more) {
            (Some((row, _)), _) => RowKey::element_of(&row).first_chunk().map(|raw| u64::from_be_bytes(*raw)),
            // What is hidden comes first: whoever reaps looks further.
            (None, Some(_)) => return Ok(true),
            (None, None) => None,
        };
        if first.is_some_and(|first| first < now) {
            return Ok(true);
        }
        let (Some(token), Some(mut local)) = (RowKey::token_of(&head), before.local().cloned()) else {
            return Ok(false);
        };
        local.part_mut(Kind::Hash).next_end = first.unwrap_or(u64::MAX);
        let mut after = Cell::clone(&before);
        after.set_local(Some(Box::new(local)));
        state.count(token, &before, &after);
        self.store_head(&mut state, &head, after)?;
        Ok(false)
    }

    /// Whether rows that a clear hides may still be stored, and after which ticket all of them can be found.
    pub fn hidden_until(&self, region: Region) -> Option<Ticket> {
        self.existing(region).and_then(|state| state.hidden_until)
    }

    /// Takes rows that the region's clear hides out of the store, `from` on, at most `limit` of them; answers where to go
    /// on, or none when there is nothing left to do. Neither counts nor digest change: they left those when they were
    /// hidden (rule 9). `found` is what [`Replica::hidden_until`] said before the first of these looks: a clear that came
    /// since hides rows that they may have missed.
    pub fn purge(&self, region: Region, found: Ticket, from: &Bytes, limit: usize) -> Result<Option<Bytes>, Fault> {
        self.check_takes(Intake::Removals)?;
        let first = if from.is_empty() { RowKey::bound(region.db, self.first_token(region)) } else { from.clone() };
        let rows = self.store.range(Space::Data, &first, &self.end_of(region), limit).map_err(fault)?;
        let Some(mut state) = self.existing(region) else { return Ok(None) };
        let Some(clear) = state.clear.clone() else { return Ok(None) };
        for (row, raw) in &rows {
            let cell = decode(raw)?;
            let doubtful = cell.local().is_some_and(|local| local.under != state.under);
            if doubtful || cell.dots().any(|dot| clear.contains(dot)) {
                self.rewrite(&mut state, region, row, &clear)?;
            }
        }
        if rows.len() < limit {
            state.hidden_until = state.hidden_until.filter(|until| *until != found);
            return Ok(None);
        }
        Ok(rows.last().map(|(row, _)| after(row)))
    }

    /// Lets go of a region's clear if its clock covers it. To be called when all that [`Replica::purge`] did is in the
    /// store; a clear that came since stays.
    pub fn drop_clear(&self, region: Region) -> Result<(), Fault> {
        self.check_takes(Intake::Removals)?;
        let Some(mut state) = self.existing(region) else { return Ok(()) };
        let covered = state.clear.as_ref().is_some_and(|clear| state.clock.covers(clear));
        if covered && state.hidden_until.is_none() {
            state.set_clear(None);
            self.write_record(&mut state, region)?;
        }
        Ok(())
    }

    /// Keys that were ended by a clock and of which something is left to be done.
    pub fn ended(&self, region: Region) -> Vec<Bytes> {
        let Some(mut state) = self.existing(region) else { return Vec::new() };
        // What a clear of the region took is nobody's business any more.
        let left = |head: &Bytes| {
            let cell = self.heads.of_region(&*self.store, &state).head(head);
            cell.map_or(true, |cell| cell.hides().is_some())
        };
        let ended: BTreeSet<Bytes> = state.ended.iter().filter(|head| left(head)).cloned().collect();
        state.ended = ended.clone();
        ended.into_iter().collect()
    }

    /// Takes rows of a key that a clearing of it hides out of the store, `from` on, at most `limit` of them; answers where
    /// to go on, or none when none is left. Neither counts nor digest change.
    pub fn purge_key(&self, region: Region, head: &Bytes, from: &Bytes, limit: usize) -> Result<Option<Bytes>, Fault> {
        self.check_takes(Intake::Removals)?;
        let first = if from.is_empty() { after(head) } else { from.clone() };
        let rows = self.store.range(Space::Data, &first, &RowKey::after_key(head), limit).map_err(fault)?;
        let Some(mut state) = self.existing(region) else { return Ok(None) };
        let cell = self.heads.of_region(&*self.store, &state).head(head)?;
        let Some(hidden) = cell.local().and_then(|local| local.hidden.clone()) else { return Ok(None) };
        for (row, raw) in &rows {
            if decode(raw)?.dots().any(|dot| hidden.contains(dot)) {
                self.rewrite(&mut state, region, row, &hidden)?;
            }
        }
        Ok(rows.last().filter(|_| rows.len() >= limit).map(|(row, _)| after(row)))
    }

    /// What a key's clearings hide: what [`Replica::purge_key`] takes out, to be given to [`Replica::purged_key`].
    pub fn hidden_in(&self, region: Region, head: &Bytes) -> Result<Option<Clock>, Fault> {
        Ok(self.cell(region, head)?.local().and_then(|local| local.hidden.clone()))
    }

    /// All that `hidden` names has been taken out of the store; if more is hidden meanwhile, that stays to be done.
    pub fn purged_key(&self, region: Region, head: &Bytes, hidden: &Clock) -> Result<(), Fault> {
        self.check_takes(Intake::Removals)?;
        let Some(mut state) = self.existing(region) else { return Ok(()) };
        let before = self.heads.of_region(&*self.store, &state).head(head)?;
        let Some(local) = before.local().filter(|local| local.hidden.as_ref() == Some(hidden)) else { return Ok(()) };
        let local = Local { hidden: None, ..local.clone() };
        let mut after = Cell::clone(&before);
        after.set_local(Some(Box::new(local)));
        self.store_head(&mut state, head, after)
    }

    /// Of a key without anything hidden in the store: the clocks that ended it, with their dots.
    pub fn cleared(&self, region: Region, head: &Bytes) -> Result<Vec<(Dot, Clock)>, Fault> {
        let cell = self.cell(region, head)?;
        let hidden = cell.local().is_some_and(|local| local.hidden.is_some());
        Ok(cell.cleared().filter(|_| !hidden).map(|(dot, clock)| (dot, clock.clone())).collect())
    }

    /// Whether a region's clock has all of `clear`.
    pub fn covers(&self, region: Region, clear: &Clock) -> bool {
        self.existing(region).is_some_and(|state| state.clock.covers(clear))
    }

    /// Stores a row without what `hidden` names.
    fn rewrite(&self, state: &mut RegionState, region: Region, row: &Bytes, hidden: &Clock) -> Result<(), Fault> {
        if RowKey::split(row).is_some_and(|(tag, _)| tag.role() == Role::Index) {
            return self.rewrite_index(state, row, hidden);
        }
        let cell = self.heads.of_region(&*self.store, state).head(row)?;
        let mut passing: SmallVec<[Passing; 1]> = SmallVec::new();
        passing.push(self.passing(region, row.clone(), cell.clone(), cell)?);
        self.pass(state, region, passing, SmallVec::new(), None).map(drop)
    }

    /// The same of an index row, which nobody else knows of.
    fn rewrite_index(&self, state: &mut RegionState, row: &Bytes, hidden: &Clock) -> Result<(), Fault> {
        let mut cell = Cell::clone(&*self.heads.of_region(&*self.store, state).head(row)?);
        cell.retain(|version| !hidden.contains(version.dot));
        self.store_rows(state, [(row.clone(), Arc::new(cell))])
    }

    /// Row keys that are stored for a region, hidden ones too.
    pub(super) fn stored_rows(&self, region: Region) -> Result<Vec<Bytes>, Fault> {
        // Rows on their way to the store would be missed. Rare enough (a clear that does not hide all) to wait for.
        self.committer.commit_pending();
        let first = RowKey::bound(region.db, self.first_token(region));
        let mut rows = Vec::new();
        let visited = self.store.visit(Space::Data, &first, &self.end_of(region), &mut |row, _| {
            rows.push(Bytes::copy_from_slice(row));
            ControlFlow::Continue(())
        });
        visited.map_err(fault)?;
        Ok(rows)
    }

    /// Calls `each` with the visible head rows of a region, of tokens from `from` to before `to`, until it breaks. Other
    /// rows are passed over, many of them by a new search.
    fn walk(
        &self,
        region: Region,
        from: u64,
        to: u64,
        mut each: impl FnMut(Token, Bytes, &Cell) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        let (start, width) = span(self.partitions, region.partition);
        let bound = |token| RowKey::bound(region.db, token);
        let (mut from, end) = (Some(bound(from.max(start))), bound(to.min(start + width)));
        while let Some(first) = from.take() {
            from = self.walk_until_many(region, &first, &end, &mut each)?;
        }
        Ok(())
    }

    /// The same until a key has many rows; answers where to go on behind them.
    fn walk_until_many(
        &self,
        region: Region,
        first: &Bytes,
        end: &Bytes,
        each: &mut impl FnMut(Token, Bytes, &Cell) -> ControlFlow<()>,
    ) -> Result<Option<Bytes>, Fault> {
        let Some(state) = self.existing(region) else { return Ok(None) };
        self.check_stored(&state)?;
        let clear = state.clear.clone();
        drop(state);
        let (mut failed, mut passed, mut next) = (None, 0, None);
        let visited = self.store.visit(Space::Data, first, end, &mut |row, raw| {
            if !RowKey::is_head(row) {
                passed += 1;
                next = RowKey::head_of(row).filter(|_| passed >= MANY_ROWS).map(|head| RowKey::after_key(&head));
                return if next.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
            }
            passed = 0;
            match self.scanned(region, row, raw, clear.as_ref()) {
                Ok((parts, cell)) => each(parts.token, parts.key, &cell),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        });
        visited.map_err(fault)?;
        failed.map_or(Ok(next), Err)
    }

    /// A head row as it was found.
    fn scanned(
        &self,
        region: Region,
        row: &[u8],
        raw: &[u8],
        clear: Option<&Clock>,
    ) -> Result<(RowKey, Arc<Cell>), Fault> {
        let row = Bytes::copy_from_slice(row);
        let parts = RowKey::decode(row.clone()).map_err(|error| Fault::Store(format!("a row key: {error}")))?;
        let cell = Arc::new(decode(raw)?);
        match (clear, cell.local()) {
            // Its local facts may be those of before the clear.
            (Some(_), Some(_)) => Ok((parts, self.cell(region, &row)?)),
            (clear, _) => Ok((parts, without_hidden(cell, clear))),
        }
    }

    fn first_token(&self, region: Region) -> u64 {
        span(self.partitions, region.partition).0
    }

    fn end_of(&self, region: Region) -> Bytes {
        let (first, width) = span(self.partitions, region.partition);
        RowKey::bound(region.db, first + width)
    }
}

/// Rows of one key that are passed over one by one.
const MANY_ROWS: usize = 64;

fn fault(error: StoreError) -> Fault {
    Fault::Store(error.to_string())
}
