//! What a deposed coordinator, or one that heard of a conflict, asks of its replica before it answers (rule 7).

use super::{Commit, Replica};
use crate::base::id::Region;
use crate::model::{Delta, Draft, Fate, Fault, Heads};

impl Replica {
    /// What became of the versions that an attempt at a command wrote, as far as the rows know at `now` (milliseconds since
    /// the epoch): the worst of all its rows. To be asked when the others' rows have been merged.
    pub fn fate(&self, region: Region, attempt: &Delta, now: u64) -> Result<Fate, Fault> {
        let Some(state) = self.existing(region) else { return Ok(Fate::Replaced) };
        let mut worst = Fate::Stands;
        for (row, change) in &attempt.rows {
            let cell = self.heads.of_region(&*self.store, &state).head(row)?;
            worst = worst.max(attempt.fate(change, &cell, now));
        }
        Ok(worst)
    }

    /// Runs a command again whose former attempt is to be as if it had been withdrawn by a causal removal, in one draft: the
    /// delta that is told supersedes what the attempt wrote and what it had superseded, and holds what the command writes
    /// now. Increments are not withdrawn (see [`Delta::only_runs`]). See [`Replica::update`].
    pub fn update_again<T, S, E: From<Fault>>(
        &self,
        region: Region,
        now: u64,
        attempt: &Delta,
        change: impl FnOnce(&mut Draft) -> Result<T, E>,
        tell: Option<impl FnOnce(Delta, bool) -> S>,
    ) -> Result<(T, Option<Commit<S>>), E> {
        let again = |draft: &mut Draft| {
            draft.withdraw(attempt)?;
            change(draft)
        };
        self.update(region, now, again, tell)
    }
}
