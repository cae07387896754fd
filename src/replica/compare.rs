//! What two replicas need of each other to find where they differ, and to become equal (rules 1 and 9).
//!
//! The order is the rule: the peer's clock is read first (a [`Snapshot`]), then trees are compared and rows read, and only
//! when every differing row of the whole region has been merged is that first clock joined. What a snapshot's clock
//! says is in the store before the snapshot leaves, so that rows read later are never older than the clock.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::doubt::{clock_names_unborn, peer_names_unborn};
use super::region::leaf_of;
use super::{Intake, Replica};
use crate::base::id::{Db, Partition, Region};
use crate::causality::{Cell, Clock, Known};
use crate::model::{Fault, RowKey};
use crate::storage::Ticket;
use crate::storage::tree::BRANCHES;

/// What a replica knows of a region at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Changes when the region is dropped or rolled back.
    pub incarnation: u64,
    /// Its clock.
    pub clock: Clock,
    /// What its clear hides, if one is kept.
    pub clear: Option<Clock>,
    /// Branches of its hash tree.
    pub branches: Vec<u128>,
}

/// Rows of leaves, ascending.
pub type LeafRows = Vec<(Bytes, Cell)>;

impl Snapshot {
    /// What the replica knew.
    pub fn known(&self) -> Known<'_> {
        Known { clock: &self.clock, clear: self.clear.as_ref() }
    }
}

impl Replica {
    /// A region's clock and tree, with the ticket after which the store has all that the clock says.
    pub fn snapshot(&self, region: Region) -> Result<(Snapshot, Ticket), Fault> {
        self.check_sound()?;
        let state = self.region(region);
        let snapshot = Snapshot {
            incarnation: state.incarnation,
            clock: state.clock.clone(),
            clear: state.clear.clone(),
            branches: state.tree.branches().to_vec(),
        };
        Ok((snapshot, self.committer.last()))
    }

    /// Roots and clock hashes of all regions of a partition of which anything is known: equal ones need no sync.
    pub fn digests(&self, databases: u16, partition: Partition) -> Vec<(Region, u128, u64)> {
        let regions = (0..databases).map(|db| Region { db: Db(db as u8), partition });
        let digest = |region| {
            let state = self.existing(region).filter(|state| !state.clock.is_empty() || state.clear.is_some())?;
            let mut clock = Vec::new();
            state.clock.put(&mut clock);
            Some((region, state.tree.root(), xxh3_64(&clock)))
        };
        regions.filter_map(digest).collect()
    }

    /// Branch hashes of a region's tree as they are now.
    pub fn branches(&self, region: Region) -> Vec<u128> {
        self.existing(region).map_or_else(|| vec![0; BRANCHES], |state| state.tree.branches().to_vec())
    }

    /// Leaf hashes under one branch as they are now.
    pub fn leaves(&self, region: Region, branch: usize) -> Vec<u128> {
        self.existing(region).map(|state| state.tree.leaves(branch).to_vec()).unwrap_or_default()
    }

    /// Which leaf of its region's tree a row belongs to.
    pub fn leaf(&self, row: &[u8]) -> Option<u16> {
        RowKey::token_of(row).map(|token| leaf_of(self.partitions, token) as u16)
    }

    /// The incarnation of a region.
    pub fn incarnation(&self, region: Region) -> u64 {
        self.existing(region).map_or_else(|| self.identity.life().nonce, |state| state.incarnation)
    }

    /// Merges rows of a peer, given what the peer knew when the sync began. The rows were read in the incarnation of that
    /// time: those of a later one say nothing about what its clock had.
    pub fn merge_rows(&self, region: Region, rows: &[(Bytes, Cell)], peer: Known<'_>) -> Result<u64, Fault> {
        self.check_takes(Intake::Removals)?;
        let mut changed = 0;
        for (row, theirs) in rows {
            let mut state = self.region(region);
            self.refuse_unborn(&state, || peer_names_unborn(&state, theirs, peer))?;
            changed += u64::from(self.merge_locked(&mut state, region, row, theirs, peer)?.is_some());
        }
        Ok(changed)
    }

    /// Joins what a peer knew when the sync began: every differing row has been merged since. `mine` is this side's
    /// incarnation when the sync began and `theirs` the peer's now: if either side has forgotten, lost or reopened the
    /// region since, nothing is joined and the answer is none.
    pub fn join(&self, region: Region, peer: &Snapshot, mine: u64, theirs: u64) -> Result<Option<Ticket>, Fault> {
        self.check_takes(Intake::Removals)?;
        let mut state = self.region(region);
        self.refuse_unborn(&state, || clock_names_unborn(&state, peer.known()))?;
        if state.incarnation != mine || peer.incarnation != theirs {
            return Ok(None);
        }
        if let Some(clear) = &peer.clear
            && !state.clock.covers(clear)
        {
            self.receive_clear(&mut state, region, clear)?;
        }
        state.clock.join(&peer.clock);
        self.write_record(&mut state, region).map(Some)
    }
}
