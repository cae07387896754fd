//! Rules 1, 4 and 8: when a peer's clock may be joined, what a stand-in may let go, what a client's context may name.

use std::collections::BTreeSet;

use redynamo::base::rng::Rng;
use redynamo::causality::context::Context;
use redynamo::causality::{Clock, Dot};

use crate::seeds::{Outcome, holds, is_caught};
use crate::world::{Delta, Ghost, Replica, Row, Snapshot, Sweeping, below, other, pair, settle, take};

/// The stand-in of the five: owners are 0, 1 and 2; 4 is an owner to be.
const STAND_IN: usize = 3;

/// Which clock a sync reads, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Read before the comparison, joined after every differing row.
    Right,
    /// The same, but each row is answered with the clock of that time: also right.
    RowsWithLiveClock,
    /// Wrong: read when the rows have been merged.
    ReadAfterRows,
    /// Wrong: joined before all differing rows have been merged.
    JoinedEarly,
}

/// What a stand-in lets go of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drops {
    Nothing,
    /// Rows and clock: right.
    RowsAndClock,
    /// Wrong: the clock stays and says that everything was superseded.
    RowsOnly,
    /// Wrong: the counter too, so that dots are given twice.
    Counter,
}

#[derive(Debug, Clone, Copy)]
struct Rules {
    order: Order,
    drops: Drops,
    /// Whether clients write with contexts they got elsewhere.
    contexts: bool,
    /// Whether whole keys are deleted as well, and swept later.
    clears: bool,
    /// Wrong when false: a sync goes on although a side has let its rows go.
    abort_on_drop: bool,
}

const RIGHT: Rules =
    Rules { order: Order::Right, drops: Drops::Nothing, contexts: false, clears: false, abort_on_drop: true };

#[test]
fn a_clock_read_before_the_comparison_and_joined_after_the_rows_loses_nothing() {
    holds("join", 200, |seed| join(seed, RIGHT));
    holds("join, rows with a live clock", 200, |seed| join(seed, Rules { order: Order::RowsWithLiveClock, ..RIGHT }));
}

#[test]
fn clears_that_are_swept_later_disturb_no_sync() {
    let rules = Rules { clears: true, contexts: true, ..RIGHT };
    holds("join, clears", 200, |seed| join(seed, rules));
    let live = Rules { order: Order::RowsWithLiveClock, ..rules };
    holds("join, clears, rows with a live clock", 200, |seed| join(seed, live));
    let forgets = Rules { drops: Drops::RowsAndClock, ..rules };
    holds("join, clears, stand-in forgets", 200, |seed| join(seed, forgets));
}

#[test]
fn contexts_that_name_unseen_dots_lose_nothing() {
    holds("join, contexts", 200, |seed| join(seed, Rules { contexts: true, ..RIGHT }));
}

#[test]
fn a_stand_in_may_forget_rows_and_clock_together() {
    let rules = Rules { drops: Drops::RowsAndClock, ..RIGHT };
    holds("join, stand-in forgets", 200, |seed| join(seed, rules));
    holds("join, stand-in forgets, contexts", 200, |seed| join(seed, Rules { contexts: true, ..rules }));
}

#[test]
fn joining_in_the_wrong_order_is_caught() {
    is_caught("join, clock read after the rows", 20, |seed| join(seed, Rules { order: Order::ReadAfterRows, ..RIGHT }));
    is_caught("join, joined early", 20, |seed| join(seed, Rules { order: Order::JoinedEarly, ..RIGHT }));
}

#[test]
fn forgetting_too_little_or_too_much_is_caught() {
    is_caught("join, rows go and the clock stays", 20, |seed| join(seed, Rules { drops: Drops::RowsOnly, ..RIGHT }));
    is_caught("join, the counter goes too", 300, |seed| join(seed, Rules { drops: Drops::Counter, ..RIGHT }));
    let rules = Rules { drops: Drops::RowsAndClock, abort_on_drop: false, ..RIGHT };
    is_caught("join, a sync goes on across a drop", 200, |seed| join(seed, rules));
}

/// A sync that reads its peer live; each side may change under it.
struct Sync {
    target: usize,
    peer: usize,
    /// The peer's clock as it was before the comparison.
    clock: Clock,
    differing: BTreeSet<Row>,
    incarnations: (u64, u64),
}

