//! Rule 3: every increment counts once, whatever SET, DEL and PUT do beside it. Ghosts are sets of increments: each
//! version of a run knows which it holds, so what a reset took away is known exactly.

use std::collections::{BTreeMap, BTreeSet};

use redynamo::base::rng::Rng;
use redynamo::causality::context::Context;
use redynamo::causality::counter::{Seen, run_of, seen_by_replacing, seen_over, total};
use redynamo::causality::{Cell, Clock, Dot, Payload, Run, Stamp, Value, Version};

use crate::seeds::{Outcome, holds, is_caught};
use crate::world::{Delta, Replica, Sweeping, below, broadcast, other, pair, settle, take};

const ROW: (u8, u8) = (0, 0);

/// How runs are named and continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Runs {
    /// Named by their first dot, extended while live: right.
    FirstDot,
    /// One run an actor for ever; begins at 0 when its version is not there: wrong.
    ActorFromZero,
    /// One run an actor for ever; goes on from what was seen: wrong once something was forgotten.
    ActorFromSeen,
}

/// What counts as seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sight {
    /// Of all live values and voids together the later dot: right.
    LaterDot,
    /// Of all together the larger sum: wrong.
    LargerSum,
    /// Of the winning value only: wrong.
    WinnerOnly,
}

/// Owners come first.
const OWNERS: usize = 3;

/// The last replica. It forgets when it has synced with the owners it reaches: W of them.
const STAND_IN: usize = 3;

/// Whether and how the stand-in forgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Forgets {
    Never,
    /// Remembers up to where, and extends no run from before: right.
    Marked,
    /// Extends whatever run it gets back: wrong.
    Unmarked,
}

/// When a void may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Voids {
    Stay,
    /// By the whole rule.
    WholeRule,
    /// Wrong: as soon as every owner has its dot.
    AllHaveIt,
    /// Wrong: the actors that it names are not asked for live runs unless they are owners.
    OwnersAsked,
}

#[derive(Debug, Clone, Copy)]
struct Rules {
    runs: Runs,
    sight: Sight,
    forgets: Forgets,
    voids: Voids,
    /// Whether deletions are clears with a void, and their rows are swept later.
    clears: bool,
}

const RIGHT: Rules =
    Rules { runs: Runs::FirstDot, sight: Sight::LaterDot, forgets: Forgets::Never, voids: Voids::Stay, clears: false };

#[test]
fn every_increment_counts_once() {
    holds("counter", 400, |seed| count(seed, RIGHT));
    holds("counter, clears", 400, |seed| count(seed, Rules { clears: true, ..RIGHT }));
}

#[test]
fn every_increment_counts_once_although_a_stand_in_forgets() {
    holds("counter, forgets", 400, |seed| count(seed, Rules { forgets: Forgets::Marked, ..RIGHT }));
}

#[test]
fn every_increment_counts_once_although_voids_are_let_go() {
    let rules = Rules { voids: Voids::WholeRule, ..RIGHT };
    holds("counter, voids go", 400, |seed| count(seed, rules));
    holds("counter, voids go, clears", 400, |seed| count(seed, Rules { clears: true, ..rules }));
    holds("counter, voids go, forgets", 400, |seed| count(seed, Rules { forgets: Forgets::Marked, ..rules }));
}

#[test]
fn a_run_that_outlives_its_version_is_caught() {
    is_caught("counter, run by actor from zero", 20, |seed| count(seed, Rules { runs: Runs::ActorFromZero, ..RIGHT }));
    let rules = Rules { runs: Runs::ActorFromSeen, forgets: Forgets::Marked, ..RIGHT };
    is_caught("counter, run by actor, forgets", 100, |seed| count(seed, rules));
    is_caught("counter, run goes on after forgetting", 800, |seed| {
        count(seed, Rules { forgets: Forgets::Unmarked, ..RIGHT })
    });
}

#[test]
fn a_wrong_notion_of_what_was_seen_is_caught() {
    is_caught("counter, larger sum wins", 100, |seed| count(seed, Rules { sight: Sight::LargerSum, ..RIGHT }));
    is_caught("counter, seen of the winner only", 100, |seed| count(seed, Rules { sight: Sight::WinnerOnly, ..RIGHT }));
}

#[test]
fn a_void_let_go_too_early_is_caught() {
    is_caught("counter, void goes when all have it", 800, |seed| {
        count(seed, Rules { voids: Voids::AllHaveIt, ..RIGHT })
    });
}

