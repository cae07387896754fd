//! A stand-in forgets a region (rule 4): all of it together, or nothing.
//!
//! Rows, clock and clear go in one submission, and with them goes a note that voids all earlier notes of the region: the
//! log is replayed on top of records, and would bring the clock back without the rows. What stays is who counted there and
//! how far, so that no dot is given twice and no run extended that others know more of; and the hints.

use std::sync::Arc;

use super::door::void_notes;
use super::region::{RegionState, record_key};
use super::{Intake, Replica};
use crate::base::id::{Partition, Region};
use crate::model::Fault;
use crate::storage::{Change, Space, Ticket};

impl Replica {
    /// Regions of which something is known here though this node does not own them: it has stood in for an owner.
    pub fn regions_outside(&self, owns: impl Fn(Partition) -> bool) -> Vec<Region> {
        let holds = |state: &RegionState| !state.clock.is_empty() || state.clear.is_some();
        let outside = self.regions().filter(|region| !owns(region.partition));
        outside.filter(|region| self.existing(*region).is_some_and(|state| holds(&state))).collect()
    }

    /// Root and hash of all that is known of a region: what [`Replica::forget_region`] compares.
    pub fn digest(&self, region: Region) -> (u128, u64) {
        self.existing(region).map_or_else(|| RegionState::default().digest_of_all(), |state| state.digest_of_all())
    }

    /// Forgets a region if its [`Replica::digest`] still is `expected`: what came since has been given back to nobody. None
    /// if it is another one, or nothing is known of the region. Lists the region's rows in the store: blocks.
    pub fn forget_region(&self, region: Region, expected: (u128, u64)) -> Result<Option<Ticket>, Fault> {
        self.check_takes(Intake::Removals)?;
        let Some(mut state) = self.existing(region) else { return Ok(None) };
        if state.digest_of_all() != expected || (state.clock.is_empty() && state.clear.is_none()) {
            return Ok(None);
        }
        let rows = self.stored_rows(region)?;
        let after = state.forgotten();
        let record = Change::put(Space::Clocks, record_key(region), after.record());
        let removed = rows.iter().map(|row| Change::remove(Space::Data, row.clone()));
        let ticket = self.submit(removed.chain([record]), &void_notes(region))?;
        *state = after;
        // Not taken out: until the store has let go of them it would be asked.
        for row in rows {
            self.heads.put(&row, Arc::default(), ticket);
            state.pending.put(row, None, ticket, self.committer.committed());
        }
        Ok(Some(ticket))
    }
}
