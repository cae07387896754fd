//! The base of it all: lossy networks with stale, interleaved syncs; disks that are wiped or rolled back.

use std::collections::BTreeSet;

use redynamo::base::rng::Rng;
use redynamo::causality::Clock;

use crate::seeds::{Outcome, holds, is_caught};
use crate::world::{Ghost, Replica, Row, Snapshot, below, broadcast, other, pair, settle, take};

#[test]
fn nothing_is_lost_or_resurrected_by_a_lossy_network_and_stale_interleaved_syncs() {
    holds("lossy network", 400, lossy_network);
}

#[test]
fn what_two_acknowledged_outlives_disks_that_are_wiped_or_rolled_back() {
    holds("failing disks, lease outlives the disk", 400, |seed| failing_disks(seed, Disks::LeaseOutlives));
    holds("failing disks, peers know a higher own dot", 400, |seed| failing_disks(seed, Disks::AskPeers));
}

#[test]
fn wrong_ways_back_from_a_failed_disk_are_caught() {
    is_caught("failing disks, synced with one", 40, |seed| failing_disks(seed, Disks::SyncWithOne));
    is_caught("failing disks, unused lease marked as seen", 40, |seed| failing_disks(seed, Disks::UnusedAreSeen));
    is_caught("failing disks, lease rolled back too", 40, |seed| failing_disks(seed, Disks::LeaseLost));
}

/// A sync at work on what the peer was a while ago.
struct Sync {
    target: usize,
    peer: Snapshot,
    differing: BTreeSet<Row>,
}

fn lossy_network(seed: u64) -> Outcome {
    let mut rng = Rng::new(seed);
    let (mut replicas, mut ghost) = (Replica::some(3), Ghost::default());
    let (mut network, mut syncs) = (Vec::new(), Vec::new());
    for _ in 0..300 {
        let (dice, me) = (rng.below(100), below(&mut rng, 3));
        match dice {
            0..35 => {
                let row = (0, rng.below(4) as u8);
                let delta = if rng.chance(0.65) { Some(replicas[me].write(row)) } else { replicas[me].remove(row) };
                if let Some(delta) = delta {
                    ghost.note(&delta)?;
                    broadcast(&mut network, me, 3, &delta);
                }
            }
            35..75 => {
                let Some((to, delta)) = take(&mut rng, &mut network) else { continue };
                let fate = rng.below(100);
                if fate >= 15 {
                    replicas[to].apply(&delta);
                }
                if (15..25).contains(&fate) {
                    network.push((to, delta)); // arrives once more
                }
            }
            75..82 => syncs.push(begin_sync(&replicas, me, other(&mut rng, me, 3))),
            82..87 => {
                let (me, peer) = pair(&mut replicas, me, (me + 1) % 3);
                me.exchange((0, rng.below(4) as u8), peer);
            }
            _ => step_sync(&mut rng, &mut replicas, &mut syncs),
        }
    }
    ghost.judge(&settle(&mut replicas)?)
}

fn begin_sync(replicas: &[Replica], target: usize, peer: usize) -> Sync {
    let (peer, mine) = (replicas[peer].snapshot(), &replicas[target].rows);
    // Equal rows are passed over now, as the hash tree passes over them.
    let all = peer.rows.keys().chain(mine.keys()).copied();
    let differing = all.filter(|row| peer.rows.get(row) != mine.get(row)).collect();
    Sync { target, peer, differing }
}

fn step_sync(rng: &mut Rng, replicas: &mut [Replica], syncs: &mut Vec<Sync>) {
    let Some(mut sync) = take(rng, syncs) else { return };
    let target = &mut replicas[sync.target];
    match sync.differing.pop_first() {
        Some(row) => {
            target.merge_row(row, &sync.peer.rows.get(&row).cloned().unwrap_or_default(), sync.peer.known(row.0));
            syncs.push(sync);
        }
        None => target.finish_sync(&sync.peer),
    }
}