/// Too rare for chance: a stand-in that missed one void and heard of the next still holds the run that both name.
#[test]
fn a_void_stays_while_a_named_actor_that_is_no_owner_holds_a_run() {
    let spoiled = |voids| {
        let mut world = World::new(Rules { voids, ..RIGHT });
        let increment = world.increment(STAND_IN, 5);
        (0..OWNERS).for_each(|owner| world.replicas[owner].apply(&increment));
        let missed = world.replace(0, None);
        (1..OWNERS).for_each(|owner| world.replicas[owner].apply(&missed));
        let heard = world.replace(0, None);
        (1..=STAND_IN).for_each(|to| world.replicas[to].apply(&heard));
        let gone = world.let_voids_go(0);
        world.increment(STAND_IN, 1);
        gone.into_iter().for_each(|gone| world.replicas.iter_mut().for_each(|replica| replica.apply(&gone)));
        settle(&mut world.replicas).unwrap();
        let cell = world.replicas[0].visible(ROW);
        world.value(&cell) != world.wanted(&cell)
    };
    assert!(spoiled(Voids::OwnersAsked), "what DEL took away is back");
    assert!(!spoiled(Voids::WholeRule));
}

/// Replicas, and the ghosts of one history.
struct World {
    rules: Rules,
    replicas: Vec<Replica>,
    network: Vec<(usize, Delta)>,
    /// How far the stand-in's dots had come when it forgot.
    forgot: u64,
    /// What each increment added.
    added: Vec<i64>,
    /// Which increments a version of a run holds.
    holds: BTreeMap<Dot, BTreeSet<usize>>,
    /// Increments that a SET, DEL or PUT had seen.
    removed: BTreeSet<usize>,
    /// Contexts that clients hold.
    contexts: Vec<Context>,
}

fn count(seed: u64, rules: Rules) -> Outcome {
    let mut rng = Rng::new(seed);
    let mut world = World::new(rules);
    for _ in 0..80 {
        world.step(&mut rng);
    }
    settle(&mut world.replicas)?;
    if rules.voids == Voids::WholeRule {
        while let Some(delta) = world.let_voids_go(0) {
            world.replicas.iter_mut().for_each(|replica| replica.apply(&delta));
        }
        world.only_needed_voids_are_left()?;
    }
    let cell = world.replicas[0].visible(ROW);
    if world.value(&cell) == world.wanted(&cell) { Ok(()) } else { Err("wrong") }
}

impl World {
    fn new(rules: Rules) -> Self {
        let sweeping = if rules.clears { Sweeping::Later } else { Sweeping::AtOnce };
        let replicas = (0..=STAND_IN as u64).map(|actor| Replica { sweeping, ..Replica::new(actor) }).collect();
        World {
            rules,
            replicas,
            network: Vec::new(),
            forgot: 0,
            added: Vec::new(),
            holds: BTreeMap::new(),
            removed: BTreeSet::new(),
            contexts: Vec::new(),
        }
    }

    fn step(&mut self, rng: &mut Rng) {
        let me = below(rng, self.replicas.len());
        let delta = match rng.below(100) {
            0..35 => Some(self.increment(me, [1, 2, 3, -1, -2][below(rng, 5)])),
            35..45 => {
                // Voids are left to themselves where they may go: what replaces them would hide a wrong departure.
                let set = rng.chance(if self.rules.voids == Voids::Stay { 0.5 } else { 0.05 });
                Some(self.replace(me, set.then(|| 1000 + i128::from(rng.below(8000)))))
            }
            45..47 => {
                self.contexts.push(Context::of(self.replicas[me].visible(ROW).versions()));
                None
            }
            47..49 => self.put(rng, me),
            49..75 => {
                if let Some((to, delta)) = take(rng, &mut self.network)
                    && rng.chance(0.6)
                {
                    self.replicas[to].apply(&delta);
                }
                None
            }
            75..85 => {
                let (me, peer) = pair(&mut self.replicas, me, other(rng, me, STAND_IN + 1));
                me.sync_from(peer);
                None
            }
            85..90 if self.rules.forgets != Forgets::Never && me == STAND_IN => {
                self.forget(rng);
                None
            }
            90..97 => self.let_voids_go(me),
            97..99 => {
                self.replicas[me].sweep(ROW.0);
                None
            }
            _ => None,
        };
        if let Some(delta) = delta {
            broadcast(&mut self.network, me, STAND_IN + 1, &delta);
        }
    }

