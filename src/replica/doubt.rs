//! Rule 6 at run time: whether this node is still who it was. A dot of its own actor that it has not given, named by
//! anybody in anything, proves that its disk is behind or that it has a twin. What names one is refused, the actor is
//! doubted and gives no dots any more; whoever runs the node takes a new one and catches up.
//!
//! No false alarms: a region's counter advances under its lock before anybody is told of a dot, after an unclean stop it
//! goes on above all that was ever allowed, and what a former actor gave is somebody else's.

use super::Replica;
use super::region::RegionState;
use crate::base::id::ActorId;
use crate::causality::counter::Seen;
use crate::causality::{Cell, Clock, Dot, Known, Payload, Version};
use crate::model::view::UNBORN;
use crate::model::{Delta, Fault};
use crate::storage::{StoreError, SyncPolicy};

impl Replica {
    /// Whether something may be missing here that was acknowledged: such a node counts in no quorum until it has caught
    /// up with the others and [`Replica::recovered`] was called.
    pub fn is_amnesiac(&self) -> bool {
        self.identity.is_amnesiac()
    }

    /// Whether the mark on disk says that nothing was ever acknowledged that had not been synced: what the machine's end
    /// takes is then nothing.
    pub fn promises_synced(&self) -> bool {
        self.identity.promises_synced()
    }

    /// Whether its actor is new, or enough others were asked what they know of it. Until then no dots are given.
    pub fn is_proven(&self) -> bool {
        self.identity.is_proven()
    }

    /// Whether somebody has named a dot of its actor that it has not given. From then on no dots are given until
    /// [`Replica::take_actor`].
    pub fn is_doubted(&self) -> bool {
        self.identity.is_doubted()
    }

    /// Whether this node goes on with the actor of a former life.
    pub fn is_continued(&self) -> bool {
        self.identity.is_continued()
    }

    /// Enough others were synced with since the start, and none of them knew more of this node's actor than it does. A
    /// node without others is proven by whoever knows that.
    pub fn prove(&self) {
        self.identity.prove();
    }

    /// Gives dots as `fresh`, a random id that nobody has had, from now on; regions follow when they are next used. Whoever
    /// was amnesiac or doubted is amnesiac then, whatever is said here. Blocks on the disk.
    pub fn take_actor(&self, fresh: ActorId, amnesiac: bool) -> Result<(), StoreError> {
        self.identity.take_actor(&*self.store, fresh, amnesiac)
    }

    /// All that was acknowledged is here again: the mark says so. Blocks on the disk.
    pub fn recovered(&self) -> Result<(), StoreError> {
        self.identity.recovered(&*self.store)
    }

    /// Changes when what is committed is synced. A policy that promises less than before comes into force with the next
    /// [`Replica::tend`], when the mark says so.
    pub fn set_sync_policy(&self, policy: SyncPolicy) {
        let mut wanted = self.wanted_policy.lock();
        *wanted = (policy != SyncPolicy::Always && self.identity.promises_synced()).then_some(policy);
        if wanted.is_none() {
            self.committer.set_policy(policy);
        }
    }

    /// Housekeeping that blocks on the disk: renews the lease. To be called a few times a second.
    pub fn tend(&self) -> Result<(), StoreError> {
        if self.wanted_policy.lock().is_some() {
            self.identity.expect_unsynced(&*self.store)?;
            self.wanted_policy.lock().take().into_iter().for_each(|policy| self.committer.set_policy(policy));
        }
        let farthest = self.regions().filter_map(|region| self.existing(region).map(|state| state.counter)).max();
        self.identity.renew(&*self.store, farthest.unwrap_or_default())
    }

    /// Refuses what names an own dot that was not given, and doubts the actor. `names` looks under the region's lock.
    pub(super) fn refuse_unborn(&self, state: &RegionState, names: impl FnOnce() -> bool) -> Result<(), Fault> {
        if !names() {
            return Ok(());
        }
        if state.actor.is_some_and(|actor| self.identity.doubt(actor)) {
            tracing::warn!("{UNBORN}: this node gives no dots until it has taken a new actor id");
        }
        Err(Fault::NoDots(UNBORN))
    }
}

/// Whether a delta names an own dot that was not given.
pub(super) fn delta_names_unborn(state: &RegionState, delta: &Delta) -> bool {
    let unborn = |dot: &Dot| state.is_unborn(*dot);
    delta.clear.as_ref().is_some_and(|clear| state.has_unborn(clear))
        || delta.kept.iter().any(unborn)
        || delta.rows.iter().any(|(_, change)| {
            change.superseded.iter().any(unborn)
                || change.new.iter().any(|version| version_names_unborn(state, version))
        })
}

/// Whether a peer's clock or clear has one.
pub(super) fn clock_names_unborn(state: &RegionState, peer: Known<'_>) -> bool {
    let has = |clock: &Clock| state.has_unborn(clock);
    has(peer.clock) || peer.clear.is_some_and(has)
}

/// Whether a peer's row does, or what the peer knew when it was asked first.
pub(super) fn peer_names_unborn(state: &RegionState, cell: &Cell, peer: Known<'_>) -> bool {
    cell.versions().iter().any(|version| version_names_unborn(state, version)) || clock_names_unborn(state, peer)
}

fn version_names_unborn(state: &RegionState, version: &Version) -> bool {
    let unborn = |dot: Dot| state.is_unborn(dot);
    let seen_unborn = |seen: &Seen| {
        let mut stood = seen.iter().map(|(run, counter, _)| Dot::new(run.actor, *counter));
        stood.any(unborn) || seen.iter().any(|(run, ..)| unborn(*run))
    };
    unborn(version.dot)
        || match &version.payload {
            Payload::Value(value) => value.generation.is_some_and(unborn) || seen_unborn(&value.seen),
            Payload::Run(run) => run.first.is_some_and(unborn),
            Payload::Void(seen) => seen_unborn(seen),
            Payload::Expiry(expiry) => expiry.generations.iter().any(|dot| unborn(*dot)),
            Payload::Cleared(clock) => state.has_unborn(clock),
        }
}
