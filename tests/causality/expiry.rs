//! Rule 10: what two sides did to a key and its time to live must be what some order of their commands would have done;
//! clocks decide nothing but on which side of a deadline a write fell.

use std::collections::BTreeSet;

use redynamo::base::rng::Rng;
use redynamo::causality::counter::{run_of, seen_by_replacing, seen_over, total};
use redynamo::causality::expiry::{Deadline, generation, of_key, of_value};
use redynamo::causality::{Cell, Dot, Expiry, Payload, Run, Stamp, Value, Version};

use crate::seeds::{Outcome, holds, is_caught};
use crate::world::{Delta, Replica, below};

const ROW: (u8, u8) = (0, 0);

/// A command, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Command {
    Set(char),
    SetEx(char, u64),
    SetKeepTtl(char),
    Append(char),
    Expire(u64),
    Persist,
    Del,
}
use Command::*;

/// Where deadlines live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// SET's in its own version, EXPIRE's and PERSIST's in one that binds to the generations it saw: right.
    Bound,
    /// Wrong: EXPIRE writes the value again.
    InValue,
    /// Wrong: always in a version of its own; without deadline there is none.
    Apart,
    /// Wrong: always in a version of its own, which SET and PERSIST write too.
    ApartAlways,
}

/// A string and its deadline; none when the key is absent.
type Reading = Option<(String, Option<u64>)>;

const SIDES: [Command; 5] = [Set('x'), SetEx('y', 10), Expire(20), Expire(30), Persist];
const START: Command = SetEx('o', 50);

#[test]
fn every_pair_of_commands_on_two_sides_is_like_one_after_the_other() {
    let pairs = || SIDES.iter().flat_map(|a| SIDES.iter().map(move |b| (*a, *b)));
    let not_in_order = |rule| pairs().filter(|(a, b)| !is_serial(rule, &[START], &[*a], &[*b])).count();
    assert_eq!(not_in_order(Rule::Bound), 0);
    for wrong in [Rule::InValue, Rule::Apart, Rule::ApartAlways] {
        let caught = not_in_order(wrong);
        println!("expiry, {wrong:?} (wrong on purpose): {caught} of 25 pairs like no order");
        assert!(caught > 0, "{wrong:?} went unnoticed");
    }
}

#[test]
fn several_commands_on_two_sides_are_like_some_order_of_them_all() {
    holds("expiry, several commands", 3000, |seed| several(seed, Rule::Bound));
    is_caught("expiry, several commands, deadline in the value", 100, |seed| several(seed, Rule::InValue));
}

fn several(seed: u64, rule: Rule) -> Outcome {
    let mut rng = Rng::new(seed);
    let commands = [Set('x'), SetEx('y', 10), Expire(20), Expire(30), Persist, Del];
    let mut some = |most: usize| -> Vec<Command> {
        (0..=below(&mut rng, most)).map(|_| commands[below(&mut rng, commands.len())]).collect()
    };
    let (start, a, b) = (some(1), some(2), some(2));
    if is_serial(rule, &start, &a, &b) { Ok(()) } else { Err("like no order") }
}

/// Runs both sides, merges in both directions, and looks for an order of all commands with the same outcome.
fn is_serial(rule: Rule, start: &[Command], a: &[Command], b: &[Command]) -> bool {
    let orders: BTreeSet<Reading> =
        interleavings(a, b).iter().map(|order| in_order(start.iter().chain(order).copied())).collect();
    // Whichever side is later by the clock.
    [(100, 200), (200, 100)].into_iter().all(|(at_a, at_b)| {
        let (mut one, mut other) = (Replica::new(0), Replica::new(1));
        start.iter().enumerate().for_each(|(i, command)| run(&mut one, rule, *command, i as u64));
        other.sync_from(&one);
        a.iter().enumerate().for_each(|(i, command)| run(&mut one, rule, *command, at_a + i as u64));
        b.iter().enumerate().for_each(|(i, command)| run(&mut other, rule, *command, at_b + i as u64));
        let before = one.clone();
        one.sync_from(&other);
        other.sync_from(&before);
        assert_eq!(one.view(), other.view());
        orders.contains(&read(&one.visible(ROW), rule))
    })
}

fn interleavings(a: &[Command], b: &[Command]) -> Vec<Vec<Command>> {
    let ([first, rest @ ..], [other, others @ ..]) = (a, b) else { return vec![[a, b].concat()] };
    let with = |head: &Command, tails: Vec<Vec<Command>>| -> Vec<Vec<Command>> {
        tails.into_iter().map(|tail| [vec![*head], tail].concat()).collect()
    };
    [with(first, interleavings(rest, b)), with(other, interleavings(a, others))].concat()
}

