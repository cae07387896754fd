//! Rule 7 on the real replica: coordinators that take terms, and what becomes of commands that two of them ran at once.

use redynamo::base::id::{NodeId, Partition, Term};
use redynamo::base::rng::Rng;
use redynamo::model::{Draft, Fate, Fault};

use crate::real::{Machine, REGION, Told, refused, set, settle};
use crate::seeds::{Outcome, holds, is_caught};
use crate::world::{below, other, take};

const PARTITION: Partition = REGION.partition;
/// Of three owners.
const W: usize = 2;

/// How a coordinator that takes over makes sure of what was acknowledged before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takeover {
    /// It claims a term of itself and another owner, then reads from that one; whoever is deposed evaluates again.
    Terms,
    /// The same, but whoever was deposed and finds its version alone lets it stand: also right.
    TermsUnlessItStands,
    /// Wrong: not at all.
    Never,
    /// Wrong: it reads from another owner until it has synced with both, and never again.
    Once,
    /// Wrong: the term is claimed of nobody but itself.
    TermsOfItsOwn,
}

#[test]
fn a_sequential_client_that_hops_between_coordinators_makes_no_siblings() {
    holds("takeover, terms", 300, |seed| hop(seed, Takeover::Terms));
    holds("takeover, terms unless it stands", 300, |seed| hop(seed, Takeover::TermsUnlessItStands));
}

#[test]
fn wrong_ways_of_taking_over_are_caught() {
    is_caught("takeover, nothing is asked", 30, |seed| hop(seed, Takeover::Never));
    is_caught("takeover, asks until it has synced once", 60, |seed| hop(seed, Takeover::Once));
    is_caught("takeover, claims of itself only", 60, |seed| hop(seed, Takeover::TermsOfItsOwn));
}

/// A coordinator's part of the state: the term it believes in.
struct Coordinators {
    machines: Vec<Machine>,
    terms: [Term; 3],
    synced: [bool; 3],
}

impl Coordinators {
    fn new() -> Coordinators {
        let first = Term { number: 1, node: NodeId(1) };
        let machines = Machine::some(3);
        machines.iter().for_each(|machine| drop(machine.replica.grant(&[(PARTITION, first)]).unwrap()));
        Coordinators { machines, terms: [first, Term::NONE, Term::NONE], synced: [true, false, false] }
    }

    /// Whether owner `at` acknowledges what coordinator `me` tells it, as far as terms go.
    fn acknowledges(&self, at: usize, me: usize) -> bool {
        let replica = &self.machines[at].replica;
        let deposed = replica.term(PARTITION) > self.terms[me];
        replica.adopt(PARTITION, self.terms[me]).unwrap();
        !deposed
    }

    /// Claims a term of another owner, then reads the key there.
    fn take_over(&mut self, rng: &mut Rng, me: usize, key: u8, alone: bool) -> Result<(), Fault> {
        let at = other(rng, me, 3);
        let known = self.machines[me].replica.term(PARTITION).max(self.machines[at].replica.term(PARTITION));
        let claimed = known.next(NodeId(me as u64 + 1));
        let of: &[usize] = if alone { &[me] } else { &[me, at] };
        for owner in of {
            let (granted, _) = self.machines[*owner].replica.grant(&[(PARTITION, claimed)])?;
            assert_eq!(granted, [(PARTITION, claimed)]);
        }
        self.terms[me] = claimed;
        if alone { Ok(()) } else { self.machines[me].hear(key, &self.machines[at]) }
    }
}

impl Coordinators {
    /// What a coordinator of SET NX does before it evaluates.
    fn ask(&mut self, rng: &mut Rng, me: usize, rule: Conditions) -> Result<(), Fault> {
        if rule.terms {
            return self.take_over(rng, me, 0, false);
        }
        self.machines[me].hear(0, &self.machines[other(rng, me, 3)])
    }
}

fn hop(seed: u64, rule: Takeover) -> Outcome {
    let mut rng = Rng::new(seed);
    let mut all = Coordinators::new();
    let mut late: Vec<(usize, Told)> = Vec::new();
    let terms = matches!(rule, Takeover::Terms | Takeover::TermsUnlessItStands | Takeover::TermsOfItsOwn);
    for at in 0..12 {
        let me = below(&mut rng, 2);
        let value = at.to_string();
        if rule == Takeover::Once && !all.synced[me] {
            all.machines[me].hear(0, &all.machines[other(&mut rng, me, 3)]).map_err(refused)?;
            if rng.chance(0.4) {
                (0..3)
                    .filter(|peer| *peer != me)
                    .try_for_each(|peer| all.machines[me].sync_from(&all.machines[peer]))
                    .map_err(refused)?;
                all.synced[me] = true;
            }
        }
        if terms && all.machines[me].replica.term(PARTITION) > all.terms[me] {
            all.take_over(&mut rng, me, 0, rule == Takeover::TermsOfItsOwn).map_err(refused)?;
        }
        let mut told = all.machines[me].set(0, &value).map_err(refused)?;
        loop {
            let near = other(&mut rng, me, 3);
            all.machines[near].apply(&told).map_err(refused)?;
            late.push((3 - me - near, told.clone()));
            if !terms || all.acknowledges(near, me) {
                break;
            }
            all.take_over(&mut rng, me, 0, rule == Takeover::TermsOfItsOwn).map_err(refused)?;
            let fate = all.machines[me].replica.fate(REGION, &told.delta, 0).map_err(refused)?;
            if rule != Takeover::TermsUnlessItStands || fate != Fate::Stands {
                let again = all.machines[me].run_again(&told.delta, |draft| set(draft, 0, &value)).map_err(refused)?;
                told = again.1.expect("a SET changes something");
            }
        }
        for _ in 0..below(&mut rng, 2) {
            if let Some((to, told)) = take(&mut rng, &mut late) {
                all.machines[to].apply(&told).map_err(refused)?;
            }
        }
        if late.len() > 3 {
            late.remove(0);
        }
    }
    if settle(&all.machines, 1)?.len() == 1 { Ok(()) } else { Err("siblings of a sequential client") }
}

