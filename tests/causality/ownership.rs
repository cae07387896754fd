//! Rule 5: a new owner takes the place of an old one while coordinators that know only the old layout go on writing.

use redynamo::base::rng::Rng;

use crate::seeds::{Outcome, holds, is_caught};
use crate::world::{Delta, Replica, below, take};

/// Old owners are 0, 1 and 2; this one takes the place of 2.
const NEW: usize = 3;
const W: usize = 2;

#[derive(Debug, Clone, Copy)]
struct Rules {
    /// From how many old owners the new one syncs: N − W + 1 is right.
    synced: usize,
    /// Whether an old owner is fenced before it is synced from: its acknowledgements name the newer layout then, and a
    /// coordinator that sees one counts in both layouts.
    fenced: bool,
}

#[test]
fn what_was_acknowledged_has_a_quorum_among_the_new_owners() {
    holds("owner change", 2_000, |seed| change(seed, Rules { synced: 2, fenced: true }));
    holds("owner change, synced from all", 2_000, |seed| change(seed, Rules { synced: 3, fenced: true }));
}

#[test]
fn wrong_ways_to_change_owners_are_caught() {
    is_caught("owner change, synced from one", 200, |seed| change(seed, Rules { synced: 1, fenced: true }));
    is_caught("owner change, not fenced", 200, |seed| change(seed, Rules { synced: 2, fenced: false }));
    is_caught("owner change, synced from all, not fenced", 200, |seed| {
        change(seed, Rules { synced: 3, fenced: false })
    });
}

/// A write on its way: whom it has yet to reach, and who has it.
struct Write {
    delta: Delta,
    to_tell: Vec<usize>,
    told: Vec<usize>,
    /// An acknowledgement named the newer layout.
    newer: bool,
}

struct World {
    owners: Vec<Replica>,
    fenced: [bool; 4],
    acknowledged: Vec<Delta>,
    rules: Rules,
}

fn change(seed: u64, rules: Rules) -> Outcome {
    let mut rng = Rng::new(seed);
    let mut world = World { owners: Replica::some(4), fenced: [false; 4], acknowledged: Vec::new(), rules };
    let mut coordinator = Replica::new(9);
    let (mut writes, mut to_sync) = (Vec::new(), shuffled(&mut rng));
    to_sync.truncate(rules.synced);
    for at in 0..40u8 {
        match rng.below(100) {
            0..30 => writes.push(Write {
                delta: coordinator.write((0, at)),
                to_tell: shuffled(&mut rng),
                told: Vec::new(),
                newer: false,
            }),
            30..75 => {
                let Some(mut write) = take(&mut rng, &mut writes) else { continue };
                let Some(to) = write.to_tell.pop() else { continue };
                if rng.chance(0.7) {
                    world.reach(&mut write, to);
                }
                if write.told.len() < W {
                    writes.push(write);
                } else if !write.newer || rng.chance(0.5) {
                    world.finish(write);
                }
            }
            _ => {
                if let Some(old) = to_sync.pop() {
                    world.sync_new_from(old);
                }
                if to_sync.is_empty() {
                    break;
                }
            }
        }
    }
    // Ownership changes if the new owner has synced with enough; what is on its way arrives afterwards.
    to_sync.into_iter().for_each(|old| world.sync_new_from(old));
    for mut write in writes {
        while let Some(to) = write.to_tell.pop() {
            world.reach(&mut write, to);
            if write.told.len() >= W && !write.newer {
                break;
            }
        }
        if write.told.len() >= W && !write.newer {
            world.acknowledged.push(write.delta);
        }
    }
    world.judge()
}

impl World {
    fn reach(&mut self, write: &mut Write, to: usize) {
        self.owners[to].apply(&write.delta);
        write.told.push(to);
        write.newer |= self.fenced[to];
    }

    fn sync_new_from(&mut self, old: usize) {
        self.fenced[old] = self.rules.fenced;
        let peer = self.owners[old].clone();
        self.owners[NEW].sync_from(&peer);
    }

    /// A write that enough old owners have is acknowledged; one whose coordinator has heard of the newer layout only with
    /// enough new ones as well.
    fn finish(&mut self, mut write: Write) {
        if write.newer {
            self.reach(&mut write, NEW);
            let new = write.told.iter().filter(|at| **at != 2).count();
            let old = write.told.iter().filter(|at| **at != NEW).count();
            if new < W || old < W {
                return;
            }
        }
        self.acknowledged.push(write.delta);
    }

    fn judge(&self) -> Outcome {
        let has = |owner: usize, delta: &Delta| delta.dots().all(|dot| self.owners[owner].clock.contains(dot));
        let enough = |delta: &Delta| [0, 1, NEW].into_iter().filter(|owner| has(*owner, delta)).count() >= W;
        if self.acknowledged.iter().all(enough) { Ok(()) } else { Err("acknowledged and below W in the new layout") }
    }
}

/// The old owners in any order.
fn shuffled(rng: &mut Rng) -> Vec<usize> {
    let mut left = vec![0, 1, 2];
    (0..3)
        .map(|_| {
            let at = below(rng, left.len());
            left.swap_remove(at)
        })
        .collect()
}