/// What one Redis does.
fn in_order(commands: impl Iterator<Item = Command>) -> Reading {
    commands.fold(None, |state: Reading, command| match (command, state) {
        (Set(c), _) => Some((c.to_string(), None)),
        (SetEx(c, at), _) => Some((c.to_string(), Some(at))),
        (SetKeepTtl(c), state) => Some((c.to_string(), state.and_then(|(_, at)| at))),
        (Append(c), state) => {
            let (data, at) = state.unwrap_or_default();
            Some((format!("{data}{c}"), at))
        }
        (Expire(at), Some((data, _))) => Some((data, Some(at))),
        (Persist, Some((data, _))) => Some((data, None)),
        (Del, _) | (_, None) => None,
    })
}

/// What a replica makes of a command.
fn run(me: &mut Replica, rule: Rule, command: Command, at: u64) {
    let (cell, stamp) = (me.visible(ROW), Stamp::at(at));
    let all: Vec<Dot> = cell.dots().collect();
    let values: Vec<Dot> = values(&cell).map(|(version, _)| version.dot).collect();
    let generations = self::values(&cell).map(|(version, value)| generation(version, value)).collect();
    let old = winner(&cell);
    match command {
        Set(c) => set(me, rule, c.to_string(), None, all, stamp),
        SetEx(c, at) => set(me, rule, c.to_string(), Some(at), all, stamp),
        SetKeepTtl(c) => carry_on(me, old, values, stamp, |_| c.to_string()),
        Append(c) => carry_on(me, old, values, stamp, |data| format!("{data}{c}")),
        Expire(_) | Persist if old.is_none() => {}
        Expire(deadline) => expire(me, rule, Some(deadline), generations, stamp),
        // As Redis: nothing to do for a key without a deadline.
        Persist if read(&cell, rule).is_some_and(|(_, deadline)| deadline.is_none()) => {}
        Persist => expire(me, rule, None, generations, stamp),
        Del => drop(me.remove(ROW)),
    }
}

fn commit(me: &mut Replica, payload: Payload, superseded: Vec<Dot>, stamp: Stamp) -> Delta {
    let dot = me.next_dot();
    me.commit_at(ROW, stamp, payload, superseded, dot, None)
}

fn set(me: &mut Replica, rule: Rule, data: String, deadline: Option<u64>, all: Vec<Dot>, stamp: Stamp) {
    let inside = if matches!(rule, Rule::Bound | Rule::InValue) { deadline } else { None };
    commit(me, Payload::Value(Value { deadline: inside, ..Value::plain(data.into()) }), all, stamp);
    if rule == Rule::ApartAlways || rule == Rule::Apart && deadline.is_some() {
        commit(me, Payload::Expiry(Expiry { deadline, generations: Vec::new() }), Vec::new(), stamp);
    }
}

/// APPEND, and SET with KEEPTTL: the generation goes on.
fn carry_on(
    me: &mut Replica,
    old: Option<(&Version, &Value)>,
    values: Vec<Dot>,
    stamp: Stamp,
    data: impl Fn(&str) -> String,
) {
    let value = match old {
        None => Value::plain(data("").into()),
        Some((version, value)) => Value {
            data: data(std::str::from_utf8(&value.data).unwrap()).into(),
            generation: Some(generation(version, value)),
            ..value.clone()
        },
    };
    commit(me, Payload::Value(value), values, stamp);
}

fn expire(me: &mut Replica, rule: Rule, deadline: Option<u64>, generations: Vec<Dot>, stamp: Stamp) {
    let cell = me.visible(ROW);
    let old: Vec<Dot> = expiries(&cell).map(|version| version.dot).collect();
    match rule {
        Rule::Bound => drop(commit(me, Payload::Expiry(Expiry { deadline, generations }), old, stamp)),
        Rule::InValue => {
            let data = winner(&cell).unwrap().1.data.clone();
            commit(me, Payload::Value(Value { deadline, ..Value::plain(data) }), cell.dots().collect(), stamp);
        }
        Rule::Apart if deadline.is_none() => drop(me.remove_dots(ROW, old)),
        Rule::Apart | Rule::ApartAlways => {
            commit(me, Payload::Expiry(Expiry { deadline, generations: Vec::new() }), old, stamp);
        }
    }
}

