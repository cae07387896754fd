//! What holds for keys that only one client writes, one command after the other at whichever node, and for locks.
//!
//! Where only owners count and quorums meet (R + W > N, W > N/2) such a key behaves as on one Redis, but for commands of which
//! the client was not told whether they were done: those may be done at any later time, once. Otherwise only what was
//! acknowledged counts: the last of it is there, or one of unknown outcome replaced it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::history::{Deed, Op, Outcome};

/// A register that only one client writes.
/// `follow`: its writes follow each other; `meet`: its reads find them.
pub fn check_own(ops: &[Op], last: &BTreeSet<Bytes>, follow: bool, meet: bool) -> Result<(), String> {
    let mut known: Vec<&Op> = Vec::new();
    for op in ops.iter().filter(|op| op.outcome == Outcome::Done) {
        match &op.deed {
            Deed::Get(found) if follow && meet => check_own_read(ops, &known, op, found.as_ref())?,
            Deed::Get(_) => {}
            _ => known.push(op),
        }
    }
    let outdated = |op: &&Op| op.value().is_some_and(|value| last.contains(value)) && !is_hidden(ops, op);
    let (latest, earlier) = match known.split_last() {
        Some((latest, earlier)) => (Some(*latest), earlier),
        None => (None, &[][..]),
    };
    if follow && let Some(op) = earlier.iter().find(|op| outdated(op)) {
        return Err(format!("{:?} was followed by an acknowledged write and is there: {last:?}", op.deed));
    }
    match latest.and_then(Op::value) {
        Some(value) if !last.contains(value) && !ops.iter().any(|op| op.outcome == Outcome::Unknown) => {
            Err(format!("{value:?} was acknowledged last and is not there: {last:?}"))
        }
        _ => Ok(()),
    }
}

/// Whether whoever wrote behind `op` may not have seen what it wrote, since a coordinator had replaced or removed that and its
/// client was not told. If the coordinator forgets that before it has told anybody, what it hid is there again, beside the
/// later one.
fn is_hidden(ops: &[Op], op: &Op) -> bool {
    let changes = |by: &&Op| by.value().is_some() || by.deed == Deed::Delete;
    let behind = ops.iter().filter(changes).filter(|by| by.began > op.ended);
    let replaced = behind.clone().filter(|by| by.outcome == Outcome::Done).map(|by| by.ended).min().unwrap_or(u64::MAX);
    behind.filter(|by| by.outcome == Outcome::Unknown).any(|by| by.began < replaced)
}

/// A register that many clients write, none of them anything conditional on others: what was over before a write or a
/// deletion began that was acknowledged is gone, in the end if `follow`, and for reads that begin later if `meet`; and reads
/// find what was acknowledged before.
pub fn check_order(ops: &[Op], last: &BTreeSet<Bytes>, follow: bool, meet: bool) -> Result<(), String> {
    let acknowledged = |op: &&Op| op.outcome == Outcome::Done;
    for op in ops.iter().filter(acknowledged).filter(|_| follow) {
        let Some(value) = op.value() else { continue };
        let after = |by: &&Op| by.began > op.ended && (by.value().is_some() || by.deed == Deed::Delete);
        let later = ops.iter().filter(after);
        let replaced = later.clone().filter(acknowledged).map(|by| by.ended).min().unwrap_or(u64::MAX);
        if last.contains(value) && replaced < u64::MAX && !is_hidden(ops, op) {
            return Err(format!("{value:?} was followed by an acknowledged write and is there: {last:?}"));
        }
        for read in ops.iter().filter(acknowledged).filter(|_| meet) {
            let Deed::Get(found) = &read.deed else { continue };
            if found.as_ref() == Some(value) && replaced < read.began {
                return Err(format!("{value:?} was read by {read:?} after it had been replaced"));
            }
            let may_replace = |by: &Op| {
                let over = by.outcome != Outcome::Unknown && by.ended < op.began;
                let writes = by.value().is_some_and(|other| other != value) || by.deed == Deed::Delete;
                by.outcome != Outcome::NotDone && writes && !over && by.began < read.ended
            };
            if found.as_ref() != Some(value) && op.ended < read.began && !ops.iter().any(may_replace) {
                return Err(format!("{value:?} was acknowledged and missed by {read:?}"));
            }
        }
    }
    Ok(())
}

