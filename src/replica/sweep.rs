//! Walking a region's rows: scans for clients, what has expired, and the rows that a clear has hidden.

use std::ops::ControlFlow;

use bytes::Bytes;
use smallvec::SmallVec;

use super::door::Passing;
use super::heads::decode;
use super::region::{RegionState, span};
use super::{Intake, Replica};
use crate::base::id::Region;
use crate::causality::Cell;
use crate::model::{Fault, Heads, RowKey, Visible};
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
    /// Visible keys of a region from token `from` on; about `count` of them, but never a part of those that share a
    /// token. With them the token to go on from, if there may be more.
    pub fn scan(
        &self,
        region: Region,
        from: u64,
        count: usize,
        now: u64,
    ) -> Result<(Vec<ScannedKey>, Option<u64>), Fault> {
        let mut keys: Vec<ScannedKey> = Vec::new();
        let mut next = None;
        self.walk(region, from, u64::MAX, |token, key, cell| {
            if keys.len() >= count && keys.last().is_some_and(|last| last.token != token) {
                next = Some(token.raw());
                return ControlFlow::Break(());
            }
            if Visible::of(cell.versions(), now).is_some() {
                keys.push(ScannedKey { token, key });
            }
            ControlFlow::Continue(())
        })?;
        Ok((keys, next))
    }

    /// Keys of a region that have expired, about `limit` at most, first those that ended first. Costs what is due, however
    /// many rows there are.
    pub fn expired(&self, region: Region, now: u64, limit: usize) -> Result<Vec<Bytes>, Fault> {
        let due = self.existing(region).map(|state| state.ends.due(now, limit)).unwrap_or_default();
        if due.is_empty() {
            return Ok(Vec::new());
        }
        // What was counted until now must be found in the store.
        self.committer.commit_pending();
        let mut keys = Vec::new();
        for token in due {
            self.walk(region, token.raw(), token.raw() + 1, |_, key, cell| {
                if Visible::of(cell.versions(), now).is_none() && Visible::of(cell.versions(), 0).is_some() {
                    keys.push(key);
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(keys)
    }

    /// Whether rows that a clear hides may still be stored, and after which ticket all of them can be found.
    pub fn hidden_until(&self, region: Region) -> Option<Ticket> {
        self.existing(region).and_then(|state| state.hidden_until)
    }

    /// Takes rows that the region's clear hides out of the store, `from` on, at most `limit` of them; answers where to go
    /// on, or none when there is nothing left to do. Neither counts nor digest change: they left those when they were
    /// hidden (rule 9).
    pub fn purge(&self, region: Region, from: &Bytes, limit: usize) -> Result<Option<Bytes>, Fault> {
        self.check_takes(Intake::Removals)?;
        let first = if from.is_empty() { RowKey::bound(region.db, self.first_token(region)) } else { from.clone() };
        let rows = self.store.range(Space::Data, &first, &self.end_of(region), limit).map_err(fault)?;
        let Some(mut state) = self.existing(region) else { return Ok(None) };
        let Some(clear) = state.clear.clone() else { return Ok(None) };
        for (row, raw) in &rows {
            if decode(raw)?.dots().any(|dot| clear.contains(dot)) {
                self.rewrite(&mut state, region, row)?;
            }
        }
        if rows.len() < limit {
            state.hidden_until = None;
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
            state.clear = None;
            self.write_record(&mut state, region)?;
        }
        Ok(())
    }

    /// Stores a row as it is visible now.
    fn rewrite(&self, state: &mut RegionState, region: Region, row: &Bytes) -> Result<Ticket, Fault> {
        let cell = self.heads.of_region(&*self.store, state.clear.as_ref()).head(row)?;
        let mut passing: SmallVec<[Passing; 1]> = SmallVec::new();
        passing.push(self.passing(region, row.clone(), cell.clone(), cell)?);
        self.pass(state, region, passing, SmallVec::new(), None)
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

    /// Calls `each` with the visible rows of a region, of tokens from `from` to before `to`, until it breaks.
    fn walk(
        &self,
        region: Region,
        from: u64,
        to: u64,
        mut each: impl FnMut(Token, Bytes, &Cell) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        let Some(state) = self.existing(region) else { return Ok(()) };
        self.check_stored(&state)?;
        let clear = state.clear.clone();
        drop(state);
        let (start, width) = span(self.partitions, region.partition);
        let bound = |token| RowKey::bound(region.db, token);
        let (first, end) = (bound(from.max(start)), bound(to.min(start + width)));
        let mut failed = None;
        let visited = self.store.visit(Space::Data, &first, &end, &mut |row, raw| {
            let read = decode(raw).and_then(|cell| {
                let parts = RowKey::decode(Bytes::copy_from_slice(row));
                parts.map(|parts| (parts, cell)).map_err(|error| Fault::Store(format!("a row key: {error}")))
            });
            match read {
                Ok((parts, mut cell)) => {
                    cell.retain(|version| !clear.as_ref().is_some_and(|clear| clear.contains(version.dot)));
                    each(parts.token, parts.key, &cell)
                }
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        });
        visited.map_err(fault)?;
        failed.map_or(Ok(()), Err)
    }

    fn first_token(&self, region: Region) -> u64 {
        span(self.partitions, region.partition).0
    }

    fn end_of(&self, region: Region) -> Bytes {
        let (first, width) = span(self.partitions, region.partition);
        RowKey::bound(region.db, first + width)
    }
}

/// The first row key after `row`.
fn after(row: &[u8]) -> Bytes {
    let mut next = row.to_vec();
    next.push(0);
    next.into()
}

fn fault(error: StoreError) -> Fault {
    Fault::Store(error.to_string())
}