/// What coordinators do about a SET NX that others may have run as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Conditions {
    /// Deposed coordinators do not answer.
    terms: bool,
    /// Owners whose row shows something that the command had not seen count for no quorum.
    conflicts: bool,
    /// Wrong when set: a version that somebody has replaced is taken to have been set, and the only one.
    replaced_is_won: bool,
}

const RIGHT: Conditions = Conditions { terms: true, conflicts: true, replaced_is_won: false };

#[test]
fn of_several_set_nx_at_once_at_most_one_is_answered_ok() {
    holds("set nx", 600, |seed| set_nx(seed, RIGHT));
    // Either of the two is enough while what was acknowledged is read before it is evaluated again.
    holds("set nx, conflicts alone", 600, |seed| set_nx(seed, Conditions { terms: false, ..RIGHT }));
    holds("set nx, terms alone", 600, |seed| set_nx(seed, Conditions { conflicts: false, ..RIGHT }));
}

#[test]
fn wrong_ways_of_answering_set_nx_are_caught() {
    let neither = Conditions { terms: false, conflicts: false, ..RIGHT };
    is_caught("set nx, neither terms nor conflicts", 100, |seed| set_nx(seed, neither));
    let won = Conditions { replaced_is_won: true, ..RIGHT };
    is_caught("set nx, replaced is won", 1_000, |seed| set_nx(seed, won));
}

/// A SET NX on its way.
#[derive(Default)]
struct Try {
    told: Option<Told>,
    to_tell: Vec<usize>,
    acks: usize,
    rounds: usize,
    /// Whether it was set, once that is answered.
    answer: Option<bool>,
}

fn set_nx(seed: u64, rule: Conditions) -> Outcome {
    let mut rng = Rng::new(seed);
    let mut all = Coordinators::new();
    let mut tries: [Try; 3] = Default::default();
    for _ in 0..80 {
        let me = below(&mut rng, 3);
        if rng.chance(0.04) {
            // Somebody else's plain SET.
            let told = all.machines[me].set(0, "over").map_err(refused)?;
            let at = other(&mut rng, me, 3);
            all.machines[at].apply(&told).map_err(refused)?;
            continue;
        }
        step(&mut rng, &mut all, &mut tries[me], me, rule).map_err(refused)?;
    }
    let won = tries.iter().filter(|one| one.answer == Some(true)).count();
    if won <= 1 { Ok(()) } else { Err("several of them won") }
}

fn step(rng: &mut Rng, all: &mut Coordinators, one: &mut Try, me: usize, rule: Conditions) -> Result<(), Fault> {
    if one.answer.is_some() || one.rounds > 6 {
        return Ok(());
    }
    let Some(told) = &one.told else {
        if all.machines[me].replica.term(PARTITION) > all.terms[me] || all.terms[me] == Term::NONE {
            all.ask(rng, me, rule)?;
        }
        let attempt = all.machines[me].run(|draft| nx(draft, me))?;
        one.tell(me, attempt);
        return Ok(());
    };
    if let Some(to) = one.to_tell.pop() {
        if rng.chance(0.85) {
            let conflict = all.machines[to].apply(told)?.conflict && rule.conflicts;
            one.acks += usize::from((!rule.terms || all.acknowledges(to, me)) && !conflict);
        }
        return Ok(());
    }
    if one.acks >= W {
        one.answer = Some(true);
        return Ok(());
    }
    one.rounds += 1;
    all.ask(rng, me, rule)?;
    let fate = all.machines[me].replica.fate(REGION, &told.delta, 0)?;
    match fate {
        Fate::Replaced if rule.replaced_is_won => one.answer = Some(true),
        Fate::Stands => one.tell(me, (true, Some(told.clone()))),
        Fate::Replaced | Fate::Contested => {
            let again = all.machines[me].run_again(&told.delta, |draft| nx(draft, me))?;
            if let Some(withdrawal) = again.1.as_ref().filter(|_| !again.0) {
                (0..3).filter(|at| *at != me).try_for_each(|at| all.machines[at].apply(withdrawal).map(drop))?;
            }
            one.tell(me, again);
        }
    }
    Ok(())
}

impl Try {
    /// A version that was written is told to the others; what wrote none is answered.
    fn tell(&mut self, me: usize, (set, told): (bool, Option<Told>)) {
        if !set {
            self.answer = Some(false);
            return;
        }
        (self.told, self.acks) = (told, 1);
        self.to_tell = (0..3).filter(|at| *at != me).collect();
    }
}

fn nx(draft: &mut Draft, me: usize) -> Result<bool, Fault> {
    if draft.exists(&[0])? {
        return Ok(false);
    }
    set(draft, 0, &me.to_string())?;
    Ok(true)
}