    /// INCRBY.
    fn increment(&mut self, me: usize, by: i64) -> Delta {
        self.added.push(by);
        let mut held = BTreeSet::from([self.added.len() - 1]);
        let replica = &mut self.replicas[me];
        let cell = replica.visible(ROW);
        let own = own_versions(&cell, replica, if self.rules.forgets == Forgets::Marked { self.forgot } else { 0 });
        let last = own.iter().max_by_key(|(_, version)| version.dot.counter);
        let (first, sum) = match (last, self.rules.runs) {
            (Some((run, version)), _) => {
                held.extend(&self.holds[&version.dot]);
                (Some(*run), run_of(version).map_or(0, |(_, run)| run.sum))
            }
            (None, Runs::FirstDot) => (None, 0),
            (None, Runs::ActorFromZero) => (Some(Dot::new(replica.actor, 0)), 0),
            (None, Runs::ActorFromSeen) => {
                let name = Dot::new(replica.actor, 0);
                (Some(name), seen_over(cell.versions().iter()).of(name).map_or(0, |(_, sum)| sum))
            }
        };
        let superseded = own.iter().filter(|(run, _)| Some(*run) == first).map(|(_, version)| version.dot).collect();
        let delta = replica.commit(ROW, Payload::Run(Run { first, sum: sum + i128::from(by) }), superseded);
        self.holds.extend(delta.dots().map(|dot| (dot, held.clone())));
        delta
    }

    /// SET, or with no base DEL.
    fn replace(&mut self, me: usize, base: Option<i128>) -> Delta {
        let cell = self.replicas[me].visible(ROW);
        let seen = self.sees_replacing(&cell);
        self.removed.extend(cell.dots().filter_map(|dot| self.holds.get(&dot)).flatten());
        let replica = &mut self.replicas[me];
        match base {
            None if self.rules.clears => {
                let clear = Some(replica.clock.clone()); // read before the void gets its dot
                let dot = replica.next_dot();
                replica.commit_at(ROW, Stamp::at(dot.counter), Payload::Void(seen), Vec::new(), dot, clear)
            }
            None => replica.commit(ROW, Payload::Void(seen), cell.dots().collect()),
            Some(base) => replica.commit(ROW, value(base, seen), cell.dots().collect()),
        }
    }

    /// PUT with a context from whenever and wherever.
    fn put(&mut self, rng: &mut Rng, me: usize) -> Option<Delta> {
        let Context { dots, seen, .. } = rng.pick(&self.contexts)?.clone();
        self.removed.extend(dots.iter().filter_map(|dot| self.holds.get(dot)).flatten());
        Some(self.replicas[me].commit(ROW, value(rng.below(1000).into(), seen), dots))
    }

    /// The stand-in forgets, after a sync with W owners. What it reads next may come from the one that was out of reach.
    fn forget(&mut self, rng: &mut Rng) {
        let unreachable = below(rng, OWNERS);
        for owner in (0..OWNERS).filter(|owner| *owner != unreachable) {
            let (owner, stand_in) = pair(&mut self.replicas, owner, STAND_IN);
            owner.sync_from(stand_in);
        }
        let stand_in = &mut self.replicas[STAND_IN];
        self.forgot = stand_in.counter;
        stand_in.rows.clear();
        stand_in.clears.clear();
        stand_in.clock = Clock::new();
        if rng.chance(0.5) {
            let (stand_in, owner) = pair(&mut self.replicas, STAND_IN, below(rng, OWNERS));
            stand_in.sync_from(owner);
        }
    }

    fn let_voids_go(&mut self, me: usize) -> Option<Delta> {
        let cell = self.replicas[me].visible(ROW);
        let may_go = |version: &&Version| match (&version.payload, self.rules.voids) {
            (Payload::Void(_), Voids::AllHaveIt) => {
                self.replicas[..OWNERS].iter().all(|owner| owner.clock.contains(version.dot))
            }
            (Payload::Void(seen), Voids::WholeRule | Voids::OwnersAsked) => self.is_spent(version.dot, seen),
            _ => false,
        };
        let spent: Vec<Dot> = cell.versions().iter().filter(may_go).map(|version| version.dot).collect();
        (!spent.is_empty()).then(|| self.replicas[me].remove_dots(ROW, spent))
    }

