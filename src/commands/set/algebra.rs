//! Intersections, unions and differences of sets.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::members_from;
use crate::base::kind::Kind;
use crate::base::num::parse_i64;
use crate::causality::expiry::Deadline;
use crate::commands::call::{Call, int};
use crate::commands::elements::member_of;
use crate::commands::errors::{Answer, CommandError, SYNTAX};
use crate::model::look::Held;
use crate::model::{Draft, Element, Fault, Look, Ttl, View};
use crate::resp::Reply;

/// What is made of several sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// What all have.
    Inter,
    /// What any has.
    Union,
    /// What the first has and no other.
    Diff,
}

pub(super) fn sinter(call: &Call, view: &mut View) -> Answer {
    show(call, view, Operation::Inter)
}

pub(super) fn sunion(call: &Call, view: &mut View) -> Answer {
    show(call, view, Operation::Union)
}

pub(super) fn sdiff(call: &Call, view: &mut View) -> Answer {
    show(call, view, Operation::Diff)
}

fn show(call: &Call, view: &mut View, operation: Operation) -> Answer {
    let keys = call.args.get(1..).unwrap_or_default();
    let elements = combine(view, keys, operation, u64::MAX)?;
    Ok(Reply::Set(elements.iter().map(|element| Reply::Bulk(member_of(element))).collect()))
}

pub(super) fn sinterstore(call: &Call, draft: &mut Draft) -> Answer {
    store(call, draft, Operation::Inter)
}

pub(super) fn sunionstore(call: &Call, draft: &mut Draft) -> Answer {
    store(call, draft, Operation::Union)
}

pub(super) fn sdiffstore(call: &Call, draft: &mut Draft) -> Answer {
    store(call, draft, Operation::Diff)
}

fn store(call: &Call, draft: &mut Draft, operation: Operation) -> Answer {
    let elements = combine(draft, call.args.get(2..).unwrap_or_default(), operation, u64::MAX)?;
    let names = elements.into_iter().map(|element| element.name);
    Ok(Reply::Int(replace(draft, call.arg(1), names)?))
}

/// Puts a set of these names in place of whatever a key holds; answers how many there are.
pub fn replace(draft: &mut Draft, key: &[u8], names: impl Iterator<Item = Bytes>) -> Result<i64, Fault> {
    draft.remove(key)?;
    let (mut count, mut begun) = (0, false);
    for name in names {
        if !begun {
            draft.begin(key, Kind::Set)?;
            begun = true;
        }
        draft.put_element(key, Kind::Set, &name, Bytes::new(), Ttl::Set(Deadline::Never))?;
        count += 1;
    }
    Ok(count)
}

/// The keys of `numkeys key [key ...]`.
pub(super) fn counted_keys(args: &[Bytes]) -> Vec<usize> {
    let count = args.get(1).and_then(|arg| parse_i64(arg)).and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
    (2..args.len().min(count.saturating_add(2))).collect()
}

pub(super) fn sintercard(call: &Call, view: &mut View) -> Answer {
    let count = int(call.arg(1)).ok().and_then(|count| usize::try_from(count).ok()).filter(|count| *count > 0);
    let count = count.ok_or("ERR numkeys should be greater than 0")?;
    if count > call.args.len() - 2 {
        return Err("ERR Number of keys can't be greater than number of args".into());
    }
    let mut rest = call.cursor(2 + count);
    let mut limit = 0;
    while !rest.rest().is_empty() {
        if !rest.take("LIMIT") || rest.rest().is_empty() {
            return Err(SYNTAX.into());
        }
        let given = rest.expect_int().map_err(|_| CommandError::from("ERR LIMIT can't be negative"))?;
        limit = u64::try_from(given).map_err(|_| "ERR LIMIT can't be negative")?;
    }
    let keys = call.args.get(2..2 + count).unwrap_or_default();
    let most = if limit == 0 { u64::MAX } else { limit };
    Ok(Reply::Int(combine(view, keys, Operation::Inter, most)?.len() as i64))
}

/// What `operation` makes of the sets at `keys`, at most so many, in the order of rows.
pub fn combine(
    look: &mut impl Look,
    keys: &[Bytes],
    operation: Operation,
    most: u64,
) -> Result<Vec<Element>, CommandError> {
    let mut sets = Vec::with_capacity(keys.len());
    for key in keys {
        sets.push((key, look.open(key, Kind::Set)?));
    }
    match operation {
        Operation::Union => union(look, &sets),
        Operation::Diff => among(look, &sets, false, most),
        Operation::Inter if sets.iter().any(|(_, held)| held.is_none()) => Ok(Vec::new()),
        Operation::Inter => {
            sets.sort_by_key(|(_, held)| held.map(|held| held.count));
            among(look, &sets, true, most)
        }
    }
}

type Sets<'a> = [(&'a Bytes, Option<Held>)];

/// Members of the first set that all others have, or that none has.
fn among(look: &mut impl Look, sets: &Sets, wanted: bool, most: u64) -> Result<Vec<Element>, CommandError> {
    let mut found = Vec::new();
    let Some(((first, Some(held)), others)) = sets.split_first() else { return Ok(found) };
    let mut from = Some(Bytes::new());
    while let Some(at) = from {
        let (elements, next) = members_from(look, first, *held, &at)?;
        from = next;
        for element in elements {
            if found.len() as u64 >= most {
                return Ok(found);
            }
            let mut fits = true;
            for (other, held) in others {
                let Some(held) = held else { continue };
                fits = look.element(other, *held, &element.name)?.is_some() == wanted;
                if !fits {
                    break;
                }
            }
            if fits {
                found.push(element);
            }
        }
    }
    Ok(found)
}

fn union(look: &mut impl Look, sets: &Sets) -> Result<Vec<Element>, CommandError> {
    let (mut names, mut found) = (BTreeSet::new(), Vec::new());
    for (key, held) in sets {
        let Some(held) = held else { continue };
        look.each(key, *held, |element| {
            if names.insert(element.name.clone()) {
                found.push(element);
            }
            Ok::<(), Fault>(())
        })?;
    }
    Ok(found)
}
