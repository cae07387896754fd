//! Laws that drive every sort of payload: whatever real replicas did, the order, repetition and grouping in which it
//! reaches others changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use redynamo::base::codec::Reader;
use redynamo::base::rng::Rng;
use redynamo::causality::context::Context;
use redynamo::causality::counter::{run_of, seen_by_replacing};
use redynamo::causality::expiry::generation;
use redynamo::causality::{Cell, Clock, Dot, Expiry, Payload, RowChange, Run, Stamp, Value};

use crate::world::{Delta, Replica, Row, Sweeping, below, pair};

/// One event at one of three replicas.
#[derive(Debug, Clone)]
struct Step {
    at: usize,
    row: Row,
    event: Event,
}

#[derive(Debug, Clone)]
enum Event {
    Set { ttl: bool },
    Append,
    Increment(i8),
    Delete,
    Expire(Option<u8>),
    Remove,
    Clear,
    ClearAndSet,
    Read,
    Put(usize),
    Hear(usize),
    Sync(usize),
}

fn history() -> impl Strategy<Value = Vec<Step>> {
    let event = prop_oneof![
        any::<bool>().prop_map(|ttl| Event::Set { ttl }),
        Just(Event::Append),
        any::<i8>().prop_map(Event::Increment),
        Just(Event::Delete),
        any::<Option<u8>>().prop_map(Event::Expire),
        Just(Event::Remove),
        Just(Event::Clear),
        Just(Event::ClearAndSet),
        Just(Event::Read),
        any::<usize>().prop_map(Event::Put),
        any::<usize>().prop_map(Event::Hear),
        any::<usize>().prop_map(Event::Hear),
        (0..2usize).prop_map(Event::Sync),
    ];
    let step = (0..3usize, (0..2u8, 0..2u8), event).prop_map(|(at, row, event)| Step { at, row, event });
    proptest::collection::vec(step, 1..40)
}

/// What real replicas make of a history: all their deltas, in the order of making.
fn deltas(history: &[Step]) -> Vec<Delta> {
    let (mut replicas, mut made, mut contexts) = (Replica::some(3), Vec::new(), Vec::new());
    for Step { at, row, event } in history {
        let me = &mut replicas[*at];
        match event {
            Event::Hear(which) => made.get(which % made.len().max(1)).into_iter().for_each(|delta| me.apply(delta)),
            Event::Sync(which) => {
                let (me, peer) = pair(&mut replicas, *at, (at + 1 + which) % 3);
                me.sync_from(peer);
            }
            Event::Read => contexts.push((*row, Context::of(me.visible(*row).versions()))),
            Event::Put(which) => made.extend(put(me, &contexts, *which)),
            _ => made.extend(change(me, *row, event)),
        }
    }
    made
}

fn put(me: &mut Replica, contexts: &[(Row, Context)], which: usize) -> Option<Delta> {
    let (row, Context { dots, seen, .. }) = contexts.get(which % contexts.len().max(1))?.clone();
    Some(me.commit(row, Payload::Value(Value { seen, ..Value::plain("put".into()) }), dots))
}

fn change(me: &mut Replica, row: Row, event: &Event) -> Option<Delta> {
    let cell = me.visible(row);
    let all: Vec<Dot> = cell.dots().collect();
    let seen = seen_by_replacing(cell.versions().iter());
    Some(match event {
        Event::Set { ttl } => {
            let value = Value { deadline: ttl.then_some(99), seen, ..Value::plain("set".into()) };
            me.commit(row, Payload::Value(value), all)
        }
        Event::Append => {
            let (version, value) = cell.versions().iter().find_map(|version| match &version.payload {
                Payload::Value(value) => Some((version, value)),
                _ => None,
            })?;
            let value = Value { generation: Some(generation(version, value)), ..value.clone() };
            me.commit(row, Payload::Value(value), vec![version.dot])
        }
        Event::Increment(by) => {
            let runs = cell.versions().iter().filter_map(|version| Some((run_of(version)?, version.dot)));
            let own = runs.filter(|((run, _), _)| run.actor == me.actor).max_by_key(|(_, dot)| dot.counter);
            let sum = i128::from(*by) + own.map_or(0, |((_, run), _)| run.sum);
            let run = Run { first: own.map(|((run, _), _)| run), sum };
            me.commit(row, Payload::Run(run), own.map(|(_, dot)| dot).into_iter().collect())
        }
        Event::Delete => me.commit(row, Payload::Void(seen), all),
        Event::Expire(deadline) => {
            let generations = cell.versions().iter().filter_map(|version| match &version.payload {
                Payload::Value(value) => Some(generation(version, value)),
                _ => None,
            });
            let expiry = Expiry { deadline: deadline.map(u64::from), generations: generations.collect() };
            let old = cell.versions().iter().filter(|version| matches!(version.payload, Payload::Expiry(_)));
            me.commit(row, Payload::Expiry(expiry), old.map(|version| version.dot).collect())
        }
        Event::Remove => me.remove(row)?,
        Event::Clear => me.clear(row.0),
        Event::ClearAndSet => {
            let clear = Some(me.clock.clone());
            let dot = me.next_dot();
            let value = Value { seen, ..Value::plain("alone".into()) };
            me.commit_at(row, Stamp::at(dot.counter), Payload::Value(value), Vec::new(), dot, clear)
        }
        Event::Read | Event::Put(_) | Event::Hear(_) | Event::Sync(_) => return None,
    })
}

/// A replica that made nothing and heard these.
fn heard<'a>(deltas: impl IntoIterator<Item = &'a Delta>) -> Replica {
    let mut replica = Replica::new(99);
    deltas.into_iter().for_each(|delta| replica.apply(delta));
    replica
}