    /// When all is quiet a void stays only for the sake of a run that lives.
    fn only_needed_voids_are_left(&self) -> Outcome {
        let cell = self.replicas[0].visible(ROW);
        let lives = |run: Dot| cell.versions().iter().filter_map(run_of).any(|(name, _)| name == run);
        let needed = |version: &Version| match &version.payload {
            Payload::Void(seen) => seen.iter().any(|(run, ..)| lives(*run)),
            _ => true,
        };
        if cell.versions().iter().all(needed) { Ok(()) } else { Err("void kept for nothing") }
    }

    /// Every owner and every actor that it names has the void, every owner has all dots that those actors gave so far,
    /// and none of them holds a live version of a run that it names.
    fn is_spent(&self, void: Dot, seen: &Seen) -> bool {
        let named = |replica: &&Replica| seen.iter().any(|(run, ..)| run.actor == replica.actor);
        let (owners, stand_in) = self.replicas.split_at(OWNERS);
        let mut issued = Clock::new();
        self.replicas.iter().filter(named).for_each(|replica| {
            issued.add_interval(replica.actor, 1, replica.counter);
        });
        let named_stand_in = || stand_in.iter().filter(named);
        let holds_run = |replica: &Replica| {
            let cell = replica.visible(ROW);
            cell.versions().iter().filter_map(run_of).any(|(run, _)| seen.of(run).is_some())
        };
        owners.iter().chain(named_stand_in()).all(|replica| replica.clock.contains(void))
            && owners.iter().all(|owner| owner.clock.covers(&issued) && !holds_run(owner))
            && (self.rules.voids == Voids::OwnersAsked || !named_stand_in().any(holds_run))
    }

    fn sees_replacing(&self, cell: &Cell) -> Seen {
        let mut seen = self.sees(cell);
        let own = cell.versions().iter().filter_map(|version| Some((run_of(version)?, version.dot.counter)));
        match self.rules.sight {
            Sight::LargerSum => own.for_each(|((run, state), counter)| note_larger(&mut seen, run, counter, state.sum)),
            _ => seen = seen_by_replacing(cell.versions().iter()),
        }
        seen
    }

    fn sees(&self, cell: &Cell) -> Seen {
        let versions = cell.versions();
        match self.rules.sight {
            Sight::LaterDot => seen_over(versions.iter()),
            Sight::WinnerOnly => winner(cell).map_or_else(|| seen_over(versions.iter()), |value| value.seen.clone()),
            Sight::LargerSum => {
                let mut seen = Seen::default();
                for version in versions {
                    seen_over([version].into_iter())
                        .iter()
                        .for_each(|(run, counter, sum)| note_larger(&mut seen, *run, *counter, *sum));
                }
                seen
            }
        }
    }

    /// What a client reads.
    fn value(&self, cell: &Cell) -> i128 {
        base(cell) + total(cell.versions().iter(), &self.sees(cell)).unwrap_or(0)
    }

    /// What it ought to read.
    fn wanted(&self, cell: &Cell) -> i128 {
        let counted = (0..self.added.len()).filter(|increment| !self.removed.contains(increment));
        base(cell) + counted.map(|increment| i128::from(self.added[increment])).sum::<i128>()
    }
}

/// The live versions of a replica's own runs that began after it last forgot.
fn own_versions<'a>(cell: &'a Cell, replica: &Replica, forgot: u64) -> Vec<(Dot, &'a Version)> {
    let runs = cell.versions().iter().filter_map(|version| Some((run_of(version)?.0, version)));
    runs.filter(|(run, _)| run.actor == replica.actor && (run.counter > forgot || run.counter == 0)).collect()
}

fn value(base: i128, seen: Seen) -> Payload {
    Payload::Value(Value { seen, ..Value::plain(base.to_string().into()) })
}

/// The value that a plain read answers.
fn winner(cell: &Cell) -> Option<&Value> {
    let values = cell.versions().iter().filter_map(|version| match &version.payload {
        Payload::Value(value) => Some(((version.stamp, version.dot), value)),
        _ => None,
    });
    values.max_by_key(|(order, _)| *order).map(|(_, value)| value)
}

fn base(cell: &Cell) -> i128 {
    winner(cell).map_or(0, |value| std::str::from_utf8(&value.data).unwrap().parse().unwrap())
}

/// The wrong merge: the larger sum of a run is taken for the later one.
fn note_larger(seen: &mut Seen, run: Dot, counter: u64, sum: i128) {
    if seen.of(run).is_none_or(|(_, known)| known < sum) {
        seen.retain(|name| name != run);
        seen.note(run, counter, sum);
    }
}
