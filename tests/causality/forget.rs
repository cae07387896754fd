//! Rule 4 on the real replica: a stand-in gives a region back and forgets all of it together, while deltas are lost and
//! delayed, syncs are under way, and processes end.

use redynamo::base::rng::Rng;
use redynamo::storage::{Change, Durability, Space, Store};

use crate::real::{Ghost, Machine, REGION, Sync, Told, refused, settle};
use crate::seeds::{Outcome, holds, is_caught};
use crate::world::{below, other, take};

/// The stand-in; owners are those before it.
const STAND_IN: usize = 3;
const KEYS: u8 = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Forgets {
    /// All of it, if nothing has come since it was given back.
    Right,
    /// Wrong: whatever came since it was given back.
    TheRestToo,
    /// Wrong: the rows go and the clock stays.
    RowsOnly,
    /// Wrong: syncs go on across it.
    SyncsGoOn,
}

#[test]
fn a_stand_in_that_forgets_all_together_loses_nothing() {
    holds("stand-in forgets, real replica", 60, |seed| run(seed, Forgets::Right));
}

#[test]
fn a_stand_in_that_forgets_what_it_has_not_given_back_is_caught() {
    is_caught("stand-in forgets the rest, real replica", 60, |seed| run(seed, Forgets::TheRestToo));
}

#[test]
fn a_stand_in_that_forgets_rows_only_is_caught() {
    is_caught("stand-in forgets rows only, real replica", 60, |seed| run(seed, Forgets::RowsOnly));
}

#[test]
fn syncs_that_go_on_while_the_stand_in_forgets_are_caught() {
    is_caught("syncs go on across forgetting, real replica", 60, |seed| run(seed, Forgets::SyncsGoOn));
}

fn run(seed: u64, rule: Forgets) -> Outcome {
    let mut rng = Rng::new(seed);
    let mut machines = Machine::some(4);
    let (mut ghost, mut network, mut syncs) = (Ghost::default(), Vec::new(), Vec::new());
    for _ in 0..250 {
        let me = below(&mut rng, 4);
        match rng.below(100) {
            0..35 => change(&mut rng, &machines, me, &mut ghost, &mut network)?,
            35..60 => {
                if let Some((to, told)) = take(&mut rng, &mut network)
                    && rng.chance(0.75)
                {
                    machines[to].apply(&told).map_err(refused)?;
                }
            }
            60..68 => {
                let peer = other(&mut rng, me, 4);
                let mut sync = Sync::begin(&machines[me], &machines[peer]).map_err(refused)?;
                sync.blind = rule == Forgets::SyncsGoOn;
                syncs.push((me, peer, sync));
            }
            68..90 => {
                let Some((me, peer, mut sync)) = take(&mut rng, &mut syncs) else { continue };
                if sync.step(&machines[me], &machines[peer]).map_err(refused)? {
                    syncs.push((me, peer, sync));
                }
            }
            90..96 => {
                let before = machines[STAND_IN].replica.digest(REGION);
                for owner in &machines[..STAND_IN] {
                    owner.sync_from(&machines[STAND_IN]).map_err(refused)?;
                }
                if rng.chance(0.4) {
                    // Something comes that nobody has pulled.
                    change(&mut rng, &machines, STAND_IN, &mut ghost, &mut Vec::new())?;
                }
                forget(&mut machines[STAND_IN], before, rule);
            }
            _ if rng.chance(0.5) => machines[me].restart(),
            _ => machines[me].stop_and_start(),
        }
    }
    ghost.judge(&settle(&machines, KEYS)?)
}

/// A SET or a DEL, told to all owners and perhaps to the stand-in.
fn change(
    rng: &mut Rng,
    machines: &[Machine],
    me: usize,
    ghost: &mut Ghost,
    network: &mut Vec<(usize, Told)>,
) -> Outcome {
    let key = rng.below(KEYS.into()) as u8;
    let told = if rng.chance(0.6) { machines[me].set(key, "v").map(Some) } else { machines[me].delete(key) };
    let Some(told) = told.map_err(refused)? else { return Ok(()) };
    ghost.note(&told)?;
    let others = (0..machines.len()).filter(|to| *to != me);
    network.extend(others.filter(|to| *to < STAND_IN || rng.chance(0.3)).map(|to| (to, told.clone())));
    Ok(())
}

fn forget(stand_in: &mut Machine, given_back: (u128, u64), rule: Forgets) {
    if rule == Forgets::RowsOnly {
        let rows = stand_in.store.range(Space::Data, &[], &[], usize::MAX).unwrap();
        let removed = rows.into_iter().map(|(row, _)| Change::remove(Space::Data, row)).collect();
        stand_in.store.write(removed, Durability::Synced).unwrap();
        return stand_in.restart();
    }
    let now = stand_in.replica.digest(REGION);
    let expected = if rule == Forgets::TheRestToo { now } else { given_back };
    let forgotten = stand_in.replica.forget_region(REGION, expected).unwrap();
    stand_in.commit();
    assert!(forgotten.is_none() || stand_in.clock().is_empty());
}