/// The same, but it sweeps hidden rows later.
fn heard_lazily<'a>(deltas: impl IntoIterator<Item = &'a Delta>) -> Replica {
    let mut replica = Replica { sweeping: Sweeping::Later, ..Replica::new(99) };
    deltas.into_iter().for_each(|delta| replica.apply(delta));
    replica
}

/// `a` after a sync from `b`.
fn merged(a: &Replica, b: &Replica) -> Replica {
    let mut merged = a.clone();
    merged.sync_from(b);
    merged
}

/// All that two replicas can differ in: rows, clock, and what their clears know beyond the clock.
fn state(replica: &Replica) -> (BTreeMap<Row, Cell>, Clock, BTreeSet<(u8, Dot)>) {
    let mut replica = replica.clone();
    (0..2).for_each(|key| replica.sweep(key));
    let Replica { rows, clock, clears, .. } = replica;
    let dots = |clear: &Clock| -> Vec<Dot> {
        let intervals = clear.iter().flat_map(|(actor, all)| all.iter().map(move |(low, high)| (actor, *low..=*high)));
        intervals.flat_map(|(actor, counters)| counters.map(move |counter| Dot::new(actor, counter))).collect()
    };
    let beyond = clears.iter().flat_map(|(key, clear)| dots(clear).into_iter().map(|dot| (*key, dot)));
    let beyond = beyond.filter(|(_, dot)| !clock.contains(*dot)).collect();
    (rows, clock, beyond)
}

/// Those deltas whose bit is set in `mask`.
fn subset(deltas: &[Delta], mask: u64) -> Vec<&Delta> {
    deltas.iter().enumerate().filter(|(i, _)| mask >> (i % 64) & 1 == 1).map(|(_, delta)| delta).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_and_any_repetition_of_deltas_end_in_one_state(history in history(), seed: u64) {
        let deltas = deltas(&history);
        let mut rng = Rng::new(seed);
        let mut shuffled: Vec<&Delta> = deltas.iter().collect();
        for _ in 0..deltas.len() {
            shuffled.extend(deltas.get(below(&mut rng, deltas.len())));
        }
        rng.shuffle(&mut shuffled);
        prop_assert_eq!(state(&heard(shuffled.iter().copied())), state(&heard(&deltas)));
        prop_assert_eq!(state(&heard_lazily(shuffled)), state(&heard(&deltas)));
    }

    #[test]
    fn merging_replicas_is_hearing_what_each_of_them_heard(history in history(), a: u64, b: u64, c: u64) {
        let deltas = deltas(&history);
        for hear in [heard, heard_lazily] {
            let [one, two, three] = [a, b, c].map(|mask| hear(subset(&deltas, mask)));
            let all = merged(&merged(&one, &two), &three);
            prop_assert_eq!(state(&all), state(&hear(subset(&deltas, a | b | c))));
            prop_assert_eq!(state(&all), state(&merged(&one, &merged(&two, &three))), "associative");
            prop_assert_eq!(state(&merged(&one, &two)), state(&merged(&two, &one)), "commutative");
            prop_assert_eq!(state(&merged(&one, &one)), state(&one), "idempotent");
            prop_assert_eq!(state(&merged(&all, &two)), state(&all), "absorbing");
        }
    }

    #[test]
    fn a_question_its_answer_and_the_reply_make_two_cells_what_a_merge_makes_them(history in history(), a: u64, b: u64) {
        let deltas = deltas(&history);
        for hear in [heard, heard_lazily] {
            let (before, peer_before) = (hear(subset(&deltas, a)), hear(subset(&deltas, b)));
            for row in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let (mut me, mut peer) = (before.clone(), peer_before.clone());
                me.exchange(row, &mut peer);
                prop_assert_eq!(me.visible(row), peer.visible(row));
                let mut one = before.clone();
                let theirs = peer_before.rows.get(&row).cloned().unwrap_or_default();
                one.merge_row(row, &theirs, peer_before.known(row.0));
                prop_assert_eq!(me.visible(row), one.visible(row));
            }
        }
    }

    #[test]
    fn cells_changes_and_clocks_survive_their_encodings(history in history()) {
        let deltas = deltas(&history);
        for Delta { change, clear, .. } in &deltas {
            let mut out = Vec::new();
            change.put(&mut out);
            clear.iter().for_each(|clear| clear.put(&mut out));
            let mut reader = Reader::new(out.into());
            prop_assert_eq!(&RowChange::read(&mut reader).unwrap(), change);
            if let Some(clear) = clear {
                prop_assert_eq!(&Clock::read(&mut reader).unwrap(), clear);
            }
            prop_assert_eq!(reader.finish(), Ok(()));
        }
        for cell in heard(subset(&deltas, u64::MAX)).rows.values() {
            let mut out = Vec::new();
            cell.put(&mut out);
            let mut reader = Reader::new(out.into());
            prop_assert_eq!(&Cell::read(&mut reader).unwrap(), cell);
            prop_assert_eq!(reader.finish(), Ok(()));
        }
    }

    #[test]
    fn bytes_of_a_change_that_were_bent_decode_or_are_refused(history in history(), at: usize, to: u8, len: usize) {
        for Delta { change, .. } in deltas(&history) {
            let mut out = Vec::new();
            change.put(&mut out);
            let place = at % out.len();
            out[place] = to;
            out.truncate(len % (out.len() + 1));
            let _ = RowChange::read(&mut Reader::new(out.clone().into()));
            let _ = Cell::read(&mut Reader::new(out.clone().into()));
            let _ = Clock::read(&mut Reader::new(out.into()));
        }
    }
}