fn join(seed: u64, rules: Rules) -> Outcome {
    let mut rng = Rng::new(seed);
    let sweeping = if rules.clears { Sweeping::Later } else { Sweeping::AtOnce };
    let mut replicas: Vec<Replica> = (0..5).map(|actor| Replica { sweeping, ..Replica::new(actor) }).collect();
    let mut ghost = Ghost::default();
    let (mut network, mut syncs, mut contexts) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..400 {
        let me = [0, 0, 1, 1, 2, 2, 3, 4][below(&mut rng, 8)];
        let row = (rng.below(2) as u8, rng.below(3) as u8);
        match rng.below(1000) {
            0..300 => {
                let Some(delta) = change(&mut rng, &mut replicas[me], row, rules, &contexts) else { continue };
                // Under the rule that reuses dots the ghost cannot tell versions apart; what it loses is judged below.
                if ghost.note(&delta).is_err() && rules.drops != Drops::Counter {
                    return Err("dot given twice");
                }
                for to in (0..5).filter(|to| *to != me) {
                    if to < 3 || rng.chance(0.3) {
                        network.push((to, delta.clone()));
                    }
                }
            }
            300..330 => contexts.push((row, Context::of(replicas[me].visible(row).versions()).dots)),
            330..650 => {
                if let Some((to, delta)) = take(&mut rng, &mut network)
                    && rng.chance(0.75)
                {
                    replicas[to].apply(&delta);
                }
            }
            650..720 => syncs.push(begin(&replicas, me, other(&mut rng, me, 5))),
            720..970 => step(&mut rng, &mut replicas, &mut syncs, rules),
            970..985 => replicas[me].sweep(row.0),
            985.. if rules.drops != Drops::Nothing => forget(&mut replicas, rules.drops),
            _ => {}
        }
    }
    ghost.judge(&settle(&mut replicas)?)
}

fn change(rng: &mut Rng, me: &mut Replica, row: Row, rules: Rules, contexts: &[(Row, Vec<Dot>)]) -> Option<Delta> {
    match rng.below(100) {
        0..50 => Some(me.write(row)),
        50..65 if rules.contexts && !contexts.is_empty() => {
            let (row, observed) = &contexts[below(rng, contexts.len())];
            Some(me.write_over(*row, observed.clone()))
        }
        90.. if rules.clears => Some(me.clear(row.0)),
        _ => me.remove(row),
    }
}

fn begin(replicas: &[Replica], target: usize, peer: usize) -> Sync {
    let (mine, theirs) = (&replicas[target], &replicas[peer]);
    let all = mine.rows.keys().chain(theirs.rows.keys()).copied();
    Sync {
        target,
        peer,
        clock: theirs.clock.clone(),
        // As the hash trees see it: what a clear hides is in neither.
        differing: all.filter(|row| mine.visible(*row) != theirs.visible(*row)).collect(),
        incarnations: (mine.incarnation, theirs.incarnation),
    }
}

fn step(rng: &mut Rng, replicas: &mut [Replica], syncs: &mut Vec<Sync>, rules: Rules) {
    let Some(mut sync) = take(rng, syncs) else { return };
    let (me, peer) = pair(replicas, sync.target, sync.peer);
    if rules.abort_on_drop && sync.incarnations != (me.incarnation, peer.incarnation) {
        return;
    }
    let mut answered_by = peer.snapshot();
    if matches!(rules.order, Order::Right | Order::JoinedEarly) {
        answered_by.clock = sync.clock.clone();
    }
    let early = rules.order == Order::JoinedEarly && rng.chance(0.2);
    match sync.differing.pop_first().filter(|_| !early) {
        Some(row) => {
            me.merge_row(row, &answered_by.rows.get(&row).cloned().unwrap_or_default(), answered_by.known(row.0));
            syncs.push(sync);
        }
        None if rules.order == Order::ReadAfterRows => me.finish_sync(&answered_by),
        None => me.finish_sync(&Snapshot { clock: sync.clock, ..answered_by }),
    }
}

fn forget(replicas: &mut [Replica], drops: Drops) {
    for owner in 0..3 {
        let (owner, stand_in) = pair(replicas, owner, STAND_IN);
        owner.sync_from(stand_in);
    }
    let stand_in = &mut replicas[STAND_IN];
    stand_in.rows.clear();
    stand_in.clears.clear();
    if drops != Drops::RowsOnly {
        stand_in.clock = Clock::new();
    }
    if drops == Drops::Counter {
        stand_in.counter = 0;
    }
    stand_in.incarnation += 1;
}
