//! Rule 6 on the real replica: disks that lose their end, go back to an older state, or are empty; and nodes that come
//! back by what their own mark and the others tell them.

use redynamo::base::rng::Rng;
use redynamo::model::Fault;
use redynamo::storage::memory::Snapshot;

use crate::real::{Ghost, Machine, Told, refused, settle};
use crate::seeds::{Outcome, holds, is_caught};
use crate::world::{below, other, take};

const KEYS: u8 = 4;

/// How a node comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Return {
    /// Unproven until it has synced with both others; amnesiac until then as well; a new actor when it is doubted.
    Right,
    /// Wrong: only one other is asked.
    AsksOne,
    /// Wrong: nobody is asked.
    AsksNobody,
}

#[test]
fn what_two_acknowledged_outlives_any_one_disk() {
    holds("disks, real replica", 80, |seed| run(seed, Return::Right));
}

#[test]
fn wrong_ways_to_come_back_are_caught() {
    is_caught("disks, one is asked", 60, |seed| run(seed, Return::AsksOne));
    is_caught("disks, nobody is asked", 60, |seed| run(seed, Return::AsksNobody));
}

/// What befalls a disk.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// The process ends; the machine goes on.
    Killed,
    /// The machine goes down: what was not synced is gone.
    PowerCut,
    /// The rows and the mark are those of a while ago: a restored backup, on the same disk.
    RolledBack,
    /// Another disk, empty.
    Wiped,
}

fn run(seed: u64, rule: Return) -> Outcome {
    let mut rng = Rng::new(seed);
    let (mut machines, mut ghost, mut network) = (Machine::some(3), Ghost::default(), Vec::<(usize, Told)>::new());
    let mut backups: [Option<Snapshot>; 3] = Default::default();
    for _ in 0..200 {
        let me = below(&mut rng, 3);
        let near = other(&mut rng, me, 3);
        match rng.below(100) {
            0..45 => {
                let key = rng.below(KEYS.into()) as u8;
                let set = rng.chance(0.6);
                let told = if set { machines[me].set(key, "v").map(Some) } else { machines[me].delete(key) };
                let told = match told {
                    Ok(Some(told)) => told,
                    Err(Fault::NoDots(_)) if machines[me].replica.is_doubted() => {
                        come_back(&mut machines, me, near, rule)?;
                        continue;
                    }
                    Ok(None) => continue,
                    Err(_) => return Err("refused"),
                };
                ghost.note(&told)?;
                // Acknowledged by two; the third may hear of it or not.
                tell(&mut machines, near, &told, rule)?;
                network.push((3 - me - near, told));
            }
            45..80 => {
                if let Some((to, told)) = take(&mut rng, &mut network)
                    && rng.chance(0.6)
                {
                    tell(&mut machines, to, &told, rule)?;
                }
            }
            80..84 => backups[me] = Some(machines[me].store.snapshot()),
            84..89 => {
                let fates = [Fate::Killed, Fate::PowerCut, Fate::RolledBack, Fate::Wiped];
                let fate = fates[below(&mut rng, 4)];
                befall(&mut rng, &mut machines[me], fate, backups[me].as_ref());
                if matches!(fate, Fate::Wiped) {
                    // A backup of another disk would be noticed by its fingerprint.
                    backups[me] = None;
                }
                come_back(&mut machines, me, near, rule)?;
            }
            89..97 => {
                let done = machines[me].sync_from(&machines[near]);
                settle_doubt(&mut machines, me, near, done, rule)?;
            }
            _ => machines[me].replica.committer().sync().unwrap(),
        }
    }
    for me in 0..3 {
        if machines[me].replica.is_doubted() {
            come_back(&mut machines, me, other(&mut rng, me, 3), rule)?;
        }
    }
    ghost.judge(&settle(&machines, KEYS)?)
}

/// A delta arrives; whoever doubts itself because of it comes back first, and then takes it.
fn tell(machines: &mut [Machine], to: usize, told: &Told, rule: Return) -> Outcome {
    let done = machines[to].apply(told).map(drop);
    let doubted = machines[to].replica.is_doubted();
    settle_doubt(machines, to, (to + 1) % 3, done, rule)?;
    if doubted { machines[to].apply(told).map(drop).map_err(refused) } else { Ok(()) }
}

fn settle_doubt(machines: &mut [Machine], me: usize, near: usize, done: Result<(), Fault>, rule: Return) -> Outcome {
    match done {
        Err(Fault::NoDots(_)) if machines[me].replica.is_doubted() => come_back(machines, me, near, rule),
        done => done.map_err(refused),
    }
}

fn befall(rng: &mut Rng, me: &mut Machine, fate: Fate, backup: Option<&Snapshot>) {
    let mut lost = matches!(fate, Fate::Wiped);
    match (fate, backup) {
        (Fate::PowerCut, _) => {
            let kept = below(rng, me.store.unsynced() + 1);
            lost = kept < me.store.unsynced();
            me.store.crash(kept);
        }
        (Fate::RolledBack, Some(backup)) => me.store.restore(backup, true),
        (Fate::Wiped, _) => me.store.wipe(),
        (Fate::Killed | Fate::RolledBack, _) => {}
    }
    me.reopen(matches!(fate, Fate::Wiped));
    assert!(me.replica.is_amnesiac() || !lost, "{fate:?} was not noticed");
    assert_eq!(me.replica.is_proven(), !me.replica.is_continued());
}

/// What a node does before it counts again. It loses what others have if that is wrong: at most one is down at a time.
fn come_back(machines: &mut [Machine], me: usize, near: usize, rule: Return) -> Outcome {
    let others = [near, 3 - me - near];
    let asked = match rule {
        Return::AsksNobody => 0,
        Return::AsksOne => 1,
        Return::Right => 2,
    };
    for _ in 0..2 {
        if machines[me].replica.is_doubted() {
            let fresh = machines[me].fresh_actor();
            machines[me].replica.take_actor(fresh, true).unwrap();
        }
        let synced = others[..asked].iter().try_for_each(|peer| machines[me].sync_from(&machines[*peer]));
        match synced {
            Err(Fault::NoDots(_)) if machines[me].replica.is_doubted() => {}
            done => {
                done.map_err(refused)?;
                break;
            }
        }
    }
    machines[me].replica.prove();
    machines[me].replica.recovered().unwrap();
    Ok(())
}