/// A read between writes: it finds the latest that was acknowledged, or what one of unknown outcome made of it.
fn check_own_read(ops: &[Op], known: &[&Op], read: &Op, found: Option<&Bytes>) -> Result<(), String> {
    let open = |op: &&Op| op.outcome == Outcome::Unknown && op.began < read.ended;
    let latest = known.last().map(|op| op.value());
    let expected = match (found, latest) {
        (None, None | Some(None)) => true,
        (None, Some(Some(_))) => ops.iter().filter(open).any(|op| op.deed == Deed::Delete),
        (Some(found), latest) => {
            latest == Some(Some(found)) || ops.iter().filter(open).any(|op| op.value() == Some(found))
        }
    };
    if expected { Ok(()) } else { Err(format!("{found:?} was read after {:?}", known.last().map(|op| &op.deed))) }
}

/// A lock: of those that took it, no two held it at once for certain; and who holds it is there.
pub fn check_lock(ops: &[Op], last: &BTreeSet<Bytes>, exact: bool) -> Result<(), String> {
    let mut held: Vec<(u64, u64, &Bytes)> = Vec::new();
    for taken in ops.iter().filter(|op| op.outcome == Outcome::Done) {
        let Deed::Set(token) = &taken.deed else { continue };
        let given_back = ops.iter().filter(|op| matches!(&op.deed, Deed::Remove(seen) if seen.contains(token)));
        let until = given_back.map(|op| op.began).min().unwrap_or(u64::MAX);
        if until == u64::MAX && !last.contains(token) {
            return Err(format!("{token:?} holds the lock and is not there: {last:?}"));
        }
        held.push((taken.ended, until, token));
    }
    held.sort_unstable();
    match held.windows(2).find(|pair| exact && pair[1].0 < pair[0].1) {
        Some(pair) => Err(format!("{:?} and {:?} held the lock at once", pair[0].2, pair[1].2)),
        None => Ok(()),
    }
}

