//! What must be there in the end, by a key's first letter. Registers, counters and sets are judged as in the simulator.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use redynamo::sim::history::{Deed, Op, Outcome, check_appends, check_contexts, check_counter};

use super::cluster::Held;

/// What is wrong with a key, if anything is.
pub fn check(key: &[u8], ops: &[Op], held: &Held) -> Result<(), String> {
    match key.first() {
        Some(b'a') => check_set(ops, &held.siblings),
        Some(b'r') => check_contexts(ops, &held.siblings),
        Some(b's' | b'p') => check_sequence(ops, &held.siblings, false),
        Some(b'd') => check_sequence(ops, &held.siblings, true).and_then(|()| check_own_reads(ops)),
        Some(b'c') => check_counter(ops, number(held)?),
        Some(b'l') => check_log(ops, &held.siblings),
        _ => Err("a key that no check is for".to_owned()),
    }
}

/// Everything that is wrong with what a node holds.
pub fn check_all<'h>(ops: impl Iterator<Item = (&'h Bytes, &'h [Op])>, held: &BTreeMap<Bytes, Held>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (key, ops) in ops {
        let Some(held) = held.get(key) else { continue };
        if let Err(why) = check(key, ops, held) {
            wrong.push(format!("{}: {why}", String::from_utf8_lossy(key)));
        }
    }
    wrong
}

fn number(held: &Held) -> Result<i64, String> {
    match &held.value {
        None => Ok(0),
        Some(text) => String::from_utf8_lossy(text).parse().map_err(|_| format!("{text:?} is no number")),
    }
}

/// A set in a register: all that was acknowledged, perhaps what is unknown, nothing else.
fn check_set(ops: &[Op], held: &BTreeSet<Bytes>) -> Result<(), String> {
    check_appends(ops, held, true)?;
    let added: BTreeSet<&[u8]> = ops.iter().filter_map(|op| word(&op.deed)).collect();
    match held.iter().flat_map(words).find(|word| !added.contains(word)) {
        Some(word) => Err(format!("{} is there and was never added", String::from_utf8_lossy(word))),
        None => Ok(()),
    }
}

/// Plain writes of one client, one after the other: the last one that was acknowledged is there, or one whose outcome
/// nobody knows came after it. Older ones may be there as well, written on the other side of a cut, unless `exact`.
pub fn check_sequence(ops: &[Op], held: &BTreeSet<Bytes>, exact: bool) -> Result<(), String> {
    let of = |outcome| ops.iter().filter(move |op| op.outcome == outcome);
    let last = of(Outcome::Done).rfind(|op| changes(op));
    let last_value = last.and_then(Op::value);
    let unknown: BTreeSet<&Bytes> = of(Outcome::Unknown).filter_map(Op::value).collect();
    let may_be_gone = of(Outcome::Unknown).any(changes);
    let older: BTreeSet<&Bytes> =
        if exact { BTreeSet::new() } else { of(Outcome::Done).filter_map(Op::value).collect() };
    for value in held {
        if Some(value) != last_value && !unknown.contains(value) && !older.contains(value) {
            return Err(format!("{value:?} is there; the last that was acknowledged is {last_value:?}"));
        }
    }
    match last_value {
        Some(value) if !held.contains(value) && !may_be_gone => {
            Err(format!("{value:?} was acknowledged; there is {held:?}"))
        }
        _ => Ok(()),
    }
}

fn changes(op: &Op) -> bool {
    matches!(op.deed, Deed::Set(_) | Deed::Delete)
}

/// What the only writer of a key reads is what it wrote last, or what nobody knows.
pub fn check_own_reads(ops: &[Op]) -> Result<(), String> {
    let (mut last, mut unknown) = (None, BTreeSet::new());
    for op in ops {
        match (&op.deed, op.outcome) {
            (Deed::Get(read), Outcome::Done) if *read != last && !unknown.contains(read) => {
                return Err(format!("read {read:?}, had written {last:?}, and perhaps {unknown:?}"));
            }
            (Deed::Set(_) | Deed::Delete, Outcome::Done) => last = op.value().cloned(),
            (Deed::Set(_) | Deed::Delete, Outcome::Unknown) => drop(unknown.insert(op.value().cloned())),
            _ => {}
        }
    }
    Ok(())
}

/// Appends of one client: one value, in order.
fn check_log(ops: &[Op], held: &BTreeSet<Bytes>) -> Result<(), String> {
    check_set(ops, held)?;
    let certain = ops.iter().all(|op| op.outcome != Outcome::Unknown);
    if certain && held.len() > 1 {
        return Err(format!("{} siblings, and every outcome is known", held.len()));
    }
    let order: BTreeMap<&[u8], usize> =
        ops.iter().enumerate().filter_map(|(at, op)| Some((word(&op.deed)?, at))).collect();
    for value in held {
        let acknowledged =
            words(value).filter_map(|word| order.get(word)).filter(|at| ops[**at].outcome == Outcome::Done);
        if !acknowledged.is_sorted() {
            return Err(format!("not in order: {value:?}"));
        }
    }
    Ok(())
}

fn word(deed: &Deed) -> Option<&[u8]> {
    match deed {
        Deed::Append(word) => Some(word),
        _ => None,
    }
}

