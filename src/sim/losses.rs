//! What nodes may forget, and when.
//!
//! An acknowledged write, deletion or clear is known to W replicas, and so outlives that W − 1 of them forget it: a power
//! cut takes an unsynced end, a disk is replaced by an empty one or by an older state of itself. Once each of what they
//! knew is known to W replicas again, and the node that forgot counts in quorums again, it is as if nothing had happened,
//! and others may forget. So the bound is: *at any time at most W − 1 nodes have forgotten something that is not healed*,
//! W the least that any command asks for. Beyond it losses would be nobody's fault.
//!
//! What is healed is judged from outside, by what every replica holds, not by time: cuts and pauses may put it off for as
//! long as they last. A dot that nobody knows any more was never acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use super::world::World;
use crate::base::id::{Partition, Region};
use crate::causality::{Clock, Dot};
use crate::model::RowKey;
use crate::replica::Replica;
use crate::storage::Space;

/// What replicas knew when they forgot, by node, until that is healed.
#[derive(Debug, Default)]
pub struct Losses(BTreeMap<usize, Vec<Knowledge>>);

/// What a replica knows, by region.
type Knowledge = BTreeMap<Region, Known>;

/// What a replica knows of a region: what it has seen, and what of that is there.
#[derive(Debug, Default)]
struct Known {
    seen: Clock,
    live: BTreeSet<Dot>,
}

impl World {
    /// Whether node `at` may forget what it knows now. If so it is taken note of, and must forget at once.
    pub fn forgets(&self, at: usize) -> bool {
        let Some(lost) = self.knowledge(at) else { return false };
        self.heal_losses();
        let mut losses = self.losses.lock();
        let others = losses.0.keys().filter(|other| **other != at).count();
        let may = others < self.config.may_forget();
        if may {
            losses.0.entry(at).or_default().push(lost);
        }
        may
    }

    /// Takes off the list what has healed.
    fn heal_losses(&self) {
        if self.losses.lock().0.is_empty() {
            return;
        }
        // Of one that is down, or in the middle of a write, nobody can say what it knows.
        let all: Option<Vec<Knowledge>> = (0..self.len()).map(|at| self.knowledge(at)).collect();
        let Some(all) = all else { return };
        let need = self.config.write_quorum();
        let counts = |at: &usize| self.node(*at).is_some_and(|(node, _)| node.health().counted);
        self.losses.lock().0.retain(|at, lost| !counts(at) || !lost.iter().all(|lost| is_healed(lost, &all, need)));
    }

    /// What a node that is up knows, if all of that is in its store.
    fn knowledge(&self, at: usize) -> Option<Knowledge> {
        let (node, _) = self.node(at)?;
        let replica = node.replica();
        let committer = replica.committer();
        if committer.committed() != committer.last() {
            return None;
        }
        replica.regions().map(|region| Some((region, Known::of(replica, region)?))).collect()
    }
}

impl Known {
    fn of(replica: &Replica, region: Region) -> Option<Known> {
        let (snapshot, _) = replica.snapshot(region).ok()?;
        let (mut seen, clear) = (snapshot.clock, snapshot.clear.unwrap_or_default());
        let Partition(at) = region.partition;
        let tokens = replica.partitions().tokens(Partition(at))?;
        let bounds = (RowKey::bound(region.db, tokens.start().raw()), RowKey::bound(region.db, tokens.end().raw() + 1));
        let rows = replica.store().range(Space::Data, &bounds.0, &bounds.1, usize::MAX).ok()?;
        let cells = rows.into_iter().filter_map(|(row, _)| replica.cell(region, &row).ok());
        let live = cells.flat_map(|cell| cell.dots().collect::<Vec<_>>()).filter(|dot| !clear.contains(*dot)).collect();
        seen.join(&clear);
        Some(Known { seen, live })
    }
}

/// Whether all that was lost is known to `need` replicas, or to nobody.
fn is_healed(lost: &Knowledge, all: &[Knowledge], need: usize) -> bool {
    lost.iter().all(|(region, lost)| {
        let now: Vec<&Known> = all.iter().filter_map(|known| known.get(region)).collect();
        dots(&lost.seen).all(|dot| match lost.live.contains(&dot) {
            true => {
                let seen = now.iter().filter(|known| known.seen.contains(dot)).count();
                seen == 0 || seen >= need
            }
            // That it is gone is known where it was seen and is not.
            false => {
                let gone = |known: &&&Known| known.seen.contains(dot) && !known.live.contains(&dot);
                !now.iter().any(|known| known.live.contains(&dot)) || now.iter().filter(gone).count() >= need
            }
        })
    })
}

fn dots(clock: &Clock) -> impl Iterator<Item = Dot> + '_ {
    clock.iter().flat_map(|(actor, spans)| {
        spans.iter().flat_map(move |(low, high)| (*low..=*high).map(move |counter| Dot::new(actor, counter)))
    })
}
