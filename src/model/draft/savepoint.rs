//! A savepoint: what a draft was like before one of several commands over it. One that fails is undone alone; and what one
//! has changed can be told apart from what those before it had.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::collections::{Collections, facts_of};
use super::{Draft, Row};
use crate::causality::{Cell, Clock, Moment};
use crate::model::look::{Look, RowPage};
use crate::model::row::RowKey;
use crate::model::view::{Fault, Heads, View};

/// Rows as they were, and the last counter given then.
pub(super) struct Savepoint {
    counter: u64,
    rows: Vec<(usize, Row)>,
    touched: SmallVec<[Collections; 1]>,
}

impl<'a> Draft<'a> {
    /// From here on changes can be undone; what was saved before is forgotten.
    pub fn save(&mut self) {
        let mut rows = self.saved.take().map(|saved| saved.rows).unwrap_or_default();
        rows.clear();
        self.saved = Some(Savepoint { counter: self.context.counter, rows, touched: self.touched.clone() });
    }

    /// Undoes what was changed since the draft was saved: dots that were given since will be given again.
    pub fn go_back(&mut self) {
        let Some(saved) = self.saved.take() else { return };
        for (at, row) in saved.rows {
            self.rows[at] = row;
        }
        self.context.counter = saved.counter;
        self.touched = saved.touched;
    }

    /// Head rows of keys of which something was changed since the draft was saved: as they were, and as they are, with
    /// local facts that say what became of the keys' other rows.
    pub fn changed_since(&self) -> Vec<(Bytes, Arc<Cell>, Arc<Cell>)> {
        let Some(saved) = &self.saved else { return Vec::new() };
        let heads = saved.rows.iter().filter_map(|(_, row)| RowKey::head_of(&row.key));
        let (mut changed, mut seen) = (Vec::new(), BTreeSet::new());
        for head in heads.filter(|head| seen.insert(head.clone())) {
            // A key of which an element was changed has its head row here as well.
            let Some(at) = self.place_of(&head) else { continue };
            let kept = saved.rows.iter().find(|(kept, _)| *kept == at).map_or(&self.rows[at], |(_, row)| row);
            changed.push((head, facts_of(kept, &saved.touched), facts_of(&self.rows[at], &self.touched)));
        }
        changed
    }

    /// Reads what the draft has, as a command that changes nothing does.
    pub fn read<T>(&mut self, read: impl FnOnce(&mut View) -> T) -> T {
        self.looked = true;
        let (sealer, db) = (self.sealer, self.context.region.db);
        let moment: Moment = self.context.moment;
        read(&mut View::new(self, sealer, db, moment))
    }

    /// Notes a row that is about to be changed.
    pub(super) fn keep(&mut self, at: usize) {
        if let Some(saved) = &mut self.saved
            && !saved.rows.iter().any(|(kept, _)| *kept == at)
        {
            saved.rows.push((at, self.rows[at].clone()));
        }
    }
}

/// Heads as the draft has them.
impl Heads for Draft<'_> {
    fn head(&mut self, row: &Bytes) -> Result<Arc<Cell>, Fault> {
        let at = self.locate_row(row.clone())?;
        Ok(facts_of(&self.rows[at], &self.touched))
    }

    fn range(&mut self, from: &Bytes, to: &Bytes, limit: usize) -> Result<RowPage, Fault> {
        Look::rows(self, from, to, limit)
    }

    fn range_back(&mut self, from: &Bytes, to: &Bytes, limit: usize) -> Result<RowPage, Fault> {
        Look::rows_back(self, from, to, limit)
    }

    fn clock(&self) -> Clock {
        self.heads.clock()
    }

    fn chance(&mut self) -> u64 {
        self.heads.chance()
    }
}