fn words(value: &Bytes) -> impl Iterator<Item = &[u8]> {
    value.split_inclusive(|byte| *byte == b';')
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: Outcome = Outcome::Done;
    const NOT: Outcome = Outcome::NotDone;
    const UNKNOWN: Outcome = Outcome::Unknown;

    fn ops(deeds: &[(Deed, Outcome)]) -> Vec<Op> {
        let op = |(at, (deed, outcome)): (usize, &(Deed, Outcome))| Op {
            client: 0,
            began: 2 * at as u64,
            ended: 2 * at as u64 + 1,
            deed: deed.clone(),
            outcome: *outcome,
            wrote: None,
        };
        deeds.iter().enumerate().map(op).collect()
    }

    fn text(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn set(value: &'static str) -> Deed {
        Deed::Set(text(value))
    }

    fn add(word: &'static str) -> Deed {
        Deed::Append(text(word))
    }

    fn verdict(key: &str, deeds: &[(Deed, Outcome)], siblings: &[&'static str]) -> Result<(), String> {
        let siblings: BTreeSet<Bytes> = siblings.iter().map(|value| text(value)).collect();
        check(key.as_bytes(), &ops(deeds), &Held { value: siblings.first().cloned(), siblings })
    }

    #[test]
    fn a_set_has_all_that_was_acknowledged_and_nothing_that_was_refused_or_never_added() {
        let deeds = [(add("1;"), DONE), (add("2;"), UNKNOWN), (add("3;"), NOT)];
        for fine in [&["1;"][..], &["1;2;"], &["1;", "2;"]] {
            assert_eq!(verdict("a", &deeds, fine), Ok(()), "{fine:?}");
        }
        for wrong in [&["2;"][..], &[], &["1;3;"], &["1;4;"], &["1;1;"]] {
            assert!(verdict("a", &deeds, wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_register_has_exactly_what_nobody_replaced_or_deleted() {
        let put = |value, seen: &[&'static str]| Deed::Put {
            value: text(value),
            seen: seen.iter().map(|v| text(v)).collect(),
        };
        let remove = |value| Deed::Remove([text(value)].into());
        let deeds = [(put("1", &[]), DONE), (put("2", &["1"]), DONE), (put("3", &[]), DONE), (remove("3"), UNKNOWN)];
        assert_eq!(verdict("r", &deeds, &["2"]), Ok(()));
        assert_eq!(verdict("r", &deeds, &["2", "3"]), Ok(()));
        for wrong in [&["1", "2"][..], &["3"], &["2", "4"]] {
            assert!(verdict("r", &deeds, wrong).is_err(), "{wrong:?}");
        }
        let deleted = [(put("1", &[]), DONE), (remove("1"), DONE)];
        assert_eq!(verdict("r", &deleted, &[]), Ok(()));
        assert!(verdict("r", &deleted, &["1"]).is_err(), "came back");
    }

    #[test]
    fn the_last_write_of_a_sequence_is_there() {
        let deeds = [(set("1"), DONE), (set("2"), DONE), (set("3"), NOT)];
        assert_eq!(verdict("s", &deeds, &["2"]), Ok(()));
        assert_eq!(verdict("s", &deeds, &["1", "2"]), Ok(()), "written on two sides");
        for wrong in [&["1"][..], &[], &["2", "3"], &["2", "x"]] {
            assert!(verdict("s", &deeds, wrong).is_err(), "{wrong:?}");
        }
        assert!(verdict("d", &deeds, &["1", "2"]).is_err(), "a sibling of one client's own");
        let late = [(set("1"), UNKNOWN), (set("2"), DONE)];
        for fine in [&["1"][..], &["2"], &["1", "2"]] {
            assert_eq!(verdict("d", &late, fine), Ok(()), "{fine:?}");
        }
    }

    #[test]
    fn what_was_deleted_is_not_there_and_one_reads_what_one_wrote() {
        let deeds = [(set("1"), DONE), (Deed::Delete, DONE)];
        assert_eq!(verdict("d", &deeds, &[]), Ok(()));
        assert!(verdict("d", &deeds, &["1"]).is_err());
        let read = |value: Option<&'static str>| Deed::Get(value.map(text));
        assert_eq!(verdict("d", &[(set("1"), DONE), (read(Some("1")), DONE)], &["1"]), Ok(()));
        assert!(verdict("d", &[(set("1"), DONE), (read(None), DONE)], &["1"]).is_err());
        assert!(verdict("d", &[(set("1"), DONE), (set("2"), DONE), (read(Some("1")), DONE)], &["2"]).is_err());
    }

    #[test]
    fn a_log_is_one_value_in_order() {
        let deeds = [(add("1;"), DONE), (add("2;"), DONE)];
        assert_eq!(verdict("l", &deeds, &["1;2;"]), Ok(()));
        for wrong in [&["2;1;"][..], &["1;", "2;"], &["1;"]] {
            assert!(verdict("l", &deeds, wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_counter_lies_between_what_is_certain_and_what_is_possible() {
        let deeds = ops(&[(Deed::Add(3), DONE), (Deed::Add(4), UNKNOWN), (Deed::Add(5), NOT)]);
        let counted = |value: &'static str| check(b"c", &deeds, &Held { value: Some(text(value)), ..Held::default() });
        assert!(counted("3").is_ok() && counted("7").is_ok());
        assert!(["0", "2", "8", "12", "x"].into_iter().all(|value| counted(value).is_err()));
    }
}
