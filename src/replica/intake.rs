//! Whether changes are taken in: none when memory and store have parted ways, and fewer when the disk is nearly full.
//!
//! A commit that failed leaves in memory what the store does not have, and may never have. From then on nothing that
//! memory alone knows is told to anybody: point reads go to the store for rows that were on their way (see the cache of
//! heads), a region whose clear was on its way is not read, and clocks, trees and counts answer nobody. Only opening the
//! store again ends that.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::Replica;
use super::region::RegionState;
use crate::model::draft::Changed;
use crate::model::{Fault, Visible};

/// Which changes a replica takes in, as far as there is room for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Intake {
    /// All.
    #[default]
    All,
    /// All for a moment still: others are to take over before anything is refused.
    Leaving,
    /// What peers tell, so that this replica does not fall behind, and what only removes.
    Removals,
    /// None.
    Nothing,
}

impl Replica {
    /// Takes in only this from now on, `why` being what whoever is refused is told.
    pub fn set_intake(&self, intake: Intake, why: impl Into<String>) {
        let why = why.into();
        self.intake.store((intake != Intake::All).then(|| Arc::new((intake, why))));
    }

    /// Whether changes that need `least` are taken in now.
    pub fn takes(&self, least: Intake) -> bool {
        self.check_takes(least).is_ok()
    }

    /// Refuses unless every change is taken in, and will be.
    pub fn check_healthy(&self) -> Result<(), Fault> {
        self.check_takes(Intake::All)
    }

    /// Refuses when memory and store have parted ways, or the node has stopped.
    pub fn check_sound(&self) -> Result<(), Fault> {
        if self.retired.load(Ordering::Relaxed) {
            return Err(Fault::NoWrites("this node is stopping".into()));
        }
        match self.committer.has_failed() {
            true => Err(Fault::NoWrites(self.committer.failed().map_or(String::new(), |error| error.to_string()))),
            false => Ok(()),
        }
    }

    /// Refuses a change that needs `least`.
    pub(super) fn check_takes(&self, least: Intake) -> Result<(), Fault> {
        self.check_sound()?;
        match self.intake.load().as_ref() {
            Some(held) if held.0 > least => Err(Fault::NoWrites(held.1.clone())),
            _ => Ok(()),
        }
    }

    /// Refuses what a command changed, unless it may be taken in.
    pub(super) fn check_changed(&self, changed: &SmallVec<[Changed; 1]>) -> Result<(), Fault> {
        let gone = |changed: &Changed| Visible::of(changed.after.versions(), 0).is_none();
        match self.intake.load().as_ref() {
            Some(held) if held.0 > Intake::Leaving && !changed.iter().all(gone) => Err(Fault::NoWrites(held.1.clone())),
            _ => Ok(()),
        }
    }

    /// Refuses a region of which the store lacks a clear that memory has.
    pub(super) fn check_stored(&self, state: &RegionState) -> Result<(), Fault> {
        let unsaved = state.hidden_until.is_some_and(|ticket| ticket > self.committer.committed());
        if unsaved { self.check_sound() } else { Ok(()) }
    }
}