/// What GET and PTTL answer.
fn read(cell: &Cell, rule: Rule) -> Reading {
    let (version, value) = winner(cell)?;
    let deadline = match rule {
        Rule::Bound | Rule::InValue => of_value(version, value, cell.versions()),
        // Without a value in it a row's deadline is that of the key as a whole.
        Rule::Apart | Rule::ApartAlways => of_key(&expiries(cell).cloned().collect::<Vec<_>>()),
    };
    Some((String::from_utf8(value.data.to_vec()).unwrap(), deadline.ms()))
}

fn winner(cell: &Cell) -> Option<(&Version, &Value)> {
    values(cell).max_by_key(|(version, _)| (version.stamp, version.dot))
}

fn values(cell: &Cell) -> impl Iterator<Item = (&Version, &Value)> {
    cell.versions().iter().filter_map(|version| match &version.payload {
        Payload::Value(value) => Some((version, value)),
        _ => None,
    })
}

fn expiries(cell: &Cell) -> impl Iterator<Item = &Version> {
    cell.versions().iter().filter(|version| matches!(version.payload, Payload::Expiry(_)))
}

// --- counters without a base: one deadline for the key as a whole

fn increment(me: &mut Replica, by: i128, also_superseded: Vec<Dot>, at: u64) -> Delta {
    let cell = me.visible(ROW);
    let own = cell.versions().iter().filter(|version| !also_superseded.contains(&version.dot));
    let own =
        own.filter_map(|version| Some((run_of(version)?, version.dot))).find(|((run, _), _)| run.actor == me.actor);
    let run = Run { first: own.map(|((run, _), _)| run), sum: by + own.map_or(0, |((_, run), _)| run.sum) };
    let superseded = own.map(|(_, dot)| dot).into_iter().chain(also_superseded).collect();
    commit(me, Payload::Run(run), superseded, Stamp::at(at))
}

fn expire_key(me: &mut Replica, deadline: Option<u64>, at: u64) -> Delta {
    let old = expiries(&me.visible(ROW)).map(|version| version.dot).collect();
    commit(me, Payload::Expiry(Expiry { deadline, generations: Vec::new() }), old, Stamp::at(at))
}

/// The causal delete of what has expired: the versions that the deadline hides and the expiry itself, no more. A void
/// remembers the sums.
fn reap(me: &mut Replica, now: u64) -> Option<Delta> {
    let cell = me.visible(ROW);
    let deadline = of_key(cell.versions());
    let is_gone =
        |version: &&Version| matches!(version.payload, Payload::Expiry(_)) || deadline.hides(version.stamp, now);
    let gone: Vec<&Version> = cell.versions().iter().filter(is_gone).collect();
    let passed = deadline.ms().is_some_and(|ms| ms < now);
    let seen = seen_by_replacing(gone.iter().copied());
    passed.then(|| commit(me, Payload::Void(seen), gone.iter().map(|version| version.dot).collect(), Stamp::at(now)))
}

/// What a client reads at `now`; none when the key is absent.
fn count(me: &Replica, now: u64) -> Option<i128> {
    let cell = me.visible(ROW);
    let deadline = of_key(cell.versions());
    let shown: Cell = cell.versions().iter().filter(|version| !deadline.hides(version.stamp, now)).cloned().collect();
    total(shown.versions().iter(), &seen_over(shown.versions().iter()))
}

#[test]
fn of_concurrent_deadlines_the_longest_wins_and_persist_beats_all() {
    for start in [Some(START), None] {
        for (commands, wins) in [
            ([Some(20), Some(30)], Deadline::At(30)),
            ([Some(20), None], Deadline::Never),
            ([None, Some(90)], Deadline::Never),
        ] {
            let (mut one, mut other) = (Replica::new(0), Replica::new(1));
            match start {
                Some(command) => run(&mut one, Rule::Bound, command, 1),
                None => drop(increment(&mut one, 5, Vec::new(), 1)),
            }
            other.sync_from(&one);
            for (side, deadline) in [&mut one, &mut other].into_iter().zip(commands) {
                let cell = side.visible(ROW);
                let generations = values(&cell).map(|(version, value)| generation(version, value)).collect();
                expire(side, Rule::Bound, deadline, generations, Stamp::at(2));
            }
            one.sync_from(&other);
            assert_eq!(of_key(one.visible(ROW).versions()), wins, "{start:?} {commands:?}");
        }
    }
}

