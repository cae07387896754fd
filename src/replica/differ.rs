//! Which rows of a leaf two replicas hold differently: the side that pulls sends the hashes of its rows, the other answers
//! with its rows that are not among them, and says which of the hashes it does not have. So what travels is the rows that
//! differ, and 16 bytes for each that does not. A leaf of very many rows is sent whole.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;

use super::Replica;
use super::compare::LeafRows;
use super::heads::decode;
use super::region::{row_hash, tokens_of_leaf};
use crate::base::id::Region;
use crate::base::kind::Role;
use crate::causality::{Cell, Clock};
use crate::model::{Fault, RowKey};
use crate::storage::Space;

/// Most rows of a leaf that are compared by their hashes.
const MOST_HASHES: usize = 1 << 14;

/// What one side has of a leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafHashes {
    /// Number of the leaf.
    pub leaf: u16,
    /// Hashes of its rows; none if there are too many, so that all of the other side's rows are wanted.
    pub hashes: Vec<u128>,
}

/// A page of what differs in some leaves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Difference {
    /// Rows that the asking side does not have, or has otherwise.
    pub rows: LeafRows,
    /// Hashes that the asking side named and the other does not have, of the leaves that were looked through.
    pub lacking: Vec<u128>,
    /// Which of the leaves to go on in, by its place among those asked for, and at which row.
    pub next: Option<(u16, Bytes)>,
    /// The region's incarnation after all that was read: rows of another one than the sync began with say nothing, nor do
    /// those that are missing.
    pub incarnation: u64,
}

impl Difference {
    /// How many rows, and about how many bytes they take.
    pub fn weight(&self) -> (usize, usize) {
        (self.rows.len(), self.rows.iter().map(|(row, cell)| row.len() + weight(cell)).sum())
    }
}

/// One side's rows of some leaves, by their hashes: what the other side is asked about.
#[derive(Debug, Default)]
pub struct Hashed {
    /// What is sent.
    pub leaves: Vec<LeafHashes>,
    rows: BTreeMap<u128, Bytes>,
    /// Rows of leaves that are compared whole.
    whole: Vec<Bytes>,
}

impl Hashed {
    /// How many hashes there are to send.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Rows that this side has and the other side lacks, or has otherwise.
    pub fn rows_of(&self, lacking: &[u128]) -> impl Iterator<Item = Bytes> {
        lacking.iter().filter_map(|hash| self.rows.get(hash).cloned())
    }

    /// Rows of which nothing was said: whatever the other side sends, they are to be merged.
    pub fn whole(&self) -> &[Bytes] {
        &self.whole
    }
}

impl Replica {
    /// The hashes of this replica's visible rows of some leaves, of as many as make a request of sensible size; one at
    /// least. Reads the store: what is in memory must be there.
    pub fn hashed(&self, region: Region, leaves: &[u16]) -> Result<Hashed, Fault> {
        let mut all = Hashed::default();
        for leaf in leaves {
            if all.len() > MOST_HASHES {
                break;
            }
            let mut rows = Vec::new();
            self.each_row(region, *leaf, |row, cell| {
                rows.push((row_hash(self.hash_seed, row, &cell), Bytes::copy_from_slice(row)));
                ControlFlow::Continue(())
            })?;
            let whole = rows.len() > MOST_HASHES;
            let hashes = if whole { Vec::new() } else { rows.iter().map(|(hash, _)| *hash).collect() };
            all.leaves.push(LeafHashes { leaf: *leaf, hashes });
            match whole {
                true => all.whole.extend(rows.into_iter().map(|(_, row)| row)),
                false => all.rows.extend(rows),
            }
        }
        Ok(all)
    }

    /// What differs from another side's `leaves`, until about `limit_bytes` of rows are gathered; of the first leaf, rows
    /// from `from` on.
    pub fn difference(
        &self,
        region: Region,
        leaves: &[LeafHashes],
        from: &[u8],
        limit_bytes: usize,
    ) -> Result<Difference, Fault> {
        let (mut found, mut size) = (Difference::default(), 0usize);
        for (place, asked) in leaves.iter().enumerate() {
            let from = if place == 0 { from } else { &[] };
            let mut lacking: BTreeSet<u128> = asked.hashes.iter().copied().collect();
            self.each_row(region, asked.leaf, |row, cell| {
                if lacking.remove(&row_hash(self.hash_seed, row, &cell)) || row < from {
                    return ControlFlow::Continue(());
                }
                if size >= limit_bytes {
                    found.next = Some((place as u16, Bytes::copy_from_slice(row)));
                    return ControlFlow::Break(());
                }
                size += row.len() + weight(&cell);
                found.rows.push((Bytes::copy_from_slice(row), cell));
                ControlFlow::Continue(())
            })?;
            if found.next.is_some() {
                break;
            }
            found.lacking.extend(lacking);
        }
        // Read last: if rows were being forgotten meanwhile, it waits for that to be over.
        found.incarnation = self.incarnation(region);
        Ok(found)
    }

    /// Calls `each` with every visible row of a leaf, ascending, until it breaks.
    fn each_row(
        &self,
        region: Region,
        leaf: u16,
        mut each: impl FnMut(&[u8], Cell) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        let (first, end) = tokens_of_leaf(self.partitions, region.partition, leaf.into());
        let (first, end) = (RowKey::bound(region.db, first), RowKey::bound(region.db, end));
        let clear = self.existing(region).and_then(|state| state.clear.clone());
        let (mut fault, mut hiding) = (None, Hiding::default());
        let visited = self.store.visit(Space::Data, &first, &end, &mut |row, raw| match decode(raw) {
            Ok(mut cell) => {
                cell.retain(|version| !clear.as_ref().is_some_and(|clear| clear.contains(version.dot)));
                if cell.is_blank() || !hiding.lets_pass(row, &mut cell) {
                    return ControlFlow::Continue(());
                }
                each(row, cell)
            }
            Err(error) => {
                fault = Some(error);
                ControlFlow::Break(())
            }
        });
        visited.map_err(|error| Fault::Store(error.to_string()))?;
        fault.map_or(Ok(()), Err)
    }
}

/// What the key whose rows are being walked hides of them.
#[derive(Default)]
struct Hiding(Option<(Vec<u8>, Clock)>);

impl Hiding {
    /// Takes what is hidden out of a row's cell; says whether there is something left that travels.
    fn lets_pass(&mut self, row: &[u8], cell: &mut Cell) -> bool {
        let Some((tag, _)) = RowKey::split(row) else { return false };
        match (tag.role(), &self.0) {
            (Role::Head, _) => {
                let key = row.split_last().map(|(_, key)| key.to_vec()).unwrap_or_default();
                self.0 = cell.hides().map(|hides| (key, hides.into_owned()));
                cell.set_local(None);
            }
            (Role::Index, _) => return false,
            (_, Some((key, hides))) if row.starts_with(key) => cell.retain(|version| !hides.contains(version.dot)),
            _ => {}
        }
        !cell.is_empty()
    }
}

/// About how many bytes a cell takes.
fn weight(cell: &Cell) -> usize {
    cell.versions().iter().map(|version| 32 + version.payload.data_len()).sum()
}