/// How a replica comes back from an older state of its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disks {
    /// The lease is on a disk of its own: dots go on after it.
    LeaseOutlives,
    /// The lease went back as well; a peer's clock with a higher own dot makes it a new actor.
    AskPeers,
    /// Wrong: synced with one other, not with all but W−1.
    SyncWithOne,
    /// Wrong: the dots of the lease that were perhaps not used are marked as seen.
    UnusedAreSeen,
    /// Wrong: the lease went back as well, and nobody asks.
    LeaseLost,
}

fn failing_disks(seed: u64, rule: Disks) -> Outcome {
    let mut rng = Rng::new(seed);
    let (mut replicas, mut ghost, mut network) = (Replica::some(3), Ghost::default(), Vec::new());
    let mut disks: [Option<(Snapshot, u64)>; 3] = Default::default();
    let mut actors = 100;
    for _ in 0..300 {
        let (dice, me) = (rng.below(100), below(&mut rng, 3));
        let near = other(&mut rng, me, 3);
        let far = 3 - me - near;
        match dice {
            0..45 => {
                let row = (0, rng.below(4) as u8);
                let delta = if rng.chance(0.6) { Some(replicas[me].write(row)) } else { replicas[me].remove(row) };
                if let Some(delta) = delta {
                    ghost.note(&delta)?;
                    replicas[near].apply(&delta); // acknowledged by two; the third may hear of it or not
                    network.push((far, delta));
                }
            }
            45..80 => {
                if let Some((to, delta)) = take(&mut rng, &mut network)
                    && rng.chance(0.6)
                {
                    replicas[to].apply(&delta);
                }
            }
            80..84 => disks[me] = Some((replicas[me].snapshot(), replicas[me].leased)),
            84..87 => {
                let disk = disks[me].as_ref().filter(|_| rng.chance(0.5));
                let peers = [replicas[near].clone(), replicas[far].clone()];
                match disk {
                    Some((disk, leased)) => roll_back(&mut replicas[me], disk, *leased, rule, &peers, &mut actors),
                    None => {
                        actors += 1;
                        replicas[me] = Replica::new(actors);
                    }
                }
                let asked = if rule == Disks::SyncWithOne { 1 } else { 2 };
                peers.iter().take(asked).for_each(|peer| replicas[me].sync_from(peer)); // in no quorum until then
            }
            87..95 => {
                let (me, peer) = pair(&mut replicas, me, near);
                me.sync_from(peer);
            }
            _ => {}
        }
    }
    ghost.judge(&settle(&mut replicas)?)
}

fn roll_back(me: &mut Replica, disk: &Snapshot, leased: u64, rule: Disks, peers: &[Replica], actors: &mut u64) {
    me.roll_back(disk);
    if matches!(rule, Disks::AskPeers | Disks::LeaseLost) {
        me.leased = leased;
    }
    me.counter = me.leased;
    if rule == Disks::UnusedAreSeen {
        me.clock.add_interval(me.actor, 1, me.counter);
    }
    let behind = |peer: &Replica| peer.clock.highest(me.actor) > me.counter;
    if rule == Disks::AskPeers && peers.iter().any(behind) {
        *actors += 1;
        *me = Replica { rows: me.rows.clone(), clock: me.clock.clone(), ..Replica::new(*actors) };
    }
}

#[test]
fn a_dot_that_was_never_seen_stays_unseen_after_syncs() {
    let mut replicas = Replica::some(3);
    let lost = replicas[0].write((0, 0));
    replicas[0].write((0, 1));
    let before: Clock = replicas[1].clock.clone();
    let (one, two) = pair(&mut replicas, 1, 2);
    one.sync_from(two);
    assert_eq!(one.clock, before);
    one.apply(&lost);
    assert_eq!(one.dots((0, 0)), lost.dots().collect::<Vec<_>>());
}