/// Two keys between which one client moves a value: with every outcome known they hold what they would on one Redis.
pub fn check_moved(one: &[Op], other: &[Op], last: [&BTreeSet<Bytes>; 2]) -> Result<(), String> {
    let mut ops: Vec<(&Op, usize)> = one.iter().map(|op| (op, 0)).chain(other.iter().map(|op| (op, 1))).collect();
    ops.sort_by_key(|(op, _)| op.began);
    if ops.iter().any(|(op, _)| op.outcome == Outcome::Unknown) {
        return Ok(());
    }
    let mut model: BTreeMap<usize, Bytes> = BTreeMap::new();
    for (op, at) in ops.into_iter().filter(|(op, _)| op.outcome == Outcome::Done) {
        match &op.deed {
            Deed::Set(value) => drop(model.insert(at, value.clone())),
            Deed::Move => {
                if let Some(value) = model.remove(&0) {
                    model.insert(1, value);
                }
            }
            Deed::Copy => {
                if let Some(value) = model.get(&0).cloned() {
                    model.insert(1, value);
                }
            }
            Deed::Get(found) if found.as_ref() != model.get(&at) => {
                return Err(format!("{found:?} was read where {:?} had been put", model.get(&at)));
            }
            _ => {}
        }
    }
    for (at, last) in last.into_iter().enumerate() {
        let expected: BTreeSet<Bytes> = model.get(&at).cloned().into_iter().collect();
        if *last != expected {
            return Err(format!("{last:?} is where {expected:?} was put"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(at: u64, deed: Deed, outcome: Outcome) -> Op {
        Op { client: 0, began: 2 * at, ended: 2 * at + 1, deed, outcome, wrote: None }
    }

    fn set(at: u64, value: &'static str) -> Op {
        op(at, Deed::Set(value.into()), Outcome::Done)
    }

    fn values(all: &[&'static str]) -> BTreeSet<Bytes> {
        all.iter().map(|value| Bytes::from_static(value.as_bytes())).collect()
    }

    #[test]
    fn of_ones_own_register_only_the_last_acknowledged_value_may_be_there() {
        let ops = [set(1, "a"), set(2, "b")];
        assert_eq!(check_own(&ops, &values(&["b"]), true, true), Ok(()));
        assert!(check_own(&ops, &values(&["a", "b"]), true, true).is_err(), "a false sibling");
        assert_eq!(check_own(&ops, &values(&["a", "b"]), false, false), Ok(()));
        assert!(check_own(&ops, &values(&["a"]), false, false).is_err(), "lost");
        let ops = [set(1, "a"), op(2, Deed::Set("b".into()), Outcome::Unknown)];
        assert_eq!(check_own(&ops, &values(&["b"]), true, true), Ok(()));
        assert_eq!(check_own(&ops, &values(&["a", "b"]), true, true), Ok(()));
    }

    #[test]
    fn of_a_register_of_many_nothing_outlives_or_hides_what_was_acknowledged_after_it() {
        let read = |at, found: Option<&'static str>| op(at, Deed::Get(found.map(Bytes::from)), Outcome::Done);
        let ops = |found| [set(1, "a"), set(2, "b"), read(3, found)];
        assert_eq!(check_order(&ops(Some("b")), &values(&["b"]), true, true), Ok(()));
        assert!(check_order(&ops(Some("b")), &values(&["a", "b"]), true, true).is_err(), "outlived");
        assert!(check_order(&ops(Some("a")), &values(&["b"]), true, true).is_err(), "stale");
        assert!(check_order(&ops(None), &values(&["b"]), true, true).is_err(), "missed");
        assert_eq!(check_order(&ops(Some("a")), &values(&["a", "b"]), false, false), Ok(()));
        let deleted = [set(1, "a"), op(2, Deed::Delete, Outcome::Done), read(3, None)];
        assert_eq!(check_order(&deleted, &values(&[]), true, true), Ok(()));
        assert!(check_order(&deleted, &values(&["a"]), true, true).is_err(), "returned");
        let unknown = [set(1, "a"), op(4, Deed::Delete, Outcome::Unknown), read(5, None)];
        assert_eq!(check_order(&unknown, &values(&[]), true, true), Ok(()));
    }

    #[test]
    fn a_read_of_ones_own_register_finds_what_was_acknowledged_before_it() {
        let read = |found: Option<&'static str>| op(3, Deed::Get(found.map(Bytes::from)), Outcome::Done);
        let with = |found| [set(1, "a"), set(2, "b"), read(found)];
        assert_eq!(check_own(&with(Some("b")), &values(&["b"]), true, true), Ok(()));
        assert!(check_own(&with(Some("a")), &values(&["b"]), true, true).is_err());
        assert!(check_own(&with(None), &values(&["b"]), true, true).is_err());
    }

    #[test]
    fn two_that_hold_a_lock_at_once_are_found() {
        let back = |at, token: &'static str| op(at, Deed::Remove(values(&[token])), Outcome::Unknown);
        let (a, b) = (set(1, "a"), set(3, "b"));
        assert_eq!(check_lock(&[a.clone(), back(2, "a"), b.clone()], &values(&["b"]), true), Ok(()));
        assert!(check_lock(&[a.clone(), b.clone(), back(4, "a")], &values(&["b"]), true).is_err());
        assert_eq!(check_lock(&[a.clone(), b, back(4, "a")], &values(&["b"]), false), Ok(()));
        assert!(check_lock(&[a], &values(&[]), false).is_err(), "lost");
    }

    #[test]
    fn a_value_is_where_it_was_moved_to() {
        let ops = [set(1, "a"), op(2, Deed::Move, Outcome::Done)];
        assert_eq!(check_moved(&ops, &[], [&values(&[]), &values(&["a"])]), Ok(()));
        assert!(check_moved(&ops, &[], [&values(&["a"]), &values(&["a"])]).is_err());
    }
}
