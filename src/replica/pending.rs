//! Rows of collections that the store may not have yet, in their order. Point reads find such rows in the cache; a range
//! is read from the store, and these are laid over it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::causality::Cell;
use crate::storage::Ticket;

/// Rows that were submitted and, when last looked, not committed.
#[derive(Debug, Default)]
pub struct Pending {
    rows: BTreeMap<Bytes, (Option<Arc<Cell>>, Ticket)>,
    order: VecDeque<(Ticket, Bytes)>,
}

impl Pending {
    /// A row was submitted with `ticket`; none if it was removed. What was `committed` by now is let go.
    pub fn put(&mut self, row: Bytes, cell: Option<Arc<Cell>>, ticket: Ticket, committed: Ticket) {
        while self.order.front().is_some_and(|(oldest, _)| *oldest <= committed)
            && let Some((oldest, row)) = self.order.pop_front()
        {
            if self.rows.get(&row).is_some_and(|(_, latest)| *latest <= oldest) {
                self.rows.remove(&row);
            }
        }
        self.rows.insert(row.clone(), (cell, ticket));
        self.order.push_back((ticket, row));
    }

    /// Rows of `[from, to)` that were submitted until `latest`.
    pub fn range(&self, from: &[u8], to: &[u8], latest: Ticket) -> impl Iterator<Item = (&Bytes, Option<&Arc<Cell>>)> {
        let bounds = (std::ops::Bound::Included(from), std::ops::Bound::Excluded(to));
        let empty = from >= to || self.rows.is_empty();
        let rows = (!empty).then(|| self.rows.range::<[u8], _>(bounds));
        let submitted = rows.into_iter().flatten().filter(move |(_, (_, ticket))| *ticket <= latest);
        submitted.map(|(row, (cell, _))| (row, cell.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pending: &Pending, latest: u64) -> Vec<(Bytes, bool)> {
        pending.range(b"a", b"z", Ticket(latest)).map(|(row, cell)| (row.clone(), cell.is_some())).collect()
    }

    #[test]
    fn rows_stay_until_what_they_were_last_submitted_with_is_committed() {
        let (mut pending, cell) = (Pending::default(), Arc::<Cell>::default());
        pending.put("b".into(), Some(cell.clone()), Ticket(1), Ticket(0));
        pending.put("a".into(), Some(cell.clone()), Ticket(2), Ticket(0));
        pending.put("b".into(), None, Ticket(3), Ticket(0));
        assert_eq!(names(&pending, 9), [("a".into(), true), ("b".into(), false)]);
        assert_eq!(names(&pending, 2), [("a".into(), true)], "of a failed commit nothing is told");
        pending.put("c".into(), Some(cell), Ticket(4), Ticket(2));
        assert_eq!(names(&pending, 9), [("b".into(), false), ("c".into(), true)]);
        assert!(pending.range(b"z", b"a", Ticket(9)).next().is_none());
    }
}