#[test]
fn a_deadline_follows_its_value_through_append_and_keepttl_but_not_through_set() {
    for (carries, reading) in [
        (Append('!'), Some(("o!".to_string(), Some(70)))),
        (SetKeepTtl('k'), Some(("k".to_string(), Some(70)))),
        (Set('x'), Some(("x".to_string(), None))),
    ] {
        let (mut one, mut other) = (Replica::new(0), Replica::new(1));
        run(&mut one, Rule::Bound, START, 1);
        other.sync_from(&one);
        run(&mut one, Rule::Bound, carries, 2);
        run(&mut other, Rule::Bound, Expire(70), 2);
        one.sync_from(&other);
        assert_eq!(read(&one.visible(ROW), Rule::Bound), reading);
    }
}

#[test]
fn an_expiry_that_outlived_a_delete_does_not_touch_the_next_value() {
    let (mut one, mut other) = (Replica::new(0), Replica::new(1));
    run(&mut one, Rule::Bound, START, 1);
    other.sync_from(&one);
    run(&mut one, Rule::Bound, Del, 2);
    run(&mut other, Rule::Bound, Expire(20), 2);
    one.sync_from(&other);
    assert_eq!(read(&one.visible(ROW), Rule::Bound), None);
    run(&mut one, Rule::Bound, Append('x'), 3);
    assert_eq!(read(&one.visible(ROW), Rule::Bound), Some(("x".to_string(), None)));
}

#[test]
fn a_counter_that_is_made_anew_must_supersede_the_expiry_that_is_there() {
    let (mut one, mut other) = (Replica::new(0), Replica::new(1));
    increment(&mut one, 5, Vec::new(), 1);
    other.sync_from(&one);
    let cell = one.visible(ROW);
    commit(&mut one, Payload::Void(seen_by_replacing(cell.versions().iter())), cell.dots().collect(), Stamp::at(2));
    expire_key(&mut other, Some(20), 2);
    one.sync_from(&other);
    assert_eq!(count(&one, 3), None, "deleted");
    let dangling: Vec<Dot> = expiries(&one.visible(ROW)).map(|version| version.dot).collect();
    let mut careless = one.clone();
    increment(&mut careless, 1, Vec::new(), 4);
    assert_eq!(of_key(careless.visible(ROW).versions()), Deadline::At(20), "what the rule is there for");
    increment(&mut one, 1, dangling, 4);
    assert_eq!(of_key(one.visible(ROW).versions()), Deadline::Never);
    assert_eq!(count(&one, 99), Some(1));
}

#[test]
fn a_counter_with_a_base_ends_with_its_base() {
    let mut one = Replica::new(0);
    run(&mut one, Rule::Bound, SetEx('7', 50), 1);
    increment(&mut one, 5, Vec::new(), 2);
    expire_key(&mut one, None, 3); // binds to the key as a whole, and so not to the base
    assert_eq!(of_key(one.visible(ROW).versions()), Deadline::At(50));
}

#[test]
fn a_write_after_the_deadline_outlives_the_expiry_and_its_delete() {
    let (mut one, mut early, mut late) = (Replica::new(0), Replica::new(1), Replica::new(2));
    increment(&mut one, 5, Vec::new(), 10);
    [&mut early, &mut late].into_iter().for_each(|other| other.sync_from(&one));
    expire_key(&mut one, Some(100), 20);
    increment(&mut early, 2, Vec::new(), 100);
    increment(&mut late, 3, Vec::new(), 101);
    one.sync_from(&early);
    one.sync_from(&late);
    assert_eq!(count(&one, 100), Some(10));
    assert_eq!(count(&one, 101), Some(3), "what was added before the deadline is gone with it");
    let mut greedy = one.clone();
    let all = greedy.dots(ROW);
    greedy.remove_dots(ROW, all);
    reap(&mut one, 101).expect("the deadline has passed");
    assert_eq!(count(&one, 101), Some(3));
    assert_eq!(of_key(one.visible(ROW).versions()), Deadline::Never, "the expiry went with what it hid");
    let before = late.clone();
    late.sync_from(&one);
    assert_eq!(count(&late, 500), Some(3));
    let mut after_greed = before;
    after_greed.sync_from(&greedy);
    assert_eq!(count(&after_greed, 500), None, "what a delete of everything would have cost");
}

#[test]
fn what_is_written_once_a_deadline_is_seen_as_passed_is_not_hidden_by_it() {
    for now in 90..110 {
        let (deadline, written) = (Deadline::At(100), Stamp::at(now));
        let has_passed = deadline.hides(Stamp::at(50), now);
        assert_eq!(has_passed, now > 100, "as Redis: a key lives to the end of its millisecond");
        // The same deadline, set elsewhere at the same time, must let it be.
        assert_eq!(deadline.hides(written, 1000), !has_passed);
    }
}
